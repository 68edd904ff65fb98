"""Parts of a pipeline on a device: all at once where they fit, else one at a time."""

import math
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

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


def place(parts: Sequence[nn.Module], device: torch.device) -> Callable[[], None]:
    """Move parts to a device, and return what clears it: for before and after a use of them.

    Where they do not fit together, each comes when it is called, and the one given before it goes back to the host
    (accelerate's hooks); clearing sends all back, for a use may leave parts out or be given up. Else that does nothing.
    """
    if fits(parts, device):
        for part in parts:
            part.to(device)
        return lambda: None
    from accelerate import cpu_offload_with_hook

    hooks: list[Any] = []
    for part in parts:
        hooks.append(cpu_offload_with_hook(part.to("cpu"), device, hooks[-1] if hooks else None)[1])

    def clear() -> None:
        for hook in hooks:
            hook.offload()

    return clear


def place_pipeline(pipe: Any, device: torch.device, *, together: bool = True) -> bool:
    """Move a pipeline of diffusers to a device: whole where it fits and that is wanted, else each part when it is used.

    Return whether it is there whole.
    """
    parts = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    whole = together and fits(parts, device)
    if whole:
        pipe.to(device)
    else:
        pipe.enable_model_cpu_offload(device=device)
    return whole


def decode_in_tiles(latents: Latents, size: Sequence[int], device: torch.device, batch: int) -> bool:
    """Let an autoencoder decode one at a time, and in tiles, if samples of a latent size do not fit the device.

    Numbers change a little where tiles meet, which diffusers blends. Return whether it does.
    """
    vae, pixels = latents.vae, latents.pixels(size)
    if device.type == "cpu" or not hasattr(vae, "enable_tiling"):
        return False
    needed = math.prod(pixels) * latents.bytes_a_pixel * vae.dtype.itemsize / 4
    if batch * needed <= free_bytes(device):
        return False
    vae.enable_slicing()
    if needed <= free_bytes(device):
        return False
    if hasattr(vae, "tile_latent_min_size"):  # it tiles what is larger than that: by default, than it was trained on
        half = max(pixels[-2:]) // 2
        factor = vae.tile_sample_min_size // vae.tile_latent_min_size
        # Of whole fours of cells: diffusers cuts and joins tiles at a quarter of both sizes.
        vae.tile_latent_min_size = max(1, min(vae.tile_sample_min_size, half) // (4 * factor)) * 4
        vae.tile_sample_min_size = factor * vae.tile_latent_min_size
    vae.enable_tiling()
    return True
