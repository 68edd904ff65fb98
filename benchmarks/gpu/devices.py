"""The device that is measured: its memory, and when it is done."""

import gc
import time
from collections.abc import Callable

import torch

from swd_distill.training.log import peak_gib


def free() -> None:
    """Give back the memory of what is no longer held, and forget what was compiled."""
    torch._dynamo.reset()
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def forget_peak() -> None:
    """Let the peak of memory begin again."""
    if torch.accelerator.is_available():
        torch.accelerator.reset_peak_memory_stats()


def peak(device: torch.device) -> float | None:
    """Return the peak of tensors on the device in GiB; None on the CPU, which does not tell them from all else."""
    return None if device.type == "cpu" else peak_gib(device)


def timed(run: Callable[[], object]) -> float:
    """Return the seconds of a call, with what it leaves to the device, from when that has nothing else to do."""
    _wait()
    began = time.perf_counter()
    run()
    _wait()
    return time.perf_counter() - began


def _wait() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
