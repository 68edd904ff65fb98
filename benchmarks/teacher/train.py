"""Train the embedded teacher in two resumable stages: the autoencoder, then text encoders and transformer together."""

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.teacher.parts import (
    NUM_TOKENS,
    build_text_encoder,
    build_tokenizer,
    build_transformer,
    build_vae,
    encode_text,
)
from benchmarks.teacher.scenes import draw, random_scene

LATENT_SIZES = (16, 12, 10, 8)
# Half of the steps at the top scale, half below, so that a low scale is no new world for the teacher (appendix B).
LATENT_SHARES = (0.5, 0.2, 0.15, 0.15)


@dataclass(frozen=True)
class Settings:
    """What the committed weights were trained with."""

    num_scenes: int = 24_000
    vae_steps: int = 1_200
    steps: int = 8_000
    batch: int = 32
    lr: float = 1e-3
    warmup: int = 300
    drop_caption: float = 0.1
    ema: float = 0.999
    save_every: int = 250
    seed: int = 0


def draw_scenes(settings: Settings) -> tuple[Tensor, list[str]]:
    """Draw the training scenes: uint8 images (N, 3, 64, 64) and their captions."""
    rng = np.random.default_rng(settings.seed)
    scenes = [random_scene(rng) for _ in range(settings.num_scenes)]
    images = np.empty((settings.num_scenes, 3, 64, 64), np.uint8)
    for i, scene in enumerate(tqdm(scenes, desc="draw")):
        images[i] = (draw(scene, rng).transpose(2, 0, 1) * 255).round()
    return torch.from_numpy(images), [scene.caption for scene in scenes]


def run_stage(
    name: str,
    folder: Path,
    modules: nn.ModuleDict,
    loss_at: Callable[[int], Tensor],
    num_steps: int,
    settings: Settings,
) -> nn.ModuleDict:
    """Minimise `loss_at(step)` with AdamW, warm-up and cosine decay; return the averaged weights.

    `loss_at` draws from a generator keyed by the step, so that a resumed run sees what an unbroken one would.
    """
    average = copy.deepcopy(modules).requires_grad_(False)
    optimizer = torch.optim.AdamW(modules.parameters(), lr=settings.lr, betas=(0.9, 0.99), weight_decay=0.01)
    checkpoint, start = folder / f"{name}.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        modules.load_state_dict(state["modules"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    began, recent = time.time(), []
    for step in tqdm(range(start, num_steps), desc=name, initial=start, total=num_steps, mininterval=10):
        ramp = min((step + 1) / settings.warmup, 1.0) * 0.5 * (1 + math.cos(math.pi * step / num_steps))
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * max(ramp, 1e-3)
        loss = loss_at(step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        optimizer.step()
        decay = min(settings.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(average.parameters()), list(modules.parameters()), 1 - decay)
        recent.append(loss.item())
        if (step + 1) % settings.save_every == 0 or step + 1 == num_steps:
            line = {"stage": name, "step": step + 1, "loss": float(np.mean(recent)), "seconds": time.time() - began}
            recent = []
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            state = {"modules": modules.state_dict(), "average": average.state_dict(), "step": step + 1}
            torch.save(state | {"optimizer": optimizer.state_dict()}, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
    return average.eval()


def train_vae(folder: Path, images: Tensor, settings: Settings) -> nn.Module:
    """Train the autoencoder on L1 + MSE of pixels and of their differences (edges), with a weak KL."""
    torch.manual_seed(settings.seed)
    vae = build_vae()

    def loss_at(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(1_000_003 * settings.seed + step)
        pick = torch.randint(len(images), (16,), generator=generator)
        # A third of the batches are small pictures, as the low scales of the schedule are.
        size = (64, 64, 64, 48, 40, 32)[int(torch.randint(6, (1,), generator=generator))]
        x = F.interpolate(images[pick].float() / 127.5 - 1, (size, size), mode="area")
        posterior = vae.encode(x).latent_dist
        y = vae.decode(posterior.sample(generator)).sample
        edges = sum((y.diff(dim=d) - x.diff(dim=d)).abs().mean() for d in (2, 3))
        return F.mse_loss(y, x) + F.l1_loss(y, x) + edges + 1e-5 * posterior.kl().mean() / (size / 4) ** 2 * 16

    return run_stage("vae", folder, nn.ModuleDict({"vae": vae}), loss_at, settings.vae_steps, settings)["vae"]


@torch.no_grad()
def encode_latents(vae: nn.Module, images: Tensor) -> tuple[dict[int, Tensor], float, float]:
    """Encode every scene at every size, downscaled in pixel space; return unit-scale latents, their scale and shift."""
    latents = {}
    for size in LATENT_SIZES:
        chunks = []
        for chunk in tqdm(images.split(256), desc=f"encode {size}"):
            x = F.interpolate(chunk.float() / 127.5 - 1, (4 * size, 4 * size), mode="area")
            chunks.append(vae.encode(x).latent_dist.mode())
        latents[size] = torch.cat(chunks)
    top = latents[LATENT_SIZES[0]]
    scale, shift = float(1 / top.std()), float(top.mean())
    return {size: (z - shift) * scale for size, z in latents.items()}, scale, shift


def train_transformer(folder: Path, latents: dict[int, Tensor], captions: list[str], settings: Settings) -> tuple:
    """Train both text encoders and the transformer by flow matching; return (tokenizer, averaged modules)."""
    torch.manual_seed(settings.seed + 1)
    tokenizer = build_tokenizer(captions)
    modules = nn.ModuleDict(
        {
            "text_encoder": build_text_encoder(tokenizer),
            "text_encoder_2": build_text_encoder(tokenizer),
            "transformer": build_transformer(),
        }
    )
    encoders = [modules["text_encoder"], modules["text_encoder_2"]]

    def tokenize(texts: list[str]) -> Tensor:
        options = {"padding": "max_length", "max_length": NUM_TOKENS, "truncation": True, "return_tensors": "pt"}
        return tokenizer(texts, **options).input_ids

    tokens, empty = tokenize(captions), tokenize([""])
    shares = torch.tensor(LATENT_SHARES)

    def loss_at(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(2_000_003 * (settings.seed + 1) + step)
        size = LATENT_SIZES[int(torch.multinomial(shares, 1, generator=generator))]
        pick = torch.randint(len(captions), (settings.batch,), generator=generator)
        x0, text = latents[size][pick], tokens[pick]
        dropped = torch.rand(settings.batch, 1, generator=generator) < settings.drop_caption
        hidden, pooled = encode_text(encoders, torch.where(dropped, empty, text))
        noise = torch.randn(x0.shape, generator=generator)
        sigma = torch.sigmoid(torch.randn(settings.batch, generator=generator))
        sigma = 2 * sigma / (1 + sigma)  # more weight on high noise, where layout and colours are decided
        uniform = torch.rand(settings.batch, generator=generator)
        sigma = torch.where(uniform < 0.2, 5 * uniform, sigma)
        level = sigma[:, None, None, None]
        x_t = (1 - level) * x0 + level * noise
        velocity = modules["transformer"](x_t, hidden, pooled, 1000 * sigma).sample
        return F.mse_loss(velocity, noise - x0)

    return tokenizer, run_stage("transformer", folder, modules, loss_at, settings.steps, settings)
