"""Train the embedded teacher in two resumable stages: the autoencoder, then text encoders and transformer together.

Every batch is a function of (seed, step), so a run that was interrupted goes on to the weights of an unbroken one.
"""

import copy
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from diffusers import AutoencoderKL, StableDiffusion3Pipeline
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.teacher.look import look_at
from benchmarks.teacher.parts import (
    NUM_TOKENS,
    build_pipeline,
    build_text_encoder,
    build_tokenizer,
    build_transformer,
    build_vae,
    encode_text,
)
from benchmarks.teacher.scenes import draw, random_scene

LATENT_SIZES = (16, 12, 10, 8)
# The share of steps at each size: even at first, for layouts are learned as well and faster at small ones, then mostly
# at the top. A low scale is no new world for the teacher (appendix B).
EARLY_SHARES, LATE_SHARES = (0.4, 0.2, 0.2, 0.2), (0.7, 0.1, 0.1, 0.1)


@dataclass(frozen=True)
class Settings:
    """What the committed weights were trained with."""

    num_scenes: int = 40_000
    vae_steps: int = 2_000
    steps: int = 20_000
    early: float = 0.35  # the share of the steps, at the start, with even sizes
    batch: int = 32
    lr: float = 1e-3
    decay: float = 0.25  # the share of the steps, at the end, in which the learning rate falls to zero
    warmup: int = 300
    drop_caption: float = 0.1
    ema: float = 0.999
    save_every: int = 250
    look_every: int = 1_000  # steps between sample grids
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
    look: Callable[[int, nn.ModuleDict], dict[str, float]] | None = None,
) -> nn.ModuleDict:
    """Minimise `loss_at(step)` with AdamW, warm-up, a plateau and linear decay; return the averaged weights.

    `look(step, average)` is called now and then; what it returns goes into the log. `NAME-plateau.pt` is the last
    checkpoint before the decay: renamed to `NAME.pt` it lets a longer run go on from there.
    """
    average = copy.deepcopy(modules).requires_grad_(False)
    optimizer = torch.optim.AdamW(
        modules.parameters(), lr=settings.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    checkpoint, start = folder / f"{name}.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        modules.load_state_dict(state["modules"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    began, recent = time.time(), []
    for step in tqdm(range(start, num_steps), desc=name, initial=start, total=num_steps, mininterval=10):
        ramp = min((step + 1) / settings.warmup, (num_steps - step) / (settings.decay * num_steps), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * ramp
        loss = loss_at(step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        optimizer.step()
        decay = min(settings.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(modules.parameters()), 1 - decay)
        recent.append(loss.item())
        if (step + 1) % settings.save_every == 0 or step + 1 == num_steps:
            line = {"stage": name, "step": step + 1, "loss": float(np.mean(recent)), "seconds": time.time() - began}
            recent = []
            if look is not None and ((step + 1) % settings.look_every == 0 or step + 1 == num_steps):
                line |= look(step + 1, average)
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            state = {"modules": modules.state_dict(), "average": average.state_dict(), "step": step + 1}
            torch.save(state | {"optimizer": optimizer.state_dict()}, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
            if step + 1 <= (1 - settings.decay) * num_steps:
                shutil.copyfile(checkpoint, folder / f"{name}-plateau.pt")
    return average.eval()


def train_vae(folder: Path, images: Tensor, settings: Settings) -> AutoencoderKL:
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
def encode_latents(folder: Path, vae: AutoencoderKL, images: Tensor) -> dict[int, Tensor]:
    """Encode every scene at every size, downscaled in pixel space; give the autoencoder the scale of unit latents."""
    path = folder / "latents.safetensors"
    if not path.exists():
        latents = {}
        for size in LATENT_SIZES:
            chunks = []
            for chunk in tqdm(images.split(256), desc=f"encode {size}"):
                x = F.interpolate(chunk.float() / 127.5 - 1, (4 * size, 4 * size), mode="area")
                chunks.append(vae.encode(x).latent_dist.mode())
            latents[str(size)] = torch.cat(chunks)
        save_file(latents, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)
    latents = load_file(path)
    top = latents[str(LATENT_SIZES[0])]
    scale, shift = float(1 / top.std()), float(top.mean())
    vae.register_to_config(scaling_factor=scale, shift_factor=shift)
    return {size: (latents[str(size)] - shift) * scale for size in LATENT_SIZES}


def draw_levels(count: int, generator: torch.Generator) -> Tensor:
    """Draw noise levels: logit-normal shifted by 2, a fifth uniform."""
    sigma = torch.sigmoid(torch.randn(count, generator=generator))
    sigma = 2 * sigma / (1 + sigma)  # more weight on high noise, where layout and colours are decided
    uniform = torch.rand(count, generator=generator)
    return torch.where(uniform < 0.2, 5 * uniform, sigma)


def train_transformer(
    folder: Path, vae: AutoencoderKL, latents: dict[int, Tensor], captions: list[str], settings: Settings
) -> StableDiffusion3Pipeline:
    """Train both text encoders and the transformer by flow matching; return the whole pipeline."""
    torch.manual_seed(settings.seed + 1)
    tokenizer = build_tokenizer(captions)
    modules = nn.ModuleDict(
        {
            "text_encoder": build_text_encoder(tokenizer),
            "text_encoder_2": build_text_encoder(tokenizer),
            "transformer": build_transformer(),
        }
    )
    modules["transformer"].compile(dynamic=False)  # a sixth faster, once a minute a size is spent
    encoders = [modules["text_encoder"], modules["text_encoder_2"]]

    def tokenize(texts: list[str]) -> Tensor:
        options = {"padding": "max_length", "max_length": NUM_TOKENS, "truncation": True, "return_tensors": "pt"}
        return tokenizer(texts, **options).input_ids

    tokens, empty = tokenize(captions), tokenize([""])

    def loss_at(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(2_000_003 * (settings.seed + 1) + step)
        shares = EARLY_SHARES if step < settings.early * settings.steps else LATE_SHARES
        size = LATENT_SIZES[int(torch.multinomial(torch.tensor(shares), 1, generator=generator))]
        pick = torch.randint(len(captions), (settings.batch,), generator=generator)
        x0, text = latents[size][pick], tokens[pick]
        dropped = torch.rand(settings.batch, 1, generator=generator) < settings.drop_caption
        hidden, pooled = encode_text(encoders, torch.where(dropped, empty, text))
        noise = torch.randn(x0.shape, generator=generator)
        sigma = draw_levels(settings.batch, generator)
        level = sigma[:, None, None, None]
        x_t = (1 - level) * x0 + level * noise
        velocity = modules["transformer"](x_t, hidden, pooled, 1000 * sigma).sample
        return F.mse_loss(velocity, noise - x0)

    def look(step: int, average: nn.ModuleDict) -> dict[str, float]:
        return look_at(build_pipeline(vae, tokenizer, average), folder / f"step-{step:06d}.png")

    average = run_stage("transformer", folder, modules, loss_at, settings.steps, settings, look)
    return build_pipeline(vae, tokenizer, average)
