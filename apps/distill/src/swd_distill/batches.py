"""A batch of one stage, drawn from the cache by counters."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from swd_distill.cache import Cache
from swd_distill.streams import integer, normal, uniform
from swd_losses import Recipe
from swd_schedules import ScaleSchedule, Stage, shifted_grid, upscale

# The grid of 28 steps from which the authors draw noise levels (shift 3, applied twice).
GRID = tuple(sigma for sigma in shifted_grid(28) if sigma > 0)


@dataclass(frozen=True)
class Batch:
    """Real latents of one stage; `upscaled` is the previous scale at this one's size (None before the first step)."""

    stage: Stage
    upscaled: Tensor | None
    real: Tensor
    cond: dict[str, Tensor]
    uncond: dict[str, Tensor]


@dataclass(frozen=True)
class Draw:
    """All randomness of one share of an update: a pure function of (seed, step, update) and the global places.

    `places` are those of its samples in the batch of all processes and shares: however a batch is split, each sample is
    the same, and so is the stage, which all shares of an update have in common.
    """

    seed: int
    step: int
    update: str
    places: range

    def stage(self, schedule: ScaleSchedule) -> Stage:
        """Draw the stage, the same for all shares."""
        stages = schedule.stages
        return stages[integer(len(stages), self.seed, self.step, self.update, "stage")]

    def batch(self, cache: Cache, schedule: ScaleSchedule, device: torch.device) -> Batch:
        """Draw the samples of the stage and read them."""
        stage = self.stage(schedule)
        samples = [integer(len(cache), self.seed, self.step, self.update, "sample", i) for i in self.places]
        real = cache.latents(samples, stage.target).to(device)
        upscaled = None
        if stage.index > 0:
            upscaled = upscale(cache.latents(samples, stage.source).to(device), stage.target)
        cond = _to(cache.cond(samples), device)
        uncond = {key: value.expand_as(cond[key]) for key, value in _to(cache.uncond, device).items()}
        return Batch(stage, upscaled, real, cond, uncond)

    def noise(self, name: str, like: Tensor) -> Tensor:
        """Draw noise of the shape of `like` for one purpose."""
        key = (self.step, self.update, name, "noise")
        return normal(self.seed, *key, samples=self.places, shape=tuple(like.shape[1:])).to(like)

    def sigma(self, name: str, interval: tuple[float, float], levels: str, device: torch.device) -> Tensor:
        """Draw one noise level a sample from an interval: anywhere, or among the points of the teacher's grid."""
        key = (self.step, self.update, name, "sigma")
        ratio = uniform(self.seed, *key, samples=self.places)
        if levels == "uniform":
            return (interval[0] + (interval[1] - interval[0]) * ratio).to(device)
        points = torch.tensor(grid_points(interval))
        return points[(ratio * len(points)).long()].to(device)


def grid_points(interval: tuple[float, float]) -> Sequence[float]:
    """Return the points of the teacher's 28-step grid within an interval, both ends included."""
    points = [sigma for sigma in GRID if interval[0] <= sigma <= interval[1]]
    if not points:
        raise ValueError(f"expected an interval that holds points of the 28-step grid, got {interval}: widen it")
    return points


def check_levels(recipe: Recipe) -> None:
    """Raise ValueError for an interval of noise levels that cannot be drawn from."""
    for name in ("mmd_interval", "dmd_interval", "fake_interval", "gan_interval"):
        low, high = getattr(recipe, name)
        if not 0 <= low < high <= 1:
            raise ValueError(f"expected --recipe.{name.replace('_', '-')} as 0 <= low < high <= 1, got {low} {high}")
        if recipe.levels == "grid":
            grid_points((low, high))


def _to(tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {key: value.to(device) for key, value in tensors.items()}
