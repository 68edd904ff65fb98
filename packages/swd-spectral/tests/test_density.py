import math

import numpy as np
import pytest
import scipy.fft
import torch

from swd_spectral.density import DensityMeter, radial_power, rapsd, temporal_power, temporal_psd

SIZES = [(128, 128), (60, 104), (61, 105), (21, 7)]


def radial_loop(image: np.ndarray) -> tuple[list[float], list[float]]:
    """Average the full spectrum ring by ring, as the definition reads."""
    height, width = image.shape
    power = np.abs(np.fft.fft2(image)) ** 2 / (height * width)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    ring = np.round(frequency * max(height, width)).astype(int)
    kept = [r for r in range(ring.max() + 1) if (ring == r).any()]
    return [power[ring == r].mean() for r in kept], [frequency[ring == r].mean() for r in kept]


def power_law_noise(size: tuple[int, ...], exponent: float, num_samples: int, seed: int = 0) -> torch.Tensor:
    """Draw noise whose expected power is f^-exponent in cycles per cell, 0 at f = 0."""
    rng = np.random.default_rng(seed)
    f = np.sqrt(sum(np.square(g) for g in np.meshgrid(*(np.fft.fftfreq(n) for n in size), indexing="ij")))
    f.flat[0] = np.inf
    white = rng.normal(size=(num_samples, 1, *size))
    axes = tuple(range(2, 2 + len(size)))
    return torch.from_numpy(np.fft.ifftn(np.fft.fftn(white, axes=axes) * f ** (-exponent / 2), axes=axes).real)


@pytest.mark.parametrize("size", SIZES)
def test_parseval_and_counts(size):
    x = torch.randn(3, 2, *size, dtype=torch.float64) + 0.3
    density = rapsd(x)
    total = (density.count * density.power).sum() / math.prod(size)
    assert density.count.sum().item() == pytest.approx(math.prod(size), rel=1e-12)
    assert total.item() == pytest.approx(x.square().mean().item(), rel=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_agrees_with_the_definition_ring_by_ring(size):
    x = torch.randn(1, 1, *size, dtype=torch.float64)
    power, frequency = radial_loop(x[0, 0].numpy())
    density = rapsd(x)
    torch.testing.assert_close(density.power, torch.tensor(power, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(density.frequency, torch.tensor(frequency, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_white_noise_is_flat_with_the_variance_of_an_average():
    size, num_samples, channels = (30, 52), 200, 2
    x = torch.randn(num_samples, channels, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    density = rapsd(x)
    # Var R_b = 2 / (n_b B C): coefficients come in conjugate pairs, and |z|^2 of one has variance 1.
    error = (2 / (density.count * num_samples * channels)).sqrt()
    assert ((density.power - 1).abs() < 4.5 * error).all()
    many = density.count > 20
    torch.testing.assert_close(density.error[many], error[many], rtol=0.35, atol=0)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_is_widened(dtype):
    x = torch.randn(2, 3, 16, 24).to(dtype)
    torch.testing.assert_close(rapsd(x).power, rapsd(x.double()).power, rtol=1e-5, atol=1e-7)


def test_a_stream_is_the_average_of_all():
    x = torch.randn(12, 2, 10, 14, dtype=torch.float64)
    meter = DensityMeter()
    for part in x.split([5, 1, 6]):
        meter.update(part)
    streamed, whole = meter.result(), rapsd(x)
    assert streamed.num_samples == whole.num_samples == 12
    torch.testing.assert_close(streamed.power, whole.power, rtol=1e-12, atol=0)
    samples = radial_power(x)
    torch.testing.assert_close(streamed.error, samples.std(0) / math.sqrt(12), rtol=1e-9, atol=0)


def test_a_single_sample_has_no_error():
    assert rapsd(torch.randn(1, 1, 8, 8)).error.isnan().all()


def test_frames_count_as_channels_over_space():
    video = torch.randn(2, 3, 5, 12, 8, dtype=torch.float64)
    torch.testing.assert_close(rapsd(video).power, rapsd(video.flatten(1, 2)).power)


def test_temporal_density_is_scipys_dct():
    x = torch.randn(2, 3, 21, 4, 5, dtype=torch.float64)
    expected = (scipy.fft.dct(x.numpy(), axis=2, norm="ortho") ** 2).mean((0, 1, 3, 4))
    density = temporal_psd(x)
    np.testing.assert_allclose(density.power.numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(density.frequency.numpy(), np.arange(21) / 42, rtol=1e-12)


@pytest.mark.parametrize("method", ["dct", "fft"])
@pytest.mark.parametrize("num_frames", [20, 21])
def test_parseval_over_time(method, num_frames):
    x = torch.randn(2, 3, num_frames, 4, 5, dtype=torch.float64)
    density = temporal_psd(x, method)
    assert density.count.sum().item() == num_frames
    total = (density.count * density.power).sum().item() / num_frames
    assert total == pytest.approx(x.square().mean().item(), rel=1e-12)


@pytest.mark.parametrize("method", ["dct", "fft", "hann"])
def test_white_noise_over_time_has_power_one(method):
    x = torch.randn(4, 8, 21, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(
        temporal_psd(x, method).power, torch.ones(()).double().expand(11 if method != "dct" else 21), rtol=0.05, atol=0
    )


def test_dct_keeps_the_spectrum_of_a_cut_where_fft_doubles_it():
    # A random walk of unit steps has the spectral density 1 / (4 sin^2(pi f)), and its ends do not meet.
    steps = torch.randn(2000, 1, 21, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    walk = steps.cumsum(2)
    for method, low, high in (("dct", 0.9, 1.1), ("fft", 1.8, 2.2)):
        density = temporal_psd(walk, method)
        truth = 1 / (4 * torch.sin(math.pi * density.frequency[1:]) ** 2)
        ratio = density.power[1:] / truth
        assert ((low < ratio) & (ratio < high)).all(), method


def test_the_first_frame_can_be_dropped():
    x = torch.randn(2, 3, 21, 4, 4)
    dropped = temporal_psd(x, drop_first=True)
    torch.testing.assert_close(dropped.power, temporal_psd(x[:, :, 1:]).power)
    assert dropped.extent == 20


def test_beyond_is_the_largest_power_that_is_lost():
    x = power_law_noise((32, 32), 2.0, 20)
    density = rapsd(x)
    assert density.beyond(40) == 0.0
    index = int((density.cycles - 8).abs().argmin())
    assert density.beyond(float(density.cycles[index])) == pytest.approx(float(density.power[index:].max()), rel=1e-6)
    between = density.beyond(float(density.cycles[index] + density.cycles[index + 1]) / 2)
    assert density.power[index + 1 :].max() < between < density.power[index]


def test_wrong_input_is_named(refuses):
    with refuses("expected latents (B, C, H, W)"):
        rapsd(torch.zeros(4, 4))
    with refuses("expected latents (B, C, T, H, W)"):
        DensityMeter("time").update(torch.zeros(1, 1, 4, 4))
    with refuses('expected the method "dct", "fft" or "hann"'):
        temporal_power(torch.zeros(1, 1, 4, 2, 2), "wavelet")
    with refuses("at least 2 frames"):
        temporal_power(torch.zeros(1, 1, 1, 2, 2))
    with refuses("at least one sample"):
        DensityMeter().result()
    meter = DensityMeter()
    meter.update(torch.zeros(1, 1, 4, 4))
    with refuses("one size"):
        meter.update(torch.zeros(1, 1, 8, 8))
    with refuses('"space" or "time"'):
        DensityMeter("frequency")


def test_latents_without_numbers_are_refused():
    for value in (torch.nan, torch.inf, 1e30):  # whose square is no float32
        x = torch.randn(2, 3, 8, 8)
        x[1, 2, 3, 4] = value
        with pytest.raises(ValueError, match="expected finite latents"):
            rapsd(x)
