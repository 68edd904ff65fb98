"""Rotary positions, computed where they are used: nothing is kept, so that any device and fake tensors will do."""

from collections.abc import Sequence

import torch
from jaxtyping import Complex, Num
from torch import Tensor


def rotations(positions: Num[Tensor, "n axes"], dims: Sequence[int], theta: float) -> Complex[Tensor, "n d"]:
    """Return the rotations of tokens as complex numbers of length 1, one for two channels of an axis, fast ones first.

    `dims` are the channels of the axes, `theta` the base of the wavelengths (RoFormer, section 3.4.2).
    """
    angles = []
    for along, dim in zip(positions.unbind(1), dims, strict=True):
        frequencies = 1 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32, device=positions.device) / dim)
        angles.append(torch.outer(along.float(), frequencies))
    together = torch.cat(angles, dim=1)
    return torch.polar(torch.ones_like(together), together)
