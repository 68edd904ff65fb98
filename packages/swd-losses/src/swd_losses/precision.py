"""The one rule of precision: losses compute in float32, or in float64 where they are given it."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["full_precision"]


def full_precision(x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Widen half precision to float32 and leave float32 and float64 as they are."""
    return x if x.dtype == torch.float64 else x.float()
