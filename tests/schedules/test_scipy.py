"""DCT resizing against SciPy's transforms."""

import math

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn

from swd_schedules import downscale, upscale

PAIRS = [((5, 8), (7, 8)), ((8, 10), (16, 12)), ((60, 104), (61, 105))]


def noise(size: tuple[int, int]) -> torch.Tensor:
    return torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("small", "large"), PAIRS)
def test_upscale_pads_the_spectrum(small: tuple[int, int], large: tuple[int, int]) -> None:
    x = noise(small)
    spectrum = np.zeros((2, 3, *large))
    spectrum[..., : small[0], : small[1]] = dctn(x.numpy(), axes=(2, 3), norm="ortho")
    expected = idctn(spectrum, axes=(2, 3), norm="ortho") * math.sqrt(math.prod(large) / math.prod(small))
    torch.testing.assert_close(upscale(x, large, "dct"), torch.from_numpy(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("small", "large"), PAIRS)
def test_downscale_truncates_the_spectrum(small: tuple[int, int], large: tuple[int, int]) -> None:
    x = noise(large)
    spectrum = dctn(x.numpy(), axes=(2, 3), norm="ortho")[..., : small[0], : small[1]]
    expected = idctn(spectrum, axes=(2, 3), norm="ortho") * math.sqrt(math.prod(small) / math.prod(large))
    torch.testing.assert_close(downscale(x, small, "dct"), torch.from_numpy(expected), rtol=0, atol=1e-12)
