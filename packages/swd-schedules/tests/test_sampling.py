from dataclasses import replace

import pytest
import torch
from torch import Tensor

from swd_schedules import FlowMatching, ScaleSchedule, Stage, VariancePreserving, sample_scalewise, upscale
from swd_schedules.presets import TINY_4

VIDEO = ScaleSchedule((1000.0, 896.0, 737.0), ((2, 4, 6), (3, 4, 8), (5, 8, 12)))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shrink(x_t: Tensor, sigma: Tensor) -> Tensor:
    """A denoiser that works on every sample alone, as a network does."""
    return x_t * (1 - 0.5 * sigma).reshape(-1, *[1] * (x_t.ndim - 1))


@pytest.mark.parametrize("process", [FlowMatching(), VariancePreserving()])
def test_sampling_is_predict_upscale_renoise(process: FlowMatching | VariancePreserving) -> None:
    schedule = ScaleSchedule.square((1000.0, 700.0, 400.0), (4, 4, 6))
    schedule = replace(schedule, upscaler="dct")
    result = sample_scalewise(shrink, schedule, (2, 3), process=process, generator=seeded())
    generator = seeded()
    x0 = shrink(torch.randn(2, 3, 4, 4, generator=generator), torch.ones(2))
    x_t = process.add_noise(x0, torch.randn(2, 3, 4, 4, generator=generator), 0.7)
    x0 = shrink(x_t, torch.full((2,), 0.7))
    x_t = process.add_noise(upscale(x0, (6, 6), "dct"), torch.randn(2, 3, 6, 6, generator=generator), 0.4)
    assert torch.equal(result, shrink(x_t, torch.full((2,), 0.4)))


@pytest.mark.parametrize("process", [FlowMatching(), VariancePreserving()])
def test_an_exact_denoiser_is_returned_whole(process: FlowMatching | VariancePreserving) -> None:
    clean = torch.randn(2, 4, 16, 16, generator=seeded(1))
    result = sample_scalewise(
        lambda x_t, _: clean[..., : x_t.shape[2], : x_t.shape[3]], TINY_4, (2, 4), process=process
    )
    assert torch.equal(result, clean)


def test_on_stage_sees_every_stage_with_its_prediction() -> None:
    seen: list[tuple[Stage, Tensor]] = []
    result = sample_scalewise(shrink, VIDEO, (2, 3), generator=seeded(), on_stage=lambda *args: seen.append(args))
    assert tuple(stage for stage, _ in seen) == VIDEO.stages
    assert [tuple(x0.shape) for _, x0 in seen] == [(2, 3, *size) for size in VIDEO.sizes]
    assert seen[-1][1] is result


def test_first_input_is_noise_alone() -> None:
    inputs: list[Tensor] = []

    def denoise(x_t: Tensor, sigma: Tensor) -> Tensor:
        inputs.append(x_t)
        return x_t

    sample_scalewise(denoise, TINY_4, (1, 4), process=VariancePreserving(), generator=seeded())
    assert torch.equal(inputs[0], torch.randn(1, 4, *TINY_4.sizes[0], generator=seeded()))


def test_generators_per_sample_make_results_independent_of_the_batch() -> None:
    together = sample_scalewise(shrink, VIDEO, (3, 2), generator=[seeded(i) for i in (5, 6, 7)])
    pair = sample_scalewise(shrink, VIDEO, (2, 2), generator=[seeded(7), seeded(5)])
    alone = sample_scalewise(shrink, VIDEO, (1, 2), generator=seeded(6))
    torch.testing.assert_close(together, torch.cat([pair[1:], alone, pair[:1]]), rtol=0, atol=0)


def test_generators_must_match_the_batch() -> None:
    with pytest.raises(ValueError, match="expected 3 generators, got 1; give one per sample"):
        sample_scalewise(shrink, TINY_4, (3, 4), generator=[seeded()])


@pytest.mark.parametrize(
    ("dtype", "wide"), [(torch.float64, torch.float64), (torch.float32, torch.float32), (torch.bfloat16, torch.float32)]
)
def test_sigma_is_never_half_precision(dtype: torch.dtype, wide: torch.dtype) -> None:
    def denoise(x_t: Tensor, sigma: Tensor) -> Tensor:
        assert x_t.dtype == dtype
        assert sigma.dtype == wide
        assert sigma.shape == (2,)
        return x_t

    assert sample_scalewise(denoise, TINY_4, (2, 4), generator=seeded(), device="cpu", dtype=dtype).dtype == dtype


def test_noise_is_drawn_on_the_generators_device_and_moved() -> None:
    assert sample_scalewise(shrink, TINY_4, (2, 4), generator=seeded(), device="meta").device.type == "meta"
    assert sample_scalewise(shrink, TINY_4, (2, 4), device="meta").device.type == "meta"


def test_gradients_reach_the_denoiser_through_every_stage() -> None:
    gain = torch.ones((), requires_grad=True)
    sample_scalewise(lambda x_t, _: gain * x_t, TINY_4, (1, 2), generator=seeded()).sum().backward()
    assert gain.grad is not None
    assert gain.grad != 0


def test_two_halves_are_the_whole() -> None:
    generator = seeded()
    start = sample_scalewise(shrink, VIDEO, (2, 3), generator=generator, levels=(0.875, 1.0))
    assert start.shape[2:] == (3, 4, 8)
    result = sample_scalewise(shrink, VIDEO, (2, 3), generator=generator, levels=(0.0, 0.875), start=start)
    assert torch.equal(result, sample_scalewise(shrink, VIDEO, (2, 3), generator=seeded()))


def test_levels_without_a_stage_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected levels that hold a stage of 1000@2x4x6 .*, got 0 to 0\.5: none"):
        sample_scalewise(shrink, VIDEO, (2, 3), levels=(0.0, 0.5))
