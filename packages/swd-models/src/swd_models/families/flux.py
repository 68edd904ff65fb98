"""FLUX.1: denoiser, latents, text, and the teacher's own sampler."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
from jaxtyping import Float
from torch import Tensor, nn

from swd_models.denoiser import Denoiser, check_block
from swd_models.families.family import Family
from swd_models.known.facts import FLUX, PATCH
from swd_models.parts import ImageLatents, Text
from swd_models.prediction import Prediction


class FluxDenoiser(Denoiser):
    """Predict x0 with a `FluxTransformer2DModel`.

    `cond` holds `prompt_embeds` (B, L, D) and `pooled_prompt_embeds` (B, P). A guidance-distilled model (FLUX.1-dev)
    takes its guidance as an embedding and needs no unconditional pass: `guidance` (default: 4.5, at which the authors
    sample their student), or (B,) in `cond` by that name.
    """

    family = "flux"
    # Attention and MLP of both kinds of blocks; the single ones' are proj_mlp and proj_out. Not the last proj_out.
    lora_targets = (
        r"(single_)?transformer_blocks\.\d+\.(attn\.to_[qkv]|attn\.to_out\.0|ff\.net\.0\.proj|ff\.net\.2"
        r"|ff_context\.net\.0\.proj|ff_context\.net\.2|proj_mlp|proj_out)"
    )

    def __init__(self, backbone: FluxTransformer2DModel, guidance: float = 4.5) -> None:
        config = backbone.config
        super().__init__(
            backbone,
            blocks=FLUX.blocks(config),
            num_channels=config.in_channels // PATCH**2,
            num_features=backbone.inner_dim,
        )
        self.guidance = guidance if config.guidance_embeds else None

    @property
    def layers(self) -> Sequence[nn.Module]:
        """Return the blocks in the order in which they run."""
        return *self.backbone.transformer_blocks, *self.backbone.single_transformer_blocks

    @property
    def cond_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of one prompt's embeddings, without the batch."""
        config = self.config
        return {
            "prompt_embeds": (self.num_tokens, config["joint_attention_dim"]),
            "pooled_prompt_embeds": (config["pooled_projection_dim"],),
        }

    def forward(
        self,
        x_t: Float[Tensor, "b c h w"],
        sigma: Float[Tensor, " b"],
        cond: Mapping[str, Tensor],
        *,
        block: int | None = None,
        stop: bool = False,
    ) -> Prediction:
        """Pack 2x2 cells into tokens, then run the transformer as diffusers does, block by block."""
        FLUX.check_size(self.config, x_t.shape[-2:])
        check_block(block, self.blocks)
        model, dtype = self.backbone, self.backbone.x_embedder.weight.dtype
        image = model.x_embedder(pack(x_t).to(dtype))
        time = self._embed_time(sigma, cond, dtype)
        text = model.context_embedder(cond["prompt_embeds"].to(dtype))
        positions = model.pos_embed(token_ids(text.shape[1], x_t.shape[-2:], x_t.device))
        features, last = None, self.last_block(block, stop)
        for index, layer in enumerate(self.layers):
            text, image = self.run(layer, image, text, time, positions, index=index, last=last)
            if index == block:
                features = image
                if stop:
                    return Prediction(None, features)
        velocity = unpack(model.proj_out(model.norm_out(image, time)), x_t.shape[-2:])
        return Prediction(self.process.to_x0(x_t, velocity.to(x_t.dtype), sigma), features)

    def _embed_time(self, sigma: Tensor, cond: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        embed, pooled = self.backbone.time_text_embed, cond["pooled_prompt_embeds"].to(dtype)
        if self.guidance is None:
            return embed(1000 * sigma, pooled)  # type: ignore[no-any-return]
        guidance = cond["guidance"] if "guidance" in cond else torch.full_like(sigma, self.guidance)
        return embed(1000 * sigma, 1000 * guidance, pooled)  # type: ignore[no-any-return]


def pack(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
    """Turn 2x2 cells into one token: (B, C, H, W) to (B, HW / 4, 4C), row by row."""
    batch, channels, height, width = x.shape
    cells = x.reshape(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(batch, height * width // PATCH**2, channels * PATCH**2)


def unpack(tokens: Float[Tensor, "b n d"], size: Sequence[int]) -> Float[Tensor, "b c h w"]:
    """Undo `pack`."""
    rows, columns = size[-2] // PATCH, size[-1] // PATCH
    cells = tokens.reshape(len(tokens), rows, columns, -1, PATCH, PATCH)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), -1, rows * PATCH, columns * PATCH)


def token_ids(num_text: int, size: Sequence[int], device: torch.device) -> Float[Tensor, "n 3"]:
    """Return the positions of text (all zero) and image tokens (0, row, column), counted from 0 at every size."""
    rows, columns = size[-2] // PATCH, size[-1] // PATCH
    image = torch.zeros(rows, columns, 3, device=device)
    image[..., 1] += torch.arange(rows, device=device)[:, None]
    image[..., 2] += torch.arange(columns, device=device)
    return torch.cat([torch.zeros(num_text, 3, device=device), image.flatten(0, 1)])


class FluxText(Text):
    """T5's tokens, and CLIP's pooled embedding."""

    tokenizer = "tokenizer_2"

    def guiding(self, num_prompts: int, guidance: float) -> dict[str, Any]:
        """Return what the pipeline must be told: without an embedding it guides only away from a prompt of its own."""
        if self.pipe.transformer.config.guidance_embeds:
            return super().guiding(num_prompts, guidance)
        return {"true_cfg_scale": guidance} | ({"negative_prompt": [""] * num_prompts} if guidance > 1 else {})

    def encode(self, prompts: list[str]) -> dict[str, Tensor]:
        """Call `encode_prompt` as the pipeline does."""
        embeds, pooled, _ = self.pipe.encode_prompt(prompts, None, device=self.device, **self.options)
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}


FAMILY = Family(
    pipeline=FluxPipeline,
    backbone=FluxTransformer2DModel,
    denoiser=FluxDenoiser,
    vae=AutoencoderKL,
    latents=ImageLatents,
    text=FluxText,
    facts=FLUX,
)
