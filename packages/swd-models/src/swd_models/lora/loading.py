"""LoRA of a denoiser: which layers get adapters, saving, loading."""

from pathlib import Path

from peft import LoraConfig, set_peft_model_state_dict

from swd_models.adapters import adapter_alphas, adapter_state, add_adapters, merge_adapters
from swd_models.denoiser import Denoiser
from swd_models.lora.files import Form, Lora, read_lora, write_lora
from swd_schedules import ScaleSchedule


def lora_config(denoiser: Denoiser, rank: int, alpha: int | None = None) -> LoraConfig:
    """Return the paper's adapters (appendix A): attention and MLP, alpha = rank, gaussian initialisation."""
    targets = denoiser.lora_targets if isinstance(denoiser.lora_targets, str) else list(denoiser.lora_targets)
    return LoraConfig(r=rank, lora_alpha=alpha or rank, init_lora_weights="gaussian", target_modules=targets)


def save_lora(
    denoiser: Denoiser, folder: Path | str, *, schedule: ScaleSchedule | None, form: Form = "diffusers"
) -> Path:
    """Write the adapters of `denoiser` in one of the forms of `write_lora` and return the file.

    Raises:
        OSError: it cannot be written.
    """
    rslora = bool(denoiser.backbone.peft_config["default"].use_rslora)
    lora = Lora.of(adapter_state(denoiser), adapter_alphas(denoiser), schedule, rslora)
    return write_lora(lora, denoiser, folder, form)


def load_lora(denoiser: Denoiser, path: Path | str, *, merge: bool = False) -> ScaleSchedule | None:
    """Put the adapters of a file or folder (any form) into `denoiser`; return the schedule that they carry.

    With `merge` they are added to the weights, in float32, and cost nothing when the denoiser runs.

    Raises:
        ValueError: as `read_lora`.
    """
    lora = read_lora(path, denoiser)
    add_adapters(denoiser, lora.config())
    set_peft_model_state_dict(denoiser.backbone, lora.state)
    denoiser.requires_grad_(False)
    if merge:
        merge_adapters(denoiser)
    return lora.schedule
