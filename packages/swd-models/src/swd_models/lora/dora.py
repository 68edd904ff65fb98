"""DoRA files (arXiv 2402.09353): a LoRA, and how long each row of the weights is with it; merged whole.

The weight is `m (W + scale B A) / norm(W + scale B A)`, with a norm and a length m of each row, or of each column in
files of LyCORIS that say so by their shape. Its base's weights are in it: a student cannot be one.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from swd_models.denoiser import Denoiser
from swd_models.lora.files import read_lora
from swd_models.lora.names import MAGNITUDE, is_of_text, known_names, shown
from swd_models.lora.state import Lora
from swd_models.lora.tensors import layers_of, widths_of

_SMALL = 1e-12


def is_dora(file: Path) -> bool:
    """Tell whether a safetensors file has lengths of rows or columns."""
    try:
        with safe_open(file, framework="pt") as handle:
            return any(MAGNITUDE.fullmatch(key) for key in handle.keys())  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError):
        return False  # which says so when it is read


def check_dora(file: Path, denoiser: Denoiser, weight: float = 1.0) -> tuple[Lora, dict[str, Tensor]]:
    """Return the adapters of a DoRA and the lengths of each layer; raise ValueError where it could not be merged."""
    if weight != 1.0:
        raise ValueError(f"expected a DoRA without a weight, got {weight:g} for {file}: leave :{weight:g} out")
    return read_lora(file, denoiser, dora=True), _lengths(file, denoiser)


@torch.no_grad()
def merge_dora(denoiser: Denoiser, file: Path, weight: float = 1.0) -> None:
    """Give the weights what a file makes of them, in float32, and cast back.

    Raises:
        ValueError: one that is broken, or not of the model's layers; another `weight` than 1, for tools do not agree
            on what half of one is.
    """
    (lora, lengths), layers = check_dora(file, denoiser, weight), layers_of(denoiser)
    for layer in {*lora.layers, *lengths}:
        own = layers[layer].weight
        assert isinstance(own, Tensor)
        whole = own.float() + _delta(lora, layer, own)
        if layer in lengths:
            length = lengths[layer].to(own.device)
            over = tuple(axis for axis, side in enumerate(length.shape) if side == 1)
            whole *= length / torch.linalg.vector_norm(whole, dim=over, keepdim=True).clamp(min=_SMALL)
        own.copy_(whole.to(own.dtype))


def _delta(lora: Lora, layer: str, own: Tensor) -> Tensor:
    """Return `scale B A` in the shape of a weight; zeros for a layer that has lengths alone."""
    if layer not in lora.ranks:
        return torch.zeros_like(own, dtype=torch.float32)
    down, up = (lora.state[f"{layer}.lora_{kind}.weight"].float().to(own.device) for kind in "AB")
    return lora.scales[layer] * (up.flatten(1) @ down.flatten(1)).view(own.shape)


def _lengths(file: Path, denoiser: Denoiser) -> dict[str, Tensor]:
    """Return the lengths of each layer's rows (out, 1, ...) or columns (1, in, 1, ...), as many axes as its weight."""
    layers, found = layers_of(denoiser), dict[str, Tensor]()
    known = known_names(layers, denoiser)
    with safe_open(file, framework="pt") as handle:
        for key in handle.keys():  # noqa: SIM118 (no mapping)
            match = MAGNITUDE.fullmatch(key)
            if match is None or is_of_text(key):
                continue
            if match["name"] not in known:
                raise ValueError(
                    f"expected a DoRA of this family, got {shown(key)}, which is no layer of the model, in {file}: "
                    "choose the model that it was trained for"
                )
            name, length = known[match["name"]], handle.get_tensor(key).float()
            if not bool(length.isfinite().all()):
                raise ValueError(f"expected finite numbers, got nan or inf in {shown(key)} in {file}: train again")
            if not length.ndim or not key.endswith("dora_scale"):  # PEFT's are of rows, whatever their shape
                length = length.flatten()
            if name.swapped and len(length) > 1:
                length = torch.cat(length.chunk(2)[::-1])
            found |= _by_layer(length, name.among, layers, f"{shown(key)} in {file}")
    return found


def _by_layer(length: Tensor, among: tuple[str, ...], layers: Mapping[str, nn.Module], where: str) -> dict[str, Tensor]:
    """Cut the lengths of rows by the layers that are one in a file; those of columns are of one layer."""
    widths, weight = widths_of(among, layers), layers[among[0]].weight
    assert isinstance(weight, Tensor)
    by_rows = length.shape[0] > 1 or weight.shape[1] == 1
    if by_rows and length.numel() == len(length) == sum(widths):
        ones = [1] * (weight.ndim - 1)
        parts = torch.split(length.flatten(), widths)
        return {layer: part.view(-1, *ones) for layer, part in zip(among, parts, strict=True)}
    if not by_rows and len(among) == 1 and length.numel() == weight.shape[1]:
        return {among[0]: length.view(1, -1, *[1] * (weight.ndim - 2))}
    if not by_rows and len(among) > 1:
        raise ValueError(
            f"expected lengths of rows for layers that are one in the file, got those of columns as {where}"
        )
    raise ValueError(
        f"expected {sum(widths)} lengths of rows, or {weight.shape[1]} of columns as (1, {weight.shape[1]}), got "
        f"shape {tuple(length.shape)} as {where}: it belongs to another model"
    )
