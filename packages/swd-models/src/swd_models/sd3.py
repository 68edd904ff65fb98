"""Stable Diffusion 3 and 3.5: denoiser, latents, text, and the teacher's own sampler."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline
from jaxtyping import Float
from torch import Tensor

from swd_models.denoiser import Denoiser, check_block
from swd_models.parts import ImageLatents, Teacher, Text, load_pipeline
from swd_models.prediction import Prediction


class SD3Denoiser(Denoiser):
    """Predict x0 with an `SD3Transformer2DModel`; optionally stop after a block and return its image tokens.

    `cond` holds `prompt_embeds` (B, L, D) and `pooled_prompt_embeds` (B, P).
    """

    family = "sd3"
    # "Attention and MLP layers" (appendix A), the authors' suffixes: `net.*` matches the text stream's MLP too, its
    # attention projections `add_*` stay frozen.
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2")

    def __init__(self, backbone: SD3Transformer2DModel) -> None:
        config = backbone.config
        super().__init__(
            backbone,
            blocks=blocks(config),
            num_channels=config.in_channels,
            num_features=backbone.inner_dim,
        )

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
        check_size(self.config, x_t.shape[-2:])
        check_block(block, self.blocks)
        model, dtype = self.backbone, self.backbone.pos_embed.proj.weight.dtype
        image = model.pos_embed(x_t.to(dtype)).contiguous()
        time = model.time_text_embed(1000 * sigma, cond["pooled_prompt_embeds"].to(dtype))
        text = model.context_embedder(cond["prompt_embeds"].to(dtype))
        features = None
        for index, layer in enumerate(model.transformer_blocks):
            text, image = self.run(layer, image, text, time)
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


def check_size(config: Mapping[str, Any], size: Sequence[int]) -> None:
    """Raise ValueError for a latent size that patches would silently truncate or positions do not reach."""
    patch, reach = config["patch_size"], config["pos_embed_max_size"]
    if len(size) != 2 or any(side % patch or side // patch > reach for side in size):
        raise ValueError(
            f"expected latent height and width divisible by {patch} and at most {patch * reach}, got "
            f"{'x'.join(map(str, size))}; change the sizes of the schedule"
        )


class SD3Text(Text):
    """CLIP's two embeddings side by side, padded to T5's width, with T5's tokens behind."""

    def encode(self, prompts: list[str]) -> dict[str, Tensor]:
        """Call `encode_prompt` as the pipeline does."""
        embeds, _, pooled, _ = self.pipe.encode_prompt(
            prompts,
            None,
            None,
            do_classifier_free_guidance=False,
            max_sequence_length=num_t5_tokens(self.pipe),
            device=self.device,
        )
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}


def num_t5_tokens(pipe: StableDiffusion3Pipeline) -> int:
    """Return 256, the pipeline's default, or 0 where T5 is left out: stock diffusers then appends 256 zero tokens."""
    return 0 if pipe.text_encoder_3 is None else 256


def blocks(config: Mapping[str, Any]) -> range:
    """Return the blocks whose features can be asked for."""
    return range(int(config["num_layers"]))


def load_config(model: str) -> dict[str, Any]:
    """Load the transformer's config alone."""
    config: dict[str, Any] = SD3Transformer2DModel.load_config(model, subfolder="transformer")
    return config


def build(config: Mapping[str, Any]) -> SD3Denoiser:
    """Build the denoiser of a config, its weights undefined: for `torch.device("meta")`."""
    return SD3Denoiser(SD3Transformer2DModel.from_config(config))


def load_denoiser(model: str, **options: Any) -> SD3Denoiser:
    """Load the transformer alone."""
    return SD3Denoiser(SD3Transformer2DModel.from_pretrained(model, subfolder="transformer", **options).eval())


def load_latents(model: str, **options: Any) -> ImageLatents:
    """Load the autoencoder alone."""
    return ImageLatents(AutoencoderKL.from_pretrained(model, subfolder="vae", **options))


def load_text(model: str, **options: Any) -> SD3Text:
    """Load text encoders and tokenizers alone."""
    with torch.device("meta"):  # `encode_prompt` reads the width of a left-out T5 from the transformer's config
        transformer = SD3Transformer2DModel.from_config(load_config(model))
    pipe = load_pipeline(StableDiffusion3Pipeline, model, ("vae", "transformer"), **options)
    pipe.register_modules(transformer=transformer)
    return SD3Text(pipe)


def load_teacher(model: str, **options: Any) -> Teacher:
    """Load the whole pipeline."""
    pipe = load_pipeline(StableDiffusion3Pipeline, model, **options)
    return Teacher(pipe, ImageLatents(pipe.vae), max_sequence_length=num_t5_tokens(pipe))
