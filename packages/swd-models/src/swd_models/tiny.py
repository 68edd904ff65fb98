"""Random tiny members of every family, for tests: the real classes with small configs."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    WanTransformer3DModel,
    ZImageTransformer2DModel,
)
from torch import Tensor

from swd_models.families.flux import FluxDenoiser
from swd_models.families.flux2 import Flux2Denoiser
from swd_models.families.qwen import QwenDenoiser
from swd_models.families.sd3 import SD3Denoiser
from swd_models.families.sdxl import SDXLDenoiser
from swd_models.families.wan import WanDenoiser
from swd_models.families.zimage import ZImageDenoiser
from swd_models.known.configs import FLUX, FLUX2, POOLED, QWEN, SD3, SDXL, TEXT, WAN, ZIMAGE, Config
from swd_models.parts import Size


def tiny_sd3(seed: int = 0, **config: object) -> SD3Denoiser:
    """Build a random SD3 of width 32 with 3 blocks, the first with dual attention as SD3.5-M has."""
    return SD3Denoiser(_random(seed, SD3Transformer2DModel, SD3 | config))


def tiny_flux(seed: int = 0, **config: object) -> FluxDenoiser:
    """Build a random FLUX of width 32 with 2 + 2 blocks and a guidance embedding, as FLUX.1-dev has."""
    return FluxDenoiser(_random(seed, FluxTransformer2DModel, FLUX | config))


def tiny_wan(seed: int = 0, **config: object) -> WanDenoiser:
    """Build a random Wan2.1 of width 24 with 3 blocks."""
    return WanDenoiser(_random(seed, WanTransformer3DModel, WAN | config))


def tiny_sdxl(seed: int = 0, **config: object) -> SDXLDenoiser:
    """Build a random U-Net of widths 16, 16, 32 with SDXL's conditioning."""
    return SDXLDenoiser(_random(seed, UNet2DConditionModel, SDXL | config))


def tiny_flux2(seed: int = 0, **config: object) -> Flux2Denoiser:
    """Build a random FLUX.2 of width 32 with 2 + 2 blocks and no guidance embedding, as klein has."""
    return Flux2Denoiser(_random(seed, Flux2Transformer2DModel, FLUX2 | config))


def tiny_qwen(seed: int = 0, **config: object) -> QwenDenoiser:
    """Build a random Qwen-Image of width 32 with 3 blocks."""
    return QwenDenoiser(_random(seed, QwenImageTransformer2DModel, QWEN | config))


def tiny_zimage(seed: int = 0, **config: object) -> ZImageDenoiser:
    """Build a random Z-Image of width 32: a block that refines the image, one for the text, and 3 of both."""
    denoiser = ZImageDenoiser(_random(seed, ZImageTransformer2DModel, ZIMAGE | config))
    for token in (denoiser.backbone.x_pad_token, denoiser.backbone.cap_pad_token):  # of 0, as diffusers makes them
        torch.nn.init.normal_(token, generator=torch.Generator().manual_seed(seed))
    return denoiser


TINY: dict[str, Callable[..., Any]] = {
    "sd3": tiny_sd3,
    "flux": tiny_flux,
    "wan": tiny_wan,
    "sdxl": tiny_sdxl,
    "flux2": tiny_flux2,
    "qwen": tiny_qwen,
    "zimage": tiny_zimage,
}
SIZES: dict[str, tuple[Size, ...]] = {
    "sd3": ((8, 8), (6, 10), (12, 8)),
    "flux": ((8, 8), (6, 10), (12, 8)),
    "wan": ((3, 8, 8), (2, 6, 10), (1, 12, 8)),
    "sdxl": ((8, 8), (8, 12), (16, 8)),
    "flux2": ((8, 8), (6, 10), (12, 8)),
    "qwen": ((8, 8), (6, 10), (12, 8)),
    "zimage": ((8, 8), (6, 10), (8, 16)),  # the last has as many tokens as it needs, the others are filled up
}
"""Latent sizes that the tiny members take: a square and two rectangles."""


def tiny_cond(family: str, num_samples: int, seed: int = 0, num_tokens: int = 5) -> dict[str, Tensor]:
    """Draw text embeddings that fit the tiny member of a family."""
    generator = torch.Generator().manual_seed(seed)
    width = 2 * TEXT if family == "sdxl" else TEXT
    cond = {"prompt_embeds": torch.randn(num_samples, num_tokens, width, generator=generator)}
    if family in {"qwen", "zimage"}:  # captions of several lengths
        lengths = num_tokens - torch.arange(num_samples) % 3
        cond["prompt_embeds_mask"] = torch.arange(num_tokens) < lengths[:, None]
    elif family not in {"wan", "flux2"}:
        cond["pooled_prompt_embeds"] = torch.randn(num_samples, POOLED, generator=generator)
    return cond


def _random(seed: int, kind: Any, config: Config) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(**config).eval()
