"""Adapters in a denoiser: which layers get them, saving, loading, merging."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor

from swd_models.denoiser import Denoiser
from swd_models.lora_files import Form, Lora, read_lora, write_lora
from swd_schedules import ScaleSchedule


def lora_config(denoiser: Denoiser, rank: int, alpha: int | None = None) -> LoraConfig:
    """Return the paper's adapters (appendix A): attention and MLP, alpha = rank, gaussian initialisation."""
    targets = denoiser.lora_targets if isinstance(denoiser.lora_targets, str) else list(denoiser.lora_targets)
    return LoraConfig(r=rank, lora_alpha=alpha or rank, init_lora_weights="gaussian", target_modules=targets)


def save_lora(
    denoiser: Denoiser, folder: Path | str, *, schedule: ScaleSchedule | None, form: Form = "diffusers"
) -> Path:
    """Write the adapters of `denoiser` in one of the forms of `write_lora` and return the file."""
    alpha = float(denoiser.backbone.peft_config["default"].lora_alpha)
    return write_lora(Lora(adapter_state(denoiser), alpha, schedule), denoiser, folder, form)


def load_lora(denoiser: Denoiser, path: Path | str) -> ScaleSchedule | None:
    """Put the adapters of a file or folder (any form) into `denoiser`; return the schedule that they carry.

    Raises:
        ValueError: as `read_lora`.
    """
    lora = read_lora(path, denoiser)
    inject_adapter_in_model(lora.config(), denoiser.backbone)
    set_peft_model_state_dict(denoiser.backbone, lora.state)
    denoiser.requires_grad_(False)
    return lora.schedule


def merge_lora(denoiser: Denoiser) -> None:
    """Add the adapters to the weights and remove them: a plain model again."""
    backbone = denoiser.backbone
    adapted = [(name, layer) for name, layer in backbone.named_modules() if isinstance(layer, BaseTunerLayer)]
    for name, layer in adapted:
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(backbone.get_submodule(parent), child, layer.get_base_layer())
    del backbone.peft_config


def adapter_state(denoiser: Denoiser) -> dict[str, Tensor]:
    """Return the adapter tensors by layer: `LAYER.lora_A.weight`, `LAYER.lora_B.weight`."""
    state: dict[str, Tensor] = get_peft_model_state_dict(denoiser.backbone)
    return state


def load_adapter_state(denoiser: Denoiser, state: dict[str, Tensor]) -> None:
    """Copy tensors into adapters that are already there; names and shapes must match."""
    own = adapter_state(denoiser)
    if {key: value.shape for key, value in own.items()} != {key: value.shape for key, value in state.items()}:
        ranks = [min(next(iter(tensors.values())).shape) for tensors in (own, state) if tensors]
        raise ValueError(f"expected adapters of rank {ranks[0]}, got other names or shapes (rank {ranks[-1]})")
    with torch.no_grad():
        set_peft_model_state_dict(denoiser.backbone, state)
