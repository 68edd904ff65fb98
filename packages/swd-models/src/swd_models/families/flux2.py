"""FLUX.2 [klein], outside the paper: denoiser, latents, text, and the teacher's own sampler.

Latents are as of FLUX.1: 32 channels, a cell of 8 px. The model sees 2x2 of them as one token of 128 channels, each
normalised by itself. Apart they have places, and sizes change as an image's do; each of the 128 channels holds every
second cell of a row, of which a resized one would make what was never between them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline, Flux2Transformer2DModel
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from swd_models.denoiser import Denoiser, check_block
from swd_models.families.family import Family
from swd_models.known.facts import FLUX2, PATCH
from swd_models.parts import Size, Text, device_of, encode_mode
from swd_models.prediction import Prediction


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
            blocks=FLUX2.blocks(config),
            num_channels=config.in_channels // PATCH**2,
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
        FLUX2.check_size(self.config, x_t.shape[-2:])
        check_block(block, self.blocks)
        model, dtype = self.backbone, self.backbone.x_embedder.weight.dtype
        tokens = pixel_unshuffle(x_t, PATCH)
        size = tokens.shape[-2:]
        image = model.x_embedder(tokens.flatten(2).transpose(1, 2).to(dtype))
        text = model.context_embedder(cond["prompt_embeds"].to(dtype))
        time = model.time_guidance_embed((1000 * sigma).to(dtype), None)
        positions = model.pos_embed(token_ids(text.shape[1], size, x_t.device))
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
        velocity = model.proj_out(model.norm_out(tokens[:, length:], time)).transpose(1, 2).unflatten(2, size)
        velocity = pixel_shuffle(velocity.to(x_t.dtype), PATCH)
        return Prediction(self.process.to_x0(x_t, velocity, sigma), features)


def token_ids(num_text: int, size: Sequence[int], device: torch.device) -> Float[Tensor, "n 4"]:
    """Return the positions of text (0, 0, 0, index) and image tokens (0, row, column, 0)."""
    text = torch.zeros(num_text, 4, device=device)
    text[:, 3] += torch.arange(num_text, device=device)
    image = torch.zeros(*size, 4, device=device)
    image[..., 1] += torch.arange(size[0], device=device)[:, None]
    image[..., 2] += torch.arange(size[1], device=device)
    return torch.cat([text, image.flatten(0, 1)])


class Flux2Latents:
    """Latents of an `AutoencoderKLFlux2`, each channel of each of 2x2 cells normalised by the statistics it carries."""

    bytes_a_pixel: float = 3075

    def __init__(self, vae: AutoencoderKLFlux2) -> None:
        self.vae: Any = vae.eval().requires_grad_(False)
        self._bn, self._eps = vae.bn, float(vae.config.batch_norm_eps)  # also where another autoencoder decodes
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)

    def pixels(self, size: Sequence[int]) -> Size:
        """Return height and width in pixels."""
        return tuple(side * self.factor for side in size)

    def encode(self, pixels: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b c h w"]:
        """Encode images in [-1, 1] to the mode of their posterior, normalised."""
        z = encode_mode(self.vae, pixels)
        mean, std = self._statistics(z.device)
        return pixel_shuffle((pixel_unshuffle(z.float(), PATCH) - mean) / std, PATCH)

    def decode(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 y x"]:
        """Decode normalised latents to images, clipped to [-1, 1]."""
        mean, std = self._statistics(latents.device)
        z = pixel_shuffle(pixel_unshuffle(latents.float(), PATCH) * std + mean, PATCH)
        images: Tensor = self.vae.decode(z.to(device_of(self.vae), self.vae.dtype)).sample
        return images.float().clamp(-1, 1)

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        values = (self._bn.running_mean, self._bn.running_var)
        mean, variance = (value.to(device, torch.float32).view(1, -1, 1, 1) for value in values)
        return mean, (variance + self._eps).sqrt()


class Flux2Text(Text):
    """Three layers of Qwen3, side by side."""

    tokenizer = "tokenizer"

    def encode(self, prompts: list[str]) -> dict[str, Tensor]:
        """Call `encode_prompt` as the pipeline does."""
        embeds, _ = self.pipe.encode_prompt(prompts, device=self.device, **self.options)
        return {"prompt_embeds": embeds}


FAMILY = Family(
    pipeline=Flux2KleinPipeline,
    backbone=Flux2Transformer2DModel,
    denoiser=Flux2Denoiser,
    vae=AutoencoderKLFlux2,
    latents=Flux2Latents,
    text=Flux2Text,
    facts=FLUX2,
)
