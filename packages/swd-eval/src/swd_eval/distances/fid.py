"""Frechet distance of features (Heusel et al., 2017): FID where the features are FID's Inception's."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm


@dataclass(frozen=True)
class Statistics:
    """Mean (d,) and covariance (d, d) of features in float64, ddof 1.

    With fewer images than dimensions `root` (n, d) stands for the covariance, which is root.T @ root.
    """

    mu: Tensor
    cov: Tensor | None = None
    root: Tensor | None = None
    num: int | None = None
    """Number of images, if known."""

    @classmethod
    def of(cls, features: Tensor) -> "Statistics":
        """Return the statistics of features (n, d)."""
        num, dim = features.shape
        if num < 2:
            raise ValueError(f"expected 2 images or more for a covariance, got {num}")
        if not features.isfinite().all():
            raise ValueError("expected finite features, got NaN or infinity: check the images and the dtype")
        features = features.double()
        mu = features.mean(0)
        root = (features - mu) / (num - 1) ** 0.5
        return cls(mu, None, root, num) if num < dim else cls(mu, root.T @ root, None, num)

    @property
    def sigma(self) -> Tensor:
        """The covariance."""
        if self.cov is not None:
            return self.cov
        assert self.root is not None
        return self.root.T @ self.root

    def rooted(self) -> "Statistics":
        """Return the same with a root, so that the distances of many others to it are cheaper."""
        if self.root is not None:
            return self
        values, vectors = torch.linalg.eigh(self.sigma)
        return Statistics(self.mu, self.cov, values.clamp(min=0).sqrt()[:, None] * vectors.T, self.num)


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """Return |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), in float64 and without a matrix square root.

    With S = R^T R the last trace is the nuclear norm of R_a R_b^T, or the sum of the roots of the eigenvalues
    of R_a S_b R_a^T: small matrices where there are few images.
    """
    if a.mu.shape != b.mu.shape:
        raise ValueError(
            f"expected statistics of one dimension, got {len(a.mu)} and {len(b.mu)}: use one feature network"
        )
    shift = (a.mu - b.mu).square().sum()
    return float(shift + _trace(a) + _trace(b) - 2 * _overlap(a, b))


def bootstrap_interval(
    statistic: Callable[[Tensor], float], samples: Tensor, estimate: float, *, resamples: int = 20, seed: int = 0
) -> tuple[float, float]:
    """Return a 95 % interval: the estimate +- 1.96 standard deviations over resamples of the images.

    Not the resamples' percentiles: images that come twice lower the rank of a covariance, so that a Frechet distance
    of a resample is too high. The interval covers the draw of the images, and neither the reference nor the bias of n.
    """
    generator = torch.Generator().manual_seed(seed)
    num = len(samples)
    draws = [torch.randint(num, (num,), generator=generator).to(samples.device) for _ in range(resamples)]
    bar = tqdm(draws, desc="interval", unit="resample", leave=False, disable=None)
    values = torch.tensor([statistic(samples[draw]) for draw in bar], dtype=torch.float64)
    width = 1.96 * float(values.std())
    return estimate - width, estimate + width


def _trace(statistics: Statistics) -> Tensor:
    if statistics.cov is not None:
        return statistics.cov.trace()
    assert statistics.root is not None
    return statistics.root.square().sum()


def _overlap(a: Statistics, b: Statistics) -> Tensor:
    """Return tr (S_a S_b)^(1/2)."""
    if a.root is not None and b.root is not None:
        singular: Tensor = torch.linalg.svdvals(a.root @ b.root.T)
        return singular.sum()
    rooted, other = (a, b) if a.root is not None else (b.rooted(), a)
    assert rooted.root is not None
    values: Tensor = torch.linalg.eigvalsh(rooted.root @ other.sigma @ rooted.root.T)
    return values.clamp(min=0).sqrt().sum()
