"""What the keys of a LoRA file are: tensors of the model's layers, or what else, which is refused by name."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from swd_models.denoiser import Denoiser
from swd_models.lora.originals import original, originals

PEFT_PREFIX = "base_model.model"
_KEYS = (
    re.compile(r"(?P<layer>.+)\.(lora_(?P<kind>A|B|down|up)(\.[\w-]+)?\.weight|alpha)"),
    # An old diffusers: beside an attention or a layer.
    re.compile(r"(?P<attention>.+)\.processor\.(?P<name>to_(q|k|v|out))_lora\.(?P<kind>down|up)\.weight"),
    re.compile(r"(?P<layer>.+)(\.lora|\.lora_linear_layer|_lora)\.(?P<kind>down|up)\.weight"),
)
MAGNITUDE = re.compile(r"(?P<name>.+)\.(lora_magnitude_vector(\.[\w-]+)?(\.weight)?|dora_scale)")
"""Of a DoRA: how long each row of a weight is."""
_TEXT = re.compile(r"(base_model\.model\.)?(text_encoders?(_\d)?\.|lora_te\d?_)")
_KINDS = {
    "DoRA": r".*(lora_magnitude_vector|dora_scale)(\..*)?",
    "LoKr": r".*\.lokr_[wt]\d.*",
    "LoHa": r".*\.hada_[wt]\d.*",
    "OFT": r".*\.oft_.*",
    "a LoCon of three factors": r".*\.lora_mid(\..*)?",
    "whole weights": r".*\.modules_to_save\..*|.*\.(diff|w_norm|b_norm|set_weight)|(?!.*lora).*\.weight",
    "a LoRA with biases": r".*\.(bias|diff_b)",
}
_MERGED = ("DoRA", "LoKr")


class Place(NamedTuple):
    """Whose tensor one is, and which: "A", "B" or "alpha"."""

    layer: str
    kind: str


class Known(NamedTuple):
    """What a name stands for: layers in the order of their rows, what they are called, and if halves are swapped."""

    among: tuple[str, ...]
    label: str
    swapped: bool = False


class Source(NamedTuple):
    """The key of a tensor, and what its name stands for."""

    key: str
    known: Known


def sources_of(all_keys: list[str], layers: Collection[str], denoiser: Denoiser, file: Path) -> dict[Place, Source]:
    """Return which key of a file is at each place among `layers`; those of text encoders are at none.

    Raises:
        ValueError: other names, no plain LoRA, no layer of the model, or two tensors for one place.
    """
    keys = _without_text(all_keys, file)
    _check_kind(keys, file)
    known = known_names(layers, denoiser)
    found: dict[Place, Source] = {}
    for key in keys:
        name, kind = _split(key)
        if name not in known:
            raise ValueError(
                f"expected a LoRA of this family, got {shown(key)}, which is no layer of the model, in {file}: choose "
                "the model that it was trained for"
            )
        for layer in known[name].among:
            place = Place(layer, kind)
            if place in found:
                twice = f"{found[place].key} and {key}"
                raise ValueError(f"expected one adapter a layer, got {twice} in {file}: keep one of them")
            found[place] = Source(key, known[name])
    return found


def shown(text: str) -> str:
    """Return what a file says as part of a line for the user."""
    return text[:200] if text.isprintable() else ascii(text[:200])


def known_names(layers: Collection[str], denoiser: Denoiser) -> dict[str, Known]:
    """Return what each name stands for: diffusers' own for one layer, those of the model's code for one or several."""
    found: dict[str, Known] = {}
    for layer in layers:
        prefixes = (denoiser.subfolder, PEFT_PREFIX, "diffusion_model")
        names = [layer, denoiser.comfyui_name(layer), *(f"{prefix}.{layer}" for prefix in prefixes)]
        found |= dict.fromkeys(names + _flat(layer), Known((layer,), layer))
    for name, among in originals(layers, denoiser).items():
        known = Known(among, among[0] if len(among) == 1 else name, original(among[0], denoiser).swapped)
        prefixes = (PEFT_PREFIX, "diffusion_model", "model.diffusion_model")
        for each in (name, *(f"{prefix}.{name}" for prefix in prefixes), *_flat(name)):
            found.setdefault(each, known)
    return found


def _flat(name: str) -> list[str]:
    """Return kohya's names, OneTrainer's and LyCORIS's."""
    return [f"{prefix}_{name.replace('.', '_')}" for prefix in ("lora_unet", "lora_transformer", "lycoris")]


def _split(key: str) -> tuple[str, str]:
    """Return the name and the kind of a tensor; "" for what is neither a factor nor an alpha."""
    match = next(filter(None, (pattern.fullmatch(key) for pattern in _KEYS)), None)
    if match is None:
        return "", ""
    parts = match.groupdict()
    kind = {None: "alpha", "down": "A", "up": "B"}.get(parts["kind"], str(parts["kind"]))
    if "attention" not in parts:
        return str(parts["layer"]), kind
    name = {"to_out": "to_out.0"}.get(str(parts["name"]), str(parts["name"]))
    return f"{parts['attention']}.{name}", kind


def is_of_text(key: str) -> bool:
    """Tell whether a key is of a text encoder."""
    return bool(_TEXT.match(key))


def _without_text(keys: list[str], file: Path) -> list[str]:
    rest = [key for key in keys if not is_of_text(key)]
    if not rest:
        found = "adapters of text encoders alone" if keys else "no tensor"
        raise ValueError(f"expected a LoRA of the denoiser, got {found} in {file}: choose another file")
    return rest


def _check_kind(all_keys: list[str], file: Path) -> None:
    found = {kind: [key for key in all_keys if re.fullmatch(e, key, re.DOTALL)] for kind, e in _KINDS.items()}
    for kind, keys in found.items():
        if keys:
            how = "pass it as --teacher-lora or --base-lora, or merge" if kind in _MERGED else "merge"
            raise ValueError(
                f"expected a plain LoRA, got {kind} ({shown(keys[0])}) in {file}, which is not "
                f"supported: {how} it into its model with the tool that made it, and pass that model"
            )
