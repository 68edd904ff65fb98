"""Maximum mean discrepancy between token features: section 4.2, equations 1 and 2.

All are symmetric in `fake` and `real` and give gradients to both: detach `real` for a generator.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from swd_losses.choices import Pooling
from swd_losses.precision import full_precision

__all__ = ["huber_mmd", "linear_mmd", "moments_mmd", "rbf_mmd"]


def linear_mmd(
    fake: Float[Tensor, "n l c"], real: Float[Tensor, "n l c"], *, pooling: Pooling = "image"
) -> Float[Tensor, ""]:
    """Sum over images the squared distance of the token means: eq. 2, the kernel x.y.

    sum_n |mean_l fake[n, l] - mean_l real[n, l]|^2. A sum, as printed: a batch twice as large doubles the loss.
    `pooling="batch"` takes one mean over all tokens of the batch, hence one term (table 6, ablation B).
    """
    fake, real = _pooled(fake, real, pooling)
    return (fake.mean(1) - real.mean(1)).square().sum()


def huber_mmd(
    fake: Float[Tensor, "n l c"], real: Float[Tensor, "n l c"], c: float = 1e-3, *, pooling: Pooling = "image"
) -> Float[Tensor, ""]:
    """Average over images and channels a pseudo-Huber distance of the token means: the authors' code.

    mean_{n, c} sqrt(d^2 + c^2) - c with d the difference of the means; close to |d| where |d| >> c.
    """
    fake, real = _pooled(fake, real, pooling)
    difference = fake.mean(1) - real.mean(1)
    # The conjugate form of sqrt(d^2 + c^2) - c: the difference itself loses every digit where |d| << c.
    squared = difference.square()
    return (squared / ((squared + c**2).sqrt() + c)).mean()


def moments_mmd(
    fake: Float[Tensor, "n l c"], real: Float[Tensor, "n l c"], *, pooling: Pooling = "image"
) -> Float[Tensor, ""]:
    """Sum over images the squared distances of the tokens' means and of their covariances: in neither paper nor code.

    sum_n |m(fake) - m(real)|^2 + |C(fake) - C(real)|_F^2 / v, with m the mean and C the covariance of an image's tokens
    (divided by l), and v the mean of both traces, held constant: then both terms have one unit. Two sets of tokens can
    have one mean and differ in how far tokens are from it, as smooth and textured images do; the second term sees that.
    Times v the second term is eq. 1 for the kernel (x.y)^2 on centred tokens. Memory is n c^2 floats, twice.
    """
    fake, real = _pooled(fake, real, pooling)
    means = linear_mmd(fake, real)
    (x, xx), (y, yy) = _covariance(fake), _covariance(real)
    variance = ((x + y) / 2).detach().clamp(min=torch.finfo(x.dtype).tiny)
    return means + ((xx - yy).square().sum((1, 2)) / variance).sum()


def rbf_mmd(
    fake: Float[Tensor, "n l c"],
    real: Float[Tensor, "n l c"],
    *,
    bandwidth: float | Literal["median"] = 100.0,
    pooling: Pooling = "image",
) -> Float[Tensor, ""]:
    """Average over images the MMD^2 of eq. 1 under k(x, y) = exp(-|x - y|^2 / (2 bandwidth^2)) on tokens.

    E k(x, x') and E k(y, y') leave the diagonal out, 1 / (l (l - 1)); E k(x, y) is over all l^2 pairs. Unbiased, so it
    may fall below zero. "median": the median distance between two tokens of fake and real together, for each image,
    held constant. Memory is n l^2 floats for each of three matrices. Needs l >= 2.
    """
    fake, real = _pooled(fake, real, pooling)
    if fake.shape[1] < 2:
        raise ValueError(f"expected at least 2 tokens to pool, got {fake.shape[1]}; use linear_mmd for a single token")
    if bandwidth != "median" and bandwidth <= 0:
        raise ValueError(f"expected a positive bandwidth, got {bandwidth}; the authors use 100")
    # Distances do not change with the origin, and tokens near it lose fewer digits in |x|^2 + |y|^2 - 2 x.y.
    origin = real.mean(1, keepdim=True).detach()
    fake, real = fake - origin, real - origin
    distances = [_squared_distance(a, b) for a, b in ((fake, fake), (real, real), (fake, real))]
    scale = 2 * (_median(*distances) if bandwidth == "median" else bandwidth**2)
    # k - 1 in place of k: the constant cancels in eq. 1, and a wide kernel keeps its digits.
    xx, yy, xy = (torch.expm1(-d / scale) for d in distances)
    return (_off_diagonal_mean(xx) + _off_diagonal_mean(yy) - 2 * xy.mean((1, 2))).mean()


def _covariance(x: Float[Tensor, "n l c"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n c c"]]:
    """Return the trace and the whole of the covariance of each image's tokens."""
    x = x - x.mean(1, keepdim=True)
    with torch.autocast(x.device.type, enabled=False):
        return x.square().mean(1).sum(-1), x.mT @ x / x.shape[1]


def _pooled(fake: Tensor, real: Tensor, pooling: Pooling) -> tuple[Tensor, Tensor]:
    """Check the shapes, widen, and make one image of the batch if asked to."""
    if fake.shape != real.shape or fake.ndim != 3:
        # Broadcasting would pair every image with the same one in silence.
        raise ValueError(
            f"expected two (N, L, C) tensors of one shape, got {tuple(fake.shape)} and {tuple(real.shape)}; "
            "take both from the same block at the same latent size"
        )
    if pooling not in ("image", "batch"):
        raise ValueError(f'expected pooling "image" or "batch", got {pooling!r}; the paper uses "image"')
    fake, real = full_precision(fake), full_precision(real)
    if pooling == "batch":
        fake, real = fake.flatten(0, 1)[None], real.flatten(0, 1)[None]
    return fake, real


def _squared_distance(x: Float[Tensor, "n i c"], y: Float[Tensor, "n j c"]) -> Float[Tensor, "n i j"]:
    # Autocast would run the product in half precision.
    with torch.autocast(x.device.type, enabled=False):
        product = x @ y.mT
    return (x.square().sum(-1)[:, :, None] + y.square().sum(-1)[:, None, :] - 2 * product).clamp(min=0)


@torch.no_grad()
def _median(xx: Tensor, yy: Tensor, xy: Tensor) -> Float[Tensor, "n 1 1"]:
    """Take the median squared distance over all pairs of distinct tokens."""
    i, j = torch.triu_indices(xx.shape[1], xx.shape[1], offset=1, device=xx.device)
    median = torch.cat([xx[:, i, j], yy[:, i, j], xy.flatten(1)], 1).median(1).values
    # Zero where more than half of the tokens coincide.
    return median.clamp(min=torch.finfo(median.dtype).eps)[:, None, None]


def _off_diagonal_mean(k: Float[Tensor, "n l l"]) -> Float[Tensor, " n"]:
    num_tokens = k.shape[1]
    return (k.sum((1, 2)) - k.diagonal(dim1=1, dim2=2).sum(1)) / (num_tokens * (num_tokens - 1))
