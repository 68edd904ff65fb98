"""What every denoiser returns."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Prediction:
    """The clean latent (None where a sub-forward stopped early) and the features of the block asked for."""

    x0: Tensor | None
    features: Tensor | None
