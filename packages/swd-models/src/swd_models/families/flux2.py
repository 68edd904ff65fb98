"""FLUX.2 [klein], outside the paper: denoiser, latents, text, and the teacher's own sampler."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline, Flux2Transformer2DModel
from jaxtyping import Float
from torch import Tensor, nn

from swd_models.denoiser import Denoiser, check_block
from swd_models.families.family import Family
from swd_models.parts import Size, Text, device_of
from swd_models.prediction import Prediction

PATCH = 2  # the autoencoder's cells are joined 2x2 before they are normalised: latents are these patches


class Flux2Denoiser(Denoiser):
    """Predict x0 with a `Flux2Transformer2DModel` that embeds no guidance. `cond` holds `prompt_embeds` (B, L, D)."""

    family = "flux2"
    lora_targets = (
        r"transformer_blocks\.\d+\.(attn\.to_[qkv]|attn\.to_out\.0|ff(_context)?\.linear_(in|out))"
        r"|single_transformer_blocks\.\d+\.attn\.(to_qkv_mlp_proj|to_out)"
    )

    def __init__(self, backbone: Flux2Transformer2DModel) -> None:
        config = backbone.config
        super().__init__(
            backbone,
            blocks=blocks(config),
            num_channels=config.in_channels,
            num_features=backbone.inner_dim,
        )

    @property
    def layers(self) -> Sequence[nn.Module]:
        """Return the blocks in the order in which they run."""
        return *self.backbone.transformer_blocks, *self.backbone.single_transformer_blocks

    @property
    def cond_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of one prompt's embeddings, without the batch."""
        return {"prompt_embeds": (self.num_tokens, self.config["joint_attention_dim"])}

    def forward(
        self,
        x_t: Float[Tensor, "b c h w"],
        sigma: Float[Tensor, " b"],
        cond: Mapping[str, Tensor],
        *,
        block: int | None = None,
        stop: bool = False,
    ) -> Prediction:
        """Run the transformer as diffusers does, block by block; single blocks hold text and image in one sequence."""
        check_size(self.config, x_t.shape[-2:])
        check_block(block, self.blocks)
        model, dtype = self.backbone, self.backbone.x_embedder.weight.dtype
        image = model.x_embedder(x_t.flatten(2).transpose(1, 2).to(dtype))
        text = model.context_embedder(cond["prompt_embeds"].to(dtype))
        time = model.time_guidance_embed((1000 * sigma).to(dtype), None)
        positions = model.pos_embed(token_ids(text.shape[1], x_t.shape[-2:], x_t.device))
        length, features, last = text.shape[1], None, self.last_block(block, stop)
        shifts = model.double_stream_modulation_img(time), model.double_stream_modulation_txt(time)
        for index, layer in enumerate(model.transformer_blocks):
            text, image = self.run(layer, image, text, *shifts, positions, index=index, last=last)
            if index == block:
                features = image
                if stop:
                    return Prediction(None, features)
        tokens, shift = torch.cat([text, image], dim=1), model.single_stream_modulation(time)
        for index, layer in enumerate(model.single_transformer_blocks, start=len(model.transformer_blocks)):
            tokens = self.run(layer, tokens, None, shift, positions, index=index, last=last)
            if index == block:
                features = tokens[:, length:]
                if stop:
                    return Prediction(None, features)
        velocity = model.proj_out(model.norm_out(tokens[:, length:], time)).transpose(1, 2).unflatten(2, x_t.shape[-2:])
        return Prediction(self.process.to_x0(x_t, velocity.to(x_t.dtype), sigma), features)


def token_ids(num_text: int, size: Sequence[int], device: torch.device) -> Float[Tensor, "n 4"]:
    """Return the positions of text (0, 0, 0, index) and image tokens (0, row, column, 0)."""
    text = torch.zeros(num_text, 4, device=device)
    text[:, 3] += torch.arange(num_text, device=device)
    image = torch.zeros(*size, 4, device=device)
    image[..., 1] += torch.arange(size[0], device=device)[:, None]
    image[..., 2] += torch.arange(size[1], device=device)
    return torch.cat([text, image.flatten(0, 1)])


class Flux2Latents:
    """Latents of an `AutoencoderKLFlux2`: 2x2 cells as one, each channel normalised by the statistics it carries."""

    bytes_a_pixel: float = 3075

    def __init__(self, vae: AutoencoderKLFlux2) -> None:
        self.vae = vae.eval().requires_grad_(False)
        self.factor = PATCH * 2 ** (len(vae.config.block_out_channels) - 1)

    def pixels(self, size: Sequence[int]) -> Size:
        """Return height and width in pixels."""
        return tuple(side * self.factor for side in size)

    def encode(self, pixels: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b c h w"]:
        """Encode images in [-1, 1] to the mode of their posterior, normalised."""
        z = self.vae.encode(pixels.to(device_of(self.vae), self.vae.dtype)).latent_dist.mode()
        mean, std = self._statistics()
        patches: Tensor = torch.nn.functional.pixel_unshuffle(z, PATCH)
        return (patches.float() - mean) / std

    def decode(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 y x"]:
        """Decode normalised latents to images, clipped to [-1, 1]."""
        mean, std = self._statistics()
        z = torch.nn.functional.pixel_shuffle(latents.to(mean) * std + mean, PATCH)
        images: Tensor = self.vae.decode(z.to(device_of(self.vae), self.vae.dtype)).sample
        return images.float().clamp(-1, 1)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        mean, variance = (
            value.float().view(1, -1, 1, 1) for value in (self.vae.bn.running_mean, self.vae.bn.running_var)
        )
        return mean, (variance + self.vae.config.batch_norm_eps).sqrt()


class Flux2Text(Text):
    """Three layers of Qwen3, side by side."""

    tokenizer = "tokenizer"

    def encode(self, prompts: list[str]) -> dict[str, Tensor]:
        """Call `encode_prompt` as the pipeline does."""
        embeds, _ = self.pipe.encode_prompt(prompts, device=self.device, **self.options)
        return {"prompt_embeds": embeds}


def check_size(config: Mapping[str, Any], size: Sequence[int]) -> None:
    """Raise ValueError for a latent size of a video: any height and width will do."""
    if len(size) != 2:
        raise ValueError(f"expected latent height and width, got {'x'.join(map(str, size))}; change the schedule")


def blocks(config: Mapping[str, Any]) -> range:
    """Return the blocks whose features can be asked for."""
    return range(int(config["num_layers"]) + int(config["num_single_layers"]))


FAMILY = Family(
    pipeline=Flux2KleinPipeline,
    backbone=Flux2Transformer2DModel,
    denoiser=Flux2Denoiser,
    vae=AutoencoderKLFlux2,
    latents=Flux2Latents,
    text=Flux2Text,
    check_size=check_size,
    blocks=blocks,
)
