"""Real raters in a real browser: headless Chromium, driven by Playwright."""

import json
import os
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from swd_eval.study.build import build_study
from swd_eval.study.criteria import CRITERIA
from swd_eval.study.exchange import import_votes
from swd_eval.study.pairs import Key
from swd_eval.study.votes import Votes

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
HTML = "<img src=x onerror=document.title='pwned'> <b>bold</b>"
PROMPTS = [f"prompt {index}" for index in range(9)] + [HTML]
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")
    found = os.environ.get("SWD_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"the browser tests need Chromium: none of {', '.join(NAMES)} on PATH, no SWD_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    contexts, errors = [], []

    def open_(url, **settings):
        context = chromium.new_context(**{"viewport": DESKTOP} | settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if "Security Policy" in message.text else None)
        page.goto(url)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert errors == []


def begin(page):
    page.click("#start")
    ready(page)


def ready(page):
    """Wait until the next answer may be given, or none is asked for."""
    page.wait_for_selector("#answers button:enabled, #end:not([hidden])")


def votes_of(folder):
    with closing(Votes(folder / "votes.sqlite", [])) as votes:
        return votes.answers()


def test_a_rater_votes_by_keyboard_and_mouse_reloads_and_loses_nothing(make_study, serving, open_page, tmp_path):
    folder, given = make_study(prompts=PROMPTS), []
    with serving(folder) as server:
        page = open_page(f"{server.url}?rater={server.raters[0]}")
        begin(page)
        for number in range(len(PROMPTS) * len(CRITERIA)):
            answer = number % 3
            if number in (6, 20):  # in the middle of a pair, and between two
                page.reload()
                ready(page)
                assert not page.is_visible("#intro")
            assert page.inner_text("#question") == CRITERIA[number % 4].question.format(noun="image")
            assert page.inner_text("#count") == f"Pair {number // 4 + 1} of 10"
            if number % 2:
                page.keyboard.press(("0", "1", "ArrowRight")[answer])
            else:
                page.click(f"[data-answer='{answer}']")
            given.append((CRITERIA[number % 4].id, answer))
            ready(page)
        assert page.inner_text("#end-title") == "All done, thank you"
        assert page.evaluate("[progress.value, progress.max]") == [10, 10]
        page.wait_for_timeout(400)  # the bar grows slowly
        page.screenshot(path=tmp_path / "end.png")
        assert page.title() == "Which image is better?"
    assert [(vote.criterion, vote.answer) for vote in votes_of(folder)] == given
    assert set(Counter(vote.pair for vote in votes_of(folder)).values()) == {4}


def test_backspace_changes_an_answer_and_goes_on_where_the_rater_was(make_study, serving, open_page):
    folder = make_study(3)
    with serving(folder) as server:
        page = open_page(f"{server.url}?rater={server.raters[0]}")
        begin(page)
        for key in ("1", "1", "1", "1", "1"):
            page.keyboard.press(key)
            ready(page)
        for _ in range(3):
            page.keyboard.press("Backspace")
            ready(page)
        assert page.inner_text("#question") == "Which image looks better?"
        assert page.get_attribute("[data-answer='1']", "aria-pressed") == "true"
        page.keyboard.press("0")
        ready(page)
        assert page.inner_text("#question") == "Which image has fewer defects?"
        assert page.inner_text("#count") == "Pair 2 of 3"
        page.reload()
        ready(page)
        assert page.inner_text("#count") == "Pair 2 of 3"
    assert [vote.answer for vote in votes_of(folder)] == [1, 1, 0, 1, 1]


def test_a_prompt_with_html_shows_as_text(make_study, serving, open_page):
    with serving(make_study(prompts=[HTML])) as server:
        page = open_page(f"{server.url}?rater={server.raters[0]}")
        begin(page)
        assert page.inner_text("#prompt") == HTML
        assert page.locator("#prompt *").count() == 0


def test_answers_given_while_the_server_is_away_are_sent_later(make_study, serving, open_page):
    folder = make_study(2)
    with serving(folder) as server:
        page = open_page(f"{server.url}?rater={server.raters[0]}")
        begin(page)
        page.context.set_offline(True)
        page.keyboard.press("2")
        page.wait_for_selector("#notice:not([hidden])")
        page.keyboard.press("1")
        assert votes_of(folder) == []
        page.context.set_offline(False)
        page.wait_for_selector("#notice", state="hidden")
        page.reload()
        ready(page)
    assert [vote.answer for vote in votes_of(folder)] == [2, 1]


def test_answers_that_the_disk_does_not_take_are_said_to_be_kept_and_sent_again(
    make_study, serving, open_page, monkeypatch
):
    monkeypatch.setattr("swd_eval.study.app.RETRY_SECONDS", 1)
    folder = make_study(2)
    with serving(folder) as server:
        page = open_page(f"{server.url}?rater={server.raters[0]}")
        begin(page)

        def fail(vote):
            raise sqlite3.OperationalError("disk I/O error")

        with monkeypatch.context() as broken:
            broken.setattr(server.votes, "add", fail)
            page.keyboard.press("2")
            page.wait_for_selector("#notice:not([hidden])")
            assert "cannot save just now. Your answers are kept" in page.text_content("#notice")
        page.wait_for_selector("#notice", state="hidden")
        page.reload()
        ready(page)
    assert [vote.answer for vote in votes_of(folder)] == [2]


def test_a_vote_that_a_proxy_refuses_is_kept_and_sent_again(make_study, serving, open_page):
    folder = make_study(2)
    with serving(folder) as server:
        page = open_page(f"{server.url}?rater={server.raters[0]}")
        begin(page)
        page.route("**/api/vote", lambda route: route.fulfill(status=403, body="who are you?"))
        page.keyboard.press("2")
        page.wait_for_selector("#notice:not([hidden])")
        assert "takes no answers just now. Your answers are kept" in page.text_content("#notice")
        page.keyboard.press("1")
        assert votes_of(folder) == []
        page.unroute("**/api/vote")
        page.wait_for_selector("#notice", state="hidden")
        page.reload()
        ready(page)
    assert [vote.answer for vote in votes_of(folder)] == [2, 1]


def test_an_image_is_enlarged_switched_and_closed(make_study, serving, open_page):
    folder = make_study(1)
    with serving(folder) as server:
        page = open_page(f"{server.url}?rater={server.raters[0]}")
        begin(page)
        page.keyboard.press("z")
        assert page.inner_text("#zoom-name") == "Image 1"
        page.keyboard.press("ArrowRight")
        assert page.inner_text("#zoom-name") == "Image 2"
        page.keyboard.press("1")  # no answer while enlarged
        page.keyboard.press("Escape")
        page.click("[aria-label='Enlarge image 2']")
        assert page.inner_text("#zoom-name") == "Image 2"
        page.click("#zoom-close")
        assert not page.is_visible("#zoomed")
    assert votes_of(folder) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "size"), [("desktop", DESKTOP), ("phone", PHONE)])
def test_all_fits_the_screen_and_a_tap_votes(make_study, serving, open_page, tmp_path, name, size, scheme):
    folder, touch = make_study(prompts=["a long prompt " * 40]), name == "phone"
    with serving(folder) as server:
        url = f"{server.url}?rater={server.raters[0]}"
        page = open_page(url, viewport=size, color_scheme=scheme, has_touch=touch, is_mobile=touch)
        begin(page)
        page.screenshot(path=tmp_path / f"{name}-{scheme}.png")
        for selector in ("#prompt", ".zoom >> nth=0", ".zoom >> nth=1", "#question", "#answers", "#back"):
            box = page.locator(selector).bounding_box()
            assert 0 <= box["x"] <= box["x"] + box["width"] <= size["width"], selector
            assert 0 <= box["y"] <= box["y"] + box["height"] <= size["height"], selector
        assert min(page.locator(".zoom >> nth=0").bounding_box().values()) >= 0
        assert page.locator(".zoom img >> nth=0").bounding_box()["height"] > 200
        if touch:
            page.tap("[data-answer='2']")
            page.wait_for_function("document.getElementById('question').textContent.includes('defects')")
    back = "rgb(23, 24, 26)" if scheme == "dark" else "rgb(243, 243, 241)"
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == back


def test_every_control_has_a_name(make_study, serving, open_page):
    with serving(make_study(1)) as server:
        page = open_page(f"{server.url}?rater={server.raters[0]}")
        begin(page)
        names = [
            "Back to the previous question",
            "Instructions",
            "Enlarge image 1",
            "Enlarge image 2",
            "Image 1 is better",
            "Can\u2019t decide",
            "Image 2 is better",
        ]
        found = page.get_by_role("button").all()
        assert len(found) == len(names)
        for name in names:
            assert page.get_by_role("button", name=name, exact=True).count() == 1
        assert page.get_by_role("progressbar", name="Progress").count() == 1
        assert page.get_by_role("heading", level=1).count() == 1


def test_a_page_without_a_server_keeps_votes_and_saves_them_as_a_file(make_study, open_page, tmp_path):
    folder = make_study(3)
    page = open_page((folder / "public/index.html").as_uri())
    begin(page)
    for number in range(12):
        if number == 5:
            page.reload()
            ready(page)
        page.keyboard.press(str(number % 3))
        ready(page)
    assert page.inner_text("#end-title") == "All done, thank you"
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "votes.jsonl")
    rows = [json.loads(line) for line in Path(tmp_path / "votes.jsonl").read_text().splitlines()]
    assert [row["answer"] for row in rows] == [number % 3 for number in range(12)]
    assert import_votes(folder, [tmp_path / "votes.jsonl"]).splitlines()[1].startswith("12 new votes of 1 raters")
    assert {vote.pair for vote in votes_of(folder)} == {pair.id for pair in Key.read(folder).pairs}


def test_videos_play_side_by_side_and_are_rated(serving, open_page, tmp_path):
    av = pytest.importorskip("av", reason="this test writes clips with PyAV")
    for run, level in (("a", 40), ("b", 200)):
        (tmp_path / run).mkdir()
        with av.open(tmp_path / run / "1.mp4", "w") as container:
            stream = container.add_stream("libx264", rate=8, width=64, height=48, pix_fmt="yuv420p")
            frames = [np.full((48, 64, 3), level + index, dtype=np.uint8) for index in range(16)]
            packets = [stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")) for frame in frames]
            container.mux([packet for few in [*packets, stream.encode()] for packet in few])
    (tmp_path / "prompts.txt").write_text("a fade\n")
    build_study([tmp_path / "a", tmp_path / "b"], tmp_path / "study", tmp_path / "prompts.txt")
    with serving(tmp_path / "study") as server:
        page = open_page(f"{server.url}?rater={server.raters[0]}")
        begin(page)
        page.wait_for_function("[...document.querySelectorAll('video')].every((v) => v.currentTime > 0 && v.muted)")
        page.screenshot(path=tmp_path / "videos.png")
        for question in CRITERIA:
            assert page.inner_text("#question") == question.question.format(noun="video")
            page.keyboard.press("1")
            ready(page)
    assert len(votes_of(tmp_path / "study")) == 4
