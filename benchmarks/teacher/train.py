"""Train a teacher in two resumable stages: the autoencoder, then text encoders and transformer together.

Every batch is a function of (seed, step): on a CPU an interrupted run goes on to the weights of an unbroken one.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from diffusers import AutoencoderKL, StableDiffusion3Pipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CLIPTokenizer

from benchmarks.teacher.parts import (
    Architecture,
    build_modules,
    build_pipeline,
    build_tokenizer,
    build_vae,
    encode_text,
)
from benchmarks.teacher.stages import Settings, run_stage
from swd_data import whole_folder
from swd_models.compiling import compile_layers

Pictures = Callable[[Tensor, int], Tensor]
"""Gives the scenes of some indices (B,) as images (B, 3, H, W) in [-1, 1]; where it draws them, by the seed."""
LookAt = Callable[[StableDiffusion3Pipeline, Path], dict[str, float]]
CHUNK = 256
VAE_SHARE, LAST = 0.15, 40.0
"""Of a training by the clock: the autoencoder's share, and the seconds for the last look and the export."""


def train(
    folder: Path,
    pictures: Pictures,
    captions: Sequence[str],
    settings: Settings,
    look_at: LookAt,
    device: torch.device,
    until: float | None = None,
) -> StableDiffusion3Pipeline:
    """Train what is missing in a folder; return the whole pipeline.

    `until` is when all is to be over, by time.monotonic: then the learning rates fall by the clock, and latents are not
    kept for a resumed training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seconds = until and max(VAE_SHARE * (until - time.monotonic()), 1.0)
    if all((folder / f"{name}.pt").exists() for name in ("vae", "transformer")):  # it knows this autoencoder's latents
        seconds = 0.0
    vae = train_vae(folder, pictures, settings, device, seconds)
    latents = encode_latents(folder, vae, pictures, settings, device, keep=until is None)
    seconds = until and max(until - time.monotonic() - LAST, 1.0)
    return train_transformer(folder, vae, latents, captions, settings, device, look_at, seconds)


def generators(seed: int, device: torch.device) -> tuple[torch.Generator, torch.Generator]:
    """Return a generator on the host, and one on the device: on a CPU they are the same."""
    host = torch.Generator().manual_seed(seed)
    return host, host if device.type == "cpu" else torch.Generator(device).manual_seed(seed)


def half_precision(device: torch.device) -> torch.autocast:
    """Compute in bfloat16 on a GPU; on these CPUs it is no faster."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def train_vae(
    folder: Path, pictures: Pictures, settings: Settings, device: torch.device, seconds: float | None = None
) -> AutoencoderKL:
    """Train the autoencoder on L1 + MSE of pixels and of their differences (edges), with a weak KL."""
    torch.manual_seed(settings.seed)
    vae = build_vae(settings.architecture).to(device)

    def loss_at(step: int, progress: float) -> Tensor:
        seed = 1_000_003 * settings.seed + step
        host, generator = generators(seed, device)
        pick = torch.randint(settings.num_scenes, (settings.vae_batch,), generator=host)
        size = settings.vae_sizes[int(torch.randint(len(settings.vae_sizes), (1,), generator=host))]
        x = F.interpolate(pictures(pick, seed), (size, size), mode="area")
        with half_precision(device):
            posterior = vae.encode(x).latent_dist
            y = vae.decode(posterior.sample(generator)).sample.float()
        edges = sum((y.diff(dim=d) - x.diff(dim=d)).abs().mean() for d in (2, 3))
        return F.mse_loss(y, x) + F.l1_loss(y, x) + edges + 1e-5 * posterior.kl().float().mean() / (size / 4) ** 2 * 16

    modules = nn.ModuleDict({"vae": vae})
    return run_stage(
        "vae", folder, modules, loss_at, settings.vae_steps, settings, batch=settings.vae_batch, seconds=seconds
    )["vae"]


@torch.no_grad()
def encode_latents(
    folder: Path,
    vae: AutoencoderKL,
    pictures: Pictures,
    settings: Settings,
    device: torch.device,
    *,
    keep: bool = True,
) -> dict[int, Tensor]:
    """Encode every scene at every size, downscaled in pixel space; give the autoencoder the scale of unit latents.

    What is kept, chunk by chunk, is of this autoencoder and as many scenes: with others it is encoded again.
    """
    parts = folder / "latents"
    parts.mkdir(exist_ok=True)
    fingerprint = _fingerprint(vae)
    chunks: list[dict[str, Tensor]] = []
    for number, pick in enumerate(tqdm(torch.arange(settings.num_scenes).split(CHUNK), desc="encode")):
        path, of = parts / f"{number:05d}.safetensors", {"scenes": str(settings.num_scenes), "autoencoder": fingerprint}
        if path.exists() and _metadata(path) == of:
            chunks.append(load_file(path, str(device)))
            continue
        images, latents = pictures(pick, number), {}
        for size in settings.latent_sizes:
            x = F.interpolate(images, (4 * size, 4 * size), mode="area")
            with half_precision(device):
                latents[str(size)] = vae.encode(x).latent_dist.mode().half()
        if keep:
            save_file(latents, path.with_suffix(".tmp"), of)
            path.with_suffix(".tmp").replace(path)
        chunks.append(latents)
    found = {str(size): torch.cat([each.pop(str(size)) for each in chunks]) for size in settings.latent_sizes}
    top = found[str(settings.latent_sizes[0])][: 40 * CHUNK].float()
    scale, shift = float(1 / top.std()), float(top.mean())
    vae.register_to_config(scaling_factor=scale, shift_factor=shift)
    return {size: found[str(size)].sub_(shift).mul_(scale) for size in settings.latent_sizes}


def _fingerprint(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for parameter in module.parameters():
        digest.update(parameter.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def _kept_tokenizer(folder: Path, captions: Sequence[str], of: Architecture) -> CLIPTokenizer:
    """Return the tokenizer of a training: built a second time it numbers words of equal counts otherwise."""
    path = folder / "tokenizer"
    if not path.is_dir():
        with whole_folder(path, "tokenizer_config.json") as temporary:
            build_tokenizer(captions, of).save_pretrained(temporary)
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(path)
    return tokenizer


def draw_levels(count: int, generator: torch.Generator) -> Tensor:
    """Draw noise levels: logit-normal shifted by 2, a fifth uniform."""
    device = generator.device
    sigma = torch.sigmoid(torch.randn(count, generator=generator, device=device))
    sigma = 2 * sigma / (1 + sigma)  # more weight on high noise, where layout and colours are decided
    uniform = torch.rand(count, generator=generator, device=device)
    return torch.where(uniform < 0.2, 5 * uniform, sigma)


def train_transformer(
    folder: Path,
    vae: AutoencoderKL,
    latents: dict[int, Tensor],
    captions: Sequence[str],
    settings: Settings,
    device: torch.device,
    look_at: LookAt,
    seconds: float | None = None,
) -> StableDiffusion3Pipeline:
    """Train both text encoders and the transformer by flow matching; return the whole pipeline."""
    torch.manual_seed(settings.seed + 1)
    of = settings.architecture
    tokenizer = _kept_tokenizer(folder, captions, of)
    modules = build_modules(tokenizer, of).to(device)
    compile_layers(modules["transformer"].transformer_blocks, "inductor", 2, dynamic=True)  # one version for all sizes
    encoders = [modules["text_encoder"], modules["text_encoder_2"]]

    def tokenize(texts: Sequence[str]) -> Tensor:
        options = {"padding": "max_length", "max_length": of.num_tokens, "truncation": True, "return_tensors": "pt"}
        return tokenizer(list(texts), **options).input_ids.to(device)

    tokens, empty = tokenize(captions), tokenize([""])

    def loss_at(step: int, progress: float) -> Tensor:
        host, generator = generators(2_000_003 * (settings.seed + 1) + step, device)
        shares = settings.early_shares if progress < settings.early else settings.late_shares
        size = settings.latent_sizes[int(torch.multinomial(torch.tensor(shares), 1, generator=host))]
        pick = torch.randint(len(captions), (settings.batch,), generator=generator, device=device)
        x0, text = latents[size][pick].float(), tokens[pick]
        dropped = torch.rand(settings.batch, 1, generator=generator, device=device) < settings.drop_caption
        noise = torch.randn(x0.shape, generator=generator, device=device)
        sigma = draw_levels(settings.batch, generator)
        level = sigma[:, None, None, None]
        x_t = (1 - level) * x0 + level * noise
        with half_precision(device):
            hidden, pooled = encode_text(encoders, torch.where(dropped, empty, text))
            velocity = modules["transformer"](x_t, hidden, pooled, 1000 * sigma).sample
        return F.mse_loss(velocity.float(), noise - x0)

    def look(step: int, average: nn.ModuleDict) -> dict[str, float]:
        return look_at(build_pipeline(vae, tokenizer, average), folder / f"step-{step:06d}.png")

    average = run_stage(
        "transformer", folder, modules, loss_at, settings.steps, settings, look, batch=settings.batch, seconds=seconds
    )
    return build_pipeline(vae, tokenizer, average)
