"""LoKr files of LyCORIS (arXiv 2309.14859): a weight's change as a Kronecker product, which is merged whole.

No pair of factors of a small rank computes it, so it cannot be a student, nor stay apart from its base.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from swd_models.denoiser import Denoiser
from swd_models.lora.names import Known, is_of_text, known_names, shown
from swd_models.lora.tensors import layers_of, widths_of

_KEY = re.compile(r"(?P<name>.+)\.(?P<part>lokr_w[12](_[ab])?|alpha)")
_SIDES = ("lokr_w1", "lokr_w2")


def is_lokr(file: Path) -> bool:
    """Tell whether a safetensors file has Kronecker factors."""
    try:
        with safe_open(file, framework="pt") as handle:
            return any(".lokr_" in key for key in handle.keys())  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError):
        return False  # which says so when it is read


def check_lokr(file: Path, denoiser: Denoiser) -> None:
    """Raise ValueError for factors that are not of the model's layers, reading none of their numbers."""
    _factors(file, denoiser)


@torch.no_grad()
def merge_lokr(denoiser: Denoiser, file: Path, weight: float = 1.0) -> None:
    """Add `weight` times what a file changes to the weights, in float32, and cast back.

    Raises:
        ValueError: as `check_lokr`, or numbers that are not finite.
    """
    factors, layers = _factors(file, denoiser), layers_of(denoiser)
    for known, delta in _deltas(file, factors):
        if not bool(delta.isfinite().all()):
            raise ValueError(f"expected finite numbers, got nan or inf for {known.among[0]} in {file}: train again")
        delta = torch.cat(delta.chunk(2)[::-1]) if known.swapped else delta
        for layer, rows in zip(known.among, torch.split(delta, widths_of(known.among, layers)), strict=True):
            own = layers[layer].weight
            assert isinstance(own, Tensor)
            own.copy_((own.float() + weight * rows.to(own.device).view(own.shape)).to(own.dtype))


def _factors(file: Path, denoiser: Denoiser) -> dict[Known, dict[str, str]]:
    """Return the key of each factor, by the layers whose rows it is."""
    layers, found = layers_of(denoiser), defaultdict[Known, dict[str, str]](dict)
    known, num_left = known_names(layers, denoiser), 0
    with safe_open(file, framework="pt") as handle:
        shapes = {key: tuple(handle.get_slice(key).get_shape()) for key in handle.keys()}  # noqa: SIM118
    for key in shapes:
        if is_of_text(key):
            num_left += 1
            continue
        match = _KEY.fullmatch(key)
        if match is None:
            raise ValueError(f"expected Kronecker factors and alphas alone, got {shown(key)} in {file}: not supported")
        if match["name"] not in known:
            raise ValueError(
                f"expected a LoKr of this family, got {shown(key)}, which is no layer of the model, in {file}: choose "
                "the model that it was trained for"
            )
        found[known[match["name"]]][match["part"]] = key
    for name, keys in found.items():
        _check(name.among, {part: shapes[key] for part, key in keys.items()}, layers, file)
    if num_left:
        print(f"left out {num_left} tensors of text encoders in {file}: they stay as they are", file=sys.stderr)
    return dict(found)


def _check(
    among: tuple[str, ...], shapes: Mapping[str, tuple[int, ...]], layers: Mapping[str, nn.Module], file: Path
) -> None:
    """Raise ValueError for factors that are missing, or whose product is not of the layer's size."""
    sides: list[tuple[int, ...]] = []
    for side in _SIDES:
        if side in shapes:
            sides.append(shapes[side])
        elif f"{side}_a" in shapes and f"{side}_b" in shapes:
            first, second = shapes[f"{side}_a"], shapes[f"{side}_b"]
            sides.append((first[0], second[1]) if len(first) == len(second) == 2 and first[1] == second[0] else ())
        else:
            raise ValueError(f"expected {side}, or its two factors, of {among[0]} in {file}: the file is incomplete")
    weight = layers[among[0]].weight
    assert isinstance(weight, Tensor)
    wanted = (sum(widths_of(among, layers)), weight[0].numel())
    if any(len(side) != 2 for side in sides) or tuple(map(prod, zip(*sides, strict=True))) != wanted:
        raise ValueError(
            f"expected a product of {wanted[0]}x{wanted[1]} for {among[0]}, got factors of {sides} in {file}: it "
            "belongs to another model, or has kernels, which are not supported"
        )


def _deltas(file: Path, factors: Mapping[Known, Mapping[str, str]]) -> Iterator[tuple[Known, Tensor]]:
    """Compute w1 (x) w2 for each layer; alpha / rank counts where a factor is itself a product, as in LyCORIS."""
    with safe_open(file, framework="pt") as handle:
        for known, keys in factors.items():
            parts = {part: handle.get_tensor(key).float() for part, key in keys.items()}
            ranks = [len(parts[f"{side}_b"]) for side in _SIDES if f"{side}_b" in parts]
            scale = parts["alpha"].item() / ranks[-1] if ranks and "alpha" in parts else 1.0
            first, second = (
                parts[side] if side in parts else parts[f"{side}_a"] @ parts[f"{side}_b"] for side in _SIDES
            )
            yield known, scale * torch.kron(first, second)
