"""The page of `swd-sample --demo`: by its client, and in a real headless Chromium where there is one."""

import json
import os
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swd_sample import SwDPipeline, demo
from swd_sample.demo import NOTHING, UNDISTILLED, Beside, launch, page, shipped_prompts, teacher_loader
from swd_schedules import presets

gradio_client = pytest.importorskip("gradio_client", reason="the demo needs gradio: swd-sample[demo]")

CIRCLE, CROSS = "a big red circle at the left, green background", "a small blue cross, white background"
CHROMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def apart(run):
    return SwDPipeline.from_run(run, merge=False)


@pytest.fixture(scope="module")
def served(apart, tmp_path_factory):
    """Serve the page of a student; return its address."""
    beside = Beside(2, 3.0, teacher_loader("embedded", apart))
    blocks = page(apart, "tiny", prompts=[CIRCLE, CROSS], beside=beside)
    _, url, _ = launch(blocks, prevent_thread_lock=True, quiet=True)
    yield url
    blocks.close()


@pytest.fixture
def client(served, tmp_path):
    return gradio_client.Client(served, verbose=False, download_files=tmp_path)


def ask(client, prompt, seed=0, steps=4, beside=NOTHING):
    """Return all that comes, in turn: the sample, what is beside it, the stages."""
    job = client.submit(prompt, seed, steps, beside, api_name="/generate")
    job.result()
    return job.outputs()


def small(path, size=64):
    """Return an image in its own pixels, from what the page enlarged."""
    image = Image.open(path).convert("RGB")
    return np.asarray(image.resize((size, size), Image.Resampling.NEAREST))


def value(update):
    """Return what an update of a part holds: the path of a file, or a list."""
    update = update["value"] if isinstance(update, dict) and "value" in update else update
    return update["path"] if isinstance(update, dict) else update


def test_stages_come_one_by_one_and_the_last_is_the_sample(client, apart):
    found = ask(client, CIRCLE, seed=5)
    stages = [value(stages) for _, _, stages in found]
    assert [len(each) for each in stages] == [0, 1, 2, 3, 4]
    assert [item["caption"] for item in stages[-1]] == ["1: 32 x 32", "2: 40 x 40", "3: 48 x 48", "4: 64 x 64"]
    (expected,) = apart([CIRCLE], seed=5)
    assert np.array_equal(small(value(found[-1][0])), np.asarray(expected))
    assert np.array_equal(small(stages[-1][-1]["image"]), np.asarray(expected))


def test_fewer_steps_and_another_seed_are_heard(client, apart):
    found = ask(client, CROSS, seed=7, steps=2)
    (expected,) = apart([CROSS], seed=7, schedule=apart.schedule.thin(2))
    assert len(value(found[-1][2])) == 2
    assert np.array_equal(small(value(found[-1][0])), np.asarray(expected))


def test_the_undistilled_model_and_the_teacher_stand_beside_the_student(client, apart):
    undistilled = SwDPipeline.from_pretrained("embedded", schedule=presets.TINY_4)
    (expected,) = undistilled([CIRCLE], guidance_scale=3.0)
    found = ask(client, CIRCLE, beside=UNDISTILLED)[-1]
    apartness = np.abs(small(value(found[1])).astype(int) - np.asarray(expected)).max()
    assert apartness <= 1
    assert np.abs(small(value(found[0])).astype(int) - np.asarray(expected)).max() > 1
    taught = small(value(ask(client, CIRCLE, beside="teacher, 2 steps")[-1][1]))
    assert np.abs(taught.astype(int) - np.asarray(expected)).max() > 1
    (again,) = apart([CIRCLE])  # whose adapters are back
    assert np.array_equal(small(value(found[0])), np.asarray(again))


def test_a_seed_that_was_emptied_says_so(client):
    with pytest.raises(Exception, match="expected a seed, got none"):
        ask(client, CIRCLE, seed=None)


def test_no_tunnel_is_opened_wherever_it_runs(apart, monkeypatch):
    import gradio

    launched = {}
    monkeypatch.setattr(gradio.Blocks, "launch", lambda blocks, **options: launched.update(options))
    launch(page(apart))
    assert launched["share"] is False


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_an_empty_prompt_says_so(client, prompt):
    with pytest.raises(Exception, match="expected a prompt, got an empty one"):
        ask(client, prompt)


def test_ten_requests_at_once_are_answered_in_turn(client, apart, monkeypatch):
    stages, lock, most = apart.stages, threading.Lock(), []

    def watched(*args, **options):
        most.append(lock.acquire(blocking=False))
        try:
            yield from stages(*args, **options)
        finally:
            lock.release()

    monkeypatch.setattr(apart, "stages", watched)
    jobs = [client.submit(CIRCLE, seed, 2, NOTHING, api_name="/generate") for seed in range(10)]
    found = [small(value(job.result(timeout=120)[0])).tobytes() for job in jobs]
    assert most == [True] * 10
    assert len(set(found)) == 10


def test_a_page_without_a_student_samples_the_base_with_guidance_and_says_so():
    pipe = SwDPipeline.from_pretrained("embedded", schedule=presets.TINY_4)
    blocks = page(pipe, beside=Beside(guidance=3.0))
    texts = [str(part["props"].get("value")) for part in blocks.get_config_file()["components"]]
    assert any("no student here yet" in text for text in texts)
    answers = demo._Answers(pipe, Beside(guidance=3.0), False)
    found = answers(CIRCLE, 0, 4, NOTHING)
    last = [next(found) for _ in range(5)][-1]  # its files are gone at its end
    assert np.array_equal(np.asarray(small(last["sample"])), np.asarray(pipe([CIRCLE], guidance_scale=3.0)[0]))


def test_videos_are_shown_as_videos():
    av = pytest.importorskip("av")
    schedule = presets.resolve("1000:2x4x6,896:3x4x8")
    pipe = SwDPipeline.from_pretrained("random-wan", schedule=schedule)
    answers = demo._Answers(pipe, Beside(guidance=1.0), False)(CIRCLE, 0, 2, NOTHING)
    last = [next(answers) for _ in range(3)][-1]
    assert [caption for _, caption in last["stages"]] == ["1: 48 x 32", "2: 64 x 32"]
    with av.open(last["sample"]) as video:
        assert len(list(video.decode(video=0))) == 9
    assert next(answers, None) is None
    assert not Path(last["sample"]).exists()
    kinds = [part["type"] for part in page(pipe).get_config_file()["components"]]
    assert kinds.count("video") == 2
    assert "image" not in kinds


def test_the_command_serves_to_this_machine_unless_told(run, cli, monkeypatch):
    served = []
    monkeypatch.setattr(demo, "launch", lambda blocks, host, port: served.append((blocks.title, host, port)))
    cli(run, "--demo")
    cli(run, CIRCLE, "--demo", "--host", "0.0.0.0", "--port", "7999", "--steps", "2")
    assert served == [(str(run), "127.0.0.1", None), (str(run), "0.0.0.0", 7999)]


def test_a_run_without_a_lora_shows_the_undistilled_model(run, cli, monkeypatch, tmp_path):
    schedule = {"schedule": json.loads(presets.TINY_4.to_json())}
    (tmp_path / "config.json").write_text(json.dumps({"model": "embedded"} | schedule))
    served = []
    monkeypatch.setattr(demo, "launch", lambda blocks, host, port: served.append(blocks.get_config_file()))
    cli(tmp_path, "--demo")
    assert "no student here yet" in str(served)


def test_what_does_not_go_with_the_page_is_refused(run, refused, monkeypatch):
    assert "expected --demo without" in refused(run, "--demo", "--out", "a.png")
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    assert "pip install 'swd-sample[demo]'" in refused(run, "--demo")


def test_the_app_of_a_space_is_as_the_docs_say(run, monkeypatch):
    import gradio

    docs = Path(__file__).parents[3] / "docs" / "demo.md"
    if not docs.is_file():
        pytest.skip("no checkout")
    (code,) = re.findall(r"```python\n(.*?)```", docs.read_text(), re.DOTALL)
    code = code.replace("stabilityai/stable-diffusion-3.5-medium", "embedded").replace("OWNER/NAME", str(run / "lora"))
    launched = []
    monkeypatch.setattr(
        gradio.Blocks, "launch", lambda blocks, **options: launched.append((blocks.title, options["server_name"]))
    )
    exec(compile(code, "app.py", "exec"), {})
    assert launched == [("SwD of SD3.5 Medium", None)]


def test_prompts_come_with_the_models_that_ship():
    assert len(shipped_prompts("embedded")) == 6
    assert shipped_prompts("someone/model") == []


@pytest.fixture(scope="module")
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")
    found = os.environ.get("SWD_CHROMIUM") or next(filter(None, map(shutil.which, CHROMES)), None)
    if found is None:
        pytest.skip(f"the browser tests need Chromium: none of {', '.join(CHROMES)} on PATH, no SWD_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_someone_generates_twice_in_a_browser(served, chromium, viewport, tmp_path):
    context = chromium.new_context(viewport=viewport)
    tab, asked = context.new_page(), []
    tab.set_default_timeout(60_000)
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(served)
    go, stages = tab.get_by_role("button", name="Generate"), tab.locator(".grid-container img")
    seed, prompt = tab.get_by_label("Seed"), tab.get_by_label("Prompt", exact=True)
    go.click()
    stages.nth(3).wait_for()
    first = [image.get_attribute("src") for image in stages.all()]
    assert len(set(first)) == 4
    tab.get_by_role("button", name="Another seed").click()
    tab.wait_for_function("input => input.value !== '0'", arg=seed.element_handle())
    go.click()
    tab.wait_for_function(
        "first => { const now = [...document.querySelectorAll('.grid-container img')].map(image => image.src);"
        " return now.length === 4 && now.every(src => !first.some(old => src.endsWith(old) || src === old)); }",
        arg=first,
    )
    tab.screenshot(path=os.environ.get("SWD_SHOTS", tmp_path) / Path(f"demo-{viewport['width']}.png"), full_page=True)
    prompt.fill("")
    go.click()
    tab.get_by_text("expected a prompt, got an empty one").first.wait_for()
    assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")
    assert all(url.startswith((served, "data:", "blob:")) or "iframe-resizer" in url.lower() for url in asked), asked
    context.close()
