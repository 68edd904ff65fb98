"""Tiny autoencoders by path: of images (TAESD) or of videos (TAEHV), as their author publishes them."""

import pickle
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from swd_models.autoencoders.taehv import TinyVideoAutoencoder, taehv_of
from swd_models.autoencoders.taesd import BYTES_A_PIXEL, taesd_of
from swd_models.parts import Latents

State = dict[str, Tensor]
PARTS = ("encoder", "decoder")
SUFFIXES = (".safetensors", ".pth")


def load_tiny_autoencoder(path: Path | str) -> AutoencoderTiny | TinyVideoAutoencoder:
    """Load a tiny autoencoder: a file of both parts, or a folder with one of each, `.safetensors` or `.pth`.

    Its latents are those that the denoiser sees, but FLUX.2's, which are not normalised. TAEHV's are of Wan and of
    Qwen-Image.

    Raises:
        ValueError: no such file, a pickle that is more than tensors, or another architecture.
    """
    state: State = {}
    for file in _files(Path(path)):
        named = _named(_read(file), file)
        if named.keys() & state.keys():
            raise ValueError(
                f"expected one tiny autoencoder in {path}, got several: name the file of one, or its folder"
            )
        state |= named
    missing = [part for part in PARTS if not any(key.startswith(part) for key in state)]
    if missing:
        raise ValueError(f"expected a tiny autoencoder's {' and '.join(missing)} in {path}, got none: add the file")
    try:
        vae = taehv_of(state) if "encoder.0.weight" in state else taesd_of(state)
    except (RuntimeError, LookupError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"expected a tiny autoencoder as TAESD or TAEHV is built in {path}, got another, choose its file: "
            f"{reason:.120}"
        ) from error
    return vae.float().eval().requires_grad_(False)


def replace_autoencoder(latents: Latents, path: Path | str) -> None:
    """Put a tiny autoencoder of the same latents in the place of a model's own.

    Raises:
        ValueError: as `load_tiny_autoencoder`, or one of other latents.
    """
    tiny, config = load_tiny_autoencoder(path), latents.vae.config
    of_videos = "z_dim" in config  # so are Qwen-Image's latents: of one frame
    if of_videos != isinstance(tiny, TinyVideoAutoencoder):
        kinds = ("TAESD", "TAEHV") if not of_videos else ("TAEHV", "TAESD")
        raise ValueError("expected a tiny autoencoder built as {}, got one as {} in {}".format(*kinds, path))
    wanted, found = int(config["z_dim" if of_videos else "latent_channels"]), int(tiny.config.latent_channels)
    if wanted != found:
        raise ValueError(
            f"expected a tiny autoencoder of {wanted} channels, got {found} in {path}: take the one of this family"
        )
    latents.vae, latents.bytes_a_pixel = tiny.to(latents.vae.dtype), BYTES_A_PIXEL


def _files(path: Path) -> list[Path]:
    """Return the file, or those of a folder, where one may hold both parts."""
    if path.is_file():
        return [path]
    found = sorted(file for file in path.glob("*") if file.suffix in SUFFIXES)
    if not found:
        raise ValueError(
            f"expected a tiny autoencoder's {' or '.join(SUFFIXES)}, or a folder of its two, got {path}: check it"
        )
    return found


def _read(file: Path) -> State:
    try:
        state: Any = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
    except (OSError, RuntimeError, SafetensorError, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(
            f"expected tensors alone in {file}, got what cannot be read as such: download it again"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"expected a tiny autoencoder's tensors in {file}, got {type(state).__name__}: choose another")
    return state


def _named(state: State, file: Path) -> State:
    """Return the weights of a file as diffusers names them: the author's count a clamp as the decoder's first layer."""
    if any(key.startswith(PARTS) for key in state):
        return state
    part, first = ("encoder", 0) if "0.weight" in state else ("decoder", 1)
    named = {}
    for key, value in state.items():
        index, _, rest = key.partition(".")
        if not index.isdecimal():
            raise ValueError(f"expected the layers of a tiny autoencoder in {file}, got {key}: choose another file")
        named[f"{part}.layers.{int(index) - first}.{rest}"] = value
    return named
