"""Parts of a pipeline on a device: all at once where they fit, else one at a time."""

from collections.abc import Sequence
from itertools import chain

import torch
from torch import nn

from swd_schedules.devices import free_bytes

ROOM = 0.75
"""Of the free memory: what parts may take, for what they compute needs some too."""


def fits(parts: Sequence[nn.Module], device: torch.device) -> bool:
    """Tell whether parts that are not on a device yet may go there together."""
    tensors = (tensor for part in parts for tensor in chain(part.parameters(), part.buffers()))
    waiting = sum(tensor.nbytes for tensor in tensors if tensor.device != device)
    return device.type == "cpu" or waiting <= ROOM * free_bytes(device)


def place(parts: Sequence[nn.Module], device: torch.device) -> bool:
    """Move parts to a device; tell whether they stay there.

    Where they do not fit together, each comes when it is called, in the order in which they are given, and the one
    before it goes back to the host (accelerate's hooks).
    """
    if fits(parts, device):
        for part in parts:
            part.to(device)
        return True
    from accelerate import cpu_offload_with_hook

    before = None
    for part in parts:
        _, before = cpu_offload_with_hook(part.to("cpu"), device, before)
    return False
