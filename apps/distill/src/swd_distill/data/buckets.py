"""Aspect-ratio buckets: the schedule in other shapes of about the same area."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import gcd, log

from swd_distill.config import Config
from swd_schedules import ScaleSchedule

_ASPECT = re.compile(r"([1-9]\d*):([1-9]\d*)")


@dataclass(frozen=True)
class Bucket:
    """A shape of images.

    Attributes:
        aspect: Width to height, for example 4:3; None is the schedule's own.
        multiple: What divides heights and widths of latents.
    """

    aspect: str | None = None
    multiple: int = 1

    def schedule(self, base: ScaleSchedule) -> ScaleSchedule:
        """Return the schedule in this shape."""
        return base if self.aspect is None else base.reshaped(_ratio(self.aspect), self.multiple)


def buckets_of(config: Config) -> list[Bucket]:
    """Return the buckets of a run, with the least multiple that its model takes; by default, the schedule's own.

    Raises:
        ValueError: an aspect that is not WIDTH:HEIGHT.
    """
    for aspect in config.data.buckets:
        _ratio(aspect)
    multiple = _least_multiple(config.model, config.scales) if config.data.buckets else 1
    return [Bucket(aspect, multiple) for aspect in config.data.buckets] or [Bucket()]


def schedules_of(config: Config) -> list[ScaleSchedule]:
    """Return the schedule in the shape of each bucket."""
    return [bucket.schedule(config.scales) for bucket in buckets_of(config)]


def nearest(schedules: Sequence[ScaleSchedule], width: int, height: int) -> int:
    """Return the index of the schedule whose last size is nearest in aspect: by the ratio's logarithm."""

    def distance(schedule: ScaleSchedule) -> float:
        h, w = schedule.sizes[-1][-2:]
        return abs(log(width / height) - log(w / h))

    return min(range(len(schedules)), key=lambda index: distance(schedules[index]))


def _least_multiple(model: str, base: ScaleSchedule) -> int:
    """Find what must divide sides: the least that the model takes for both; it takes those of the schedule."""
    from swd_models.loading import check_fit  # takes seconds to import

    def fits(side: int) -> bool:
        try:
            check_fit(model, [(*base.sizes[-1][:-2], side, side)])
        except ValueError:
            return False
        return True

    common = reduce(gcd, (side for size in base.sizes for side in size[-2:]))
    return next((side for side in range(1, common) if common % side == 0 and fits(side)), common)


def _ratio(aspect: str) -> float:
    match = _ASPECT.fullmatch(aspect)
    if match is None:
        raise ValueError(f"expected --data.buckets as WIDTH:HEIGHT, for example 4:3, got {aspect!r}")
    return int(match[1]) / int(match[2])
