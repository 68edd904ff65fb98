"""A run's LoRA, or any other, in the form that another tool reads."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from swd_data import check_replaceable, own, whole_folder, write_text

if TYPE_CHECKING:
    from swd_models import Expert
    from swd_schedules import ScaleSchedule

MARK = ".swd-export"
"""In a folder of ours, which may be written again."""


@dataclass(frozen=True)
class Export:
    """Write a LoRA for another tool, or merged into its base model; the schedule stays with it."""

    source: tyro.conf.Positional[Path]
    """A run folder of swd-distill, or any LoRA file or folder (then with --model)."""
    to: Literal["diffusers", "comfyui", "peft", "kohya", "merged"]
    """diffusers: for `pipe.load_lora_weights`. kohya: for its scripts and what reads their files. merged: a denoiser in
    diffusers' format, without adapters."""
    model: str | None = None
    """The base model: a diffusers directory or hub id. Default: the run's. With merged, any fine-tune will do."""
    out: Path | None = None
    """The folder to write. Default: SOURCE/export/TO."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Of a merged model's weights; they are merged in float32."""


def export(options: Export) -> str:
    """Convert, and return the line for the user."""
    from swd_models.loading import empty_denoiser, experts_of
    from swd_models.lora.files import FILES, PEFT_CONFIG, lora_of, read_lora, write_lora
    from swd_sample.pipeline import base_loras_of, model_of

    is_run = (options.source / "config.json").is_file()
    if not is_run and options.model is None:
        if not options.source.exists():
            raise ValueError(
                f"expected a run folder or a LoRA, got {options.source}, which does not exist: give one such as "
                "runs/tiny"
            )
        raise ValueError(
            f"expected --model BASE with the LoRA {options.source}, got no --model: pass the model that it was "
            "trained for"
        )
    model = options.model or model_of(options.source)
    lora = options.source / "lora" if is_run else options.source
    if options.out is None and not options.source.exists():
        raise ValueError(f"expected --out with a LoRA of the hub, got {options.source} alone: pass --out FOLDER")
    beside = options.source if options.source.is_dir() else options.source.parent
    out = options.out or beside / "export" / options.to
    if options.to == "merged":
        check_replaceable(out, MARK)  # minutes before it is written
        base_loras = base_loras_of(options.source) if is_run and options.model is None else ()
        return f"merged model in {' and '.join(_merge(model, base_loras, lora, out, options.dtype))}"
    empty, files = empty_denoiser(model), [FILES[options.to], *[PEFT_CONFIG] * (options.to == "peft")]
    loras = {out / expert.name: read_lora(lora_of(lora, expert.name), empty) for expert in experts_of(model)}
    for folder in loras:  # all is read and free before any is written
        own(folder, files)
    written = [str(write_lora(found, empty, folder, options.to)) for folder, found in loras.items()]
    return f"LoRA for {options.to} in {' and '.join(written)}"


def _merge(model: str, base_loras: tuple[str, ...], lora: Path, out: Path, dtype: str) -> list[str]:
    from swd_models.loading import experts_of

    written = []
    with whole_folder(out, MARK) as temporary:
        for expert in experts_of(model):  # one at a time: each is gigabytes
            folder, schedule = _merge_one(model, expert, base_loras, lora, temporary, dtype)
            written.append(str(out / folder))
        if schedule is not None:
            write_text(temporary / "schedule.json", schedule.to_json() + "\n")
    return written


def _merge_one(
    model: str, expert: "Expert", base_loras: tuple[str, ...], lora: Path, out: Path, dtype: str
) -> tuple[str, "ScaleSchedule | None"]:
    """Write one denoiser with its LoRA; return its folder in a pipeline, and the LoRA's schedule."""
    import torch

    from swd_models import load_denoiser, load_lora
    from swd_models.adapters import merge_adapters

    denoiser = load_denoiser(model, expert=expert, loras=base_loras)
    schedule = load_lora(denoiser, lora)
    merge_adapters(denoiser)
    keep = set(denoiser.backbone._keep_in_fp32_modules or ())
    for name, parameter in denoiser.backbone.named_parameters():
        if not keep & set(name.split(".")):
            parameter.data = parameter.data.to(getattr(torch, dtype))
    denoiser.backbone.save_pretrained(out / denoiser.folder)
    return denoiser.folder, schedule
