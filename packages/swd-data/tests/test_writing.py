import numpy as np
import pytest
from PIL import Image

from swd_data import read_frames, write_video

pytest.importorskip("av")


def grey(number):
    return Image.new("RGB", (48, 32), (number * 25,) * 3)


def numbers(path, count):
    return [round(np.asarray(image).mean() / 25) for image in read_frames(path, count, 16)]


@pytest.mark.parametrize("playable", [False, True])
def test_clips_are_written_whole_and_read_back(tmp_path, playable):
    write_video(tmp_path / "a.mp4", [grey(i) for i in range(9)], 16, playable=playable)
    assert numbers(tmp_path / "a.mp4", 9) == list(range(9))
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_playable_clips_have_even_sizes(tmp_path):
    frames = [Image.new("RGB", (33, 17), "red")] * 2
    for playable, size in ((False, (33, 17)), (True, (32, 16))):
        write_video(tmp_path / "a.mp4", frames, 16, playable=playable)
        assert read_frames(tmp_path / "a.mp4", 1)[0].size == size


def test_a_clip_that_breaks_off_leaves_nothing(tmp_path):
    write_video(tmp_path / "a.mp4", [grey(0)], 16)
    before = (tmp_path / "a.mp4").read_bytes()
    closed = grey(1)
    closed.close()
    with pytest.raises(ValueError, match="closed"):
        write_video(tmp_path / "a.mp4", [grey(0), closed], 16)
    with pytest.raises(OSError, match=r"expected to write .*none/a.mp4"):
        write_video(tmp_path / "none" / "a.mp4", [grey(0)], 16)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == before
