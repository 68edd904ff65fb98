"""Runs in turn, by appendix G's protocol, and where their time goes."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.latency.models import Model
from benchmarks.latency.rows import Row
from swd_eval.latency import measure
from swd_schedules import sample_scalewise

Span = Callable[[str], AbstractContextManager[object]]


class Stopwatch:
    """Seconds of spans by name: device events on a GPU, which nothing waits for; the clock on the CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._spans: list[tuple[str, Any, Any]] = []

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Time what is done inside."""
        start = self._mark()
        yield
        self._spans.append((name, start, self._mark()))

    def seconds(self) -> dict[str, float]:
        """Return the sum of each name's spans, and forget them."""
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        found: dict[str, float] = {}
        for name, start, end in self._spans:
            spent = start.elapsed_time(end) / 1000 if self._device.type == "cuda" else end - start
            found[name] = found.get(name, 0.0) + spent
        self._spans.clear()
        return found

    def _mark(self) -> Any:
        if self._device.type != "cuda":
            if self._device.type != "cpu":
                torch.accelerator.synchronize()
            return time.perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


@torch.no_grad()
def sample(model: Model, row: Row, batch: int, generator: torch.Generator, span: Span = nullcontext) -> Tensor:
    """Make a batch from prompts to pixels: spans "text", "sampling", in it "step 0" and so on, "decode"."""
    denoiser, counter = model.denoiser, iter(range(len(row.schedule.sizes)))
    guidance = row.guidance if denoiser.guidance is None else None  # FLUX is told its guidance in one pass
    with span("text"):
        cond = model.text(batch)
        uncond = {key: value.expand_as(cond[key]) for key, value in model.text(1).items()} if guidance else {}

    def denoise(x_t: Tensor, sigma: Tensor) -> Tensor:
        with span(f"step {next(counter)}"):
            x0 = denoiser.denoise(x_t, sigma, cond)
            return torch.lerp(denoiser.denoise(x_t, sigma, uncond), x0, guidance) if guidance else x0

    with span("sampling"):
        x0 = sample_scalewise(
            denoise,
            row.schedule,
            (batch, denoiser.num_channels),
            process=denoiser.process,
            generator=generator,
            device=generator.device,
        )
    with span("decode"):
        return model.decode(x0)


def time_in_turn(
    runs: Mapping[str, Callable[[], object]], *, warmup: int, count: int, batch: int, device: torch.device
) -> dict[str, list[float]]:
    """Warm all up, then time them in turn, so that what else the machine does meets all alike; seconds an image."""
    for run in runs.values():
        for _ in range(warmup):
            run()
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(count):
        for name, run in runs.items():
            found[name].append(measure(run, warmup=0, runs=1, batch=batch, device=str(device)).mean)
    return found


def split_in_turn(
    runs: Mapping[str, Callable[[Span], object]], *, count: int, device: torch.device
) -> dict[str, dict[str, float]]:
    """Return the median seconds of each run's parts, runs taken in turn.

    "run" is the whole, "resize and noise" what sampling does between steps, "between parts" what is none of them.
    """
    watch = Stopwatch(device)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    for _ in range(count):
        for name, run in runs.items():
            with watch.span("run"):
                run(watch.span)
            found[name].append(_with_rests(watch.seconds()))
    return {name: {key: median(one[key] for one in each) for key in each[0]} for name, each in found.items()}


def _with_rests(seconds: dict[str, float]) -> dict[str, float]:
    sampling, run = seconds.pop("sampling"), seconds["run"]
    resizing = sampling - sum(value for name, value in seconds.items() if name.startswith("step"))
    between = run - sampling - seconds["text"] - seconds["decode"]
    return seconds | {"resize and noise": resizing, "between parts": between}


def count_flops(run: Callable[[Span], object]) -> dict[str, int]:
    """Count the FLOPs of a run's parts, on the device and before anything is compiled."""
    found: dict[str, int] = {}

    @contextmanager
    def span(name: str) -> Iterator[None]:
        if name == "sampling":  # its steps are counted; resizing and noise have no matrix product
            yield
            return
        with FlopCounterMode(display=False) as counter:
            yield
        found[name] = int(counter.get_total_flops())

    run(span)
    return found


def busy_seconds(run: Callable[[], object]) -> float:
    """Return the seconds in which the GPU computes in a run: the rest are gaps, in which the host is late."""
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        run()
        torch.cuda.synchronize()
    return float(sum(event.self_device_time_total for event in found.key_averages()) / 1e6)


def peak_gib(run: Callable[[], object]) -> float:
    """Return the peak memory of a run on a GPU, with the weights."""
    torch.cuda.reset_peak_memory_stats()
    run()
    return float(torch.cuda.max_memory_allocated() / 2**30)
