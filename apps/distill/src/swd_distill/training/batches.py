"""A batch of one stage, drawn from the cache by counters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from swd_distill.data.cache import Cache
from swd_distill.data.streams import integer, normal, uniform
from swd_losses import Recipe
from swd_schedules import ScaleSchedule, Stage, shifted_grid, upscale

# The grid of 28 steps from which the authors draw noise levels (shift 3, applied twice).
GRID = tuple(sigma for sigma in shifted_grid(28) if sigma > 0)
STUDENT = "student"  # the update of that name; the others are the fake model's
LOSSES = ("mmd", "dmd", "gan")
INTERVALS = ("mmd_interval", "dmd_interval", "fake_interval", "gan_interval")


@dataclass(frozen=True)
class Batch:
    """All that one share of an update needs, but for the networks: one stage, samples, noise and noise levels.

    Attributes:
        upscaled: The previous scale at this one's size; None before the first step.
        noise: By purpose, each of the shape of `real`: "input", and the losses'.
        sigma: The losses' noise levels (B,), by purpose.
    """

    stage: Stage
    upscaled: Tensor | None
    real: Tensor
    cond: dict[str, Tensor]
    noise: dict[str, Tensor]
    sigma: dict[str, Tensor]

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        return self.changed(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> "Batch":
        """Return the batch in memory that a device reads while it computes."""
        return self.changed(lambda tensor: tensor.pin_memory() if tensor.device.type == "cpu" else tensor)

    def changed(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """Return the batch with all its tensors changed."""

        def each(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: change(tensor) for name, tensor in tensors.items()}

        upscaled = None if self.upscaled is None else change(self.upscaled)
        return Batch(self.stage, upscaled, change(self.real), each(self.cond), each(self.noise), each(self.sigma))


@dataclass(frozen=True)
class Draw:
    """One share of an update, by name: all its randomness is a pure function of (seed, step, update) and the places.

    `places` are those of its samples in the batch of all processes and shares: however a batch is split, each sample is
    the same, and so are stage and bucket, which all shares of an update have in common. `levels` are those that the
    model knows: its stages are within them.
    """

    seed: int
    step: int
    update: str
    places: range
    levels: tuple[float, float] = (0.0, 1.0)

    def batch(self, cache: Cache, schedule: ScaleSchedule, recipe: Recipe) -> Batch:
        """Draw bucket, stage, samples, noise and levels, and read the samples."""
        from swd_models.parts import trim  # imports diffusers: not for a plan

        bucket, among = cache.buckets[self.bucket(cache)]
        stage, key = self.stage(bucket.schedule(schedule), recipe), (self.seed, self.step, self.update, "sample")
        samples = [among[integer(len(among), *key, i)] for i in self.places]
        real, cond = cache.latents(samples, stage.target), trim(cache.cond(samples))
        upscaled = None
        if stage.index > 0:
            upscaled = upscale(cache.latents(samples, stage.source), stage.target, schedule.upscaler)
        return self.noised(Batch(stage, upscaled, real, cond, {}, {}), recipe)

    def noised(self, batch: Batch, recipe: Recipe) -> Batch:
        """Return the batch with the noise and the levels of this draw."""
        wanted = intervals(recipe, self.update)
        noise = {name: self.noise(name, batch.real) for name in ("input", *wanted)}
        sigma = {name: self.sigma(name, interval, recipe.levels) for name, interval in wanted.items()}
        if recipe.gan_sample == "dmd" and "gan" in wanted:
            noise["gan"], sigma["gan"] = noise["dmd"], sigma["dmd"]
        return replace(batch, noise=noise, sigma=sigma)

    def bucket(self, cache: Cache) -> int:
        """Draw the bucket, the same for all shares, in proportion to its samples."""
        sample = integer(len(cache), self.seed, self.step, self.update, "bucket")
        return next(index for index, (_, among) in enumerate(cache.buckets) if sample in among)

    def stage(self, schedule: ScaleSchedule, recipe: Recipe) -> Stage:
        """Draw the stage, the same for all shares; or take that whose turn it is, the same for a whole iteration."""
        stages = schedule.within(*self.levels)
        if recipe.stages == "cycle":
            return stages[self.step % len(stages)]
        return stages[integer(len(stages), self.seed, self.step, self.update, "stage")]

    def noise(self, name: str, like: Tensor) -> Tensor:
        """Draw noise of the shape of `like` for one purpose."""
        key = (self.step, self.update, name, "noise")
        return normal(self.seed, *key, samples=self.places, shape=tuple(like.shape[1:]))

    def sigma(self, name: str, interval: tuple[float, float], levels: str) -> Tensor:
        """Draw one noise level a sample from an interval: anywhere, or among the points of the teacher's grid."""
        key = (self.step, self.update, name, "sigma")
        ratio = uniform(self.seed, *key, samples=self.places)
        if levels == "uniform":
            return interval[0] + (interval[1] - interval[0]) * ratio
        points = torch.tensor(grid_points(interval))
        return points[(ratio * len(points)).long()]


def intervals(recipe: Recipe, update: str) -> dict[str, tuple[float, float]]:
    """Return the intervals of noise levels that an update draws from: the student's losses, or the fake model's one."""
    if update != STUDENT:
        return {"fake": recipe.fake_interval}
    return {name: getattr(recipe, f"{name}_interval") for name in LOSSES if getattr(recipe, f"{name}_weight")}


def recipe_within(recipe: Recipe, levels: tuple[float, float]) -> Recipe:
    """Return a recipe whose losses draw noise levels that an expert knows.

    An interval is cut to them. Where nothing is left, it is the same share of them: with a boundary at .875, MMD's
    [0, .6] is [.875, .95] for the high-noise expert, the lower part, where it sees most.

    Raises:
        ValueError: the images that MMD compares have no noise, which this expert does not know.
    """
    if levels == (0.0, 1.0):
        return recipe
    if not recipe.mmd_noised and levels[0] > 0:
        raise ValueError(
            "expected --recipe.mmd-noised for a model of two experts, got --recipe.no-mmd-noised: leave it out, for "
            "the high-noise expert knows no image without noise"
        )
    changes: dict[str, Any] = {name: _within(getattr(recipe, name), levels) for name in INTERVALS}
    return replace(recipe, **changes)


def _within(interval: tuple[float, float], levels: tuple[float, float]) -> tuple[float, float]:
    (first, last), width = levels, levels[1] - levels[0]
    low, high = max(interval[0], first), min(interval[1], last)
    return (low, high) if low < high else (first + width * interval[0], first + width * interval[1])


def grid_points(interval: tuple[float, float]) -> Sequence[float]:
    """Return the points of the teacher's 28-step grid within an interval, both ends included."""
    points = [sigma for sigma in GRID if interval[0] <= sigma <= interval[1]]
    if not points:
        raise ValueError(f"expected an interval that holds points of the 28-step grid, got {interval}: widen it")
    return points


def check_levels(recipe: Recipe) -> None:
    """Raise ValueError for an interval of noise levels that cannot be drawn from."""
    for name in INTERVALS:
        low, high = getattr(recipe, name)
        if not 0 <= low < high <= 1:
            raise ValueError(f"expected --recipe.{name.replace('_', '-')} as 0 <= low < high <= 1, got {low} {high}")
        if recipe.levels == "grid" and not any(low <= sigma <= high for sigma in GRID):
            raise ValueError(
                f"expected --recipe.{name.replace('_', '-')} to hold one of the teacher's 28 noise levels, got {low:g} "
                f"{high:g}: widen it, or pass --recipe.levels uniform"
            )
