"""Parts of a pipeline on a device: all at once where they fit, else one at a time."""

import math
from collections.abc import Sequence
from itertools import chain

import torch
from torch import nn

from swd_models.parts import Latents
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


def decode_in_tiles(latents: Latents, size: Sequence[int], device: torch.device) -> bool:
    """Let an autoencoder decode in tiles if one sample of a latent size would not fit the device; tell whether it does.

    Numbers change a little where tiles meet, which diffusers blends.
    """
    if device.type == "cpu" or not hasattr(latents.vae, "enable_tiling"):
        return False
    torch.accelerator.empty_cache()  # what this process keeps of memory that it does not use is free too
    needed = math.prod(latents.pixels(size)) * latents.bytes_a_pixel * latents.vae.dtype.itemsize / 4
    if needed <= free_bytes(device):
        return False
    latents.vae.enable_tiling()
    return True
