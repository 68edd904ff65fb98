"""Where a run computes: one device a process."""

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from importlib.util import find_spec
from typing import Literal, TypeVar, cast

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor
from torch.distributed import all_reduce

from swd_schedules.devices import check_dtype, default_dtype, find_device, total_bytes, use_device

Result = TypeVar("Result")
SMALL = 21 * 2**30
"""Bytes of an accelerator that is taken for small; those that are sold with 24 GB show up to two less."""
_chosen = "auto"


def choose_device(name: str, dtype: str = "auto") -> None:
    """Let this process compute on a device, with weights of a dtype: before anything asks for one.

    Raises:
        ValueError: this machine has no such device, or it does not compute in that dtype.
    """
    global _chosen
    device = find_device(name)
    if torch.device(name if name != "auto" else "cpu").index is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(f"expected --device without a number in a launch of several processes, got {name}")
    if dtype != "auto":
        check_dtype(getattr(torch, dtype), device)
    use_device(device)
    _chosen = name


def device_and_dtype(dtype: str = "auto") -> tuple[torch.device, torch.dtype]:
    """Return the device, and a dtype of frozen weights; "auto": float32 on the CPU, else bfloat16 where it can."""
    device = find_device(_chosen)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # head and autoencoder are float32: TF32 is near enough for them
    return device, default_dtype(device) if dtype == "auto" else getattr(torch, dtype)


def optimizer_here() -> Literal["adamw", "adamw-8bit"]:
    """Return the optimizer that "auto" means on this device: in 8 bits on a CUDA device of less than 24 GB.

    Only where torchao is there, and triton, with which it compiles its step.
    """
    device, there = find_device(_chosen), all(map(find_spec, ("torchao", "triton")))
    small = device.type == "cuda" and there and total_bytes(device) < SMALL
    return "adamw-8bit" if small else "adamw"


def from_main(value: Result) -> Result:
    """Return the main process's value in each, all of which call this."""
    processes()
    (value,) = broadcast_object_list([value])
    return value


def processes() -> PartialState:
    """Return the state of the processes of this launch; on the CPU too, which accelerate would not look at.

    They wait for one that works alone (samples, checksums) far beyond the usual ten minutes.
    """
    return PartialState(cpu=find_device(_chosen).type == "cpu", timeout=timedelta(hours=6))


def sum_over_processes(tensors: Sequence[Tensor]) -> None:
    """Add up tensors of one dtype over all processes, in place and in one message."""
    if processes().num_processes == 1 or not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    all_reduce(flat)
    for tensor, total in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))


def in_all(call: Callable[[], Result]) -> Result:
    """Call in each process, all of which call this; where it fails in one, all raise its line.

    Raises:
        ValueError: what another process could not do; else what `call` raises.
    """
    own, result = None, None
    try:
        result = call()
    except (ValueError, OSError) as error:
        own = error
    lines = [own and str(own)]
    if processes().num_processes > 1:
        lines = gather_object(lines)
    if own is not None:
        raise own
    if line := next(filter(None, lines), None):
        raise ValueError(line)
    return cast(Result, result)
