"""A frozen base in fewer bits: seconds and peak of updates and of sampling beside bf16's, memory beside the plan's."""

from dataclasses import replace
from functools import partial
from statistics import median

import torch

from benchmarks.gpu.devices import forget_peak, free, peak, timed
from benchmarks.gpu.setting import Rows, Setting
from benchmarks.gpu.training import ALONE, FULL, build, sweep
from benchmarks.training.encoding import Drawn
from swd_distill.config import Base, Config
from swd_distill.planning.estimate import mmd_alone
from swd_models import Roles
from swd_schedules import sample_scalewise

BASES: tuple[Base, ...] = ("nf4", "bf16", "int8", "fp8")


def bases(setting: Setting, family: str, rows: Rows) -> None:
    """Update with each loss at the largest size, one sample and all blocks recomputed; sample; base by base."""
    failed = []
    for base in BASES:
        config = setting.config(family, 1)
        config = replace(config, training=replace(config.training, base=base, checkpointing="all"))
        for loss, each in {ALONE: mmd_alone(config), FULL: config}.items():
            try:
                _updated(setting, base, loss, each, rows)
            except torch.AcceleratorError:  # of the device itself, which serves no other base either
                raise
            except Exception as error:  # out of memory, or a library of this base alone
                text = " ".join(str(error).split())[:200]
                rows[f"{base}, {loss}"] = {"not measured": f"{type(error).__name__}: {text}"}
                failed += [] if isinstance(error, torch.OutOfMemoryError) else [error.with_traceback(None)]
            free()
    _compare(rows)
    if failed:
        raise failed[0]


def _updated(setting: Setting, base: str, loss: str, config: Config, rows: Rows) -> None:
    """Share a base for a loss, which decides what else is held beside it."""
    roles, cache = setting.roles(config)
    if loss == ALONE:
        rows[f"{base}, sampling, 1 sample"] = _sampled(setting, config, roles, cache)
    sweep(setting, build(setting, f"{base}, {loss}", config, roles, cache), [len(config.scales.sizes) - 1], rows)


def _sampled(setting: Setting, config: Config, roles: Roles, cache: Drawn) -> dict[str, float | None]:
    """Time a student's steps; the first time is not counted."""
    cond = {name: value.to(setting.device) for name, value in cache.cond([0]).items()}
    run = partial(
        sample_scalewise,
        partial(roles.student.denoise, cond=cond),
        config.scales,
        (1, roles.student.num_channels),
        process=roles.student.process,
        device=setting.device,
    )
    with torch.no_grad():
        run()
        forget_peak()
        seconds = median(timed(run) for _ in range(setting.repeats))
    return {"seconds": seconds, "peak GiB": peak(setting.device)}


def _compare(rows: Rows) -> None:
    """Note what each base's seconds are of bf16's, and the peak of the plan's."""
    for name, row in rows.items():
        whole = rows.get(", ".join(["bf16", *name.split(", ")[1:]]), {})
        if "seconds" in row and "seconds" in whole:
            row["seconds / bf16"] = row["seconds"] / whole["seconds"]
        if row.get("planned GiB") and row.get("peak GiB"):
            row["peak / planned"] = row["peak GiB"] / row["planned GiB"]
