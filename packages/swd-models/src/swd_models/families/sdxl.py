"""Stable Diffusion XL: denoiser, latents, text, and the teacher's own sampler."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn

from swd_models.denoiser import Denoiser, check_block, recomputed, soundly
from swd_models.families.family import Family
from swd_models.known.facts import SDXL
from swd_models.parts import ImageLatents, Text
from swd_models.prediction import Prediction
from swd_schedules import VariancePreserving

FACTOR = 8  # pixels a latent cell, for the size that the model is told


class SDXLDenoiser(Denoiser):
    """Predict x0 with SDXL's `UNet2DConditionModel`, which predicts the noise of a variance-preserving process.

    `cond` holds `prompt_embeds` (B, L, D) and `pooled_prompt_embeds` (B, P). The model is told the size of the picture
    at hand as original and target size, uncropped. `block` counts the stages of the U-Net; only the one in the middle
    has features.
    """

    family = "sdxl"
    subfolder = SDXL.subfolder
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2")
    process = VariancePreserving()

    num_tokens = 77

    def __init__(self, backbone: UNet2DConditionModel) -> None:
        config = backbone.config
        super().__init__(
            backbone,
            blocks=SDXL.blocks(config),
            num_channels=config.in_channels,
            num_features=config.block_out_channels[-1],
        )

    @property
    def layers(self) -> Sequence[nn.Module]:
        """Return the blocks in the order in which they run."""
        return *self.backbone.down_blocks, self.backbone.mid_block, *self.backbone.up_blocks

    @property
    def cond_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of one prompt's embeddings, without the batch."""
        config = self.config
        time_ids = 6 * config["addition_time_embed_dim"]
        return {
            "prompt_embeds": (self.num_tokens, config["cross_attention_dim"]),
            "pooled_prompt_embeds": (config["projection_class_embeddings_input_dim"] - time_ids,),
        }

    def checkpoint(self, count: int) -> None:
        """Recompute the parts of the first `count` stages in backward, as diffusers does."""
        super().checkpoint(count)
        self.backbone.enable_gradient_checkpointing(recomputed)
        for index, stage in enumerate(self.layers):
            for module in stage.modules():
                if hasattr(module, "gradient_checkpointing"):
                    module.gradient_checkpointing = index < count  # type: ignore[assignment]

    def forward(
        self,
        x_t: Float[Tensor, "b c h w"],
        sigma: Float[Tensor, " b"],
        cond: Mapping[str, Tensor],
        *,
        block: int | None = None,
        stop: bool = False,
    ) -> Prediction:
        """Run the U-Net as diffusers does; its middle's output, (B, C, h, w), becomes tokens (B, hw, C)."""
        SDXL.check_size(self.config, x_t.shape[-2:])
        check_block(block, self.blocks)
        model, dtype = self.backbone, self.backbone.conv_in.weight.dtype
        text = cond["prompt_embeds"].to(dtype)
        time = self._embed_time(x_t.to(dtype), sigma, cond)
        sample = model.conv_in(x_t.to(dtype))
        skips = [sample]
        for down in model.down_blocks:
            sample, passed = soundly(down, sample, time, **_text_for(down, text))
            skips += passed
        sample = soundly(model.mid_block, sample, time, encoder_hidden_states=text)
        features = sample.flatten(2).transpose(1, 2) if block is not None else None
        if stop and block is not None:
            return Prediction(None, features)
        for up in model.up_blocks:
            passed = tuple(skips.pop() for _ in up.resnets)[::-1]
            sample = soundly(up, sample, passed, time, **_text_for(up, text))
        noise = model.conv_out(model.conv_act(model.conv_norm_out(sample)))
        return Prediction(self.process.to_x0(x_t, noise.to(x_t.dtype), sigma), features)

    def comfyui_name(self, layer: str) -> str:
        """Return what ComfyUI calls a layer in a LoRA file: diffusers' name with underscores."""
        return f"lora_unet_{layer.replace('.', '_')}"

    def _embed_time(self, sample: Tensor, sigma: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        model = self.backbone
        timestep = (1000 * sigma).round().clamp(max=999)
        height, width = (FACTOR * side for side in sample.shape[-2:])
        # Filled in there, not copied: a copy would wait for the device.
        size = sample.new_zeros(len(sample), 6)
        size[:, 0::4], size[:, 1::4] = height, width
        told = {"text_embeds": cond["pooled_prompt_embeds"].to(sample.dtype), "time_ids": size}
        time = model.time_embedding(model.get_time_embed(sample=sample, timestep=timestep))
        added = model.get_aug_embed(emb=time, encoder_hidden_states=cond["prompt_embeds"], added_cond_kwargs=told)
        return time + added  # type: ignore[no-any-return]


def _text_for(stage: torch.nn.Module, text: Tensor) -> dict[str, Tensor]:
    return {"encoder_hidden_states": text} if getattr(stage, "has_cross_attention", False) else {}


class SDXLText(Text):
    """Two CLIPs' penultimate layers side by side, and the second one's pooled embedding."""

    def encode(self, prompts: list[str]) -> dict[str, Tensor]:
        """Call `encode_prompt` as the pipeline does."""
        embeds, _, pooled, _ = self.pipe.encode_prompt(prompts, do_classifier_free_guidance=False, device=self.device)
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}

    @torch.no_grad()
    def uncond(self) -> dict[str, Tensor]:
        """Return zeros where the pipeline takes them for no prompt (`force_zeros_for_empty_prompt`)."""
        empty = self.encode([""])
        if not self.pipe.config.force_zeros_for_empty_prompt:
            return empty
        return {name: torch.zeros_like(value) for name, value in empty.items()}


def check_scheduler(model: str, config: Mapping[str, Any]) -> None:
    """Raise ValueError for a fine-tune that predicts something else than noise, or over other noise levels."""
    known = {"prediction_type": "epsilon", "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    found = {name: config.get(name, value) for name, value in known.items()}
    found |= {name: config[name] for name in ("rescale_betas_zero_snr", "sigma_data") if config.get(name)}
    if found != known:
        other = ", ".join(f"{name} {value}" for name, value in found.items() if known.get(name) != value)
        raise ValueError(
            f"expected a model that predicts noise as SDXL does, got {model}, whose scheduler has {other}: take another"
        )


FAMILY = Family(
    pipeline=StableDiffusionXLPipeline,
    backbone=UNet2DConditionModel,
    denoiser=SDXLDenoiser,
    vae=AutoencoderKL,
    latents=ImageLatents,
    text=SDXLText,
    facts=SDXL,
    vae_overflows=True,
    check_scheduler=check_scheduler,
    options={"add_watermarker": False},
)
