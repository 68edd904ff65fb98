import pytest
import torch

from swd_schedules import FlowMatching, VariancePreserving
from swd_spectral import FLUX_LAW, PowerLaw, rapsd, smallest_safe_size, smallest_safe_timestep
from swd_spectral.masking import lost_snr, matched_sigma, noised

FLOW, VP = FlowMatching(), VariancePreserving()


def test_the_paper_at_timestep_800():
    # Section 3: 4x downsampling of 128x128 latents is safe, 8x is not; 32x32 is a quarter, 16x16 an eighth.
    assert lost_snr(FLUX_LAW, 0.8, 32) <= 0.1 < lost_snr(FLUX_LAW, 0.8, 16)
    assert 16 < smallest_safe_size(FLUX_LAW, 0.8, 128) <= 32


def test_eleven_of_21_frames_at_timestep_600():
    # Section 3's statement needs P_T(5.5) <= 2.25 tau < P_T(5): this law is stated here, the paper prints none.
    temporal = PowerLaw(6.5, 2.0)
    assert smallest_safe_size(temporal, 0.6, 21, multiple=1) == 11


@pytest.mark.parametrize("process", [FLOW, VP])
@pytest.mark.parametrize("tau", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("sigma", [0.4, 0.6, 0.8, 0.95])
def test_the_safe_size_is_the_closed_form_rounded_up(process, tau, sigma):
    exact = 2 * (FLUX_LAW.amplitude / (tau * float(process.noise_to_signal(sigma)))) ** (1 / FLUX_LAW.exponent)
    size = smallest_safe_size(FLUX_LAW, sigma, 1024, process, tau=tau)
    assert exact <= size < exact + 2 or size == 2 >= exact


@pytest.mark.parametrize("process", [FLOW, VP])
def test_the_safe_timestep_is_where_the_size_becomes_safe(process):
    t = smallest_safe_timestep(FLUX_LAW, 64, process)
    step = 1.0 if process is VP else 0.01  # VP knows whole timesteps
    assert (
        lost_snr(FLUX_LAW, (t + step) / 1000, 64, process) <= 0.1 < lost_snr(FLUX_LAW, (t - step) / 1000, 64, process)
    )


def test_nothing_is_safe_without_noise_and_all_is_in_pure_noise():
    assert smallest_safe_size(FLUX_LAW, 0.0, 128) == 128
    assert smallest_safe_size(FLUX_LAW, 1.0, 128) == 2
    assert smallest_safe_timestep(PowerLaw(1e12, 0.1), 2, VP) == pytest.approx(1000, abs=1e-2)


def test_a_bump_above_the_nyquist_frequency_counts():
    """VAE latents do not always fall: the loss is the largest there, not the one at the edge."""
    t = torch.linspace(0, 1, 33)[:-1]
    wave = torch.cos(2 * torch.pi * 14 * t)[None, None, None].expand(1, 1, 32, 32)
    density = rapsd(wave + 0.01 * torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert lost_snr(density, 0.5, 16) == pytest.approx(float(density.power.max()), rel=0.01)


@pytest.mark.parametrize("process", [FLOW, VP])
@pytest.mark.parametrize("sigma", [0.2, 0.7])
def test_noised_power_is_that_of_noised_latents(process, sigma):
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(64, 4, 32, 32, generator=generator, dtype=torch.float64) for _ in range(2))
    measured = rapsd(process.add_noise(3 * x0, noise, sigma)).power[4:16].mean().item()
    assert measured == pytest.approx(noised(9.0, sigma, process), rel=0.02)


def test_matched_noise_level():
    # Facts: area-downscaling t = .8 at 128 by 4 gives t = .5 at 32.
    assert matched_sigma(0.8, 4) == pytest.approx(0.5)
    generator = torch.Generator().manual_seed(0)
    x0, noise = 5 * torch.ones(8, 1, 128, 128), torch.randn(8, 1, 128, 128, generator=generator)
    small = torch.nn.functional.avg_pool2d(FLOW.add_noise(x0, noise, 0.8), 4)
    assert (small.mean() / small.std()).item() == pytest.approx(5 * (1 - 0.5) / 0.5, rel=0.02)


def test_averaged_cells_hide_more():
    assert lost_snr(FLUX_LAW, 0.8, 32, cells_averaged=16.0) == pytest.approx(lost_snr(FLUX_LAW, 0.8, 32) / 16)
