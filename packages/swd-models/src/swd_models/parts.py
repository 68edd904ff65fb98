"""Latents, text and teacher as pipelines of diffusers have them: what the families share."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DiffusionPipeline
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTinyOutput
from jaxtyping import Float
from PIL.Image import Image, fromarray
from torch import Tensor, nn

from swd_models.compiling import compile_layers
from swd_models.known.facts import MAX_TOKENS, check_tokens

Size = tuple[int, ...]
Media = Image | list[Image]
"""An image, or the frames of a video."""


def device_of(module: Any) -> torch.device:
    """Return where a module computes, which need not be where it is: accelerate's hooks bring it there."""
    hook = getattr(module, "_hf_hook", None)
    device: torch.device = module.device if hook is None else torch.device(hook.execution_device)
    return device


@runtime_checkable
class Latents(Protocol):
    """Pixels in [-1, 1] to latents of unit scale and back."""

    vae: Any
    bytes_a_pixel: float
    """The most that decoding holds in float32, weights apart, as `swd-distill plan` counts it."""

    def pixels(self, size: Sequence[int]) -> Size:
        """Return the pixels of a latent size, (y, x) or (frames, y, x)."""
        ...

    def encode(self, pixels: Tensor) -> Tensor:
        """Encode to the mode of the posterior, normalised."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Decode normalised latents, clipped to [-1, 1]."""
        ...


class ImageLatents:
    """Latents of a pipeline's `AutoencoderKL`, or of a tiny autoencoder in its place."""

    bytes_a_pixel: float = 3075

    def __init__(self, vae: AutoencoderKL | AutoencoderTiny) -> None:
        self.vae = vae.eval().requires_grad_(False)
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)

    def pixels(self, size: Sequence[int]) -> Size:
        """Return height and width in pixels."""
        return tuple(side * self.factor for side in size)

    def encode(self, pixels: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b c h w"]:
        """Encode images in [-1, 1] to the mode of their posterior, normalised."""
        z = encode_mode(self.vae, pixels)
        shift, scale = self._constants()
        return (z.float() - shift) * scale

    def decode(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 y x"]:
        """Decode normalised latents to images, clipped to [-1, 1]."""
        shift, scale = self._constants()
        z = latents / scale + shift
        images: Tensor = self.vae.decode(z.to(device_of(self.vae), self.vae.dtype)).sample
        return images.float().clamp(-1, 1)

    def _constants(self) -> tuple[float, float]:
        config = self.vae.config
        return float(config.shift_factor or 0.0), float(config.scaling_factor)


def encode_mode(vae: Any, pixels: Tensor) -> Tensor:
    """Encode pixels to the mode of their posterior, or to what a tiny autoencoder has of it, not normalised."""
    found = vae.encode(pixels.to(device_of(vae), vae.dtype))
    z: Tensor = found.latents if isinstance(found, AutoencoderTinyOutput) else found.latent_dist.mode()
    return z


MASK, TRIM = "prompt_embeds_mask", 32


class Text:
    """Prompts to `cond` through the pipeline's own `encode_prompt`; a family implements `encode`.

    `num_tokens` of its language model are what a prompt is cut or padded to; default: as many as the pipeline's own.
    """

    tokenizer: ClassVar[str | None] = None
    """The pipeline's tokenizer whose texts may be of any length; None: there is none."""
    any_length: ClassVar[bool] = False
    """Whether the pipeline's text is as long as a batch's captions: then blocks meet many shapes."""
    negative: ClassVar[str] = ""
    """What guidance guides away from, as the pipeline does."""

    def __init__(self, pipe: DiffusionPipeline, num_tokens: int | None = None) -> None:
        self.pipe, self.num_tokens = pipe, num_tokens
        if num_tokens is not None:
            check_tokens(num_tokens, self.takes_tokens)

    @property
    def encoders(self) -> list[nn.Module]:
        """Return the text encoders."""
        named = self.pipe.components.items()
        return [part for name, part in named if name.startswith("text_encoder") and part is not None]

    def to(self, device: torch.device | str) -> "Text":
        """Move the text encoders."""
        for part in self.encoders:
            part.to(device)
        return self

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Encode prompts."""
        return self.encode(list(prompts))

    @torch.no_grad()
    def uncond(self) -> dict[str, Tensor]:
        """Encode what guidance guides away from, each tensor (1, ...)."""
        return self.encode([self.negative])

    def encode(self, prompts: list[str]) -> dict[str, Tensor]:
        """Call `encode_prompt` as the pipeline does."""
        raise NotImplementedError

    def guiding(self, num_prompts: int, guidance: float) -> dict[str, Any]:
        """Return what the pipeline must be told for uncond + guidance (cond - uncond); 1 is none."""
        return {"guidance_scale": guidance}

    @property
    def options(self) -> dict[str, Any]:
        """Return what the pipeline must be told of a text's length: what was asked for, else its default.

        That is no more than its tokenizer takes.
        """
        tokenizer = self._tokenizer
        if tokenizer is None:
            return {}
        return {"max_sequence_length": self.num_tokens or min(MAX_TOKENS, int(tokenizer.model_max_length))}

    @property
    def takes_tokens(self) -> bool:
        """Tell whether prompts may have any length."""
        return self._tokenizer is not None

    @property
    def _tokenizer(self) -> Any:
        return None if self.tokenizer is None else getattr(self.pipe, self.tokenizer)

    @property
    def device(self) -> torch.device:
        """Return where the text encoders compute."""
        return device_of(self.pipe.text_encoder)


def padded(tokens: Sequence[Tensor], length: int) -> dict[str, Tensor]:
    """Return texts of several lengths (L, D) as `cond`: zeros behind each, and a mask of what is text."""
    cond = torch.zeros(len(tokens), length, tokens[0].shape[1], dtype=tokens[0].dtype, device=tokens[0].device)
    for row, text in zip(cond, tokens, strict=True):
        row[: len(text)] = text[:length]
    mask = torch.arange(length) < torch.tensor([[len(text)] for text in tokens])
    return {"prompt_embeds": cond, MASK: mask.to(cond.device)}


def trim(cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `cond` without the padding that no text of it reaches; as it is where it has no mask.

    What is padding no sample sees, yet it is computed: of 512 tokens most captions fill a tenth. Texts of one length
    need no mask, without which attention has its fastest kernels; else the length is rounded up to TRIM, so that few
    shapes come up.
    """
    if MASK not in cond:
        return dict(cond)
    lengths = cond[MASK].sum(1)
    longest, alike = int(lengths.max()), bool(((lengths == lengths[0]) & (lengths > 0)).all())
    length = longest if alike else max(TRIM, -(-longest // TRIM) * TRIM)
    names = [name for name in cond if name.startswith("prompt_embeds") and not (alike and name == MASK)]
    others = {name: value for name, value in cond.items() if not name.startswith("prompt_embeds")}
    return others | {name: cond[name][:, :length].contiguous() for name in names}


def expand(cond: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Return the embedding of one prompt (1, ...) for so many samples."""
    return {name: value.expand(count, *value.shape[1:]) for name, value in cond.items()}


class Teacher:
    """The undistilled model with the pipeline's own sampler and guidance: makes the training data."""

    denoiser: Any = None
    """Ours around the pipeline's, where it was loaded by `load_teacher`."""

    def __init__(self, pipe: Any, latents: Latents, layers: Sequence[nn.Module], text: Text | None = None) -> None:
        """Take a pipeline, as diffusers has them, the blocks of its denoiser, and its text."""
        self.pipe, self.latents, self.layers = pipe, latents, layers
        self.options = text.options if text else {}
        self.guiding = text.guiding if text else lambda _, guidance: {"guidance_scale": guidance}
        self._any_length = text is not None and text.any_length
        pipe.set_progress_bar_config(disable=True)

    def compile(self, backend: str, num_sizes: int) -> int:
        """Compile the blocks for sampling in so many sizes; return the most compilations that there will be."""
        versions = 4 * num_sizes  # last batches are smaller, guidance doubles
        return compile_layers(self.layers, backend, versions, dynamic=self._any_length)

    def pixels(
        self,
        prompts: Sequence[str],
        *,
        size: Size,
        num_steps: int,
        guidance: float,
        generators: list[torch.Generator],
    ) -> Tensor:
        """Sample one image or video a prompt; `size` is that of the latents.

        Returns numbers in 0..255, rounded as diffusers does, (B, y, x, 3) or (B, frames, y, x, 3), on the host.
        """
        names = ("num_frames", "height", "width")[-len(size) :]
        pixels = dict(zip(names, self.latents.pixels(size), strict=True))
        found = self.pipe(
            prompt=list(prompts),
            num_inference_steps=num_steps,
            generator=generators,
            output_type="pt",
            **pixels,
            **self.guiding(len(prompts), guidance),
            **self.options,
        )
        values: Tensor = found.frames if "num_frames" in pixels else found.images
        return (values.float() * 255).round().to(torch.uint8).movedim(-3, -1).contiguous().cpu()

    def __call__(self, prompts: Sequence[str], **options: Any) -> list[Media]:
        """Return what `pixels` samples as PIL images, or lists of frames."""
        return to_pil(self.pixels(prompts, **options))


def to_pil(pixels: Tensor) -> list[Media]:
    """Turn images (B, y, x, 3) or videos (B, frames, y, x, 3) in 0..255 into PIL images or lists of frames."""
    values = pixels.numpy()
    if values.ndim == 4:
        return [fromarray(image) for image in values]
    return [[fromarray(frame) for frame in video] for video in values]
