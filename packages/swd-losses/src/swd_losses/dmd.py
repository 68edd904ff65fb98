"""Distribution matching distillation (DMD2, Yin et al. 2024a) as in appendix A."""

import torch
from jaxtyping import Float
from torch import Tensor

from swd_losses.precision import full_precision
from swd_losses.shapes import same_shape

__all__ = ["dmd_gradient", "dmd_loss", "guided"]

# Far below any mean |x0 - x0_real| of latents of unit variance: it only keeps 0 / 0 from becoming NaN. DMD2 calls
# nan_to_num on the gradient, which also hides a model that has diverged and turns inf into the largest float.
EPS = 1e-6


def guided(cond: Float[Tensor, "b *s"], uncond: Float[Tensor, "b *s"], weight: float) -> Float[Tensor, "b *s"]:
    """Guide without a classifier: uncond + weight (cond - uncond); weight 1 is the conditional prediction.

    Raises:
        ValueError: shapes that differ.
    """
    same_shape(cond=cond, uncond=uncond)
    cond, uncond = full_precision(cond), full_precision(uncond)
    return uncond + weight * (cond - uncond)


@torch.no_grad()
def dmd_gradient(
    x0: Float[Tensor, "b *s"], x0_real: Float[Tensor, "b *s"], x0_fake: Float[Tensor, "b *s"]
) -> Float[Tensor, "b *s"]:
    """Estimate the gradient of KL(fake || real) at x0: (x0_fake - x0_real) / mean|x0 - x0_real| for each sample.

    `x0_real` and `x0_fake` are the clean predictions of the teacher and of the fake model at the same x_t of x0.

    Raises:
        ValueError: shapes that differ.
    """
    same_shape(x0=x0, x0_real=x0_real, x0_fake=x0_fake)
    x0, x0_real, x0_fake = full_precision(x0), full_precision(x0_real), full_precision(x0_fake)
    scale = (x0 - x0_real).abs().mean(dim=tuple(range(1, x0.ndim)), keepdim=True)
    return (x0_fake - x0_real) / scale.clamp(min=EPS)


def dmd_loss(
    x0: Float[Tensor, "b *s"], x0_real: Float[Tensor, "b *s"], x0_fake: Float[Tensor, "b *s"]
) -> Float[Tensor, ""]:
    """Carry the DMD gradient to the student: mean((x0 - target)^2) / 2 with target = x0 - gradient held constant.

    The gradient with respect to x0 is `dmd_gradient` / numel. The value is not a divergence and need not fall.
    """
    gradient = dmd_gradient(x0, x0_real, x0_fake)
    x0 = full_precision(x0)
    return (x0 - (x0 - gradient).detach()).square().mean() / 2
