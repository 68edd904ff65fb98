"""The model card of a published LoRA: what it is, how to run it, how it was made."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swd_data import is_hub_id
from swd_schedules import ScaleSchedule

LICENCES: Mapping[str, tuple[str, str]] = {
    "stabilityai/stable-diffusion-3.5-medium": ("other", "stabilityai-ai-community"),
    "stabilityai/stable-diffusion-3.5-large": ("other", "stabilityai-ai-community"),
    "black-forest-labs/FLUX.1-dev": ("other", "flux-1-dev-non-commercial-license"),
    "black-forest-labs/FLUX.2-klein-base-4B": ("apache-2.0", ""),
    "black-forest-labs/FLUX.2-klein-base-9B": ("other", "flux-non-commercial-license"),
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": ("apache-2.0", ""),
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers": ("apache-2.0", ""),
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers": ("apache-2.0", ""),
    "stabilityai/stable-diffusion-xl-base-1.0": ("openrail++", ""),
    "Qwen/Qwen-Image": ("apache-2.0", ""),
    "Tongyi-MAI/Z-Image": ("apache-2.0", ""),
}
"""Of the models that have presets: the hub's name of a licence, and its own name where the hub has none."""
_MODES = {"bicubic": "bicubic", "bilinear": "bilinear", "nearest": "nearest-exact"}


@dataclass(frozen=True)
class Facts:
    """What a card tells.

    Attributes:
        name: OWNER/NAME.
        base: The model's hub id; None: it ships with swd-models.
        model: The model as the run names it.
        pipeline: The class of diffusers.
        licence: The hub's name, and its own name if that is "other".
        schedule: Of the LoRA.
        experts: Names of a model's experts; empty: it has one denoiser.
        pixels: Of the final size: (height, width), or with frames before.
        options: What the stock pipeline is told beside the prompt.
        left_out: Parts of the pipeline that the model does not have.
        samples: Files beside the card, and their prompts.
        metrics: The last evaluation's numbers.
        config: The run's, as its folder notes it.
    """

    name: str
    base: str | None
    model: str
    pipeline: str
    licence: tuple[str, str]
    schedule: ScaleSchedule
    experts: Sequence[str]
    pixels: tuple[int, ...]
    options: Mapping[str, Any]
    left_out: Sequence[str]
    samples: Sequence[tuple[str, str]]
    metrics: Mapping[str, float]
    config: Mapping[str, Any]

    @property
    def is_video(self) -> bool:
        """Tell whether it makes videos."""
        return len(self.schedule.sizes[-1]) == 3

    @property
    def cell(self) -> int:
        """Return the pixels of a latent cell's side."""
        return self.pixels[-1] // self.schedule.sizes[-1][-1]

    @property
    def prompt(self) -> str:
        """Return a prompt for the snippets."""
        return self.samples[0][1] if self.samples else "a fox and a hare at a lake in the mountains"


def card(facts: Facts) -> str:
    """Return the card in Markdown, with its data for the hub as YAML in front."""
    steps, base = len(facts.schedule.sizes), facts.base or f"`{facts.model}` of swd-models"
    linked = f"[{facts.base}](https://huggingface.co/{facts.base})" if facts.base else base
    parts = [
        f"# {facts.name}\n",
        f"A LoRA for {linked} that makes {'videos' if facts.is_video else 'images'} in {steps} steps without guidance. "
        "The resolution grows with every step: it was made by scale-wise distillation (SwD).\n",
        *(["<Gallery />\n"] if facts.samples else []),
        f"## Steps\n\n{_steps(facts)}\n",
        f"## Use\n\n{_use(facts)}\n",
        f"## How it was made\n\n{_made(facts)}\n",
    ]
    if facts.metrics:
        rows = "\n".join(f"| {name} | {value:.4g} |" for name, value in facts.metrics.items())
        parts.append(f"## Measured\n\nBy swd-eval, at the end of training.\n\n| | |\n|---|---|\n{rows}\n")
    return f"---\n{_data(facts)}\n---\n\n" + "\n".join(parts)


def _data(facts: Facts) -> str:
    from huggingface_hub import ModelCardData

    licence, own = facts.licence
    data: dict[str, Any] = {
        "license": licence,
        "license_name": own or None,
        "license_link": f"https://huggingface.co/{facts.base}/blob/main/LICENSE.md" if own and facts.base else None,
        "library_name": "diffusers",
        "pipeline_tag": "text-to-video" if facts.is_video else "text-to-image",
        "tags": ["lora", "template:diffusion-lora", "few-step", "scale-wise-distillation"],
    }
    if facts.base:
        data |= {"base_model": facts.base, "base_model_relation": "adapter"}
    if facts.samples:
        data["widget"] = [{"text": text, "output": {"url": file}} for file, text in facts.samples]
    return ModelCardData(**data).to_yaml()


def _steps(facts: Facts) -> str:
    lines = ["| step | timestep | latent | pixels |", "|---|---|---|---|"]
    for i, (t, size) in enumerate(zip(facts.schedule.timesteps, facts.schedule.sizes, strict=True), 1):
        pixels = "x".join(str(side * facts.cell) for side in size[-2:])
        lines.append(f"| {i} | {t:.4g} | {'x'.join(map(str, size))} | {pixels} |")
    lines.append(f"\nBetween steps x0 is enlarged ({facts.schedule.upscaler}) and noised again.")
    return "\n".join(lines)


def _use(facts: Facts) -> str:
    stock = stock_snippet(facts)
    parts = [f"With diffusers alone:\n\n```python\n{stock}```\n"] if stock else []
    parts.append(f"With swd-sample:\n\n```python\n{_ours(facts)}```\n")
    lora = "its two LoRAs" if facts.experts else "`comfyui_lora.safetensors`"
    parts.append(
        f"In ComfyUI: put {lora} into `models/loras`, and take the nodes SwD Schedule and SwD Sampler, which read the "
        "steps from the file. CFG is 1.\n"
    )
    if not stock:
        parts.append(
            "Stock diffusers loads it by `pipe.load_lora_weights`, and runs all steps at one size, for which it is "
            "not made.\n"
        )
    return "\n".join(parts)


def _base(facts: Facts) -> str:
    return json.dumps(facts.base) if facts.base else f"resolve_model({json.dumps(facts.model)})"


def _ours(facts: Facts) -> str:
    base = json.dumps(facts.base or facts.model)
    return (
        "from swd_sample import SwDPipeline\n\n"
        f"pipe = SwDPipeline.from_pretrained({base}, lora={json.dumps(facts.name)})\n"
        f"sample = pipe([{json.dumps(facts.prompt)}], seed=0)[0]\n"
    )


def stock_snippet(facts: Facts) -> str | None:
    """Return what samples with diffusers alone; None for an upscaler that torch does not have.

    Its FlowMatchLCMScheduler enlarges SD3's latents, where height and width grow by the same factors. For all else the
    snippet takes the file scalewise.py.
    """
    if facts.schedule.upscaler not in _MODES:
        return None
    factors = _factors(facts.schedule) if facts.pipeline == "StableDiffusion3Pipeline" else None
    return _in_steps(facts) if factors is None else _in_one_call(facts, factors)


def _factors(schedule: ScaleSchedule) -> list[float] | None:
    """Return each size over the first; None where height and width grow differently."""
    first = schedule.sizes[0]
    found = [size[0] / first[0] for size in schedule.sizes[1:]]
    sizes = [tuple(round(factor * side) for side in first) for factor in found]
    return found if sizes == list(schedule.sizes[1:]) else None


def _in_one_call(facts: Facts, factors: Sequence[float]) -> str:
    schedule, mode = facts.schedule, _MODES[facts.schedule.upscaler]
    height, width = (side * facts.cell for side in schedule.sizes[0])
    return (
        f"{_loaded(facts, 'FlowMatchLCMScheduler, ')}"
        f"pipe.scheduler = FlowMatchLCMScheduler(shift=1.0, scale_factors={factors}, upscale_mode={json.dumps(mode)})\n"
        "torch.manual_seed(0)\n"
        "image = pipe(\n"
        f"    {json.dumps(facts.prompt)},\n"
        f"    sigmas={[round(sigma, 6) for sigma in schedule.sigmas]},\n"
        f"    height={height},  # of the first step: the scheduler's factors enlarge it\n    width={width},\n"
        f"{_told(facts)}"
        ").images[0]\n"
    )


def _in_steps(facts: Facts) -> str:
    schedule, name = facts.schedule, "frames" if facts.is_video else "image"
    return (
        f"{_loaded(facts)}"
        f"{name} = sample(\n"
        f"    pipe,\n    {json.dumps(facts.prompt)},\n"
        f"    {[round(timestep, 4) for timestep in schedule.timesteps]},\n"
        f"    {list(schedule.sizes)},\n"
        f"    seed=0,\n    upscaler={json.dumps(schedule.upscaler)},\n{_told(facts)}"
        ")\n"
    )


def _loaded(facts: Facts, imports: str = "") -> str:
    """Return what loads the stock pipeline with the LoRA."""
    parts = "".join(f", {name}=None" for name in facts.left_out)
    others = "" if imports else "from scalewise import sample  # scalewise.py of this repository, beside your script\n"
    others += "" if facts.base else "from swd_models.loading import resolve_model  # the base comes with swd-models\n"
    dtype, device = (", torch_dtype=torch.bfloat16", 'pipe.to("cuda")\n') if facts.base else ("", "")
    name = json.dumps(facts.name)
    from swd_models.lora.files import FILES

    second = {"high-noise": "", "low-noise": ", load_into_transformer_2=True"}
    file = json.dumps(FILES["diffusers"])  # what diffusers guesses of a repository is not in the subfolder
    loras = [
        f"{name}, subfolder={json.dumps(expert)}, weight_name={file}{second[expert]}" for expert in facts.experts
    ] or [name]
    return (
        f"import torch\nfrom diffusers import {imports}{facts.pipeline}\n{others}\n"
        f"pipe = {facts.pipeline}.from_pretrained({_base(facts)}{parts}{dtype})\n"
        + "".join(f"pipe.load_lora_weights({lora})\n" for lora in loras)
        + device
    )


def _told(facts: Facts) -> str:
    """Return what the pipeline is told beside the prompt, a line each."""
    notes = {"max_sequence_length": "  # it has no T5"} if facts.options.get("max_sequence_length") == 0 else {}
    return "".join(f"    {name}={value!r},{notes.get(name, '')}\n" for name, value in facts.options.items())


def _made(facts: Facts) -> str:
    """Return how it was made, in names that say nothing of the machine."""
    config = facts.config
    data, training = config["data"], config["training"]
    lines = [
        f"- losses: {recipe_of(config)}",
        f"- {training['iterations']:,} iterations of {training['batch']} samples, learning rate {training['lr']:g}"
        + (f", for each of {len(facts.experts)} experts" if facts.experts else ""),
        f"- adapters of rank {training['rank']}, over a base in {training.get('base', 'bf16')}",
        f"- {data['num_images']:,} samples of the teacher, {data['teacher_steps']} steps with guidance "
        f"{data['teacher_guidance']:g}"
        if data.get("images") is None
        else "- images of its own, not the teacher's",
    ]
    for key, what in (("teacher_lora", "merged into the teacher"), ("init_lora", "where the student began")):
        given = config.get(key) or ()
        names = [_shown(each) for each in ([given] if isinstance(given, str) else given)]
        if names:
            lines.append(f"- {what}: {', '.join(names)}")
    return "\n".join(lines)


def recipe_of(config: Mapping[str, Any]) -> str:
    """Return a run's losses with their weights."""
    recipe = config["recipe"]
    weights = {"MMD": recipe["mmd_weight"], "DMD": recipe["dmd_weight"], "GAN": recipe["gan_weight"]}
    losses = " + ".join(f"{weight:g} {name}" for name, weight in weights.items() if weight)
    shares = recipe.get("balance") and (recipe["dmd_weight"] or recipe["gan_weight"])
    where = "over the run" if recipe.get("balance_over") == "run" else "in each sample"
    return f"{losses} (shares of the gradient of MMD {where})" if shares else losses


def _shown(lora: str) -> str:
    """Return a hub id, or the last of a path."""
    return lora if is_hub_id(lora, ".safetensors") else Path(lora).name
