"""SwD Schedule and SwD Sampler."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.samplers
import folder_paths
from comfy_api.latest import ComfyExtension, io
from safetensors import SafetensorError, safe_open

from .core import UPSCALERS, Schedule, sampler, sigmas_of

PRESETS: dict[str, str] = json.loads((Path(__file__).parent / "presets.json").read_text())
OF_LORA, OF_SCHEDULE, NO_LORA = "of the LoRA", "of the schedule", "none"
FRAMES = 4
"""Frames of a video that a latent one stands for; the first stands for one."""
PIXELS = {48: 16, 128: 16}
"""Of how many channels latents are whose cells stand for more than 8x8 pixels: Wan2.2 5B's and FLUX.2's. ComfyUI's own
`spacial_downscale_ratio` is of 2026, and was not set for each at first."""
PACKED = {128: 2}
"""Of how many channels latents are that ComfyUI packs, and by how much: FLUX.2's."""

SwDSchedule = io.Custom("SWD_SCHEDULE")


class SwDScheduleNode(io.ComfyNode):
    """Which latent size at which noise level."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe inputs and outputs."""
        return io.Schema(
            node_id="SwDSchedule",
            display_name="SwD Schedule",
            category="sampling/custom_sampling/schedulers",
            description="The latent size at each step. Of a LoRA's metadata, of a preset, or as text.",
            inputs=[
                io.Model.Input("model", tooltip="The model with the LoRA."),
                io.Combo.Input("lora", options=[NO_LORA, *folder_paths.get_filename_list("loras")]),
                io.Combo.Input("preset", options=[OF_LORA, *PRESETS]),
                io.String.Input("text", default="", tooltip="Instead of both: 1000:64,896:80,737:96,602:128, or JSON."),
                io.Int.Input("width", default=0, min=0, max=16384, step=16, tooltip="Pixels; 0: the schedule's."),
                io.Int.Input("height", default=0, min=0, max=16384, step=16, tooltip="Pixels; 0: the schedule's."),
            ],
            outputs=[
                SwDSchedule.Output(display_name="schedule"),
                io.Sigmas.Output(display_name="sigmas"),
                io.Int.Output(display_name="width"),
                io.Int.Output(display_name="height"),
                io.Int.Output(display_name="length"),
            ],
        )

    @classmethod
    def execute(cls, model: Any, lora: str, preset: str, text: str, width: int, height: int) -> io.NodeOutput:
        """Return the schedule at its final size, its noise levels, and what the empty latent needs."""
        schedule = _schedule(lora, preset, text)
        latents, noising = model.get_model_object("latent_format"), model.get_model_object("model_sampling")
        schedule = replace(schedule, packed=PACKED.get(latents.latent_channels, 1))
        cell = PIXELS.get(latents.latent_channels, 8) // schedule.packed
        schedule = schedule.fitted(width, height, cell)
        sigmas = sigmas_of(schedule, noising)
        *frames, rows, columns = schedule.sizes[-1]
        length = FRAMES * (frames[0] - 1) + 1 if frames else 1
        return io.NodeOutput(schedule, sigmas, columns * cell, rows * cell, length)


class SwDSamplerNode(io.ComfyNode):
    """Predict, upscale, renoise, repeat."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe inputs and outputs."""
        return io.Schema(
            node_id="SwDSampler",
            display_name="SwD Sampler",
            category="sampling/custom_sampling/samplers",
            description="For SamplerCustomAdvanced, with the SIGMAS of SwD Schedule, CFG 1 and an empty latent. "
            "FLUX.1 also wants FluxGuidance at 4.5.",
            inputs=[
                SwDSchedule.Input("schedule"),
                io.Combo.Input("upscaler", options=[OF_SCHEDULE, *UPSCALERS]),
                io.Int.Input("noise_seed", default=0, min=0, max=2**62 - 1, control_after_generate=True),
            ],
            outputs=[io.Sampler.Output()],
        )

    @classmethod
    def execute(cls, schedule: Schedule, upscaler: str, noise_seed: int) -> io.NodeOutput:
        """Return the sampler; its noise is of this seed alone, whatever RandomNoise says."""
        if upscaler != OF_SCHEDULE:
            schedule = replace(schedule, upscaler=upscaler)
        return io.NodeOutput(comfy.samplers.KSAMPLER(sampler(schedule, noise_seed)))


class SwDExtension(ComfyExtension):
    """The two nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return them."""
        return [SwDScheduleNode, SwDSamplerNode]


async def comfy_entrypoint() -> ComfyExtension:
    """Return the extension: ComfyUI calls this."""
    return SwDExtension()


def _schedule(lora: str, preset: str, text: str) -> Schedule:
    """Return the schedule of a text, else of a preset, else of a LoRA."""
    if text.strip():
        return Schedule.parse(text)
    if preset != OF_LORA:
        return Schedule.parse(PRESETS[preset])
    if lora == NO_LORA:
        raise ValueError("expected a LoRA, a preset or a text as the schedule, got none: choose one")
    path = folder_paths.get_full_path_or_raise("loras", lora)
    try:
        with safe_open(path, framework="pt") as file:
            found = (file.metadata() or {}).get("swd_schedule")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"expected a safetensors LoRA, got {lora}: {error}") from error
    if not found:
        raise ValueError(f"expected a LoRA that carries its schedule, got {lora} without: choose a preset, or text")
    return Schedule.parse(found)
