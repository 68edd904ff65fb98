"""Scale-wise sampling with diffusers alone: each step is one call of a stock pipeline, at its own size and noise level.

This file needs torch and diffusers, and nothing beside it: `swd-distill publish` lays it beside LoRAs of models whose
latents no scheduler of diffusers can enlarge (FLUX.1, FLUX.2, Qwen-Image, Z-Image, Wan, SDXL).

    image = sample(pipe, "a fox", [1000, 896, 737, 602], [(64, 64), (80, 80), (96, 96), (128, 128)], guidance_scale=3.5)
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor
from torch.nn.functional import interpolate, pixel_shuffle, pixel_unshuffle

TOKENS = ("FluxPipeline", "QwenImagePipeline")
"""Pipelines that take latents as tokens, 2x2 cells each."""
PATCHES = ("Flux2KleinPipeline",)
"""Pipelines that take 2x2 cells as channels, and show them as tokens."""


class FlowStep(FlowMatchEulerDiscreteScheduler):
    """One step of a flow model, from a noise level to the clean latents."""

    level = 1.0

    def set_timesteps(
        self,
        num_inference_steps: Any = None,
        device: Any = None,
        sigmas: Any = None,
        mu: Any = None,
        timesteps: Any = None,
    ) -> None:
        """Take no other step than this, whatever a pipeline asks for."""
        super().set_timesteps(sigmas=[self.level], device=device)

    def noised(self, x0: Tensor, noise: Tensor) -> Tensor:
        """Return clean latents at the noise level."""
        return (1 - self.level) * x0 + self.level * noise


class DiffusionStep(DDIMScheduler):
    """One step of a model that predicts noise, from a noise level to the clean latents."""

    level = 1.0

    def set_timesteps(self, num_inference_steps: Any = None, device: Any = None) -> None:
        """Take no other step than this, whatever a pipeline asks for."""
        self.num_inference_steps = 1
        self.timesteps = torch.tensor([self._timestep], device=device)

    def noised(self, x0: Tensor, noise: Tensor) -> Tensor:
        """Return clean latents at the noise level."""
        signal: Tensor = self.alphas_cumprod[self._timestep]
        return signal.sqrt() * x0 + (1 - signal).sqrt() * noise

    @property
    def _timestep(self) -> int:
        return min(round(1000 * self.level), 999)


@torch.no_grad()
def sample(
    pipe: Any,
    prompt: str,
    timesteps: Sequence[float],
    sizes: Sequence[tuple[int, ...]],
    *,
    seed: int = 0,
    upscaler: str = "bicubic",
    **options: Any,
) -> Any:
    """Return an image, or the frames of a video.

    Args:
        pipe: A pipeline of diffusers with the LoRA loaded, on its device. It encodes the prompt once a step.
        prompt: One.
        timesteps: Of each step, in (0, 1000].
        sizes: Of the latents of each step: (h, w), or (t, h, w).
        seed: Of all noise.
        upscaler: Between steps: bicubic, bilinear or nearest.
        options: What the pipeline is told beside: no guidance, the length of a text.
    """
    model = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    packed = type(pipe).__name__ in TOKENS + PATCHES
    channels = model.config.in_channels // (4 if packed else 1)
    if hasattr(pipe, "unet"):
        step: Any = DiffusionStep.from_config(pipe.scheduler.config, clip_sample=False, set_alpha_to_one=True)
    else:
        step = FlowStep(shift=1.0)
    generator, before, x0 = torch.Generator().manual_seed(seed), pipe.scheduler, None
    try:
        pipe.scheduler = step
        for number, (timestep, size) in enumerate(zip(timesteps, sizes, strict=True), 1):
            step.level = timestep / 1000
            x_t = torch.randn(1, channels, *size, generator=generator)
            if x0 is not None:
                x_t = step.noised(enlarged(x0, size, upscaler), x_t)
            seen: list[Tensor] = []
            found = pipe(
                prompt=prompt,
                latents=_packed(pipe, x_t).to(pipe._execution_device, model.dtype),
                num_inference_steps=1,
                output_type="pil" if number == len(sizes) else "latent",
                callback_on_step_end=lambda *step, seen=seen: seen.append(step[-1]["latents"]) or step[-1],
                **_pixels(pipe, size),
                **options,
            )
            x0 = _unpacked(pipe, seen[0].float().cpu(), size)
        return found.frames[0] if len(sizes[-1]) == 3 else found.images[0]
    finally:
        pipe.scheduler = before


def enlarged(x: Tensor, size: tuple[int, ...], mode: str) -> Tensor:
    """Enlarge latents (1, C, h, w), or (1, C, t, h, w): frame by frame, and between frames linearly."""
    mode = {"nearest": "nearest-exact"}.get(mode, mode)
    if x.ndim == 4:
        return x if x.shape[2:] == size else interpolate(x, size, mode=mode)
    frames = enlarged(x[0].transpose(0, 1), size[1:], mode).transpose(0, 1)[None]
    return frames if len(frames[0, 0]) == size[0] else interpolate(frames, size, mode="trilinear", align_corners=True)


def _pixels(pipe: Any, size: tuple[int, ...]) -> dict[str, int]:
    """Return what a pipeline is told of a size of latents."""
    if len(size) == 2:
        return dict(zip(("height", "width"), (side * pipe.vae_scale_factor for side in size), strict=True))
    frames = (size[0] - 1) * pipe.vae_scale_factor_temporal + 1
    height, width = (side * pipe.vae_scale_factor_spatial for side in size[1:])
    return {"num_frames": frames, "height": height, "width": width}


def _packed(pipe: Any, x: Tensor) -> Tensor:
    """Return latents as a pipeline takes them."""
    name = type(pipe).__name__
    if name not in TOKENS + PATCHES:
        return x
    patches = pixel_unshuffle(x, 2)
    return patches if name in PATCHES else patches.flatten(2).transpose(1, 2)


def _unpacked(pipe: Any, x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return latents from what a pipeline shows after its step."""
    if type(pipe).__name__ not in TOKENS + PATCHES:
        return x
    height, width = (side // 2 for side in size)
    return pixel_shuffle(x.transpose(1, 2).reshape(len(x), -1, height, width), 2)
