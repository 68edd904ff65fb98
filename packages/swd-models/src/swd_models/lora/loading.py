"""LoRA of a denoiser: which layers get adapters, saving, loading."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from peft import LoraConfig, set_peft_model_state_dict

from swd_data import is_hub_id
from swd_models.adapters import adapter_alphas, adapter_state, add_adapters, load_adapter_state, merge_adapters
from swd_models.denoiser import Denoiser
from swd_models.lora.dora import check_dora, is_dora, merge_dora
from swd_models.lora.files import Form, Lora, find_lora, lora_of, read_lora, write_lora
from swd_models.lora.lokr import check_lokr, is_lokr, merge_lokr
from swd_models.quantized import check_whole
from swd_schedules import ScaleSchedule


def lora_config(denoiser: Denoiser, rank: int, alpha: int | None = None) -> LoraConfig:
    """Return the paper's adapters (appendix A): attention and MLP, alpha = rank, gaussian initialisation."""
    targets = denoiser.lora_targets if isinstance(denoiser.lora_targets, str) else list(denoiser.lora_targets)
    return LoraConfig(r=rank, lora_alpha=alpha or rank, init_lora_weights="gaussian", target_modules=targets)


def save_lora(
    denoiser: Denoiser,
    folder: Path | str,
    *,
    schedule: ScaleSchedule | None,
    form: Form = "diffusers",
    notes: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Write the adapters of `denoiser` in one of the forms of `write_lora` and return the file.

    `notes` go to the header, under names that begin with `swd_`.

    Raises:
        OSError: it cannot be written.
    """
    lora = Lora.of(adapter_state(denoiser), adapter_alphas(denoiser), schedule, _is_rslora(denoiser), notes)
    return write_lora(lora, denoiser, folder, form)


def load_lora(
    denoiser: Denoiser, path: Path | str, *, merge: bool = False, weight: float = 1.0
) -> ScaleSchedule | None:
    """Put the adapters of a file or folder (any form) into `denoiser`; return the schedule that they carry.

    With `merge` they are added to the weights, in float32, and cost nothing when the denoiser runs. `weight` is how
    much they count. Of a model of two experts each takes its own from the folder: see `lora_of`.

    Raises:
        ValueError: as `read_lora` and `lora_of`.
    """
    loras = [read_lora(lora_of(path, each.expert.name), each).weighted(weight) for each in denoiser.experts]
    for each, lora in zip(denoiser.experts, loras, strict=True):
        if merge:
            check_whole(each)
        add_adapters(each, lora.config())
        set_peft_model_state_dict(each.backbone, lora.state)
        each.requires_grad_(False)
        if merge:
            merge_adapters(each)
    return loras[0].schedule


def merge_loras(denoiser: Denoiser, loras: Iterable[str]) -> None:
    """Merge LoRAs into a denoiser, each `PATH` or `PATH:WEIGHT` of a file, a folder or a hub id, one after the other.

    LoKr and DoRA files are merged too: see `merge_lokr` and `merge_dora`.

    Raises:
        ValueError: as `read_lora` and `split_weight`.
    """
    for text in loras:
        path, weight = split_weight(text)
        files = [find_lora(lora_of(path, each.expert.name)) for each in denoiser.experts]
        merge = merge_lokr if any(map(is_lokr, files)) else merge_dora if any(map(is_dora, files)) else None
        if merge is None:
            load_lora(denoiser, path, merge=True, weight=weight)
            continue
        for each, file in zip(denoiser.experts, files, strict=True):
            check_whole(each)
            merge(each, file, weight)


def check_mergeable(denoiser: Denoiser, text: str) -> None:
    """Raise ValueError for a file that `merge_loras` could not merge into a denoiser, which may be empty."""
    path, weight = split_weight(text)
    file = find_lora(lora_of(path, denoiser.expert.name))
    if is_lokr(file):
        check_lokr(file, denoiser)
    elif is_dora(file):
        check_dora(file, denoiser, weight)
    else:
        read_lora(file, denoiser)


def start_from(denoiser: Denoiser, path: Path | str) -> None:
    """Let the adapters of `denoiser` begin as those of a file or folder (any form): it computes what they compute.

    The file may have a smaller rank and fewer layers: the rest begins as it is, and adds nothing.

    Raises:
        ValueError: as `read_lora`; layers that have no adapters here, or a larger rank.
    """
    lora, own = read_lora(lora_of(path, denoiser.expert.name), denoiser), adapter_state(denoiser)
    scales = Lora.of(own, adapter_alphas(denoiser), None, _is_rslora(denoiser), {}).scales
    state = {key: torch.zeros_like(value) if ".lora_B." in key else value.clone() for key, value in own.items()}
    for layer, rank in lora.ranks.items():
        if layer not in scales:
            raise ValueError(f"expected adapters of the layers that are trained, got some of {layer} too in {path}")
        down, up = f"{layer}.lora_A.weight", f"{layer}.lora_B.weight"
        if rank > len(state[down]):
            raise ValueError(
                f"expected a LoRA of rank at most {len(state[down])}, got {rank} in {path}: pass --training.rank {rank}"
            )
        state[down][:rank] = lora.state[down]
        state[up][:, :rank] = lora.state[up].to(state[up]) * (lora.scales[layer] / scales[layer])
    load_adapter_state(denoiser, state)


def split_weight(text: str) -> tuple[str, float]:
    """Return path, or hub id, and weight of `PATH` or `PATH:WEIGHT`.

    Raises:
        ValueError: there is no such path, or a weight that is no number, or 0.
    """
    if Path(text).exists() or is_hub_id(text, ".safetensors"):
        return text, 1.0
    path, _, number = text.rpartition(":")
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not path or not (Path(path).exists() or is_hub_id(path, ".safetensors")):
        raise ValueError(f"expected a LoRA as PATH or PATH:WEIGHT, got {text!r}, which does not exist: check it")
    if not math.isfinite(weight) or weight == 0:
        raise ValueError(
            f"expected a weight other than 0 in PATH:WEIGHT, got {text!r}: write {path}:0.8, or leave the LoRA out"
        )
    return path, weight


def _is_rslora(denoiser: Denoiser) -> bool:
    return bool(denoiser.backbone.peft_config["default"].use_rslora)
