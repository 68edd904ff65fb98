import math

import pytest
import torch

from swd_schedules import downscale, upscale

UP_MODES = ["bicubic", "bilinear", "nearest", "dct"]


def noise(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def cosine(k: int, n: int) -> torch.Tensor:
    return torch.cos(math.pi * k / n * (torch.arange(n, dtype=torch.float64) + 0.5))


@pytest.mark.parametrize("mode", UP_MODES)
def test_upscale_keeps_constants_and_dtype(mode: str) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        y = upscale(torch.full((1, 2, 3, 4, 6), 1.5, dtype=dtype), (5, 7, 9), mode)
        assert y.dtype == dtype
        torch.testing.assert_close(y, torch.full((1, 2, 5, 7, 9), 1.5, dtype=dtype))


@pytest.mark.parametrize("mode", ["area", "dct"])
def test_downscale_keeps_constants_and_dtype(mode: str) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        y = downscale(torch.full((1, 2, 5, 7, 9), 1.5, dtype=dtype), (3, 4, 6), mode)
        assert y.dtype == dtype
        torch.testing.assert_close(y, torch.full((1, 2, 3, 4, 6), 1.5, dtype=dtype))


@pytest.mark.parametrize("size", [(4, 6), (3, 4, 6)])
def test_same_size_is_the_same_tensor(size: tuple[int, ...]) -> None:
    x = noise(2, 3, *size)
    assert upscale(x, size) is x
    assert downscale(x, size) is x


@pytest.mark.parametrize("mode", UP_MODES)
def test_half_precision_is_resized_in_single_precision(mode: str) -> None:
    x = noise(1, 2, 8, 8, dtype=torch.float32).bfloat16()
    assert torch.equal(upscale(x, (12, 10), mode), upscale(x.float(), (12, 10), mode).bfloat16())


def test_bicubic_takes_variance_from_white_noise() -> None:
    assert upscale(noise(16, 4, 64, 64), (128, 128)).var().item() == pytest.approx(0.73, abs=0.01)


def test_bicubic_weights_midway_between_pixels() -> None:
    impulse = torch.zeros(1, 1, 1, 8, dtype=torch.float64)
    impulse[..., 4] = 1
    # Twice the width puts new centres a quarter cell beside the old ones; the kernel has A = -0.75.
    row = upscale(impulse, (1, 16))[0, 0, 0]  # centres 5..8 lie 1.75, 1.25, 0.75 and 0.25 cells before the impulse
    inner = [1.25 * t**3 - 2.25 * t**2 + 1 for t in (0.25, 0.75)]
    outer = [-0.75 * (t**3 - 5 * t**2 + 8 * t - 4) for t in (1.25, 1.75)]
    torch.testing.assert_close(row[5:9].tolist(), [outer[1], outer[0], inner[1], inner[0]], rtol=1e-12, atol=1e-12)


def test_nearest_takes_the_cell_under_the_new_centre() -> None:
    x = torch.arange(4.0).reshape(1, 1, 1, 4)
    assert upscale(x, (1, 5), "nearest").flatten().tolist() == [0, 1, 2, 2, 3]


@pytest.mark.parametrize("k", [0, 1, 5, 7])
def test_dct_keeps_cosines_both_ways(k: int) -> None:
    small = cosine(k, 8)[:, None] * cosine(1, 6)
    large = cosine(k, 11)[:, None] * cosine(1, 9)
    torch.testing.assert_close(upscale(small[None, None], (11, 9), "dct")[0, 0], large)
    torch.testing.assert_close(downscale(large[None, None], (8, 6), "dct")[0, 0], small)


def test_dct_downscale_drops_what_the_small_grid_cannot_hold() -> None:
    x = (cosine(9, 12)[:, None] * cosine(0, 12))[None, None]
    torch.testing.assert_close(downscale(x, (8, 8), "dct"), torch.zeros(1, 1, 8, 8, dtype=torch.float64))


def test_area_averages_blocks() -> None:
    x = noise(2, 3, 8, 12)
    torch.testing.assert_close(downscale(x, (4, 4)), x.reshape(2, 3, 4, 2, 4, 3).mean((3, 5)))


def test_area_takes_any_ratio() -> None:
    x = torch.arange(5.0, dtype=torch.float64).reshape(1, 1, 1, 5)
    torch.testing.assert_close(downscale(x, (1, 3)).flatten().tolist(), [0.5, 2.0, 3.5])


def frame_weights(num_source: int, num_target: int) -> torch.Tensor:
    """(target, source) weights of the temporal resizing, read off from unit frames."""
    x = torch.eye(num_source, dtype=torch.float64).reshape(num_source, 1, num_source, 1, 1)
    resize = upscale if num_target > num_source else downscale
    return resize(x, (num_target, 1, 1)).reshape(num_source, num_target).T


def test_6_to_11_frames_insert_midpoints() -> None:
    weights = frame_weights(6, 11)
    torch.testing.assert_close(weights[::2], torch.eye(6, dtype=torch.float64))
    torch.testing.assert_close(weights[1::2], (weights[:-2:2] + weights[2::2]) / 2)


def test_11_to_16_frames_blend_in_thirds() -> None:
    weights = frame_weights(11, 16)
    torch.testing.assert_close(weights[1, :3].tolist(), [1 / 3, 2 / 3, 0.0])
    torch.testing.assert_close(weights[2, :3].tolist(), [0.0, 2 / 3, 1 / 3])
    torch.testing.assert_close(weights[3, :3].tolist(), [0.0, 0.0, 1.0])


@pytest.mark.parametrize(("num_frames", "stride"), [(41, 2), (21, 4)])
def test_causal_frame_counts_are_exact_picks(num_frames: int, stride: int) -> None:
    x = noise(1, 2, 81, 3, 4)
    torch.testing.assert_close(downscale(x, (num_frames, 3, 4)), x[:, :, ::stride])


def test_61_of_81_frames_keep_both_ends_and_even_motion() -> None:
    x = torch.arange(81.0, dtype=torch.float64).reshape(1, 1, 81, 1, 1)
    expected = torch.linspace(0, 80, 61, dtype=torch.float64)
    torch.testing.assert_close(downscale(x, (61, 1, 1)).flatten(), expected)


def test_one_frame_is_repeated() -> None:
    x = noise(2, 3, 1, 4, 4)
    torch.testing.assert_close(upscale(x, (3, 4, 4)), x.expand(2, 3, 3, 4, 4))
    torch.testing.assert_close(upscale(x, (1, 8, 8))[:, :, 0], upscale(x[:, :, 0], (8, 8)))


@pytest.mark.parametrize("mode", UP_MODES)
def test_video_space_is_resized_frame_by_frame(mode: str) -> None:
    x = noise(2, 3, 5, 4, 6)
    frames = torch.stack([upscale(x[:, :, t], (6, 7), mode) for t in range(5)], dim=2)
    torch.testing.assert_close(upscale(x, (5, 6, 7), mode), frames)


def test_wrong_direction_is_named() -> None:
    with pytest.raises(ValueError, match=r"expected a size of at least \(4, 6\), got \(8, 5\); use downscale"):
        upscale(noise(1, 1, 4, 6), (8, 5))
    with pytest.raises(ValueError, match=r"expected a size of at most \(4, 6\), got \(3, 7\); use upscale"):
        downscale(noise(1, 1, 4, 6), (3, 7))


@pytest.mark.parametrize("shape", [(1, 1, 4, 6), (1, 1, 6), (1, 1, 2, 2, 2, 2)])
def test_wrong_rank_is_named(shape: tuple[int, ...]) -> None:
    size = (8, 8, 8) if len(shape) == 4 else (8,) * (len(shape) - 2)
    with pytest.raises(ValueError, match=r"a size for the same axes, got shape"):
        upscale(noise(*shape), size)
