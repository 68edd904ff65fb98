"""Two folders that look the same give the same latents, whatever their files are."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from swd_spectral.inputs import read_latents
from swd_spectral.options import Source

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,  # how it lies in the file; a viewer turns it back
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def latents(folder, **options):
    return torch.cat(list(read_latents([str(folder)], Source(**options), folder.parent / "out")))


def scene(width=48, height=64, x=20):
    image = Image.new("RGB", (width, height), (30, 160, 60))
    draw = ImageDraw.Draw(image)
    draw.ellipse((x - 10, 6, x + 10, 26), fill=(220, 30, 30))
    draw.rectangle((0, height - 9, width // 2, height), fill=(30, 30, 220))
    return image


@pytest.fixture
def plain(tmp_path):
    (tmp_path / "plain").mkdir()
    scene().save(tmp_path / "plain" / "a.png")
    return latents(tmp_path / "plain")


@pytest.mark.parametrize("orientation", TURNS)
def test_images_are_turned_as_exif_says(tmp_path, plain, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "tagged").mkdir()
    scene().transpose(TURNS[orientation]).save(tmp_path / "tagged" / "a.png", exif=exif)
    assert torch.equal(latents(tmp_path / "tagged"), plain)


def test_colours_that_nobody_sees_do_not_count(tmp_path):
    shown = Image.new("L", (48, 48))
    ImageDraw.Draw(shown).ellipse((9, 9, 39, 39), fill=255)
    found = []
    for name, hidden in {"black": (0, 0, 0), "cyan": (0, 255, 255)}.items():
        image = Image.composite(Image.new("RGB", (48, 48), (220, 30, 30)), Image.new("RGB", (48, 48), hidden), shown)
        image.putalpha(shown)
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / "a.png")
        found.append(latents(tmp_path / name))
    (tmp_path / "flat").mkdir()
    flat = Image.composite(Image.new("RGB", (48, 48), (220, 30, 30)), Image.new("RGB", (48, 48), "white"), shown)
    flat.save(tmp_path / "flat" / "a.png")
    assert all(torch.equal(one, latents(tmp_path / "flat")) for one in found)


def test_sixteen_bits_are_those_of_eight(tmp_path):
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
    for name, values in {"sixteen": ramp, "eight": (ramp >> 8).astype(np.uint8)}.items():
        (tmp_path / name).mkdir()
        Image.fromarray(values).save(tmp_path / name / "a.png")
    assert torch.equal(latents(tmp_path / "sixteen"), latents(tmp_path / "eight"))


def test_what_systems_leave_behind_is_no_sample(tmp_path, plain):
    folder = tmp_path / "plain"
    for name in ("._a.png", ".hidden/b.png", "__MACOSX/a.png", ".ipynb_checkpoints/a.png", "Thumbs.db", "note.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\x00\x05\x16\x07 resource fork")
    assert torch.equal(latents(folder), plain)


def write_clip(path, frames, fps, turned=False):
    """Write a clip without loss; `turned`: lying on its side, with the matrix that puts it upright."""
    path.parent.mkdir()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=Fraction(fps))
        frames = [frame.transpose(Image.Transpose.ROTATE_90) if turned else frame for frame in frames]
        stream.width, stream.height, stream.pix_fmt, stream.options = *frames[0].size, "rgb24", {"qp": "0"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())
    if turned:
        data = bytearray(path.read_bytes())
        at = data.index(b"tkhd") + 4 + 40
        data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
        path.write_bytes(data)


def test_clips_are_seen_upright_and_at_one_pace(tmp_path):
    moving = [scene(x=12 + tick // 3) for tick in range(60)]  # ticks of 1/48 second
    write_clip(tmp_path / "plain" / "a.mp4", moving[::3], 16)
    write_clip(tmp_path / "fast" / "a.mp4", moving, 48)
    write_clip(tmp_path / "turned" / "a.mp4", moving[::3], 16, turned=True)
    plain = latents(tmp_path / "plain", num_frames=17)
    assert plain.shape == (1, 4, 17, 12, 12)
    assert torch.equal(latents(tmp_path / "fast", num_frames=17), plain)
    assert torch.equal(latents(tmp_path / "turned", num_frames=17), plain)
    assert torch.equal(latents(tmp_path / "fast", num_frames=9, fps=8.0), plain[:, :, ::2])
