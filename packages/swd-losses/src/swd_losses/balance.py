"""Balance: the gradients of several losses to x0 stand in given shares, whatever the losses' own scales.

The paper's L = MMD + alpha DMD + beta GAN names no alpha and no beta, and none would serve twice: what a loss weighs
depends on its kernel, the width of its features, the size of latents and batch. As shares of MMD's gradient they do.
"""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from swd_losses.precision import full_precision

__all__ = ["balance", "sample_norms", "share_at"]


@torch.no_grad()
def balance(
    gradients: Mapping[str, Float[Tensor, "b *s"]], shares: Mapping[str, float], reference: str = "mmd"
) -> dict[str, Float[Tensor, "b *s"]]:
    """Scale each gradient, sample by sample, to its share of the norm of the reference's, which stays as it is.

    A gradient that vanishes at a sample stays zero there, and so do all where the reference's does. Samples do not
    know of each other: a batch gives the same numbers however it is split.

    Examples:
        >>> leaf = x0.detach().requires_grad_()  # differentiate each loss to x0 alone, then the student once
        >>> slopes = {name: torch.autograd.grad(loss(leaf), leaf)[0] for name, loss in losses.items()}
        >>> x0.backward(sum(balance(slopes, {"dmd": 0.3, "gan": 0.1}).values()))

    Raises:
        ValueError: no gradient of the reference, or none for a share.
    """
    if reference not in gradients or not shares.keys() <= gradients.keys() - {reference}:
        raise ValueError(
            f"expected gradients of {reference} and of what has a share ({', '.join(shares)}), got "
            f"{', '.join(gradients) or 'none'}"
        )
    norm = sample_norms(gradients[reference])
    found = {}
    for name, gradient in gradients.items():
        own = sample_norms(gradient)
        if name in shares:
            # In two steps: a quotient of the norms alone could leave the range of floats.
            unit = torch.where(own > 0, 1 / own.clamp(min=torch.finfo(own.dtype).tiny), 0)
            gradient = full_precision(gradient) * unit * (shares[name] * norm)
        found[name] = gradient
    return found


def share_at(share: float, elements: int, full: int) -> float:
    """Return DMD's share at a latent of so many elements, of which full scale has `full`: share sqrt(elements / full).

    A constant weight does about that. DMD's gradient is of one size an element and divided by their number, so its norm
    falls with the root of that; MMD's fell about with the number itself, on both embedded teachers. One share at all
    scales gives DMD more at the small ones, where layout is decided. In neither the paper nor the authors' code.
    """
    return share * math.sqrt(elements / full)


def sample_norms(gradient: Float[Tensor, "b *s"]) -> Float[Tensor, "b *ones"]:
    """Return the norm of each sample's gradient, of as many axes."""
    axes = tuple(range(1, gradient.ndim))
    norms: Tensor = torch.linalg.vector_norm(full_precision(gradient), dim=axes, keepdim=True)
    return norms
