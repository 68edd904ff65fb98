"""LoRA files in the forms that people use; the schedule travels in the metadata."""

import json
import math
import re
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from swd_data import is_hub_id, make_folder, reading, whole, write_json
from swd_models.denoiser import Denoiser
from swd_models.known.facts import EXPERTS
from swd_models.lora.fused import Factors, join
from swd_models.lora.hub import download
from swd_models.lora.names import MAGNITUDE, PEFT_PREFIX, shown
from swd_models.lora.originals import original, originals
from swd_models.lora.scales import CONFIG_KEY, PEFT_CONFIG, alphas_of
from swd_models.lora.state import Lora
from swd_models.lora.tensors import FAMILY_KEY, by_layer, layers_of, read_tensors, widths_of
from swd_schedules import ScaleSchedule

__all__ = ["FILES", "PEFT_CONFIG", "Form", "Lora", "read_lora", "write_lora"]
Form = Literal["diffusers", "peft", "comfyui", "kohya"]
FILES: dict[Form, str] = {
    "diffusers": "pytorch_lora_weights.safetensors",
    "peft": "adapter_model.safetensors",
    "comfyui": "comfyui_lora.safetensors",
    "kohya": "kohya_lora.safetensors",
}
SCHEDULE_KEY, TOKENS_KEY, STEPS_KEY = "swd_schedule", "swd_text_tokens", "swd_steps"


def write_lora(lora: Lora, denoiser: Denoiser, folder: Path | str, form: Form = "diffusers") -> Path:
    """Write adapters of the denoiser's family and return the file.

    "diffusers" is what `pipe.load_lora_weights(folder)` reads, "peft" is a PEFT tree as the authors released,
    "comfyui" has the keys that ComfyUI maps, with an alpha a layer: rank times its scale. "kohya" has the names of the
    model's own code, where several layers may be one: they are joined, with zeros between them. Tensors are those of
    `lora` in every other form, and in this one where joined layers have one scale.

    Raises:
        OSError: it cannot be written; what was there before stays.
    """
    folder = Path(folder)
    make_folder(folder)
    state, metadata = _named(lora, denoiser, form), {"format": "pt", FAMILY_KEY: denoiser.family, **lora.notes}
    if lora.schedule is not None:
        metadata[SCHEDULE_KEY] = lora.schedule.to_json()
    if form == "diffusers":
        packed = {f"{denoiser.subfolder}.{key}": value for key, value in _config(lora).items()}
        metadata[CONFIG_KEY] = json.dumps(packed, sort_keys=True)
    path = folder / FILES[form]
    with whole(path) as temporary:
        save_file({key: value.detach().cpu().contiguous() for key, value in state.items()}, temporary, metadata)
    if form == "peft":
        write_json(folder / PEFT_CONFIG, dict(sorted(_config(lora).items())))
    return path


def read_lora(path: Path | str, denoiser: Denoiser, *, dora: bool = False) -> Lora:
    """Read adapters in any of the forms, from a file, the folder that holds it, or the hub: see `find_lora`.

    What is no plain LoRA of this family is refused by what it is; a line on stderr says what is left out or assumed.
    With `dora` the lengths of a DoRA are passed over: see `merge_dora`.

    Raises:
        ValueError: no or a broken file, other names or another model, adapters that are incomplete or no plain LoRA.
    """
    file = find_lora(path)
    adapters, metadata = read_tensors(file, denoiser, MAGNITUDE if dora else None)
    schedule, ranks = _schedule(file, metadata), {each.label: each.rank for each in adapters}
    given = {each.label: each.alpha for each in adapters if each.alpha is not None}
    told_alphas, rslora = alphas_of(file, denoiser, given, metadata, ranks, dora=dora)
    state, alphas = dict[str, Tensor](), dict[str, float]()
    for adapter in adapters:  # layers that are one in the file are cut apart, each as strong as the whole
        for layer, factors in by_layer(adapter, denoiser).items():
            state |= {f"{layer}.lora_A.weight": factors.down, f"{layer}.lora_B.weight": factors.up}
            share = len(factors.down) / adapter.rank
            alphas[layer] = told_alphas[adapter.label] * (math.sqrt(share) if rslora else share)
    told = {FAMILY_KEY, SCHEDULE_KEY}
    notes = {key: value for key, value in metadata.items() if key.startswith("swd_") and key not in told}
    return Lora.of(state, alphas, schedule, rslora, notes)


def schedule_of(path: Path | str) -> ScaleSchedule | None:
    """Return the schedule that a LoRA carries in its header, if it does.

    Raises:
        ValueError: no LoRA, or no schedule that can be read.
    """
    file = find_lora(path)
    with reading(file, "a safetensors LoRA"), safe_open(file, framework="pt") as handle:
        return _schedule(file, handle.metadata() or {})


def text_tokens_of(path: Path | str) -> int | None:
    """Return the text tokens that a LoRA was trained with, where its header tells.

    Raises:
        ValueError: no LoRA, or no number.
    """
    return _number(find_lora(path), TOKENS_KEY)


def steps_of(path: Path | str) -> int | None:
    """Return the iterations after which a LoRA was saved, where its header tells.

    Raises:
        ValueError: no LoRA, or no number.
    """
    return _number(find_lora(path), STEPS_KEY)


def _number(file: Path, key: str) -> int | None:
    with reading(file, "a safetensors LoRA"), safe_open(file, framework="pt") as handle:
        told = (handle.metadata() or {}).get(key)
    if told is None:
        return None
    if not re.fullmatch(r"[0-9]{1,12}", told):
        raise ValueError(f"expected a number as {key} of {file}, got {shown(told)!r:.40}: save the LoRA again")
    return int(told)


def find_lora(path: Path | str) -> Path:
    """Return the LoRA file of a path: itself, or the one in the folder; OWNER/NAME of the hub is downloaded.

    Raises:
        ValueError: there is none, or several of which none has a usual name.
    """
    path = download(str(path), (*FILES.values(), PEFT_CONFIG)) if is_hub_id(path, ".safetensors") else Path(path)
    if path.is_file():
        return path
    found = [path / name for name in FILES.values() if (path / name).is_file()]
    found = found or [file for file in path.glob("*.safetensors") if file.is_file() and file.name[0] != "."]
    if not found:
        what = "holds no .safetensors" if path.exists() else "does not exist: check the path"
        raise ValueError(f"expected a LoRA file, or a folder with one, got {path}, which {what}")
    if found[0].name not in FILES.values() and len(found) > 1:
        raise ValueError(f"expected a LoRA file, or a folder with one, got {path} with {len(found)}: name the file")
    return found[0]


def lora_of(path: Path | str, expert: str) -> str:
    """Return where the LoRA of an expert lies in a folder that has one for each; "": the path itself.

    Of a repository of the hub it is diffusers' form that is taken.

    Raises:
        ValueError: a folder or file that has none for it.
    """
    if not expert:
        return str(path)
    if is_hub_id(path, ".safetensors") and str(path).count("/") == 1:
        return f"{path}/{expert}/{FILES['diffusers']}"
    if not (Path(path) / expert).is_dir():
        raise ValueError(f"expected a folder with {' and '.join(EXPERTS)}, a LoRA in each, got {path}")
    return str(Path(path) / expert)


def _schedule(file: Path, metadata: dict[str, str]) -> ScaleSchedule | None:
    if not metadata.get(SCHEDULE_KEY):
        return None
    try:
        return ScaleSchedule.from_json(metadata[SCHEDULE_KEY])
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"expected a schedule as {SCHEDULE_KEY} of {file}, got none: {shown(str(error))}") from error


def _named(lora: Lora, denoiser: Denoiser, form: Form) -> dict[str, Tensor]:
    """Return the tensors under a form's names; alphas among them are over the rank, whatever the LoRA did."""
    if form == "kohya":
        return _kohya(lora, denoiser)
    if form != "comfyui":
        prefix = denoiser.subfolder if form == "diffusers" else PEFT_PREFIX
        return {f"{prefix}.{key}": value for key, value in lora.state.items()}
    ranks, state = lora.ranks, {}
    for layer, scale in lora.scales.items():
        name = denoiser.comfyui_name(layer)
        state[f"{name}.lora_down.weight"] = lora.state[f"{layer}.lora_A.weight"]
        state[f"{name}.lora_up.weight"] = lora.state[f"{layer}.lora_B.weight"]
        state[f"{name}.alpha"] = torch.tensor(scale * ranks[layer])
    return state


def _kohya(lora: Lora, denoiser: Denoiser) -> dict[str, Tensor]:
    """Return the tensors under kohya's names: those of the model's own code, with underscores."""
    layers, scales, state = layers_of(denoiser), lora.scales, dict[str, Tensor]()
    for name, among in originals(layers, denoiser).items():
        parts = [_factors(lora, layer) if layer in scales else None for layer in among]
        if not any(parts):
            continue
        (down, up), scale = join(parts, [scales.get(layer, 1.0) for layer in among], widths_of(among, layers))
        flat = f"lora_unet_{name.replace('.', '_')}"
        up = torch.cat(up.chunk(2)[::-1]) if original(among[0], denoiser).swapped else up
        state |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up}
        state[f"{flat}.alpha"] = torch.tensor(scale * len(down))
    return state


def _factors(lora: Lora, layer: str) -> Factors:
    return Factors(lora.state[f"{layer}.lora_A.weight"], lora.state[f"{layer}.lora_B.weight"])


def _config(lora: Lora) -> dict[str, Any]:
    return {key: sorted(value) if isinstance(value, set) else value for key, value in lora.config().to_dict().items()}
