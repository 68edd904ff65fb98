"""The tensors of a LoRA file: opened, named, checked against the model's layers, and read."""

import math
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from swd_models.denoiser import Denoiser
from swd_models.lora.fused import Factors, cut
from swd_models.lora.names import Known, Place, Source, shown, sources_of

FAMILY_KEY = "swd_family"
MAX_RANK = 4096
_KINDS = nn.Linear | nn.Conv2d | nn.Conv3d
"""Of layers that may have adapters."""
_FLOATS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
_WHOLE = {"I8", "I16", "I32", "I64", "U8"}


class Adapter(NamedTuple):
    """Of a layer, or of several that are one in the file: what it is called, and the alpha, if it has one."""

    label: str
    among: tuple[str, ...]
    factors: Factors
    alpha: float | None

    @property
    def rank(self) -> int:
        """Return the rank, before it is cut."""
        return len(self.factors.down)


def read_tensors(
    file: Path, denoiser: Denoiser, apart: re.Pattern[str] | None = None
) -> tuple[list[Adapter], dict[str, str]]:
    """Return the adapters as they are in a file, and the metadata of its header.

    Keys that match `apart` are passed over. A line on stderr says that adapters of text encoders are left out.

    Raises:
        ValueError: no safetensors file, another family or width, no plain or whole LoRA, or numbers that are none.
    """
    layers = layers_of(denoiser)
    try:
        with safe_open(file, framework="pt") as handle:
            metadata: dict[str, str] = handle.metadata() or {}
            named = metadata.get(FAMILY_KEY, denoiser.family)
            if named != denoiser.family:
                raise ValueError(f"expected a LoRA for {denoiser.family}, got one for {shown(named)} in {file}")
            keys = [key for key in handle.keys() if not (apart and apart.fullmatch(key))]  # noqa: SIM118 (no mapping)
            sources = _check({key: handle.get_slice(key) for key in keys}, layers, denoiser, file)
            tensors = {source.key: handle.get_tensor(source.key) for source in sources.values()}
            num_left = len(keys) - len(tensors)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"expected a safetensors LoRA, got {file}: {shown(str(error))}: download or convert it again"
        ) from error
    for (layer, kind), source in sources.items():
        if kind != "alpha" and not bool(tensors[source.key].float().isfinite().all()):
            raise ValueError(
                f"expected finite numbers, got nan or inf in lora_{kind} of {layer} in {file}: train again"
            )
    if num_left:
        print(f"left out {num_left} tensors of text encoders in {file}: they stay as they are", file=sys.stderr)
    return [_adapter(known, sources, tensors) for known in _wholes(sources)], metadata


def _wholes(sources: Mapping[Place, Source]) -> list[Known]:
    return list(dict.fromkeys(source.known for place, source in sources.items() if place.kind == "B"))


def _adapter(known: Known, sources: Mapping[Place, Source], tensors: Mapping[str, Tensor]) -> Adapter:
    first = known.among[0]
    down, up = (tensors[sources[Place(first, kind)].key] for kind in "AB")
    alpha = sources.get(Place(first, "alpha"))
    up = torch.cat(up.chunk(2)[::-1]) if known.swapped else up
    number = tensors[alpha.key].double().item() if alpha else None
    return Adapter(known.label, known.among, Factors(down, up), number)


def by_layer(adapter: Adapter, denoiser: Denoiser) -> dict[str, Factors]:
    """Return the factors of each layer of an adapter, kernels shaped as the layer's; what adds nothing is left out."""
    layers, among = layers_of(denoiser), adapter.among
    parts = cut(adapter.factors, widths_of(among, layers)) if len(among) > 1 else [adapter.factors]
    found = {}
    for layer, part in zip(among, parts, strict=True):
        if part is not None:
            kernels = (_sides(layers[layer], kind)[1] for kind in "AB")
            shaped = (each.reshape(*each.shape[:2], *kernel) for each, kernel in zip(part, kernels, strict=True))
            found[layer] = Factors(*shaped)
    return found


def layers_of(denoiser: Denoiser) -> dict[str, nn.Module]:
    """Return the layers that may have adapters, whether they have some already or not."""
    return {
        name.removesuffix(".base_layer"): layer
        for name, layer in denoiser.backbone.named_modules()
        if isinstance(layer, _KINDS) and ".lora_" not in name
    }


def widths_of(among: Sequence[str], layers: Mapping[str, nn.Module]) -> list[int]:
    """Return how many rows each layer has of a factor that several share."""
    return [_sides(layers[layer], "B")[0] for layer in among]


def _check(
    slices: Mapping[str, Any], layers: Mapping[str, nn.Module], denoiser: Denoiser, file: Path
) -> dict[Place, Source]:
    """Return the keys at the places; what the header tells is checked before any tensor is read."""
    shapes = {key: tuple(part.get_shape()) for key, part in slices.items()}
    sources = sources_of(list(shapes), layers, denoiser, file)
    found: dict[Place, tuple[int, ...]] = {}
    for place, (key, known) in sources.items():
        among, other = (
            known.among,
            next(sources[each].known for each in (Place(place.layer, "B"), place) if each in sources),
        )
        if other != known:
            raise ValueError(
                f"expected all tensors of {known.label} under one name, got {shown(key)} and those of {other.label} in "
                f"{file}: get it again"
            )
        dtype, allowed = slices[key].get_dtype(), _FLOATS | (_WHOLE if place.kind == "alpha" else set())
        if dtype not in allowed:
            raise ValueError(f"expected floating-point numbers in {key}, got {dtype} in {file}: save it as BF16 or F32")
        found[place] = shapes[key]
        if place.kind == "B" and len(among) > 1:
            widths = widths_of(among, layers)
            if shapes[key][:1] != (sum(widths),):
                raise ValueError(
                    f"expected {sum(widths)} rows in {shown(key)}, of {', '.join(among)}, got shape {shapes[key]}: "
                    f"{file} belongs to another model"
                )
            found[place] = (widths[among.index(place.layer)], *shapes[key][1:])
    for place in sorted(found):
        _check_whole(place.layer, found, file)
        _check_shape(place, found[place], layers[place.layer], file, MAX_RANK * len(sources[place].known.among))
    for layer in {place.layer for place in found}:
        down, up = found[Place(layer, "A")], found[Place(layer, "B")]
        if down[0] != up[1]:
            raise ValueError(f"expected one rank in {layer}, got lora_A {down}, lora_B {up} in {file}: get it again")
    return sources


def _check_whole(layer: str, found: Collection[Place], file: Path) -> None:
    for kind in "AB":
        if Place(layer, kind) not in found:
            raise ValueError(
                f"expected lora_A and lora_B of every layer, got {layer} without lora_{kind} in {file}: the file is "
                "incomplete, get it again"
            )


def _check_shape(place: Place, shape: tuple[int, ...], layer: nn.Module, file: Path, most: int) -> None:
    name = f"{place.kind if place.kind == 'alpha' else f'lora_{place.kind}'} of {place.layer}"
    if place.kind == "alpha":
        if math.prod(shape) != 1:
            raise ValueError(f"expected one number as {name}, got shape {shape} in {file}: train or convert it again")
        return
    expected, kernel = _sides(layer, place.kind)
    if len(shape) < 2 or _without_ones(shape[2:]) != _without_ones(kernel):
        what = f"a kernel of {'x'.join(map(str, kernel))}" if kernel else "a matrix"
        raise ValueError(f"expected {what} as {name}, got shape {shape} in {file}: train or convert it again")
    rank, width = shape[:2] if place.kind == "A" else shape[1::-1]
    if width != expected:
        raise ValueError(f"expected width {expected} in {name}, got {width}: {file} belongs to another model")
    if not 1 <= rank <= most:
        raise ValueError(f"expected a rank in 1..{most}, got {rank} in {name} in {file}: train or convert it again")


def _sides(layer: nn.Module, kind: str) -> tuple[int, tuple[int, ...]]:
    """Return the width and the kernel that a factor of a layer must have; a matrix has no kernel."""
    if isinstance(layer, nn.Linear):
        return (layer.in_features if kind == "A" else layer.out_features), ()
    assert isinstance(layer, nn.Conv2d | nn.Conv3d)
    if kind == "A":
        return layer.in_channels, layer.kernel_size
    return layer.out_channels, (1,) * len(layer.kernel_size)


def _without_ones(kernel: tuple[int, ...]) -> tuple[int, ...]:
    """Drop sides of 1 at the end: tools write a matrix as a kernel of 1x1, and the other way round."""
    while kernel and kernel[-1] == 1:
        kernel = kernel[:-1]
    return kernel
