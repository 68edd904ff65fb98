import numpy as np
import pytest
from PIL import Image

from swd_data import fit_image


def lanczos(pixels, size):
    """Shrink the first axis as Lanczos' window of three lobes says, in float64; round as 8 bits do."""
    scale = len(pixels) / size
    centres = (np.arange(size) + 0.5) * scale
    x = (np.arange(len(pixels)) + 0.5 - centres[:, None]) / scale
    weights = np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)
    shrunk = np.tensordot(weights / weights.sum(1, keepdims=True), pixels.astype(float), 1)
    return shrunk.round().clip(0, 255)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (24, 8), (5, 30), (32, 40), (31, 1)])
def test_fit_image_covers_and_cuts_the_middle(height, width):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 40, 3), np.uint8)
    ratio = max(height / 32, width / 40)
    tall, wide = round(32 * ratio), round(40 * ratio)
    shrunk = lanczos(lanczos(pixels.transpose(1, 0, 2), wide).transpose(1, 0, 2), tall)
    top, left = (tall - height) // 2, (wide - width) // 2
    wanted = shrunk[top : top + height, left : left + width]
    found = fit_image(Image.fromarray(pixels), height, width, "a.png")
    assert (found.shape, found.dtype) == ((height, width, 3), np.uint8)
    assert np.abs(found - wanted).max() <= 1


@pytest.mark.parametrize(("height", "width"), [(33, 8), (8, 41)])
def test_fit_image_enlarges_nothing(refused, height, width):
    line = refused("a.png", fit_image, Image.new("RGB", (40, 32)), height, width, "a.png")
    assert f"at least {width}x{height} pixels in a.png, got 40x32" in line
