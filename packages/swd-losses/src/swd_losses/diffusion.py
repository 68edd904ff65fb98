"""The denoising loss that keeps the fake model on the student's distribution (appendix A)."""

from jaxtyping import Float
from torch import Tensor

from swd_losses.choices import Weighting
from swd_losses.precision import full_precision
from swd_losses.shapes import same_shape

__all__ = ["denoising_loss"]


def denoising_loss(
    x0_pred: Float[Tensor, "b *s"],
    x0: Float[Tensor, "b *s"],
    sigma: Float[Tensor, " b"],
    *,
    weighting: Weighting = "x0",
) -> Float[Tensor, ""]:
    """Average the squared error of a clean prediction over samples and elements.

    "x0": mean (x0_pred - x0)^2, the authors' choice; under flow matching, sigma^2 times the error of the velocity.
    "velocity": divided by sigma^2, the plain flow-matching loss; for flow matching only, and for sigma > 0 only.

    Raises:
        ValueError: shapes that differ, another weighting, or a level of 0 that the error would be divided by.
    """
    same_shape(x0_pred=x0_pred, x0=x0)
    if sigma.shape != x0.shape[:1]:
        raise ValueError(f"expected a level for each of {len(x0)} samples, as (B,), got shape {tuple(sigma.shape)}")
    squared = (full_precision(x0_pred) - full_precision(x0)).square().flatten(1).mean(1)
    if weighting == "x0":
        return squared.mean()
    if weighting != "velocity":
        raise ValueError(f'expected weighting "x0" or "velocity", got {weighting!r}; the authors use "x0"')
    if not bool((sigma > 0).all()):
        raise ValueError(f'expected sigma > 0, got {sigma.min().item()}; use weighting="x0" where sigma may be 0')
    return (squared / full_precision(sigma).square()).mean()
