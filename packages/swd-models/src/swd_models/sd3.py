"""Stable Diffusion 3 and 3.5: denoiser, latents, text, and the teacher's own sampler."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor, nn

from swd_models.prediction import Prediction
from swd_schedules import FlowMatching

# "Attention and MLP layers" (appendix A), the authors' suffixes: `net.*` matches the text stream's MLP too, its
# attention projections `add_*` stay frozen.
LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2")


class SD3Denoiser(nn.Module):
    """Predict x0 with an `SD3Transformer2DModel`; optionally stop after a block and return its image tokens.

    `cond` holds `prompt_embeds` (B, L, D) and `pooled_prompt_embeds` (B, P).
    """

    family = "sd3"
    lora_prefix = "transformer"
    process = FlowMatching()

    def __init__(self, backbone: SD3Transformer2DModel) -> None:
        super().__init__()
        self.backbone = backbone

    @property
    def num_blocks(self) -> int:
        """Return the number of transformer blocks."""
        return len(self.backbone.transformer_blocks)

    @property
    def num_channels(self) -> int:
        """Return the number of latent channels."""
        return int(self.backbone.config.in_channels)

    @property
    def num_features(self) -> int:
        """Return the width of a block's features."""
        return int(self.backbone.inner_dim)

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
        check_size(self.backbone.config, x_t.shape[-2:])
        model, dtype = self.backbone, self.backbone.pos_embed.proj.weight.dtype
        image = model.pos_embed(x_t.to(dtype)).contiguous()
        time = model.time_text_embed(1000 * sigma, cond["pooled_prompt_embeds"].to(dtype))
        text = model.context_embedder(cond["prompt_embeds"].to(dtype))
        features = None
        for index, layer in enumerate(model.transformer_blocks):
            text, image = self._run(layer, image, text, time)
            if index == block:
                features = image
                if stop:
                    return Prediction(None, features)
        if block is not None and features is None:
            raise ValueError(f"expected a block below {self.num_blocks}, got {block}")
        velocity = self._unpatchify(model.proj_out(model.norm_out(image, time)), x_t)
        return Prediction(self.process.to_x0(x_t, velocity.to(x_t.dtype), sigma), features)

    def denoise(self, x_t: Tensor, sigma: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """Predict x0 alone: what samplers ask for."""
        x0 = self(x_t, sigma, cond).x0
        assert isinstance(x0, Tensor)
        return x0

    def _run(self, layer: nn.Module, image: Tensor, text: Tensor, time: Tensor) -> tuple[Tensor | None, Tensor]:
        if torch.is_grad_enabled() and self.backbone.gradient_checkpointing:
            result = self.backbone._gradient_checkpointing_func(layer, image, text, time)
        else:
            result = layer(hidden_states=image, encoder_hidden_states=text, temb=time)
        text, image = result
        return text, image

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


class SD3Latents:
    """Images to unit-scale latents and back, with the pipeline's `AutoencoderKL`."""

    def __init__(self, vae: AutoencoderKL) -> None:
        self.vae = vae.eval().requires_grad_(False)
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)

    def encode(self, images: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b c h w"]:
        """Encode images in [-1, 1] to the mode of their posterior, normalised."""
        z: Tensor = self.vae.encode(images.to(self.vae.device, self.vae.dtype)).latent_dist.mode()
        shift, scale = self._constants()
        return (z.float() - shift) * scale

    def decode(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 y x"]:
        """Decode normalised latents to images, clipped to [-1, 1]."""
        shift, scale = self._constants()
        z = latents / scale + shift
        images: Tensor = self.vae.decode(z.to(self.vae.device, self.vae.dtype)).sample
        return images.float().clamp(-1, 1)

    def _constants(self) -> tuple[float, float]:
        return float(self.vae.config.shift_factor), float(self.vae.config.scaling_factor)


class SD3Text:
    """Prompts to `cond` through the pipeline's own `encode_prompt`."""

    def __init__(self, pipe: StableDiffusion3Pipeline) -> None:
        self.pipe = pipe

    def to(self, device: torch.device | str) -> "SD3Text":
        """Move the text encoders."""
        for name in ("text_encoder", "text_encoder_2", "text_encoder_3"):
            encoder = getattr(self.pipe, name)
            if encoder is not None:
                encoder.to(device)
        return self

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Encode prompts; the empty string is the unconditional one."""
        embeds, _, pooled, _ = self.pipe.encode_prompt(
            list(prompts),
            None,
            None,
            do_classifier_free_guidance=False,
            max_sequence_length=num_t5_tokens(self.pipe),
            device=self.pipe.text_encoder.device,
        )
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}


def num_t5_tokens(pipe: StableDiffusion3Pipeline) -> int:
    """Return 256, the pipeline's default, or 0 where T5 is left out: stock diffusers then appends 256 zero tokens."""
    return 0 if pipe.text_encoder_3 is None else 256


def num_blocks(config: Mapping[str, Any]) -> int:
    """Return the number of transformer blocks that a config builds."""
    return int(config["num_layers"])


def load_config(model: str) -> dict[str, Any]:
    """Load the transformer's config alone."""
    config: dict[str, Any] = SD3Transformer2DModel.load_config(model, subfolder="transformer")
    return config


def load_denoiser(model: str, **options: Any) -> SD3Denoiser:
    """Load the transformer alone."""
    return SD3Denoiser(SD3Transformer2DModel.from_pretrained(model, subfolder="transformer", **options).eval())


def load_latents(model: str, **options: Any) -> SD3Latents:
    """Load the autoencoder alone."""
    return SD3Latents(AutoencoderKL.from_pretrained(model, subfolder="vae", **options))


def load_text(model: str, **options: Any) -> SD3Text:
    """Load text encoders and tokenizers alone."""
    with torch.device("meta"):  # `encode_prompt` reads the width of a left-out T5 from the transformer's config
        transformer = SD3Transformer2DModel.from_config(load_config(model))
    parts = _left_out(model) | {"vae": None, "transformer": None}
    pipe = StableDiffusion3Pipeline.from_pretrained(model, **parts, **options)
    pipe.register_modules(transformer=transformer)
    return SD3Text(pipe)


def load_teacher(model: str, **options: Any) -> "SD3Teacher":
    """Load the whole pipeline."""
    return SD3Teacher(StableDiffusion3Pipeline.from_pretrained(model, **_left_out(model), **options))


def _left_out(model: str) -> dict[str, None]:
    """Name the parts that the model does without (T5), which `from_pretrained` wants to be told."""
    index = StableDiffusion3Pipeline.load_config(model)
    return {name: None for name, value in index.items() if value == [None, None]}


class SD3Teacher:
    """The undistilled model with the pipeline's own sampler and guidance: makes the training images."""

    def __init__(self, pipe: StableDiffusion3Pipeline) -> None:
        self.pipe = pipe
        pipe.set_progress_bar_config(disable=True)

    def __call__(
        self,
        prompts: Sequence[str],
        *,
        size: tuple[int, ...],
        num_steps: int,
        guidance: float,
        generators: list[torch.Generator],
    ) -> list[Image]:
        """Sample one image a prompt; `size` is the latent (h, w)."""
        height, width = (side * self.pipe.vae_scale_factor for side in size)
        images: list[Image] = self.pipe(
            list(prompts),
            height=height,
            width=width,
            num_inference_steps=num_steps,
            guidance_scale=guidance,
            generator=generators,
            max_sequence_length=num_t5_tokens(self.pipe),
        ).images
        return images
