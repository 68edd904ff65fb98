"""FLOPs of forwards, two a multiply-add, exact: counted on tensors without data."""

from collections.abc import Sequence
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from swd_models.loading import empty_denoiser
from swd_sample.presets import SOURCES
from swd_schedules import ScaleSchedule


@cache
def forward_flops(model: str, size: Sequence[int]) -> int:
    """Count one forward of one of the paper's models for one sample, without guidance; `size` is that of latents."""
    denoiser = empty_denoiser(model)
    with torch.device("meta"), torch.no_grad():
        cond = {name: torch.empty(1, *shape) for name, shape in denoiser.cond_shapes.items()}
        inputs = torch.empty(1, denoiser.num_channels, *size), torch.empty(1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        denoiser(*inputs, cond)
    return int(counter.get_total_flops())


def step_flops(name: str, schedule: ScaleSchedule) -> list[int]:
    """Count the steps of a schedule for one sample; `name` is that of a preset."""
    return [forward_flops(SOURCES[name].model, size) for size in schedule.sizes]
