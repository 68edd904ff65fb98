"""Samples of a training benchmark: random images and prompts, encoded whenever asked for, or once."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2, AutoencoderKLQwenImage, AutoencoderKLWan
from torch import Tensor, nn

from benchmarks.latency.encoders import RandomText
from benchmarks.latency.models import materialise
from benchmarks.provenance import SEED
from swd_distill.config import Config
from swd_distill.data.buckets import Bucket
from swd_distill.data.cache import Cache
from swd_models import Denoiser, load_denoiser, load_latents, load_text
from swd_models.loading import empty_denoiser, family_of, resolve_model
from swd_models.parts import Latents
from swd_schedules import downscale

NUM_SAMPLES = 32
AT_A_TIME = 8  # images through the autoencoder
Size = tuple[int, ...]
# Wan2.2-TI2V-5B's: https://huggingface.co/Wan-AI/Wan2.2-TI2V-5B-Diffusers/blob/main/vae/config.json
_WAN22: dict[str, Any] = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "is_residual": True,
    "scale_factor_spatial": 16,
    "latents_mean": [0.0] * 48,
    "latents_std": [1.0] * 48,
}


class Encoding(Cache):
    """Random images that are downscaled and encoded, with their captions, whenever they are asked for."""

    def __init__(self, config: Config, latents: Latents, text: Callable[[int], dict[str, Tensor]]) -> None:
        self.latents_of, self.text, self.device = latents, text, latents.vae.device
        generator = torch.Generator().manual_seed(SEED)
        shape = latents.pixels(config.scales.sizes[-1])
        self._pixels = torch.rand(NUM_SAMPLES, 3, *shape, generator=generator) * 2 - 1
        self.buckets, self.captions = [(Bucket(), range(NUM_SAMPLES))], []
        self.uncond = {name: value.cpu() for name, value in text(1).items()}

    @property
    def modules(self) -> list[nn.Module]:
        """Return what encodes."""
        text: Any = self.text
        return [self.latents_of.vae, *(text.modules if isinstance(text, Captions) else [text])]

    @torch.no_grad()
    def latents(self, samples: Sequence[int], size: Size) -> Tensor:
        """Encode images at a size, a few at a time; videos one by one, for a batch of them does not fit."""
        pixels = self._pixels[list(samples)]
        parts = torch.split(pixels, 1 if pixels.ndim == 5 else AT_A_TIME)
        small = (downscale(part.to(self.device), tuple(self.latents_of.pixels(size))) for part in parts)
        return torch.cat([self.latents_of.encode(part) for part in small]).float().cpu()

    @torch.no_grad()
    def cond(self, samples: Sequence[int]) -> dict[str, Tensor]:
        """Encode as many captions."""
        return {name: value.cpu() for name, value in self.text(len(samples)).items()}


class Kept(Cache):
    """What `Encoding` returns, encoded once for all sizes of a schedule."""

    def __init__(self, source: Encoding, sizes: Sequence[Size]) -> None:
        self.buckets, self.captions, self.uncond = source.buckets, source.captions, source.uncond
        self._latents = {size: source.latents(range(NUM_SAMPLES), size) for size in set(sizes)}
        self._cond = source.cond(range(NUM_SAMPLES))

    def latents(self, samples: Sequence[int], size: Size) -> Tensor:
        """Return latents."""
        return self._latents[size][list(samples)]

    def cond(self, samples: Sequence[int]) -> dict[str, Tensor]:
        """Return embeddings."""
        return {name: value[list(samples)] for name, value in self._cond.items()}


class Drawn(Cache):
    """Random numbers in the place of latents and embeddings, where nothing is to be encoded."""

    def __init__(self, base: Denoiser, sizes: Sequence[Size]) -> None:
        generator = torch.Generator().manual_seed(SEED)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator)

        self.buckets, self.captions = [(Bucket(), range(AT_A_TIME))], []
        self._latents = {size: draw(AT_A_TIME, base.num_channels, *size) for size in set(sizes)}
        dtype = next(base.parameters()).dtype

        def texts(count: int) -> dict[str, Tensor]:
            found = {name: draw(count, *shape).to(dtype) for name, shape in base.cond_shapes.items()}
            masks = {name: torch.ones_like(each, dtype=torch.bool) for name, each in found.items() if "mask" in name}
            return found | masks

        self._cond, self.uncond = texts(AT_A_TIME), texts(1)

    def latents(self, samples: Sequence[int], size: Size) -> Tensor:
        """Return latents."""
        return self._latents[size][list(samples)]

    def cond(self, samples: Sequence[int]) -> dict[str, Tensor]:
        """Return embeddings."""
        return {name: value[list(samples)] for name, value in self._cond.items()}


class Captions:
    """A model's own text encoders on its first prompts."""

    def __init__(self, model: str) -> None:
        self._text = load_text(model)
        self._prompts = (Path(resolve_model(model)) / "prompts.txt").read_text().splitlines()
        parts = self._text.pipe.components.items()
        self.modules = [part for name, part in parts if name.startswith("text_encoder") and part is not None]

    def __call__(self, count: int) -> dict[str, Tensor]:
        """Encode so many prompts, some of them again where there are fewer."""
        return self._text([self._prompts[i % len(self._prompts)] for i in range(count)])


def parts(config: Config, device: torch.device) -> tuple[Encoding, Callable[[], Denoiser]]:
    """Return the samples and what loads a base: the model's own on the CPU, random ones of full size on a GPU."""
    if device.type != "cpu":
        return random_parts(config, device, torch.bfloat16)
    source = Encoding(config, load_latents(config.model), Captions(config.model))
    return source, lambda: load_denoiser(config.model)


def random_parts(config: Config, device: torch.device, dtype: torch.dtype) -> tuple[Encoding, Callable[[], Denoiser]]:
    """Return samples and bases of random weights, autoencoder and text encoders of full size."""
    family, empty = family_of(config.model), empty_denoiser(config.model)
    with torch.device("meta"):
        text, vae = RandomText(empty.family, empty.cond_shapes), empty_vae(empty)
    latents = family.latents(materialise(vae, device, family.vae_dtype or dtype))

    def load() -> Denoiser:
        base: Denoiser = materialise(empty_denoiser(config.model), device, dtype)
        base.checkpoint(len(base.layers))
        return base

    return Encoding(config, latents, materialise(text, device, dtype)), load


def empty_vae(empty: Denoiser) -> Any:
    """Build an autoencoder of full size, wherever torch puts it."""
    if empty.family == "wan":
        return AutoencoderKLWan(**(_WAN22 if empty.num_channels == _WAN22["z_dim"] else {}))
    if empty.family == "qwen":
        return AutoencoderKLQwenImage()
    if empty.family == "flux2":
        return AutoencoderKLFlux2()
    levels = 4
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=empty.num_channels,
    )
