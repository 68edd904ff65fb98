"""Kernel distance of features (Binkowski et al., 2018): KID where the features are FID's Inception's."""

import torch
from torch import Tensor


def squared_mmd(x: Tensor, y: Tensor) -> Tensor:
    """Return the unbiased squared MMD of features (n, d) and (m, d) with the kernel (x . y / d + 1)^3."""
    x, y = x.double(), y.double()
    return _off_diagonal_mean(_kernel(x, x)) + _off_diagonal_mean(_kernel(y, y)) - 2 * _kernel(x, y).mean()


def kernel_distance(
    features: Tensor, reference: Tensor, *, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return mean and standard deviation of the squared MMD over random subsets, as KID is reported.

    Subsets are smaller than `size` where there are fewer images. The deviation is of a subset, not of the mean.
    """
    if features.shape[1] != reference.shape[1]:
        raise ValueError(f"expected features of one dimension, got {features.shape[1]} and {reference.shape[1]}")
    size = min(size, len(features), len(reference))
    if size < 2:
        raise ValueError(f"expected 2 images or more on both sides, got {size}")
    generator = torch.Generator().manual_seed(seed)
    values = torch.stack([
        squared_mmd(_draw(features, size, generator), _draw(reference, size, generator)) for _ in range(subsets)
    ])  # fmt: skip
    return float(values.mean()), float(values.std(correction=0))


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _off_diagonal_mean(kernel: Tensor) -> Tensor:
    num = len(kernel)
    return (kernel.sum() - kernel.trace()) / (num * (num - 1))


def _draw(features: Tensor, size: int, generator: torch.Generator) -> Tensor:
    return features[torch.randperm(len(features), generator=generator)[:size].to(features.device)]
