"""Videos are read frame by frame, and what is no video is refused."""

from pathlib import Path

import av
import numpy as np
import pytest

from swd_data import Clip


def write_video(path: Path, levels: list[int], fps: int = 8) -> Path:
    """Write grey frames of these levels, with which a test tells them apart."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for level in levels:
            frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_frames_come_in_the_order_asked_for(tmp_path: Path) -> None:
    video = Clip.open(write_video(tmp_path / "a.mp4", [0, 40, 80, 120, 160, 200]))
    assert (video.fps, video.num_frames) == (8, 6)
    frames = video.frames([5, 0, 3, 3])
    assert frames.shape == (4, 16, 32, 3)
    assert np.abs(frames.mean((1, 2, 3)) - [200, 0, 120, 120]).max() < 4


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"text" * 100)
    with pytest.raises(ValueError, match="expected a video, got"):
        Clip.open(tmp_path / "a.mp4")


def test_a_video_that_ends_early_is_refused(tmp_path: Path) -> None:
    video = Clip.open(write_video(tmp_path / "a.mp4", [0, 100]))
    with pytest.raises(ValueError, match="expected 2 frames"):
        video.frames([2])
