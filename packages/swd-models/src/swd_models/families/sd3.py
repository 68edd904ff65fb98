"""Stable Diffusion 3 and 3.5: denoiser, latents, text, and the teacher's own sampler."""

from collections.abc import Mapping, Sequence
from typing import Any

from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline
from jaxtyping import Float
from torch import Tensor, nn

from swd_models.denoiser import Denoiser, check_block
from swd_models.families.family import Family
from swd_models.known.facts import SD3
from swd_models.parts import ImageLatents, Text
from swd_models.prediction import Prediction


class SD3Denoiser(Denoiser):
    """Predict x0 with an `SD3Transformer2DModel`; optionally stop after a block and return its image tokens.

    `cond` holds `prompt_embeds` (B, L, D) and `pooled_prompt_embeds` (B, P).
    """

    family = "sd3"
    # "Attention and MLP layers" (appendix A), the authors' suffixes: `net.*` matches the text stream's MLP too, its
    # attention projections `add_*` stay frozen.
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2")

    clip_tokens, num_tokens = 77, 77 + 256  # CLIP's, and with T5's

    def __init__(self, backbone: SD3Transformer2DModel) -> None:
        config = backbone.config
        super().__init__(
            backbone,
            blocks=SD3.blocks(config),
            num_channels=config.in_channels,
            num_features=backbone.inner_dim,
        )

    @property
    def layers(self) -> Sequence[nn.Module]:
        """Return the blocks in the order in which they run."""
        return tuple(self.backbone.transformer_blocks)

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
        """Run the transformer as diffusers does, block by block, so that a sub-forward is a plain return."""
        SD3.check_size(self.config, x_t.shape[-2:])
        check_block(block, self.blocks)
        model, dtype = self.backbone, self.backbone.pos_embed.proj.weight.dtype
        image = model.pos_embed(x_t.to(dtype)).contiguous()
        time = model.time_text_embed(1000 * sigma, cond["pooled_prompt_embeds"].to(dtype))
        text = model.context_embedder(cond["prompt_embeds"].to(dtype))
        features, last = None, self.last_block(block, stop)
        for index, layer in enumerate(self.layers):
            text, image = self.run(layer, image, text, time, index=index, last=last)
            if index == block:
                features = image
                if stop:
                    return Prediction(None, features)
        velocity = self._unpatchify(model.proj_out(model.norm_out(image, time)), x_t)
        return Prediction(self.process.to_x0(x_t, velocity.to(x_t.dtype), sigma), features)

    def _unpatchify(self, tokens: Tensor, x_t: Tensor) -> Tensor:
        p = self.backbone.config.patch_size
        height, width = x_t.shape[-2] // p, x_t.shape[-1] // p
        patches = tokens.reshape(len(tokens), height, width, p, p, -1)
        return patches.permute(0, 5, 1, 3, 2, 4).reshape(len(tokens), -1, height * p, width * p)


class SD3Text(Text):
    """CLIP's two embeddings side by side, padded to T5's width, with T5's tokens behind: 256, or as many as asked for.

    The authors' code takes 512.
    """

    tokenizer = "tokenizer_3"

    @property
    def options(self) -> dict[str, Any]:
        """Return T5's length, by default the pipeline's; 0 where it is left out (diffusers would append zeros)."""
        return {"max_sequence_length": (self.num_tokens or 256) if self.takes_tokens else 0}

    @property
    def _tokenizer(self) -> Any:
        return None if self.pipe.text_encoder_3 is None else super()._tokenizer

    def encode(self, prompts: list[str]) -> dict[str, Tensor]:
        """Call `encode_prompt` as the pipeline does."""
        embeds, _, pooled, _ = self.pipe.encode_prompt(
            prompts,
            None,
            None,
            do_classifier_free_guidance=False,
            **self.options,
            device=self.device,
        )
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}


FAMILY = Family(
    pipeline=StableDiffusion3Pipeline,
    backbone=SD3Transformer2DModel,
    denoiser=SD3Denoiser,
    vae=AutoencoderKL,
    latents=ImageLatents,
    text=SD3Text,
    facts=SD3,
)
