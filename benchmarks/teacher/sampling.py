"""The teachers without their pipelines: guidance, and Euler steps between any noise levels."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from swd_models import Denoiser

Denoise = Callable[[Tensor, float], Tensor]
"""Predicts x0 of a batch at a noise level."""


def guided(denoiser: Denoiser, cond: Mapping[str, Tensor], uncond: Mapping[str, Tensor], guidance: float) -> Denoise:
    """Return a denoiser under classifier-free guidance: two forwards a call."""
    none = {key: value.expand_as(cond[key]) for key, value in uncond.items()}

    def denoise(x_t: Tensor, sigma: float) -> Tensor:
        level = torch.full((len(x_t),), sigma, device=x_t.device)
        return torch.lerp(denoiser.denoise(x_t, level, none), denoiser.denoise(x_t, level, dict(cond)), guidance)

    return denoise


def euler(denoise: Denoise, x_t: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Go from the first to the last of falling noise levels of flow matching, a step between each two."""
    for now, then in pairwise(sigmas):
        x0 = denoise(x_t, now)
        x_t = x0 + (then / now) * (x_t - x0)
    return x_t
