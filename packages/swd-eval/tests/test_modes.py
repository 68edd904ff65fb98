import numpy as np
import pytest
import torch
from PIL import Image
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from swd_eval.distances.modes import MODES, centre_crop, pixels_of


def noise(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gives_what_inception_takes(mode):
    for size in ((31, 47), (640, 300)):
        prepared = MODES[mode](noise(*size))
        assert prepared.shape == (3, 299, 299)
        assert prepared.dtype == torch.float32
        assert -1.01 < prepared.min() < -0.3 < 0.3 < prepared.max() < 1.01


def test_mid_grey_is_zero_but_for_half_a_step_of_255():
    grey = Image.new("RGB", (300, 280), (128, 128, 128))
    values = {mode: prepare(grey).unique().tolist() for mode, prepare in MODES.items()}
    assert values["torch-fidelity"] == values["clean"] == [0]
    assert values["swd"] == pytest.approx([1 / 255] * len(values["swd"]), abs=1e-6)


def test_torch_fidelitys_resize_is_that_of_tensorflow_1():
    image = noise(70, 400)
    expected = interpolate_bilinear_2d_like_tensorflow1x(pixels_of(image)[None], (299, 299), align_corners=False)
    torch.testing.assert_close(MODES["torch-fidelity"](image), (expected[0] - 128) / 128, rtol=0, atol=2e-6)


def test_the_crop_of_the_papers_mode_is_torchvisions():
    transforms = pytest.importorskip("torchvision.transforms")
    for width, height in ((300, 517), (1023, 256), (40, 41)):
        image = noise(width, height)
        resized = transforms.Resize(256, transforms.InterpolationMode.LANCZOS)(image)
        expected = transforms.CenterCrop(256)(resized)
        assert np.array_equal(centre_crop(image, 256, Image.Resampling.LANCZOS), expected)


def test_clean_antialiases_and_torch_fidelity_does_not():
    # Columns of 0 and 255 in turn: averaged they are grey, sampled they are not.
    stripes = Image.fromarray(np.tile(np.array([[[0] * 3, [255] * 3]], dtype=np.uint8), (1196, 598, 1)))
    assert MODES["clean"](stripes)[:, 5:-5, 5:-5].abs().max() < 0.02
    assert MODES["torch-fidelity"](stripes).abs().max() > 0.9
