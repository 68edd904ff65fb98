"""LoRA files in the forms that people use; the schedule travels in the metadata."""

import json
import re
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from swd_data import is_hub_id, make_folder, reading, whole, write_json
from swd_models.denoiser import Denoiser
from swd_models.experts import NAMES
from swd_models.lora.fused import Adapter, join
from swd_models.lora.hub import download
from swd_models.lora.names import PEFT_PREFIX, shown
from swd_models.lora.originals import originals
from swd_models.lora.scales import CONFIG_KEY, PEFT_CONFIG, alphas_of
from swd_models.lora.state import Lora
from swd_models.lora.tensors import FAMILY_KEY, layers_of, read_tensors, widths_of
from swd_schedules import ScaleSchedule

__all__ = ["FILES", "PEFT_CONFIG", "Form", "Lora", "read_lora", "write_lora"]
Form = Literal["diffusers", "peft", "comfyui", "kohya"]
FILES: dict[Form, str] = {
    "diffusers": "pytorch_lora_weights.safetensors",
    "peft": "adapter_model.safetensors",
    "comfyui": "comfyui_lora.safetensors",
    "kohya": "kohya_lora.safetensors",
}
SCHEDULE_KEY, TOKENS_KEY = "swd_schedule", "swd_text_tokens"


def write_lora(lora: Lora, denoiser: Denoiser, folder: Path | str, form: Form = "diffusers") -> Path:
    """Write adapters of the denoiser's family and return the file.

    "diffusers" is what `pipe.load_lora_weights(folder)` reads, "peft" is a PEFT tree as the authors released,
    "comfyui" has the keys that ComfyUI maps, with an alpha a layer: rank times its scale. "kohya" has the names of the
    model's own code, where several layers may be one: they are joined. Tensors are those of `lora` in every form.

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


def read_lora(path: Path | str, denoiser: Denoiser) -> Lora:
    """Read adapters in any of the forms, from a file, the folder that holds it, or the hub: see `find_lora`.

    What is no plain LoRA of this family is refused by what it is; a line on stderr says what is left out or assumed.

    Raises:
        ValueError: no or a broken file, other names or another model, adapters that are incomplete or no plain LoRA.
    """
    file = find_lora(path)
    state, given, metadata = read_tensors(file, denoiser)
    schedule, ranks = _schedule(file, metadata), Lora(state, 1.0).ranks
    alphas, rslora = alphas_of(file, denoiser, given, metadata, ranks)
    told = {FAMILY_KEY, SCHEDULE_KEY}
    notes = {key: value for key, value in metadata.items() if key.startswith("swd_") and key not in told}
    return Lora.of(state, alphas, schedule, rslora, notes)


def text_tokens_of(path: Path | str) -> int | None:
    """Return the text tokens that a LoRA was trained with, where its header tells.

    Raises:
        ValueError: no LoRA, or no number.
    """
    file = find_lora(path)
    with reading(file, "a safetensors LoRA"), safe_open(file, framework="pt") as handle:
        told = (handle.metadata() or {}).get(TOKENS_KEY)
    if told is None:
        return None
    if not re.fullmatch(r"[0-9]{1,5}", told):
        raise ValueError(f"expected a number as {TOKENS_KEY} of {file}, got {shown(told)!r:.40}: save the LoRA again")
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
        raise ValueError(f"expected a LoRA file, or a folder with {' or '.join(FILES.values())}, got {path}")
    if found[0].name not in FILES.values() and len(found) > 1:
        raise ValueError(f"expected a LoRA file, or a folder with one, got {path} with {len(found)}: name the file")
    return found[0]


def lora_of(path: Path | str, expert: str) -> str:
    """Return where the LoRA of an expert lies in a folder, or hub id, that has one for each; "": the path itself.

    Raises:
        ValueError: a folder or file that has none for it.
    """
    if not expert:
        return str(path)
    if is_hub_id(path, ".safetensors") and str(path).count("/") == 1:
        return f"{path}/{expert}/{FILES['diffusers']}"
    if not (Path(path) / expert).is_dir():
        raise ValueError(f"expected a folder with {' and '.join(NAMES)}, a LoRA in each, got {path}")
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
    layers, ranks, scales, state = layers_of(denoiser), lora.ranks, lora.scales, dict[str, Tensor]()
    for name, among in originals(layers, denoiser).items():
        parts = [_adapter(lora, layer, scales[layer] * ranks[layer]) if layer in ranks else None for layer in among]
        if any(parts):
            down, up, alpha = join(parts, widths_of(among, layers))
            flat = f"lora_unet_{name.replace('.', '_')}"
            state |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up}
            state[f"{flat}.alpha"] = torch.tensor(alpha)
    return state


def _adapter(lora: Lora, layer: str, alpha: float) -> Adapter:
    return Adapter(lora.state[f"{layer}.lora_A.weight"], lora.state[f"{layer}.lora_B.weight"], alpha)


def _config(lora: Lora) -> dict[str, Any]:
    return {key: sorted(value) if isinstance(value, set) else value for key, value in lora.config().to_dict().items()}
