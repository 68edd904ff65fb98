"""Scale-wise stochastic multistep sampling (section 4.1, figure 2): predict x0, upscale it, renoise it, repeat."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from swd_schedules.process import FlowMatching, Process
from swd_schedules.resize import upscale
from swd_schedules.schedule import ScaleSchedule, Stage

_FLOW = FlowMatching()


def sample_scalewise(
    denoise: Callable[[Tensor, Tensor], Tensor],
    schedule: ScaleSchedule,
    shape: tuple[int, int],
    *,
    process: Process = _FLOW,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    on_stage: Callable[[Stage, Tensor], None] | None = None,
    levels: tuple[float, float] = (0.0, 1.0),
    start: Tensor | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "batch channels *size"]:
    """Generate `shape = (batch, channels)` latents at the final size of `schedule`.

    `x_t = add_noise(upscale(x0, s_i), noise, sigma_i)`, `x0 = denoise(x_t, sigma_i)`; the first x_t is noise alone.

    Gradients follow the caller's mode, since training rolls out with this function too: sample under `torch.no_grad()`.

    Args:
        denoise: `denoise(x_t, sigma) -> x0`, with sigma `(batch,)` in float32 or wider.
        schedule: Sizes, noise levels and the upscaler.
        shape: Batch and channels.
        process: Forward process of the model.
        generator: Source of all noise; or one per sample, so that a sample is the same in every batch. Noise is drawn
            on the generator's device, then moved.
        on_stage: Called with every stage and its x0.
        levels: Only stages within these noise levels are run, as `ScaleSchedule.within` takes them: an expert's.
        start: The x0 that goes before the first of them, of any size; without it that begins with noise alone.
        device: Where to sample; by default the generator's device, else the CPU.
        dtype: Of the noise, so of x_t as well.

    Raises:
        ValueError: The number of generators is not the batch size, or no stage is within the levels.
    """
    options: dict[str, Any] = {"levels": levels, "start": start, "device": device, "dtype": dtype}
    for stage, x0 in scalewise_stages(denoise, schedule, shape, process=process, generator=generator, **options):
        if on_stage is not None:
            on_stage(stage, x0)
    return x0


def scalewise_stages(
    denoise: Callable[[Tensor, Tensor], Tensor],
    schedule: ScaleSchedule,
    shape: tuple[int, int],
    *,
    process: Process = _FLOW,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    levels: tuple[float, float] = (0.0, 1.0),
    start: Tensor | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Iterator[tuple[Stage, Tensor]]:
    """Yield each stage of `sample_scalewise` with its x0 `(batch, channels, *size)`, when it is done.

    Arguments and errors are those of `sample_scalewise`.
    """
    if isinstance(generator, Sequence) and len(generator) != shape[0]:
        raise ValueError(f"expected {shape[0]} generators, got {len(generator)}; give one per sample, or a single one")
    stages = schedule.within(*levels)
    if not stages:
        raise ValueError(f"expected levels that hold a stage of {schedule}, got {levels[0]:g} to {levels[1]:g}: none")
    x0 = start
    for stage in stages:
        noise = _draw((*shape, *stage.target), generator, device, dtype)
        x_t = noise
        if x0 is not None:
            x_t = process.add_noise(upscale(x0, stage.target, schedule.upscaler), noise, stage.sigma)
        sigma = torch.full(shape[:1], stage.sigma, dtype=torch.promote_types(dtype, torch.float32), device=x_t.device)
        x0 = denoise(x_t, sigma)
        yield stage, x0


def _draw(
    shape: tuple[int, ...],
    generator: torch.Generator | Sequence[torch.Generator] | None,
    device: torch.device | str | None,
    dtype: torch.dtype,
) -> Tensor:
    if isinstance(generator, Sequence):
        return torch.cat([_draw((1, *shape[1:]), one, device, dtype) for one in generator])
    source = device if generator is None else generator.device
    noise = torch.randn(shape, generator=generator, device=source, dtype=dtype)
    return noise if device is None else noise.to(device)
