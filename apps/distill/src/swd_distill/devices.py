"""Where a run computes."""

from collections.abc import Sequence
from datetime import timedelta

import torch
from accelerate import PartialState
from torch import Tensor
from torch.distributed import all_reduce


def device_and_dtype() -> tuple[torch.device, torch.dtype]:
    """Return the device, and the dtype of frozen weights there: bfloat16 on a GPU, float32 on the CPU."""
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision(
            "high"
        )  # adapters are float32: TF32 keeps them from costing more than the base
        return torch.device("cuda", torch.cuda.current_device()), torch.bfloat16
    return torch.device("cpu"), torch.float32


def processes() -> PartialState:
    """Return the state of the processes of this launch; on the CPU too, which accelerate would not look at.

    They wait for one that works alone (samples, checksums) far beyond the usual ten minutes.
    """
    return PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(hours=6))


def sum_over_processes(tensors: Sequence[Tensor]) -> None:
    """Add up tensors of one dtype over all processes, in place and in one message."""
    if processes().num_processes == 1 or not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    all_reduce(flat)
    for tensor, total in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))
