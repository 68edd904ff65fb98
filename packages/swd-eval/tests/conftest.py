import json
import threading
from contextlib import closing, contextmanager

import numpy as np
import pytest
from PIL import Image

from swd_eval.study.build import build_study
from swd_eval.study.server import StudyServer


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
