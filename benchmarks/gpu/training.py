"""Updates of student and fake model at each stage, and what table 5 makes of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from statistics import median
from typing import Any

import torch

from benchmarks.cost import TABLE_5
from benchmarks.gpu.devices import forget_peak, free, peak
from benchmarks.gpu.reckon import beside, estimate, size_text, update_seconds
from benchmarks.gpu.setting import Rows, Setting
from benchmarks.training.encoding import Drawn
from benchmarks.training.updates import Fed, kinds, steps_at, timed, update
from swd_distill.config import Config
from swd_distill.planning.estimate import Estimate, mmd_alone
from swd_models import Roles

FULL, ALONE = "full loss", "MMD alone"
SCALEWISE, FULL_SCALE = "scale-wise", "full scale"
MOST, ENOUGH = 5, 2.0
"""Times and seconds that an update is timed for on a GPU: a short one is shaken more by the host."""


@dataclass(frozen=True)
class Case:
    """A trainer over a share of a batch, with its plan, if there is one."""

    name: str
    trainer: Fed
    plan: Estimate | None
    checkpointed: int

    def label(self, stage: int, kind: str) -> str:
        """Name an update."""
        share = self.trainer.config.training.batch
        return f"{self.name}, {share} sample(s), step {stage + 1}: {kind} update"


def build(setting: Setting, name: str, config: Config, roles: Roles, cache: Drawn) -> Case:
    """Build a trainer; with MMD alone it has no fake model."""
    head = None
    if config.recipe.gan_weight:
        head = config.recipe.head(roles.teacher.num_features).to(setting.device)
    if not config.needs_fake:
        roles = Roles(roles.teacher, roles.student, None)
    checkpointed = setting.recompute(config, roles)
    return Case(name, Fed(config, cache, roles, head), estimate(setting, config, checkpointed), checkpointed)


def sweep(setting: Setting, case: Case, stages: Iterable[int], rows: Rows) -> None:
    """Time each kind of update at stages; the first time is not counted."""
    trainer = case.trainer
    for stage in stages:
        size = trainer.schedule.sizes[stage]
        for kind in kinds(trainer):
            steps = steps_at(trainer, kind, stage)
            update(trainer, kind, next(steps))
            forget_peak()
            found = [timed(trainer, kind, next(steps)) for _ in range(setting.repeats)]
            while len(found) < MOST and sum(seconds for seconds, _ in found) < ENOUGH and setting.repeats > 1:
                found.append(timed(trainer, kind, next(steps)))
            row = beside(median(seconds for seconds, _ in found), update_seconds(setting, case.plan, size, kind))
            finite = all(isfinite(value) for _, metrics in found for value in metrics.values())
            rows[case.label(stage, kind)] = (
                {"size": size_text(size)} | row | _memory(setting, case, stage) | {"finite": finite}
            )


def _memory(setting: Setting, case: Case, stage: int) -> dict[str, Any]:
    """Return the peak, and that of the plan, which is of the largest size."""
    last = stage == len(case.trainer.schedule.sizes) - 1
    planned = case.plan.total() if case.plan and last else None
    return {"peak GiB": peak(setting.device), "planned GiB": planned, "blocks recomputed": case.checkpointed}


def updates(setting: Setting, rows: Rows) -> None:
    """Time one student and one fake update at each stage, the largest first."""
    config = setting.config("sd3", setting.samples)
    roles, cache = setting.roles(config)
    case = build(setting, FULL, config, roles, cache)
    sweep(setting, case, reversed(range(len(config.scales.sizes))), rows)


def table_5(setting: Setting, family: str, shares: Iterable[int], rows: Rows) -> None:
    """Time the full loss with ever more samples until they do not fit, then the other stages, then MMD alone."""
    configs = [setting.config(family, share) for share in shares]
    roles, cache = setting.roles(configs[0])
    *others, last = range(len(configs[0].scales.sizes))
    largest = None
    for config in configs:
        try:
            sweep(setting, build(setting, FULL, config, roles, cache), [last], rows)
            largest = config
        except (torch.OutOfMemoryError, ValueError) as error:  # what the device says, what the plan says
            rows[f"{FULL}, {config.training.batch} sample(s)"] = {"not measured": " ".join(str(error).split())[:200]}
            break
        finally:
            free()
    if largest is None:
        return
    case = build(setting, FULL, largest, roles, cache)
    sweep(setting, case, reversed(others), rows)
    full = iterations(setting, case, rows)
    del case
    roles = Roles(roles.teacher, roles.student, None)  # or its adapters stay on the device
    free()
    case = build(setting, ALONE, mmd_alone(largest), roles, cache)
    sweep(setting, case, [last, *reversed(others)], rows)
    _compare(setting.presets[family], full, iterations(setting, case, rows), rows)


def iterations(setting: Setting, case: Case, rows: Rows) -> dict[str, dict[str, Any]]:
    """Note an iteration, scale-wise and at full scale, where each step is as the last."""
    times, sizes = kinds(case.trainer), case.trainer.schedule.sizes
    by_stage = [sum(n * rows[case.label(i, kind)]["seconds"] for kind, n in times.items()) for i in range(len(sizes))]
    measured = {SCALEWISE: sum(by_stage) / len(by_stage), FULL_SCALE: by_stage[-1]}
    planned: dict[str, float] = {}
    if case.plan and setting.sheet:
        full = case.plan.seconds(setting.sheet, sizes[-1]).total()
        planned = {SCALEWISE: case.plan.mean_seconds(setting.sheet), FULL_SCALE: full}
    found = {scale: beside(seconds, planned.get(scale)) for scale, seconds in measured.items()}
    share = case.trainer.config.training.batch
    rows |= {f"{case.name}, {share} sample(s), iteration, {scale}": row for scale, row in found.items()}
    return found


def _compare(preset: str, full: Mapping[str, Any], alone: Mapping[str, Any], rows: Rows) -> None:
    """Note the ratios of table 5."""
    paper = TABLE_5.get(preset, ())
    pairs = {
        f"{SCALEWISE} / {FULL_SCALE}, {FULL}": (full[SCALEWISE], full[FULL_SCALE], (0, 2)),
        f"{SCALEWISE} / {FULL_SCALE}, {ALONE}": (alone[SCALEWISE], alone[FULL_SCALE], (1, 3)),
        f"{FULL} / {ALONE}, {SCALEWISE}": (full[SCALEWISE], alone[SCALEWISE], (0, 1)),
    }
    for what, (one, other, (i, j)) in pairs.items():
        planned = one["roofline s"] / other["roofline s"] if one["roofline s"] else None
        rows[what] = {
            "ratio": one["seconds"] / other["seconds"],
            "roofline ratio": planned,
            "table 5": paper[i] / paper[j] if paper else None,
        }
