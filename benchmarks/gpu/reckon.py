"""What the roofline says beside what was measured: of an update, of a forward, of memory."""

import math
from dataclasses import replace
from typing import Any

from benchmarks.gpu.setting import Setting
from benchmarks.training.updates import FAKE
from swd_distill.config import Config
from swd_distill.planning.counts import Counts
from swd_distill.planning.estimate import Estimate
from swd_distill.presets import PRESETS
from swd_distill.training.batches import STUDENT
from swd_schedules import ScaleSchedule

Size = tuple[int, ...]


def estimate(setting: Setting, config: Config, checkpointed: int) -> Estimate | None:
    """Return the plan of a share, if the device's data sheet is known and the model's counts ship."""
    if setting.sheet is None or Counts.shipped(config) is None:
        return None
    return Estimate.of(config, config.training.batch, checkpointed)


def update_seconds(setting: Setting, found: Estimate | None, size: Size, kind: str) -> float | None:
    """Return the seconds of an update by the roofline: the fake model's is what an iteration has beyond the student."""
    if found is None or setting.sheet is None:
        return None
    alone = replace(found.config, recipe=replace(found.config.recipe, fake_updates=0))
    student = found.seconds(setting.sheet, size, alone).total()
    if kind == STUDENT:
        return student
    assert kind == FAKE
    return (found.seconds(setting.sheet, size).total() - student) / found.config.recipe.fake_updates


def steps_seconds(setting: Setting, preset: str, schedule: ScaleSchedule, samples: int) -> float | None:
    """Return the seconds of a schedule's steps by the roofline, if all its sizes were counted."""
    counts = Counts.shipped(replace(PRESETS[preset], schedule=as_text(schedule)))
    if setting.sheet is None or counts is None:
        return None
    works = (counts.plain[size].pieces["forward"].work for size in schedule.sizes)
    return sum(setting.sheet.seconds(work, samples).total() for work in works)


def as_text(schedule: ScaleSchedule) -> str:
    """Write a schedule as a config's."""
    pairs = zip(schedule.timesteps, schedule.sizes, strict=True)
    return ",".join(f"{timestep}:{size_text(size)}" for timestep, size in pairs)


def size_text(size: Size) -> str:
    """Write a size."""
    return "x".join(map(str, size))


def beside(measured: float, reckoned: float | None) -> dict[str, Any]:
    """Return seconds with those of the roofline, and their ratio."""
    ratio = measured / reckoned if reckoned else None
    assert math.isfinite(measured)
    return {"seconds": measured, "roofline s": reckoned, "measured / roofline": ratio}
