import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from swd_data import open_image

RED = (220, 30, 30)
HIDDEN = [(0, 0, 0), (0, 255, 255), (255, 255, 255)]
SHAPE = np.zeros((16, 16), bool)
SHAPE[4:12, 4:12] = True


def encode(image, form="PNG", **options):
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def with_alpha(hidden, colour=RED, alpha=255):
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[..., :3] = hidden
    pixels[SHAPE] = (*colour, alpha)
    return Image.fromarray(pixels)


def with_palette(hidden, alphas, **options):
    image = Image.fromarray(SHAPE.astype(np.uint8))
    image.putpalette([*hidden, *RED])
    return encode(image, transparency=alphas, **options)


def expect(data, colour=RED):
    """Both over white, which is the default, and over another colour."""
    assert np.array_equal(open_image(data), np.where(SHAPE[..., None], colour, (255, 255, 255)))
    shown = open_image(data, background=(1, 2, 3))
    assert (shown.mode, shown.info.get("transparency")) == ("RGB", None)
    assert np.array_equal(shown, np.where(SHAPE[..., None], colour, (1, 2, 3)))


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize(
    "make",
    [
        lambda hidden: encode(with_alpha(hidden)),
        lambda hidden: encode(with_alpha(hidden), "WEBP", lossless=True, exact=True),
        lambda hidden: encode(with_alpha(hidden), "TIFF"),
        lambda hidden: with_palette(hidden, 0),
        lambda hidden: with_palette(hidden, b"\0\xff"),
        lambda hidden: with_palette(hidden, 0, form="GIF"),
        lambda hidden: encode(with_alpha(hidden).convert("RGB"), transparency=hidden),
    ],
    ids=["RGBA", "WebP", "TIFF", "index", "bytes", "GIF", "colour key"],
)
def test_hidden_colours_stay_hidden(make, hidden):
    expect(make(hidden))


@pytest.mark.parametrize("hidden", [0, 77, 255])
def test_hidden_greys_stay_hidden(hidden):
    grey = Image.fromarray(np.where(SHAPE, 100, hidden).astype(np.uint8))
    alpha = Image.fromarray(SHAPE.astype(np.uint8) * 255)
    expect(encode(Image.merge("LA", (grey, alpha))), (100, 100, 100))
    expect(encode(grey, transparency=hidden), (100, 100, 100))


@pytest.mark.parametrize(("depth", "hidden", "shown"), [(1, 1, 0), (2, 1, 3), (4, 9, 15), (8, 200, 255)])
def test_the_key_of_few_bits_is_found(make_png, depth, hidden, shown):
    pixels = np.where(SHAPE, shown, hidden).astype(np.uint8)
    bits = np.unpackbits(pixels[..., None], axis=2)[..., 8 - depth :].reshape(16, -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in bits)
    grey = shown * 255 // (2**depth - 1)
    expect(make_png((16, 16), depth, 0, rows, [(b"tRNS", struct.pack(">H", hidden))]), (grey, grey, grey))


def test_the_key_of_sixteen_bits_is_found(make_png):
    grey = np.where(SHAPE, 0x1235, 0x1234).astype(">u2")  # the upper eight bits alone would hide both
    rows = b"".join(b"\0" + row.tobytes() for row in grey)
    expect(make_png((16, 16), 16, 0, rows, [(b"tRNS", struct.pack(">H", 0x1234))]), (0x12, 0x12, 0x12))
    colour = np.where(SHAPE[..., None], [0x0100, 0x0200, 0xFFFF], [0x1234, 0x5678, 0x9ABC]).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in colour)
    key = struct.pack(">3H", 0x1234, 0x5678, 0x9ABC)
    expect(make_png((16, 16), 16, 2, rows, [(b"tRNS", key)]), (1, 2, 255))


@pytest.mark.parametrize("alpha", [1, 64, 128, 254])
def test_partial_alpha_mixes(alpha):
    found = np.asarray(open_image(encode(with_alpha((9, 9, 9), alpha=alpha)), background=(10, 250, 100)))
    mixed = np.array(RED) * alpha / 255 + np.array([10, 250, 100]) * (1 - alpha / 255)
    assert np.abs(found[SHAPE] - mixed).max() <= 0.75
    assert np.array_equal(found[~SHAPE], np.tile([10, 250, 100], (192, 1)))


def test_partial_alpha_of_a_palette_mixes():
    found = np.asarray(open_image(with_palette((9, 9, 9), b"\0\x80")))[SHAPE]
    assert np.abs(found - (np.array(RED) * 128 + 255 * 127) / 255).max() <= 0.75


def test_transparency_is_turned_with_its_image():
    exif, image = Image.Exif(), with_alpha((0, 255, 255)).crop((0, 0, 16, 8))
    exif[0x0112] = 6
    turned = np.rot90(np.where(SHAPE[..., None], RED, 255)[:8], -1)
    assert np.array_equal(open_image(encode(image, exif=exif)), turned)
