from contextlib import contextmanager

import pytest
from PIL import Image

from swd_data import save_image, write_json, write_text, write_video, write_whole


@contextmanager
def full_disk():
    """Let no file grow beyond a kilobyte: as on a full disk, some of it is written first."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    path, image = tmp_path / "a", Image.effect_noise((64, 64), 50)
    for write in (
        lambda: write_text(path, "text" * 1000),
        lambda: write_json(path, ["text"] * 1000),
        lambda: write_whole(path, lambda file: file.write_bytes(bytes(5000))),
    ):
        with full_disk(), pytest.raises(OSError, match=r"expected to write .*a, got: \[Errno") as caught:
            write()
        assert "\n" not in str(caught.value)
    with full_disk(), pytest.raises(OSError, match=r"expected to write .*a.png, got: "):
        save_image(image, tmp_path / "a.png")
    assert names(tmp_path) == []


def test_a_full_disk_is_one_line_for_clips(tmp_path):
    pytest.importorskip("av")
    frames = [Image.effect_noise((64, 64), 50) for _ in range(4)]
    with full_disk(), pytest.raises(OSError, match=r"expected to write .*a.mp4, got: ") as caught:
        write_video(tmp_path / "a.mp4", frames, 16)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []
