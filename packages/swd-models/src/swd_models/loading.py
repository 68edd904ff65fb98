"""Load a family from a diffusers directory or hub id, part by part."""

import json
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swd_models.sd3 import SD3Denoiser, SD3Latents, SD3Teacher, SD3Text

EMBEDDED = "embedded"
_FAMILIES = {"StableDiffusion3Pipeline": "sd3"}


def resolve_model(model: str) -> str:
    """Return the directory of the embedded teacher for "embedded", else the model itself."""
    return str(files("swd_models") / "assets" / "teacher") if model == EMBEDDED else model


def quiet() -> None:
    """Silence the loading bars of diffusers and transformers, for command lines that show their own."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


@cache
def family_of(model: str) -> ModuleType:
    """Return the family's module by the pipeline class that `model_index.json` names.

    Raises:
        ValueError: no such directory or hub id, or a pipeline of no supported family.
    """
    path = resolve_model(model)
    if Path(path).is_dir():
        index = Path(path) / "model_index.json"
        if not index.is_file():
            raise ValueError(f"expected a diffusers directory with model_index.json, got {path}")
        name = json.loads(index.read_text())["_class_name"]
    else:
        name = _hub_class_name(path)
    if name not in _FAMILIES:
        raise ValueError(f"expected a pipeline of {', '.join(_FAMILIES)}, got {name} in {path}")
    return import_module(f"swd_models.{_FAMILIES[name]}")


def check_fit(model: str, sizes: Iterable[Sequence[int]], block: int | None = None) -> None:
    """Raise ValueError for latent sizes or a block that the model does not have, reading its config alone."""
    family, path = family_of(model), resolve_model(model)
    config = family.load_config(path)
    for size in sizes:
        family.check_size(config, size)
    num_blocks = family.num_blocks(config)
    if block is not None and not 0 <= block < num_blocks:
        raise ValueError(f"expected a block in 0..{num_blocks - 1} of {model}, got {block}")


def load_denoiser(model: str, **options: Any) -> "SD3Denoiser":
    """Load the denoiser alone; `options` go to `from_pretrained` (dtype, revision, ...)."""
    denoiser: SD3Denoiser = family_of(model).load_denoiser(resolve_model(model), **options)
    return denoiser


def load_latents(model: str, **options: Any) -> "SD3Latents":
    """Load the autoencoder alone."""
    latents: SD3Latents = family_of(model).load_latents(resolve_model(model), **options)
    return latents


def load_text(model: str, **options: Any) -> "SD3Text":
    """Load text encoders and tokenizers alone."""
    text: SD3Text = family_of(model).load_text(resolve_model(model), **options)
    return text


def load_teacher(model: str, **options: Any) -> "SD3Teacher":
    """Load the whole pipeline with its own sampler."""
    teacher: SD3Teacher = family_of(model).load_teacher(resolve_model(model), **options)
    return teacher


def _hub_class_name(model: str) -> str:
    from diffusers import DiffusionPipeline

    try:
        return str(DiffusionPipeline.load_config(model)["_class_name"])
    except OSError as error:
        raise ValueError(
            f"expected a diffusers directory or a hub id, got {model!r}, which is neither on disk nor reachable: log "
            "in with `hf auth login` if it is gated, or pass a downloaded directory"
        ) from error
