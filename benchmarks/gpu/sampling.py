"""Seconds an image of table 4's rows, plain and compiled block by block."""

from functools import partial
from statistics import median
from typing import Any

import torch

from benchmarks.gpu.devices import forget_peak, peak, timed
from benchmarks.gpu.reckon import steps_seconds
from benchmarks.gpu.setting import Rows, Setting
from benchmarks.latency.models import Model
from benchmarks.latency.paper import TABLE_4
from benchmarks.latency.rows import Row, rows as rows_of
from benchmarks.latency.timing import Span, Stopwatch, count_flops, sample
from benchmarks.provenance import SEED

ROWS, COMPILED = ("scale-4", "full-4", "scale-6", "full-2"), ("scale-4", "full-4")


def plain(setting: Setting, family: str, rows: Rows) -> None:
    """Time a model's rows; their first run is counted, not timed."""
    model, samples = setting.sampler(family), setting.clips if family == "wan" else setting.samples
    found = rows_of(setting.latency[family])
    for name in ROWS:
        run = _run(setting, model, found[name], samples)
        tflop = sum(count_flops(run).values()) / samples / 1e12
        rows[name] = {"samples": samples} | _timed(setting, family, found[name], run, samples)
        rows[name] |= {"TFLOP an image": tflop, "table 4, A100": _paper(setting, family, name)}
    _ratio(rows)


def compiled(setting: Setting, family: str, rows: Rows) -> None:
    """Time rows with each block compiled; their first run compiles."""
    model, samples = setting.sampler(family), setting.clips if family == "wan" else setting.samples
    found = rows_of(setting.latency[family])
    model.compile(len({size for name in COMPILED for size in found[name].schedule.sizes}), setting.backend)
    for name in COMPILED:
        run = _run(setting, model, found[name], samples)
        rows[name] = {"samples": samples, "first run s": timed(run)}
        rows[name] |= _timed(setting, family, found[name], run, samples)
        rows[name] |= {"table 4, A100": _paper(setting, family, name)}
    _ratio(rows)


def _run(setting: Setting, model: Model, row: Row, samples: int) -> Any:
    generator = torch.Generator(setting.device)
    return partial(_seeded, model, row, samples, generator)


def _seeded(model: Model, row: Row, samples: int, generator: torch.Generator, *span: Span) -> torch.Tensor:
    return sample(model, row, samples, generator.manual_seed(SEED), *span)


def _timed(setting: Setting, family: str, row: Row, run: Any, samples: int) -> dict[str, Any]:
    """Return medians of an image's seconds, of the steps and of the rest."""
    watch, found = Stopwatch(setting.device), []
    forget_peak()
    for _ in range(setting.repeats):
        with watch.span("run"):
            run(watch.span)
        found.append(watch.seconds())
    steps = median(_steps(each) for each in found)
    reckoned = steps_seconds(setting, setting.presets[family], row.schedule, samples)
    return {
        "s an image": median(each["run"] for each in found) / samples,
        "text": median(each["text"] for each in found) / samples,
        "decode": median(each["decode"] for each in found) / samples,
        "steps": steps / samples,
        "steps, roofline": reckoned / samples if reckoned else None,
        "measured / roofline": steps / reckoned if reckoned else None,
        "peak GiB": peak(setting.device),
    }


def _steps(seconds: dict[str, float]) -> float:
    return sum(value for name, value in seconds.items() if name.startswith("step"))


def _paper(setting: Setting, family: str, row: str) -> float | None:
    return TABLE_4.get(setting.latency[family], {}).get(row)


def _ratio(rows: Rows) -> None:
    few, many = (rows[name] for name in COMPILED)
    paper = few["table 4, A100"] / many["table 4, A100"] if few["table 4, A100"] else None
    rows["scale-4 / full-4"] = {
        "s an image": few["s an image"] / many["s an image"],
        "steps": few["steps"] / many["steps"],
        "table 4, A100": paper,
    }
