"""The adversarial loss on features of the fake model: appendix A, in the softplus form of DMD2."""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from swd_losses.choices import HeadPool
from swd_losses.precision import full_precision

__all__ = ["DiscriminatorHead", "discriminator_loss", "generator_loss", "gradient_penalty"]


class DiscriminatorHead(nn.Module):
    """Judge images by their tokens: 4 x [LayerNorm, GELU, Linear], widths linspace(channels, 1, 5).

    `pool="tokens"` averages the tokens before the first layer, as the authors' code does; "logits" runs the layers on
    each token and averages what they say, which sees more than the mean. The paper names neither. Computes in float32.
    """

    def __init__(self, channels: int, *, pool: HeadPool = "tokens") -> None:
        super().__init__()
        if channels < 5:
            # The last LayerNorm would be over one channel, which makes a constant of it.
            raise ValueError(f"expected at least 5 channels, got {channels}; take a wider block")
        if pool not in ("tokens", "logits"):
            raise ValueError(f'expected pool "tokens" or "logits", got {pool!r}; the authors use "tokens"')
        self.pool, self.channels = pool, channels
        widths = [int(channels + (1 - channels) * i / 4) for i in range(5)]
        layers = [(nn.LayerNorm(before), nn.GELU(), nn.Linear(before, after)) for before, after in pairwise(widths)]
        self.layers = nn.Sequential(*(layer for group in layers for layer in group))

    def forward(self, features: Float[Tensor, "n l c"]) -> Float[Tensor, " n"]:
        """Return one logit an image, high for real.

        Raises:
            ValueError: features of another width than the head's.
        """
        width = self.channels
        if features.shape[-1] != width:
            raise ValueError(
                f"expected features of {width} channels, got {features.shape[-1]}: build the head for them"
            )
        # Autocast would run the layers in half precision.
        with torch.autocast(features.device.type, enabled=False):
            tokens = full_precision(features)
            if self.pool == "tokens":
                tokens = tokens.mean(1, keepdim=True)
            logits: Tensor = self.layers(tokens)
        return logits.mean((1, 2))


def generator_loss(fake_logits: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Ask that generated images be judged real: mean softplus(-D(fake)), the non-saturating loss."""
    return F.softplus(-full_precision(fake_logits)).mean()


def discriminator_loss(real_logits: Float[Tensor, " n"], fake_logits: Float[Tensor, " m"]) -> Float[Tensor, ""]:
    """Ask that real and generated be told apart: mean softplus(D(fake)) + mean softplus(-D(real))."""
    return F.softplus(full_precision(fake_logits)).mean() + F.softplus(-full_precision(real_logits)).mean()


def gradient_penalty(
    head: Callable[[Float[Tensor, "n l c"]], Float[Tensor, " n"]], real_features: Float[Tensor, "n l c"]
) -> Float[Tensor, ""]:
    """Penalise the slope of the head at real features: R1, mean_n |dD/dF[n]|^2 / 2 (Mescheder et al. 2018).

    In neither the paper nor the authors' code. The features are held constant: the penalty trains the head alone, so no
    second derivative runs through the transformer.
    """
    with torch.enable_grad():
        features = full_precision(real_features).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(head(features).sum(), features, create_graph=True)
    return gradient.square().sum((1, 2)).mean() / 2
