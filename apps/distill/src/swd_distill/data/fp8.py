"""Embeddings in a byte a number: float8_e4m3fn with one float32 scale a token."""

import torch
from torch import Tensor

FP8 = torch.float8_e4m3fn


def to_fp8(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return tokens (..., D) over their scale, and the scale (..., 1): a token's largest number becomes 448."""
    tokens = tokens.float()
    amax = tokens.abs().amax(-1, keepdim=True)
    scale = torch.where(amax > 0, amax / torch.finfo(FP8).max, 1.0)
    return (tokens / scale).to(FP8), scale


def from_fp8(values: Tensor, scale: Tensor) -> Tensor:
    """Return the tokens in float32: each number off by 2^-4 of itself at most, or by 2^-10 of the scale."""
    return values.float() * scale
