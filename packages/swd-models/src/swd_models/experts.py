"""Models that split their noise levels between two denoisers, as Wan2.2-T2V-A14B does: high noise and low noise."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from swd_models.denoiser import Denoiser
from swd_models.prediction import Prediction


class Experts(Denoiser):
    """The denoisers of a model as one, which sends each pass to the expert that knows its noise level.

    A pass has one expert: its noise levels lie on one side of the boundary, as those of a sampler's step do.
    """

    def __init__(self, experts: Sequence[Denoiser]) -> None:
        """Take the denoisers, the noisiest first."""
        first = experts[0]
        super().__init__(
            nn.ModuleList(experts),
            blocks=first.blocks,
            num_channels=first.num_channels,
            num_features=first.num_features,
        )
        self.process, self.guidance = first.process, first.guidance

    @property
    def config(self) -> Mapping[str, Any]:
        """Return the backbones' config, which is the same."""
        return self.experts[0].config

    @property
    def fps(self) -> int | None:
        """Return the frames a second of the videos that the model knows; None: it makes images."""
        return self.experts[0].fps

    @property
    def experts(self) -> Sequence[Denoiser]:
        """Return the denoisers, the noisiest first."""
        return tuple(self.backbone)

    @property
    def layers(self) -> Sequence[nn.Module]:
        """Return the blocks of all experts."""
        return tuple(layer for expert in self.experts for layer in expert.layers)

    @property
    def cond_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of one prompt's embeddings, without the batch."""
        return self.experts[0].cond_shapes

    def checkpoint(self, count: int) -> None:
        """Recompute the first `count` blocks of each pass in backward."""
        for expert in self.experts:
            expert.checkpoint(count)

    def forward(
        self, x_t: Tensor, sigma: Tensor, cond: Mapping[str, Tensor], *, block: int | None = None, stop: bool = False
    ) -> Prediction:
        """Let the expert of these noise levels predict.

        Raises:
            ValueError: noise levels on both sides of the boundary.
        """
        found: Prediction = self._expert_of(sigma)(x_t, sigma, cond, block=block, stop=stop)
        return found

    def guide(self, x_t: Tensor, sigma: Tensor, cond: Tensor, uncond: Tensor, weight: float) -> Tensor:
        """Guide x0 as the expert of these noise levels does."""
        return self._expert_of(sigma).guide(x_t, sigma, cond, uncond, weight)

    def _expert_of(self, sigma: Tensor) -> Denoiser:
        for expert in self.experts:
            low, high = expert.expert.levels
            if bool(((sigma >= low) & ((sigma < high) | (high == 1))).all()):
                return expert
        found = f"{float(sigma.min()):g} to {float(sigma.max()):g}"
        raise ValueError(f"expected noise levels of one expert in a pass, got {found}: split the batch")
