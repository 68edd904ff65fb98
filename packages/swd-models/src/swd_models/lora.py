"""Adapters: targets, saving and loading with the schedule in the metadata."""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from swd_models.sd3 import LORA_TARGETS, SD3Denoiser
from swd_schedules import ScaleSchedule

Form = Literal["diffusers", "peft"]
DIFFUSERS_FILE, PEFT_FILE = "pytorch_lora_weights.safetensors", "adapter_model.safetensors"
PEFT_PREFIX = "base_model.model"
SCHEDULE_KEY, FAMILY_KEY = "swd_schedule", "swd_family"


def lora_config(rank: int, alpha: int | None = None) -> LoraConfig:
    """Return the paper's adapters (appendix A): attention and MLP, alpha = rank, gaussian initialisation."""
    return LoraConfig(r=rank, lora_alpha=alpha or rank, init_lora_weights="gaussian", target_modules=list(LORA_TARGETS))


def save_lora(
    denoiser: SD3Denoiser, folder: Path | str, *, schedule: ScaleSchedule | None, form: Form = "diffusers"
) -> Path:
    """Write the adapters of `denoiser` and return the file.

    "diffusers" is what `pipe.load_lora_weights(folder)` reads, "peft" is a PEFT tree as the authors released.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = _plain(denoiser.backbone.peft_config["default"].to_dict())
    metadata = {"format": "pt", FAMILY_KEY: denoiser.family}
    if schedule is not None:
        metadata[SCHEDULE_KEY] = schedule.to_json()
    if form == "diffusers":
        prefix, path = denoiser.lora_prefix, folder / DIFFUSERS_FILE
        packed = {f"{prefix}.{key}": value for key, value in config.items()}
        metadata["lora_adapter_metadata"] = json.dumps(packed, sort_keys=True)
    else:
        prefix, path = PEFT_PREFIX, folder / PEFT_FILE
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    state = {f"{prefix}.{key}": value.detach().cpu().contiguous() for key, value in adapter_state(denoiser).items()}
    temporary = path.with_suffix(".tmp")
    save_file(state, temporary, metadata)
    return temporary.replace(path)


def adapter_state(denoiser: SD3Denoiser) -> dict[str, Tensor]:
    """Return the adapter tensors by module name."""
    state: dict[str, Tensor] = get_peft_model_state_dict(denoiser.backbone)
    return state


def load_lora(denoiser: SD3Denoiser, path: Path | str) -> ScaleSchedule | None:
    """Put the adapters of a file or folder (either form) into `denoiser`; return the schedule that they carry.

    Raises:
        ValueError: no or a broken file, adapters of another family, or of another width.
    """
    state, metadata, config = _read(Path(path))
    named = metadata.get(FAMILY_KEY, denoiser.family)
    if named != denoiser.family:
        raise ValueError(f"expected a LoRA for {denoiser.family}, got one for {named} in {path}")
    rank = _check_shapes(state, denoiser.backbone, path)
    alpha = int(config.get("lora_alpha", rank))
    targets = sorted({key.rpartition(".lora_")[0] for key in state})
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets), denoiser.backbone)
    set_peft_model_state_dict(denoiser.backbone, state)
    denoiser.requires_grad_(False)
    schedule = metadata.get(SCHEDULE_KEY)
    return ScaleSchedule.from_json(schedule) if schedule else None


def load_adapter_state(denoiser: SD3Denoiser, state: dict[str, Tensor]) -> None:
    """Copy tensors into adapters that are already there; names and shapes must match."""
    own = adapter_state(denoiser)
    if {key: value.shape for key, value in own.items()} != {key: value.shape for key, value in state.items()}:
        ranks = [min(next(iter(tensors.values())).shape) for tensors in (own, state) if tensors]
        raise ValueError(f"expected adapters of rank {ranks[0]}, got other names or shapes (rank {ranks[-1]})")
    with torch.no_grad():
        set_peft_model_state_dict(denoiser.backbone, state)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str], dict[str, Any]]:
    found = [path / name for name in (DIFFUSERS_FILE, PEFT_FILE) if (path / name).is_file()]
    file = path if path.is_file() else next(iter(found), None)
    if file is None:
        raise ValueError(f"expected a LoRA file, or a folder with {DIFFUSERS_FILE} or {PEFT_FILE}, got {path}")
    try:
        with safe_open(file, framework="pt") as handle:
            metadata = handle.metadata() or {}
            state = {_strip(key): handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise ValueError(f"expected a safetensors LoRA, got {file}: {error}") from error
    packed = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    config = {_strip(key): value for key, value in packed.items()}
    beside = file.parent / "adapter_config.json"
    if beside.is_file() and not config:
        config = json.loads(beside.read_text())
    return state, metadata, config


def _strip(key: str) -> str:
    for prefix in (f"{PEFT_PREFIX}.", "transformer.", "unet."):
        key = key.removeprefix(prefix)
    return key


def _check_shapes(state: dict[str, Tensor], backbone: nn.Module, path: Path | str) -> int:
    """Return the one rank of the adapters, all of which must fit modules of the backbone."""
    modules = dict(backbone.named_modules())
    ranks = set()
    for key, value in state.items():
        name, _, kind = key.rpartition(".lora_")
        layer = modules.get(name)
        if not isinstance(layer, nn.Linear):
            raise ValueError(f"expected a LoRA of this family, got {key}, which is no layer of the model, in {path}")
        width, rank = (value.shape[1], value.shape[0]) if kind.startswith("A") else value.shape
        expected = layer.in_features if kind.startswith("A") else layer.out_features
        if width != expected:
            raise ValueError(f"expected width {expected} in {key}, got {width}: {path} belongs to another model")
        ranks.add(rank)
    if len(ranks) != 1:
        raise ValueError(f"expected adapters of one rank, got ranks {sorted(ranks)} in {path}")
    return int(ranks.pop())


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """Turn PEFT's sets and enums into JSON."""
    return {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
