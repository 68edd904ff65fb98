"""What the keys of a LoRA file are: tensors of the model's layers, or what else, which is refused by name."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from swd_models.denoiser import Denoiser

PEFT_PREFIX = "base_model.model"
_KEY = re.compile(r"(?P<layer>.+)\.(lora_(?P<kind>A|B|down|up)(\.[\w-]+)?\.weight|alpha)")
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
_KOHYA = r"(lora_unet|lora_transformer|lycoris)_"
_STYLES = {
    "kohya names of BFL layers (fused qkv)": rf"{_KOHYA}(double|single)_blocks_.*",
    "LDM names": r"(.*[._])?(input_blocks|middle_block|output_blocks)[._]\d.*",
    # Of diffusers' layers with underscores SDXL's are read, as ComfyUI does: another U-Net's are another family's.
    "kohya names": rf"{_KOHYA}(?!(down_blocks|mid_block|up_blocks)_).*",
    "BFL names (fused qkv)": r"(.*\.)?(double|single)_blocks\.\d.*",
    "SD3's original names (fused qkv)": r"(.*\.)?joint_blocks\.\d.*",
    "Wan's original names": r"blocks\.\d+\.(self_attn|cross_attn|ffn)\..*",
    "names of an old diffusers": r".*(\.processor\.|_lora\.|\.lora\.|\.lora_linear_layer\.).*",
}


class Place(NamedTuple):
    """Whose tensor one is, and which: "A", "B" or "alpha"."""

    layer: str
    kind: str


def places_of(all_keys: list[str], layers: Iterable[str], denoiser: Denoiser, file: Path) -> dict[str, Place]:
    """Return the place among `layers` of each key of a file, but for the keys of text encoders.

    Raises:
        ValueError: other names, no plain LoRA, no layer of the model, or two tensors for one place.
    """
    keys = _without_text(all_keys, file)
    _check_kind(keys, file)
    known = {name: layer for layer in layers for name in _names(layer, denoiser)}
    places: dict[Place, str] = {}
    for key in keys:
        place = _place(key, known)
        if place is None:
            raise _unknown(key, file)
        if place in places:
            raise ValueError(f"expected one adapter a layer, got {places[place]} and {key} in {file}: keep one of them")
        places[place] = key
    return {key: place for place, key in places.items()}


def shown(text: str) -> str:
    """Return what a file says as part of a line for the user."""
    return text[:200] if text.isprintable() else ascii(text[:200])


def _names(layer: str, denoiser: Denoiser) -> tuple[str, ...]:
    return layer, f"{denoiser.subfolder}.{layer}", f"{PEFT_PREFIX}.{layer}", denoiser.comfyui_name(layer)


def _place(key: str, known: Mapping[str, str]) -> Place | None:
    match = _KEY.fullmatch(key)
    layer = known.get(match["layer"]) if match else None
    if match is None or layer is None:
        return None
    return Place(layer, {None: "alpha", "down": "A", "up": "B"}.get(match["kind"], match["kind"]))


def _without_text(keys: list[str], file: Path) -> list[str]:
    rest = [key for key in keys if not _TEXT.match(key)]
    if not rest:
        found = "adapters of text encoders alone" if keys else "no tensor"
        raise ValueError(f"expected a LoRA of the denoiser, got {found} in {file}: choose another file")
    return rest


def _check_kind(all_keys: list[str], file: Path) -> None:
    found = {kind: [key for key in all_keys if re.fullmatch(e, key, re.DOTALL)] for kind, e in _KINDS.items()}
    for kind, keys in found.items():
        if keys:
            raise ValueError(
                f"expected a plain LoRA, got {kind} ({shown(keys[0])}) in {file}, which is not "
                "supported: merge it into its model with the tool that made it, and pass that model"
            )


def _unknown(key: str, file: Path) -> ValueError:
    for style, pattern in _STYLES.items():
        if re.fullmatch(pattern, key, re.DOTALL):
            return ValueError(
                f"expected names of diffusers' layers, got {style} ({shown(key)}) in {file}: convert it by diffusers, "
                "with pipe.load_lora_weights, then pipe.save_lora_weights and the adapter's metadata (its alphas)"
            )
    return ValueError(
        f"expected a LoRA of this family, got {shown(key)}, which is no layer of the model, in {file}: choose the "
        "model that it was trained for"
    )
