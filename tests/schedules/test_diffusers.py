"""Grids, processes and the sampler against diffusers."""

import pytest
import torch
from diffusers import DDPMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler, FlowMatchLCMScheduler
from torch import Tensor

from swd_schedules import FlowMatching, ScaleSchedule, VariancePreserving, presets, sample_scalewise, shifted_grid

FLOW, VP = FlowMatching(), VariancePreserving()
SCALED_LINEAR = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULES = {
    "growing": presets.TINY_4,
    "full": presets.PRESETS["tiny-4-full"],
    "repeated": ScaleSchedule.square((1000.0, 895.9, 737.1, 602.2), (8, 8, 12, 12)),
    "wide, low noise": ScaleSchedule((1000.0, 600.7, 300.3, 70.1), ((6, 8), (9, 12), (12, 16), (15, 20))),
}


def velocity(x_t: Tensor, sigma: Tensor) -> Tensor:
    """A nonlinear model that looks at the noise level and at neighbours."""
    return 1.3 * torch.tanh(x_t + sigma.reshape(-1, 1, 1, 1)) + 0.2 * x_t.roll(1, -1)


def sample_with_diffusers(schedule: ScaleSchedule, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """Run diffusers' scale-wise sampler by hand; its last step ends at sigma = 0 and so returns x0.

    Scale factors are relative to the first size and leave it out. `set_timesteps` rounds sigmas to float32; the
    attribute is set again, so that a float64 run has the schedule's own.
    """
    factors = [size[0] / schedule.sizes[0][0] for size in schedule.sizes[1:]]
    scheduler = FlowMatchLCMScheduler(shift=1, scale_factors=factors, upscale_mode="bicubic")
    scheduler.set_timesteps(sigmas=list(schedule.sigmas))
    scheduler.sigmas = torch.tensor([*schedule.sigmas, 0.0], dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    x_t = torch.randn((*shape, *schedule.sizes[0]), generator=generator, dtype=dtype)
    for sigma, timestep in zip(scheduler.sigmas[:-1], scheduler.timesteps, strict=True):
        prediction = velocity(x_t, sigma.expand(shape[0]))
        x_t = scheduler.step(prediction, timestep, x_t, generator, return_dict=False)[0]
    return x_t


@pytest.mark.parametrize("name", SCHEDULES)
def test_sampler_is_diffusers_bit_for_bit(name: str) -> None:
    def denoise(x_t: Tensor, sigma: Tensor) -> Tensor:
        return FLOW.to_x0(x_t, velocity(x_t, sigma), sigma)

    schedule, generator = SCHEDULES[name], torch.Generator().manual_seed(0)
    ours = sample_scalewise(denoise, schedule, (2, 3), generator=generator)
    assert ours.shape == (2, 3, *schedule.sizes[-1])
    assert torch.equal(ours, sample_with_diffusers(schedule, (2, 3), torch.float32))


@pytest.mark.parametrize("name", SCHEDULES)
def test_sampler_is_diffusers_bit_for_bit_in_float64(name: str) -> None:
    def denoise(x_t: Tensor, sigma: Tensor) -> Tensor:
        # The scheduler's `step` rounds its sample, not the prediction, to float32 before it subtracts.
        return x_t.float() - sigma.reshape(-1, 1, 1, 1) * velocity(x_t, sigma)

    schedule, generator = SCHEDULES[name], torch.Generator().manual_seed(0)
    ours = sample_scalewise(denoise, schedule, (2, 3), generator=generator, dtype=torch.float64)
    theirs = sample_with_diffusers(schedule, (2, 3), torch.float64)
    assert ours.dtype == theirs.dtype == torch.float64
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("num_steps", [4, 28, 40])
def test_twice_shifted_grid_is_the_flow_euler_scheduler(num_steps: int) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(num_steps)
    torch.testing.assert_close(torch.tensor(shifted_grid(num_steps)), scheduler.sigmas, rtol=3e-7, atol=0)


def test_once_shifted_grid_is_the_shift_of_an_even_ramp() -> None:
    ramp = torch.linspace(1, 0.001, 28, dtype=torch.float64)
    expected = torch.cat([3 * ramp / (1 + 2 * ramp), torch.zeros(1, dtype=torch.float64)])
    torch.testing.assert_close(torch.tensor(shifted_grid(28, twice=False), dtype=torch.float64), expected)


def test_presets_lie_on_the_scheduler_grid() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(28)
    expected = scheduler.timesteps[[0, 4, 7, 12, 14, 18]]
    torch.testing.assert_close(torch.tensor(presets.SD35_MEDIUM_6.timesteps), expected, rtol=3e-7, atol=0)


def test_vp_alphas_are_ddpm() -> None:
    expected = DDPMScheduler(**SCALED_LINEAR).alphas_cumprod.double()
    ours = VP.alpha_bar(torch.arange(1000, dtype=torch.float64) / 1000)
    torch.testing.assert_close(ours, expected, rtol=5e-5, atol=0)  # theirs: a float32 product of 1000 factors


def test_vp_noise_to_signal_is_the_euler_scheduler() -> None:
    sigmas = EulerDiscreteScheduler(**SCALED_LINEAR).sigmas.double()[:-1].flip(0)
    ours = VP.noise_to_signal(torch.arange(1000, dtype=torch.float64) / 1000).sqrt()
    torch.testing.assert_close(ours, sigmas, rtol=5e-5, atol=0)


def test_vp_add_noise_and_to_x0_are_ddpm() -> None:
    scheduler = DDPMScheduler(**SCALED_LINEAR, clip_sample=False)
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 3, 4, 5, 5, generator=generator).unbind(0)
    timesteps = torch.tensor([999, 600, 0])
    x_t = scheduler.add_noise(x0, noise, timesteps)
    torch.testing.assert_close(VP.add_noise(x0, noise, timesteps / 1000), x_t, rtol=1e-5, atol=1e-6)
    for sample, epsilon, timestep in zip(x_t, noise, timesteps, strict=True):
        theirs = scheduler.step(epsilon, int(timestep), sample).pred_original_sample
        ours = VP.to_x0(sample[None], epsilon[None], timestep.item() / 1000)[0]
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
