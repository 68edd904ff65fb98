"""Norms of diffusers as torch computes them: in one kernel."""

from diffusers.models.normalization import RMSNorm
from torch import nn


def fuse_norms(model: nn.Module) -> None:
    """Put torch's RMSNorm in the place of diffusers', in a model, with the same weights under the same names.

    Both compute in float32. Diffusers' casts, squares, means, adds, scales and casts back: six kernels, and as many
    tensors to keep for backward.
    """
    norms = [(name, norm) for name, norm in model.named_modules() if isinstance(norm, RMSNorm) and norm.bias is None]
    for name, norm in norms:
        fused = nn.RMSNorm(norm.dim, eps=norm.eps, elementwise_affine=False)
        fused.register_parameter("weight", norm.weight)
        fused.elementwise_affine = norm.elementwise_affine
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, fused)
