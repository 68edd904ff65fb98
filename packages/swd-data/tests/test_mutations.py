import json
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from swd_data import Clip, image_size, open_image, read_frames, reading, write_video

NUMBER = 500


def mutate(data, seed):
    """Change, cut, repeat or take out some bytes, mostly near the start, where the format is told."""
    rng, found = np.random.default_rng(seed), bytearray(data)
    for _ in range(rng.integers(1, 6)):
        at = int(rng.integers(0, max(len(found) if rng.random() < 0.5 else min(len(found), 200), 1)))
        span = int(rng.integers(1, 9))
        match rng.integers(0, 5):
            case 0 | 1:
                found[at : at + span] = rng.bytes(span)
            case 2:
                found[at : at + 1] = bytes([rng.choice([0, 1, 127, 128, 255])])
            case 3:
                found[at:at] = found[at : at + span]
            case 4:
                del found[at : at + span if rng.random() < 0.7 else None]
    return bytes(found)


@pytest.fixture
def share_read(attempt):
    """Return which share of mutations is read; each other is refused by one line that names the file."""

    def call(path, data, *reads):
        count = 0
        for seed in range(NUMBER):
            path.write_bytes(mutate(data, seed))
            count += sum(attempt(path, read, path) is not None for read in reads)
        return count / NUMBER / len(reads)

    return call


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "GIF"])
def test_mutated_images_are_read_or_refused(tmp_path, share_read, form):
    exif, file = Image.Exif(), BytesIO()
    exif[0x0112] = 6
    exif[0x010F] = "maker"
    image = Image.effect_noise((16, 12), 50).convert("RGB")
    image.save(file, form, **({} if form == "GIF" else {"exif": exif}))
    assert 0.05 < share_read(tmp_path / "a.img", file.getvalue(), open_image, image_size) < 0.95


def test_mutated_clips_are_read_or_refused(tmp_path, share_read):
    pytest.importorskip("av")
    write_video(tmp_path / "a.mp4", [Image.effect_noise((16, 16), 50) for _ in range(3)], 16)
    data = (tmp_path / "a.mp4").read_bytes()

    def read_by_index(path):
        return Clip.open(path).frames([1])

    assert 0.05 < share_read(tmp_path / "b.mp4", data, lambda path: read_frames(path, 3, 16), read_by_index) < 0.95


def test_mutated_weights_are_read_or_refused(tmp_path, share_read):
    safetensors = pytest.importorskip("safetensors")
    header = {"__metadata__": {"alpha": "4"}, "a": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}}
    text = json.dumps(header).encode()

    def read(path):
        with reading(path, "weights"), safetensors.safe_open(path, "numpy") as file:
            return [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118

    assert 0.05 < share_read(tmp_path / "a", len(text).to_bytes(8, "little") + text + bytes(64), read) < 0.95
