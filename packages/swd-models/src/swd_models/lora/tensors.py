"""The tensors of a LoRA file: opened, named, checked against the model's layers, and read."""

import math
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from swd_models.denoiser import Denoiser
from swd_models.lora.fused import Adapter, cut
from swd_models.lora.names import Place, Source, shown, sources_of

FAMILY_KEY = "swd_family"
MAX_RANK = 4096
_KINDS = nn.Linear | nn.Conv2d | nn.Conv3d
"""Of layers that may have adapters."""
_FLOATS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
_WHOLE = {"I8", "I16", "I32", "I64", "U8"}


def read_tensors(file: Path, denoiser: Denoiser) -> tuple[dict[str, Tensor], dict[str, float], dict[str, str]]:
    """Return the adapters by layer, the alphas among the tensors by layer, and the metadata of the header.

    A line on stderr says that adapters of text encoders are left out.

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
            sources = _check(handle, layers, denoiser, file)
            tensors = {source.key: handle.get_tensor(source.key) for source in sources.values()}
            num_left = len(handle.keys()) - len(tensors)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"expected a safetensors LoRA, got {file}: {shown(str(error))}: download or convert it again"
        ) from error
    for (layer, kind), source in sources.items():
        if kind != "alpha" and not bool(tensors[source.key].float().isfinite().all()):
            raise ValueError(
                f"expected finite numbers, got nan or inf in lora_{kind} of {layer} in {file}: train again"
            )
    state, alphas = _by_layer(sources, tensors, layers)
    if num_left:
        print(f"left out {num_left} tensors of text encoders in {file}: they stay as they are", file=sys.stderr)
    return state, alphas, metadata


def _by_layer(
    sources: Mapping[Place, Source], tensors: Mapping[str, Tensor], layers: Mapping[str, nn.Module]
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return factors and alphas by layer: what several share is cut apart."""
    state, alphas = dict[str, Tensor](), dict[str, float]()
    for among in dict.fromkeys(source.among for source in sources.values()):
        down, up = (tensors[sources[Place(among[0], kind)].key] for kind in "AB")
        alpha = sources.get(Place(among[0], "alpha"))
        whole = Adapter(down, up, tensors[alpha.key].double().item() if alpha else None)
        parts = cut(whole, widths_of(among, layers)) if len(among) > 1 else [whole]
        for layer, part in zip(among, parts, strict=True):
            if part is None:
                continue
            for kind, tensor in (("A", part.down), ("B", part.up)):
                _, kernel = _sides(layers[layer], kind)
                state[f"{layer}.lora_{kind}.weight"] = tensor.reshape(*tensor.shape[:2], *kernel)
            if part.alpha is not None:
                alphas[layer] = part.alpha
    return state, alphas


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


def _check(handle: Any, layers: Mapping[str, nn.Module], denoiser: Denoiser, file: Path) -> dict[Place, Source]:
    """Return the keys at the places; what the header tells is checked before any tensor is read."""
    slices = {key: handle.get_slice(key) for key in handle.keys()}  # noqa: SIM118 (no mapping)
    shapes = {key: tuple(part.get_shape()) for key, part in slices.items()}
    sources = sources_of(list(shapes), layers, denoiser, file)
    found: dict[Place, tuple[int, ...]] = {}
    for place, (key, among) in sources.items():
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
        _check_shape(place, found[place], layers[place.layer], file)
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


def _check_shape(place: Place, shape: tuple[int, ...], layer: nn.Module, file: Path) -> None:
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
    if not 1 <= rank <= MAX_RANK:
        raise ValueError(f"expected a rank in 1..{MAX_RANK}, got {rank} in {name} in {file}: train or convert it again")


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
