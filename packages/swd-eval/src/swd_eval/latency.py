"""Time per image by appendix G's protocol: warm up, then the mean of 100 runs of a batch of 8, divided by the batch."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from swd_eval.devices import device_name


@dataclass(frozen=True)
class Latency:
    """Seconds per image."""

    mean: float
    median: float
    std: float
    runs: int
    batch: int
    device: str


def measure(
    step: Callable[[], object], *, warmup: int = 10, runs: int = 100, batch: int = 8, device: str = "cuda"
) -> Latency:
    """Time `step`, which makes one batch: prompt to pixels, as the paper's numbers include text encoder and decoder.

    Device events on CUDA, around each run alone; the clock on CPU. Compilation belongs to the warm-up, so warm up with
    the same shapes. The paper: FP16, torch.compile, TinyVAE, an otherwise idle A100.
    """
    if min(runs, batch) < 1 or warmup < 0:
        raise ValueError(f"expected runs and batch of 1 or more, got {runs} and {batch} (warm-up {warmup})")
    for _ in range(warmup):
        step()
    where = torch.device(device)
    time_run = partial(_time_on_device, where) if where.type == "cuda" else _time_by_clock
    seconds = torch.tensor([time_run(step) for _ in range(runs)], dtype=torch.float64) / batch
    std = float(seconds.std()) if runs > 1 else 0.0
    return Latency(float(seconds.mean()), float(seconds.quantile(0.5)), std, runs, batch, device_name(device))


def _time_by_clock(step: Callable[[], object]) -> float:
    """Return the seconds of a step, with what it leaves to an accelerator that has no events of CUDA."""
    _wait()
    start = time.perf_counter()
    step()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def _time_on_device(device: torch.device, step: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize(device)
    start.record(torch.cuda.current_stream(device))  # else that of the current device, which may be another
    step()
    end.record(torch.cuda.current_stream(device))
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000
