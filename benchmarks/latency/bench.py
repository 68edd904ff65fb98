"""One model's rows: seconds an image, parts, FLOPs, memory."""

from collections.abc import Callable, Mapping
from functools import partial
from statistics import mean, median, stdev
from typing import Any

import torch

from benchmarks.latency.models import Model
from benchmarks.latency.rows import Row
from benchmarks.latency.timing import busy_seconds, count_flops, peak_gib, sample, split_in_turn, time_in_turn
from benchmarks.provenance import SEED, data_sheet, machine

MOST_SPLITS = 10  # runs for the split by part, apart from those that are timed


def bench(model: Model, rows: Mapping[str, Row], *, batch: int, runs: int, compiled: bool) -> dict[str, Any]:
    """Time a model's rows in turn, then split them by part; return the record."""
    device = next(model.denoiser.parameters()).device
    on_gpu = device.type == "cuda"
    generator = torch.Generator(device)
    splits = {name: partial(_seeded, model, row, batch, generator) for name, row in rows.items()}
    flops = {name: count_flops(run) for name, run in splits.items()}
    if compiled:
        model.compile(len({size for row in rows.values() for size in row.schedule.sizes}))
    warmup, count = min(10, max(1, runs // 10)), min(runs, MOST_SPLITS)
    seconds = time_in_turn(splits, warmup=warmup, count=runs, batch=batch, device=device)
    parts = split_in_turn(splits, count=count, device=device)
    found = {name: _row(row, seconds[name], parts[name], flops[name], batch, on_gpu) for name, row in rows.items()}
    for name, run in splits.items():
        if on_gpu:
            found[name] |= _on_gpu(found[name], run, batch)
    record = {"weights": model.weights, "parameters": model.parameters, "runs": runs, "warmup": warmup, "splits": count}
    paired = median(few / many for few, many in zip(seconds["scale-4"], seconds["full-4"], strict=True))
    return record | {"rows": found, "ratio": ratio(found["scale-4"], found["full-4"], paired)}


def _seeded(model: Model, row: Row, batch: int, generator: torch.Generator, *span: Any) -> torch.Tensor:
    return sample(model, row, batch, generator.manual_seed(SEED), *span)


def _row(
    row: Row, seconds: list[float], parts: dict[str, float], flops: dict[str, int], batch: int, on_gpu: bool
) -> dict[str, Any]:
    """Return what was measured; a step that the row has more than were run is taken to be as the last."""
    sizes = row.schedule.sizes
    steps = [f"step {index}" for index in range(len(sizes))]
    more, last = row.steps - len(sizes), steps[-1]
    spent = {name: value / batch for name, value in parts.items() if name != "run"}
    std = stdev(seconds) if len(seconds) > 1 else 0.0
    usual = mean(seconds) if on_gpu else median(seconds)  # appendix G's mean is of a machine that does nothing else
    return {
        "sizes": sizes,
        "steps": row.steps,
        "guidance": row.guidance,
        "measured": {"mean": mean(seconds), "median": median(seconds), "std": std},
        "seconds": usual + more * spent[last],
        "parts": spent,
        "flops": {name: count / batch for name, count in flops.items()},
        "tflop": (sum(flops.values()) + more * flops[last]) / batch / 1e12,
    }


def _on_gpu(row: dict[str, Any], run: Callable[[], object], batch: int) -> dict[str, Any]:
    """Return what only a GPU has: FLOP/s, the share of its peak, the share of gaps between its kernels, memory."""
    rate, sheet = row["tflop"] / row["seconds"], data_sheet(machine())
    return {
        "tflops": rate,
        "share of peak": rate / sheet.half if sheet else None,
        "host gaps": max(0.0, 1 - busy_seconds(run) / (row["measured"]["mean"] * batch)),
        "peak_gib": peak_gib(run),
    }


def ratio(few: Mapping[str, Any], many: Mapping[str, Any], seconds: float) -> dict[str, float]:
    """Compare a ratio of seconds, scale-wise over full scale, with that of steps' FLOPs and what is no step added.

    `expected` = (overhead + steps x FLOP ratio) / (overhead + steps), both those of full scale.
    """
    steps, flops = _steps(many["parts"]), _steps(few["flops"]) / _steps(many["flops"])
    overhead = sum(many["parts"].values()) - steps
    expected = (overhead + steps * flops) / (overhead + steps)
    return {
        "flops": flops,
        "overhead": overhead / (overhead + steps),
        "expected": expected,
        "seconds": seconds,
        "off": seconds / expected - 1,
    }


def _steps(parts: Mapping[str, float]) -> float:
    return sum(value for name, value in parts.items() if name.startswith("step"))
