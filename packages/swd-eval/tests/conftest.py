import http.client
import json
import threading
import urllib.error
import urllib.request
from contextlib import closing, contextmanager
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from swd_eval.study.build import build_study
from swd_eval.study.criteria import CRITERIA
from swd_eval.study.pairs import Key
from swd_eval.study.server import StudyServer
from swd_eval.study.votes import Votes


def write_images(folder, names, prompts, size=48, seed=0, suffix=".png"):
    """Write a folder of images in imagefolder form."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    rows = []
    for name, prompt in zip(names, prompts, strict=True):
        pixels = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((size, size)).save(folder / f"{name}{suffix}")
        rows.append(json.dumps({"file_name": f"{name}{suffix}", "text": prompt}))
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def write_run():
    return write_images


@pytest.fixture
def write_video():
    """Write frames (T, H, W, 3) of uint8 without loss."""
    av = pytest.importorskip("av")

    def write(path, frames, fps=8):
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(path, "w") as container:
            stream = container.add_stream("libx264rgb", rate=fps, options={"qp": "0"})
            stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "rgb24"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
        return path

    return write


@pytest.fixture
def make_study(tmp_path):
    def make(num_pairs=10, num_runs=2, prompts=None, **settings):
        prompts = prompts or [f"prompt {index}" for index in range(num_pairs)]
        names = [f"{index:03d}" for index in range(len(prompts))]
        runs = [write_images(tmp_path / f"model-{run}", names, prompts, seed=run) for run in range(num_runs)]
        build_study(runs, tmp_path / "study", **{"seed": 1} | settings)
        return tmp_path / "study"

    return make


@pytest.fixture
def serving():
    @contextmanager
    def serve(folder):
        with closing(StudyServer(folder)) as server:
            thread = threading.Thread(target=server.run)
            thread.start()
            try:
                yield server
            finally:
                server.server.should_exit = True
                thread.join()

    return serve


def get(url, path, **headers):
    """Return the status and body of a path sent as it is: urllib would tidy `..` away."""
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)) as connection:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


def post(url, vote):
    body = vote if isinstance(vote, bytes) else json.dumps(vote).encode()
    request = urllib.request.Request(f"{url}api/vote", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def stand(url, rater):
    return json.loads(get(url, f"/api/state?rater={rater}")[1])


def votes_of(folder):
    with closing(Votes(folder / "votes.sqlite", [pair.id for pair in Key.read(folder).pairs])) as votes:
        return votes.answers()


def rate(url, rater, acknowledged, answer=1):
    """Vote on all that the server gives, each vote sent twice, until nothing is left."""
    state = stand(url, rater)
    while state["pair"] is not None or state["wait"]:
        for criterion in CRITERIA if state["pair"] else ():
            vote = {"id": f"{rater}-{state['pair']}-{criterion.id}", "rater": rater, "pair": state["pair"]}
            vote |= {"criterion": criterion.id, "answer": answer}
            for _ in range(2):
                status, state_after = post(url, vote)
                assert status == 200
            acknowledged.append((rater, vote["pair"], criterion.id))
        state = state_after if state["pair"] else stand(url, rater)


@pytest.fixture(scope="session")
def web():
    """Give what talks to a server as a rater's browser does, and reads what it has on disk."""
    return SimpleNamespace(get=get, post=post, stand=stand, votes_of=votes_of, rate=rate)
