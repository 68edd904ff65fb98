"""Wan2.1 and Wan2.2 text-to-video: denoiser, latents, text, and the teacher's own sampler."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKLQwenImage, AutoencoderKLWan, WanPipeline, WanTransformer3DModel
from jaxtyping import Float
from torch import Tensor, nn

from swd_models.denoiser import Denoiser, check_block
from swd_models.families.family import Family
from swd_models.known.facts import WAN
from swd_models.parts import Size, Text, device_of, encode_mode
from swd_models.prediction import Prediction

_ORIGINAL_NAMES = {
    "attn1.to_out.0": "self_attn.o",
    "attn2.to_out.0": "cross_attn.o",
    "attn1.to_": "self_attn.",
    "attn2.to_": "cross_attn.",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
}


class WanDenoiser(Denoiser):
    """Predict x0 of videos with a `WanTransformer3DModel`. `cond` holds `prompt_embeds` (B, L, D)."""

    family = "wan"
    lora_targets = r"blocks\.\d+\.(attn[12]\.to_[qkv]|attn[12]\.to_out\.0|ffn\.net\.0\.proj|ffn\.net\.2)"

    def __init__(self, backbone: WanTransformer3DModel) -> None:
        config = backbone.config
        super().__init__(
            backbone,
            blocks=WAN.blocks(config),
            num_channels=config.in_channels,
            num_features=config.num_attention_heads * config.attention_head_dim,
        )

    @classmethod
    def fps_of(cls, config: Mapping[str, Any]) -> int:
        """Return 24 for Wan2.2's smaller model, whose latents have 48 channels, 16 for the others."""
        return 24 if config["in_channels"] == 48 else 16

    @property
    def layers(self) -> Sequence[nn.Module]:
        """Return the blocks in the order in which they run."""
        return tuple(self.backbone.blocks)

    @property
    def cond_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of one prompt's embeddings, without the batch."""
        return {"prompt_embeds": (self.num_tokens, self.config["text_dim"])}

    def forward(
        self,
        x_t: Float[Tensor, "b c t h w"],
        sigma: Float[Tensor, " b"],
        cond: Mapping[str, Tensor],
        *,
        block: int | None = None,
        stop: bool = False,
    ) -> Prediction:
        """Run the transformer as diffusers does, block by block, so that a sub-forward is a plain return."""
        WAN.check_size(self.config, x_t.shape[2:])
        check_block(block, self.blocks)
        model, dtype = self.backbone, self.backbone.patch_embedding.weight.dtype
        positions = model.rope(x_t)
        video = model.patch_embedding(x_t.to(dtype)).flatten(2).transpose(1, 2).contiguous()
        time, projected, text, _ = model.condition_embedder(1000 * sigma, cond["prompt_embeds"].to(dtype), None)
        projected = projected.unflatten(1, (6, -1))
        features, last = None, self.last_block(block, stop)
        for index, layer in enumerate(self.layers):
            video = self.run(layer, video, text, projected, positions, index=index, last=last)
            if index == block:
                features = video
                if stop:
                    return Prediction(None, features)
        shift, scale = (model.scale_shift_table + time.unsqueeze(1)).chunk(2, dim=1)
        video = (model.norm_out(video.float()) * (1 + scale) + shift).type_as(video)
        velocity = self._unpatchify(model.proj_out(video), x_t.shape[2:])
        return Prediction(self.process.to_x0(x_t, velocity.to(x_t.dtype), sigma), features)

    def comfyui_name(self, layer: str) -> str:
        """Return what ComfyUI calls a layer in a LoRA file: the name in Wan's own code."""
        for ours, theirs in _ORIGINAL_NAMES.items():
            layer = layer.replace(ours, theirs)
        return f"diffusion_model.{layer}"

    def _unpatchify(self, tokens: Float[Tensor, "b n d"], size: Sequence[int]) -> Float[Tensor, "b c t h w"]:
        patch = self.config["patch_size"]
        counts = (side // p for side, p in zip(size, patch, strict=True))
        cells = tokens.reshape(len(tokens), *counts, *patch, -1)
        return cells.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(len(tokens), -1, *size)


class VideoLatents:
    """Latents of Wan's causal `AutoencoderKLWan`, each channel of mean 0 and variance 1."""

    bytes_a_pixel: float = 253
    patched: ClassVar[float] = 190
    """As `bytes_a_pixel`, of Wan2.2's smaller model, whose autoencoder takes patches of 2x2 pixels."""

    def __init__(self, vae: AutoencoderKLWan | AutoencoderKLQwenImage) -> None:
        self.vae = vae.eval().requires_grad_(False)
        if vae.config.get("patch_size"):
            self.bytes_a_pixel = self.patched

    def pixels(self, size: Sequence[int]) -> Size:
        """Return frames, height and width in pixels: the first latent frame stands for one frame, each other for 4."""
        config = self.vae.config
        frames = config.scale_factor_temporal * (size[0] - 1) + 1
        return frames, *(side * config.scale_factor_spatial for side in size[1:])

    def encode(self, pixels: Float[Tensor, "b 3 n y x"]) -> Float[Tensor, "b c t h w"]:
        """Encode videos in [-1, 1] to the mode of their posterior, normalised."""
        z = encode_mode(self.vae, pixels)
        mean, std = self._statistics(z.device)
        return (z.float() - mean) / std

    def decode(self, latents: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b 3 n y x"]:
        """Decode normalised latents to videos, clipped to [-1, 1]."""
        mean, std = self._statistics(latents.device)
        z = latents * std + mean
        videos: Tensor = self.vae.decode(z.to(device_of(self.vae), self.vae.dtype)).sample
        return videos.float().clamp(-1, 1)

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        config = self.vae.config
        mean, std = torch.tensor([config.latents_mean, config.latents_std], device=device).view(2, -1, 1, 1, 1)
        return mean, std


class WanText(Text):
    """UMT5's tokens."""

    tokenizer = "tokenizer"

    def encode(self, prompts: list[str]) -> dict[str, Tensor]:
        """Call `encode_prompt` as the pipeline does."""
        embeds, _ = self.pipe.encode_prompt(
            prompts,
            do_classifier_free_guidance=False,
            **self.options,
            device=self.device,
        )
        return {"prompt_embeds": embeds}


FAMILY = Family(
    pipeline=WanPipeline,
    backbone=WanTransformer3DModel,
    denoiser=WanDenoiser,
    vae=AutoencoderKLWan,
    latents=VideoLatents,
    text=WanText,
    facts=WAN,
    vae_dtype=torch.float32,  # as diffusers recommends
)
