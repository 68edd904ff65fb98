"""Qwen-Image, outside the paper: denoiser, latents, text, and the teacher's own sampler."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKLQwenImage, QwenImagePipeline, QwenImageTransformer2DModel
from jaxtyping import Float
from torch import Tensor, nn

from swd_models.denoiser import Denoiser, check_block
from swd_models.families.family import Family
from swd_models.families.flux import pack, unpack
from swd_models.families.positions import rotations
from swd_models.families.wan import VideoLatents
from swd_models.known.facts import PATCH, QWEN
from swd_models.parts import MASK, Size, Text, padded
from swd_models.prediction import Prediction


class QwenDenoiser(Denoiser):
    """Predict x0 with a `QwenImageTransformer2DModel`.

    `cond` holds `prompt_embeds` (B, L, D) and, where lengths differ, `prompt_embeds_mask` (B, L), true where there is
    text. Positions of the image are centred on 0 at every size, and those of text begin where the image ends: they
    depend on the size.
    """

    family = "qwen"
    takes_float16 = False

    def __init__(self, backbone: QwenImageTransformer2DModel) -> None:
        config = backbone.config
        super().__init__(
            backbone,
            blocks=QWEN.blocks(config),
            num_channels=config.in_channels // PATCH**2,
            num_features=backbone.inner_dim,
        )
        # As of FLUX.1: the image's attention and both MLPs. Nothing is made of the text behind the last block.
        self.lora_targets = (
            r"transformer_blocks\.(\d+\.(attn\.(to_[qkv]|to_out\.0)|img_mlp\.net\.(0\.proj|2))"
            rf"|(?!{config.num_layers - 1}\.)\d+\.txt_mlp\.net\.(0\.proj|2))"
        )

    @property
    def layers(self) -> Sequence[nn.Module]:
        """Return the blocks in the order in which they run."""
        return tuple(self.backbone.transformer_blocks)

    @property
    def cond_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of one prompt's embeddings, without the batch."""
        return {
            "prompt_embeds": (self.num_tokens, self.config["joint_attention_dim"]),
            "prompt_embeds_mask": (self.num_tokens,),
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
        QWEN.check_size(self.config, x_t.shape[-2:])
        check_block(block, self.blocks)
        model, dtype = self.backbone, self.backbone.img_in.weight.dtype
        image = model.img_in(pack(x_t).to(dtype))
        text, mask = model.txt_in(model.txt_norm(cond["prompt_embeds"].to(dtype))), cond.get(MASK)
        mask = None if mask is None else mask.bool()
        time, positions = model.time_text_embed(sigma, image), self._positions(x_t.shape[-2:], text)
        features, last = None, self.last_block(block, stop)
        for index, layer in enumerate(self.layers):
            text, image = self.run(layer, image, text, mask, time, positions, index=index, last=last)
            if index == block:
                features = image
                if stop:
                    return Prediction(None, features)
        velocity = unpack(model.proj_out(model.norm_out(image, time)), x_t.shape[-2:])
        return Prediction(self.process.to_x0(x_t, velocity.to(x_t.dtype), sigma), features)

    def _positions(self, size: Sequence[int], text: Float[Tensor, "b l d"]) -> tuple[Tensor, Tensor]:
        """Return those of image tokens (0, row, column), centred on 0, and of text: beyond the image, on all axes."""
        rows, columns = (torch.arange(side // PATCH, device=text.device) - (side // PATCH + 1) // 2 for side in size)
        image = torch.cartesian_prod(torch.zeros_like(rows[:1]), rows, columns)
        first = max(size) // PATCH // 2
        along = torch.arange(first, first + text.shape[1], device=text.device)
        axes = self.config["axes_dims_rope"]
        return rotations(image, axes, theta=10000.0), rotations(along[:, None].expand(-1, 3), axes, theta=10000.0)

    def guide(
        self,
        x_t: Float[Tensor, "b c h w"],
        sigma: Float[Tensor, " b"],
        cond: Float[Tensor, "b c h w"],
        uncond: Float[Tensor, "b c h w"],
        weight: float,
    ) -> Float[Tensor, "b c h w"]:
        """Guide as the pipeline does: each token's velocity keeps the length that it has with the prompt alone."""
        level = sigma.to(x_t.dtype).view(-1, 1, 1, 1)
        with_prompt, without = (pack((x_t - x0) / level) for x0 in (cond, uncond))
        both = torch.lerp(without, with_prompt, weight)
        both = both * (with_prompt.norm(dim=-1, keepdim=True) / both.norm(dim=-1, keepdim=True))
        return x_t - level * unpack(both, x_t.shape[-2:])


class QwenLatents(VideoLatents):
    """Latents of an `AutoencoderKLQwenImage`: Wan's, of one frame."""

    bytes_a_pixel: float = 6921

    def pixels(self, size: Sequence[int]) -> Size:
        """Return height and width in pixels."""
        return tuple(side * self.vae.spatial_compression_ratio for side in size)

    def encode(self, pixels: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b c h w"]:
        """Encode images in [-1, 1] to the mode of their posterior, normalised."""
        return super().encode(pixels.unsqueeze(2)).squeeze(2)

    def decode(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 y x"]:
        """Decode normalised latents to images, clipped to [-1, 1]."""
        return super().decode(latents.unsqueeze(2)).squeeze(2)


class QwenText(Text):
    """Tokens of Qwen2.5-VL behind the pipeline's template, padded with zeros; a mask tells how many there are."""

    tokenizer = "tokenizer"
    negative = " "
    any_length = True

    def guiding(self, num_prompts: int, guidance: float) -> dict[str, Any]:
        """Return what the pipeline must be told, which guides only away from a prompt that it is given."""
        return {"true_cfg_scale": guidance} | ({"negative_prompt": [" "] * num_prompts} if guidance > 1 else {})

    def encode(self, prompts: list[str]) -> dict[str, Tensor]:
        """Call `encode_prompt` as the pipeline does."""
        embeds, mask = self.pipe.encode_prompt(prompts, device=self.device, **self.options)
        mask = torch.ones(embeds.shape[:2], device=embeds.device) if mask is None else mask
        return padded([e[m.bool()] for e, m in zip(embeds, mask, strict=True)], self.options["max_sequence_length"])


FAMILY = Family(
    pipeline=QwenImagePipeline,
    backbone=QwenImageTransformer2DModel,
    denoiser=QwenDenoiser,
    vae=AutoencoderKLQwenImage,
    latents=QwenLatents,
    text=QwenText,
    facts=QWEN,
)
