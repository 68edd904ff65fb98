"""What a prompt runs through on its way to pixels: text encoders, denoiser, decoder; of full size, or tiny."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny
from huggingface_hub import hf_hub_download
from torch import Tensor, nn

from benchmarks.large_teacher.pipeline import pipeline
from benchmarks.latency.encoders import RandomText
from swd_models import Denoiser, load_denoiser, load_latents, load_text
from swd_models.autoencoders.files import load_tiny_autoencoder
from swd_models.autoencoders.taehv import TinyVideoAutoencoder
from swd_models.compiling import compile_layers
from swd_models.loading import empty_denoiser, resolve_model
from swd_models.parts import ImageLatents
from swd_sample.presets import SOURCES

TINY_VAES = {
    "sd3": "madebyollin/taesd3",
    "flux": "madebyollin/taef1",
    "sdxl": "madebyollin/taesdxl",
}  # Wan's, TAEHV, comes by path; without one a random AutoencoderTiny decodes frames one by one
STD = 0.02
VERSIONS = 2
"""Of a kind of block at a size: batches of text, those of prompts and that of the empty one."""
PROMPT = "a fox and a hare at a lake in the mountains, early morning, fog, photograph"


@dataclass(frozen=True)
class Model:
    """Parts on a device.

    Attributes:
        weights: Where the denoiser's and the decoder's are from.
        text: `text(count)` encodes so many prompts.
        decode: Latents to pixels.
        modules: What torch.compile gets, by part.
    """

    denoiser: Denoiser
    text: Callable[[int], dict[str, Tensor]]
    decode: Callable[[Tensor], Tensor]
    weights: str
    modules: Mapping[str, list[Any]]

    def compile(self, num_sizes: int, backend: str = "inductor") -> None:
        """Compile each block of each module, in place, each kind of block once for every shape that it meets."""
        encoders = (block for module in self.modules["text"] for block in _blocks(module))
        layers = [*self.denoiser.layers, *encoders, *self.modules["decoder"]]
        compile_layers(layers, backend, VERSIONS * num_sizes)

    @property
    def parameters(self) -> dict[str, int]:
        """Return the number of parameters of each part."""
        return {
            name: sum(parameter.numel() for module in modules for parameter in module.parameters())
            for name, modules in self.modules.items()
        }


def tiny(model: str) -> Model:
    """Load a tiny pipeline on the CPU: its own text encoders and autoencoder, which is tiny already."""
    trained = model == "embedded"
    if model == "large":
        folder, trained = pipeline()
        model = str(folder)
    denoiser, text, latents = load_denoiser(model), load_text(model), load_latents(model)
    modules = {"text": _encoders(text.pipe), "denoiser": [denoiser], "decoder": [latents.vae.decoder]}
    weights = "trained" if trained else "random"
    prompt = (Path(resolve_model(model)) / "prompts.txt").read_text().splitlines()[0]
    return Model(denoiser, lambda count: text([prompt] * count), latents.decode, weights, modules)


def full_size(name: str, device: torch.device, dtype: torch.dtype = torch.float16, tiny: Path | None = None) -> Model:
    """Load a preset's model from the hub if that answers, else build it with random weights on the device.

    `tiny` has the weights of the TinyVAE that decodes; by default the hub's, or random ones.
    """
    model = SOURCES[name].model
    if not _answers(model):
        return random_model(empty_denoiser(model), device, dtype, tiny)
    denoiser, text = load_denoiser(model, dtype=dtype).to(device), load_text(model, dtype=dtype).to(device)
    vae, origin = _tiny_vae(denoiser, device, dtype, tiny)
    modules = {"text": _encoders(text.pipe), "denoiser": [denoiser], "decoder": _decoder_of(vae)}
    return Model(denoiser, lambda count: text([PROMPT] * count), partial(_decode, vae), f"hub, {origin}", modules)


def random_model(
    empty: Denoiser, device: torch.device, dtype: torch.dtype = torch.float16, tiny: Path | None = None
) -> Model:
    """Fill a denoiser of the meta device, and build text encoders and a decoder that fit it."""
    with torch.device("meta"):
        text = RandomText(empty.family, empty.cond_shapes)
    denoiser = materialise(empty, device, dtype)
    encoders: RandomText = materialise(text, device, dtype)
    vae = from_file(tiny, denoiser, device, dtype) if tiny else random_decoder(denoiser.num_channels, device, dtype)[0]
    parts = [*encoders.clips, *([encoders.language] if encoders.language else [])]
    modules = {"text": parts, "denoiser": [denoiser], "decoder": _decoder_of(vae)}
    weights = f"random, TinyVAE of {tiny.name}" if tiny else "random"
    return Model(denoiser, encoders, partial(_decode, vae), weights, modules)


def random_decoder(channels: int, device: torch.device, dtype: torch.dtype) -> tuple[Any, Callable[[Tensor], Tensor]]:
    """Build a TinyVAE; return it, and how it decodes."""
    vae = materialise(AutoencoderTiny(latent_channels=channels), device, dtype)
    return vae, partial(_decode, vae)


def materialise(module: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Give a module of the meta device memory on another, and random numbers small enough to stay finite in float16."""
    module = module.eval().requires_grad_(False).to(dtype).to_empty(device=device)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if name.endswith("running_var"):
            nn.init.ones_(tensor)
        elif tensor.is_floating_point():
            nn.init.normal_(tensor, std=STD)
        else:
            tensor.copy_(torch.arange(tensor.numel(), device=device).view_as(tensor))  # positions of tokens
    return module


def _decode(vae: AutoencoderTiny | TinyVideoAutoencoder, latents: Tensor) -> Tensor:
    """Decode images, or videos; of an autoencoder of images one by one, each latent frame but the first four times."""
    if isinstance(vae, TinyVideoAutoencoder):
        videos = latents if latents.ndim == 5 else latents.unsqueeze(2)
        pixels: Tensor = vae.decode(videos.to(vae.device, vae.dtype)).sample.float()
        return pixels if latents.ndim == 5 else pixels.squeeze(2)
    images = ImageLatents(vae)
    if latents.ndim == 4:
        return images.decode(latents)
    frames = [video.transpose(0, 1) for video in latents]
    each = (
        torch.cat([first, rest.repeat_interleave(4, 0)]) for first, rest in (f.split([1, len(f) - 1]) for f in frames)
    )
    return torch.stack([images.decode(video).transpose(0, 1) for video in each])


def from_file(path: Path, denoiser: Denoiser, device: torch.device, dtype: torch.dtype) -> Any:
    """Load a TinyVAE for a model's latents."""
    vae = load_tiny_autoencoder(path)
    if vae.config.latent_channels != denoiser.num_channels:
        raise ValueError(
            f"expected a tiny autoencoder of {denoiser.num_channels} channels for {denoiser.family}, got "
            f"{vae.config.latent_channels} in {path}: choose its --models"
        )
    return vae.to(device, dtype)


def _tiny_vae(denoiser: Denoiser, device: torch.device, dtype: torch.dtype, tiny: Path | None) -> tuple[Any, str]:
    if tiny is not None:
        return from_file(tiny, denoiser, device, dtype), f"TinyVAE of {tiny.name}"
    name = TINY_VAES.get(denoiser.family)
    if name and _answers(name, "config.json"):
        return AutoencoderTiny.from_pretrained(name, torch_dtype=dtype).to(device), "TinyVAE too"
    return random_decoder(denoiser.num_channels, device, dtype)[0], "TinyVAE random"


def _decoder_of(vae: Any) -> list[Any]:
    """Return what is compiled of a decoder: a video's is called block by block."""
    return list(vae.decoder) if isinstance(vae, TinyVideoAutoencoder) else [vae.decoder]


def _encoders(pipe: Any) -> list[Any]:
    return [part for name, part in pipe.components.items() if name.startswith("text_encoder") and part is not None]


def _blocks(module: nn.Module) -> list[nn.Module]:
    """Return the blocks of a network: the longest list of modules in it; itself, where it has none."""
    lists = (list(part) for part in module.modules() if isinstance(part, nn.ModuleList))
    return max(lists, key=len, default=[module])


def _answers(model: str, file: str = "model_index.json") -> bool:
    """Tell whether the hub, or its cache, has a model for us."""
    try:
        hf_hub_download(model, file)
    except OSError:  # not found, gated, offline
        return False
    return True
