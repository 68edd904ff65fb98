"""What the objectives ask of a model and of a noise process, and what they give back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

__all__ = ["Denoiser", "LossTerms", "NoiseProcess", "Prediction"]


@runtime_checkable
class Prediction(Protocol):
    """Hold what one forward of a denoiser gives."""

    @property
    def x0(self) -> Float[Tensor, "b *s"] | None:
        """The clean latent; None after `stop=True`."""

    @property
    def features(self) -> Float[Tensor, "b l c"] | None:
        """The image tokens after the block asked for; None if none was."""


@runtime_checkable
class Denoiser(Protocol):
    """Predict the clean latent from a noisy one: any callable with this signature."""

    def __call__(
        self,
        x_t: Float[Tensor, "b *s"],
        sigma: Float[Tensor, " b"],
        cond: Mapping[str, Tensor],
        *,
        block: int | None = None,
        stop: bool = False,
    ) -> Prediction:
        """Return x0, and the image-token features of `block`; `stop` runs no block after it and leaves x0 None."""


@runtime_checkable
class NoiseProcess(Protocol):
    """Carry a clean latent to a noise level."""

    def add_noise(
        self, x0: Float[Tensor, "b *s"], noise: Float[Tensor, "b *s"], sigma: Float[Tensor, " b"]
    ) -> Float[Tensor, "b *s"]:
        """Return x_t, for example (1 - sigma) x0 + sigma noise, one level for each sample, any number of axes."""


@dataclass(frozen=True, eq=False)
class LossTerms:
    """Hold the loss to differentiate, and its unweighted parts by name, detached, for the log."""

    total: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]]
