import http.client
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from contextlib import closing, suppress
from urllib.parse import urlsplit

import pytest
from PIL import Image

from swd_data import write_video
from swd_eval.study.app import MAX_BODY
from swd_eval.study.build import build_study
from swd_eval.study.criteria import CRITERIA
from swd_eval.study.pairs import Key


def test_thirty_raters_at_once_lose_and_double_no_vote(web, make_study, serving):
    folder = make_study(12, num_raters=30)
    acknowledged = []
    with serving(folder) as server:
        threads = [threading.Thread(target=web.rate, args=(server.url, r, acknowledged)) for r in server.raters]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
    found = [(answer.rater, answer.pair, answer.criterion) for answer in web.votes_of(folder)]
    assert sorted(found) == sorted(acknowledged)
    assert Counter((pair, criterion) for _, pair, criterion in found) == {
        (pair.id, criterion.id): 3 for pair in Key.read(folder).pairs for criterion in CRITERIA
    }


def start_process(folder):
    command = [sys.executable, "-m", "swd_eval", "study", "serve", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "SWD_TRACEBACK": "1"})
    return process, process.stdout.readline().split(" at ")[1].strip()


def test_killing_the_server_in_mid_vote_loses_no_acknowledged_vote(web, make_study):
    folder = make_study(20)
    raters = (folder / "raters.txt").read_text().split()
    acknowledged = []
    for round_ in range(3):
        process, url = start_process(folder)
        enough = len(acknowledged) + 30

        def vote_until_it_breaks(rater, url=url):
            with suppress(OSError, http.client.HTTPException, ValueError):  # a broken connection acknowledges nothing
                web.rate(url, rater, acknowledged)

        threads = [threading.Thread(target=vote_until_it_breaks, args=(rater,)) for rater in raters]
        for thread in threads:
            thread.start()
        while len(acknowledged) < enough:
            assert any(thread.is_alive() for thread in threads), round_
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        for thread in threads:
            thread.join(timeout=30)
        found = {(answer.rater, answer.pair, answer.criterion) for answer in web.votes_of(folder)}
        assert set(acknowledged) <= found
        assert len(found - set(acknowledged)) <= len(raters) * (round_ + 1)  # those whose answers were on the way


def test_a_served_study_stops_quietly_when_told_to(web, make_study):
    process, url = start_process(make_study(1))
    assert web.get(url, "/")[0] == 403
    process.terminate()
    assert "swd-eval study report" in process.communicate(timeout=10)[0]
    assert process.returncode == 0


def test_what_is_not_of_the_study_is_not_found(web, make_study, serving):
    folder = make_study(2)
    (folder / "public" / "media" / "stray.png").write_bytes(b"stray")
    media = Key.read(folder).pairs[0].media[0]
    with serving(folder) as server:
        assert web.get(server.url, f"/media/{media}") == (200, (folder / "public/media" / media).read_bytes())
        paths = ["/key.json", "/raters.txt", "/votes.sqlite", "/media", "/media/", "/public/", "/index.html"]
        paths += ["/../key.json", "/media/../../key.json", "/media/..%2f..%2fkey.json", "/media/%2e%2e/%2e%2e/key.json"]
        paths += ["/media/..\\..\\key.json", f"/media/../media/{media}", "//key.json", "/media/stray.png"]
        paths += [f"{folder}/key.json", f"file://{folder}/key.json", "/media/\x00.png".replace("\x00", "%00")]
        for path in paths:
            status, body = web.get(server.url, path)
            assert status == 404, path
            assert b"model" not in body


def test_raters_without_a_valid_token_get_neither_page_nor_pairs(web, make_study, serving):
    with serving(make_study(2)) as server:
        vote = {"id": "vote-0001", "rater": "stranger", "pair": "p", "criterion": "relevance", "answer": 1}
        for query in ("", "?rater=", "?rater=stranger", "?rater=" + server.raters[0][:-1]):
            assert web.get(server.url, f"/{query}")[0] == web.get(server.url, f"/api/state{query}")[0] == 403
        assert web.post(server.url, vote)[0] == 403
        status, page = web.get(server.url, f"/?rater={server.raters[0]}")
        assert (status, page) == (200, server.page)


def test_large_broken_and_foreign_bodies_are_refused(web, make_study, serving):
    folder = make_study(2)
    with serving(folder) as server:
        rater = server.raters[0]
        pair = web.stand(server.url, rater)["pair"]
        good = {"id": "vote-0001", "rater": rater, "pair": pair, "criterion": "relevance", "answer": 1}
        other = next(p.id for p in Key.read(folder).pairs if p.id != pair)
        assert web.post(server.url, b"{" * MAX_BODY)[0] == 400
        assert web.post(server.url, b"\xff\xfe")[0] == 400
        assert web.post(server.url, good | {"answer": 9})[0] == 400
        assert web.post(server.url, good | {"pair": other})[0] == 409
        with closing(http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)) as connection:
            connection.putrequest("POST", "/api/vote")
            connection.putheader("Content-Length", str(10**9))
            connection.endheaders()
            assert connection.getresponse().status == 413
        with closing(http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)) as connection:
            connection.putrequest("POST", "/api/vote")
            connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders()  # no body: the server answers and closes before one could arrive
            assert connection.getresponse().status == 411
        assert web.post(server.url, good)[0] == 200
    assert [answer.answer for answer in web.votes_of(folder)] == [1]


def test_videos_are_sent_in_parts(web, tmp_path, serving):
    pytest.importorskip("av")
    frames = [Image.effect_noise((256, 256), 90).convert("RGB") for _ in range(4)]
    for run in "ab":
        (tmp_path / run).mkdir()
        write_video(tmp_path / run / "1.mp4", frames, 8, playable=True)  # which is published as it is
    clip = (tmp_path / "a/1.mp4").read_bytes()
    assert len(clip) > 10000
    (tmp_path / "prompts.txt").write_text("a wave\n")
    build_study([tmp_path / "a", tmp_path / "b"], tmp_path / "study", tmp_path / "prompts.txt")
    path = f"/media/{Key.read(tmp_path / 'study').pairs[0].media[0]}"
    with serving(tmp_path / "study") as server:
        assert web.get(server.url, path) == (200, clip)
        assert web.get(server.url, path, Range="bytes=0-1") == (206, clip[:2])
        assert web.get(server.url, path, Range="bytes=10000-") == (206, clip[10000:])
        assert web.get(server.url, path, Range="bytes=5-999999") == (206, clip[5:])
        assert web.get(server.url, path, Range="bytes=999999-") == (416, b"")
        assert web.get(server.url, path, Range="bytes=nonsense")[0] == 400


def test_a_folder_that_is_no_study_is_named(tmp_path):
    with pytest.raises(ValueError, match="expected a study, got"):
        Key.read(tmp_path)
