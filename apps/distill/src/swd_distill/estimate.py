"""What a run takes, from counted iterations: FLOPs and their ratios, memory, disk."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Self

from tqdm import tqdm

from swd_distill.config import Config
from swd_distill.cost import Counted, StageCost
from swd_models.loading import cond_shapes, empty_denoiser

Size = tuple[int, ...]
GIB = 2**30


@dataclass(frozen=True)
class Estimate:
    """FLOPs of an iteration at each size of a schedule; `config` tells which losses it was counted with."""

    config: Config
    costs: Mapping[Size, StageCost]
    parameters: Mapping[str, int]
    """As of `Counted.parameters`."""

    @classmethod
    def of(cls, config: Config, share: int = 1) -> Self:
        """Count a config's iteration for a share of a batch, at every size of its schedule.

        FLOPs are quadratic in the number of tokens: three sizes are counted, the others between them follow exactly.
        """
        counted, sizes = Counted(config), sorted(set(config.scales.sizes), key=math.prod)
        three = sizes if len(sizes) < 4 else [sizes[0], sizes[len(sizes) // 2], sizes[-1]]
        found = {size: counted.at(size, share) for size in tqdm(three, desc="count", unit="size", leave=False)}
        costs = {size: found.get(size) or _follow(found, math.prod(size)) for size in sizes}
        return cls(config, costs, counted.parameters())

    @property
    def stages(self) -> list[StageCost]:
        """Return the costs of the steps of the schedule."""
        return [self.costs[size] for size in self.config.scales.sizes]

    @property
    def full(self) -> StageCost:
        """Return the cost of the last step, at full scale."""
        return self.stages[-1]

    def iteration(self, config: Config | None = None) -> float:
        """Return the FLOPs of an iteration for one sample, mean over the stages; also of a config with fewer losses."""
        return sum(cost.flops(config or self.config) for cost in self.stages) / len(self.stages)

    def passes(self) -> dict[str, float]:
        """Return the forwards and backwards of an iteration by role."""
        return self.full.passes(self.config)

    def loss_ratio(self) -> float:
        """Return what the full loss costs over MMD alone (table 5)."""
        return self.iteration() / self.iteration(mmd_alone(self.config))

    def scale_ratio(self, config: Config | None = None) -> float:
        """Return what training costs scale-wise over full scale at every step (table 5)."""
        return self.iteration(config) / self.full.flops(config or self.config)

    def sampling_ratio(self) -> float:
        """Return what sampling costs scale-wise over as many steps at full scale (table 4)."""
        return sum(cost.forward for cost in self.stages) / (len(self.stages) * self.full.forward)

    def memory(self, peak: int) -> dict[str, float]:
        """Return the GiB of a process on a GPU by what holds them: the base is bfloat16, what is trained float32.

        `peak` is that of a `StageCost` at the largest size.
        """
        numbers = self.parameters
        trained = sum(count for name, count in numbers.items() if name != "base")
        kept = {
            "base": 2 * numbers["base"],
            "adapters and head": 4 * trained,
            "optimisers": 8 * trained,
            "average": 4 * numbers["student"] if self.config.training.ema else 0,
            "gradients and activations": peak,
        }
        return {name: size / GIB for name, size in kept.items()}


def _follow(found: Mapping[Size, StageCost], cells: int) -> StageCost:
    """Return the cost at a number of cells of latents, on the parabola through three counted ones."""
    known = {math.prod(size): cost for size, cost in found.items()}
    weights = {one: math.prod(Fraction(cells - other, one - other) for other in known if other != one) for one in known}
    largest = known[max(known)]

    def follow(flops: Mapping[int, int]) -> int:
        return int(sum(weights[one] * flops[one] for one in known))

    pieces = {
        name: replace(piece, flops=follow({one: cost.pieces[name].flops for one, cost in known.items()}), peak=0)
        for name, piece in largest.pieces.items()
    }
    return StageCost(largest.share, follow({one: cost.forward_flops for one, cost in known.items()}), pieces)


def mmd_alone(config: Config) -> Config:
    """Return the config with MMD alone."""
    return replace(config, recipe=replace(config.recipe, dmd_weight=0.0, gan_weight=0.0))


def cache_gib(config: Config) -> dict[str, float]:
    """Return the GiB of the cache by what is in it, on a GPU: bfloat16, every image with a text of its own."""
    channels = empty_denoiser(config.model).num_channels
    latents = channels * sum(math.prod(size) for size in set(config.scales.sizes))
    text = sum(math.prod(shape) for shape in cond_shapes(config.model).values())
    numbers = {"latents": latents, "text": text}
    return {name: 2 * config.data.num_images * count / GIB for name, count in numbers.items()}
