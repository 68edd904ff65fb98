"""Train the video teacher as the image teacher is: the autoencoder, then text encoder and transformer together."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from diffusers import AutoencoderKLWan, WanPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.teacher.stages import Settings, run_stage
from benchmarks.teacher.train import draw_levels
from benchmarks.video_teacher.clips import NUM_FRAMES, all_clips, draw
from benchmarks.video_teacher.look import look_at
from benchmarks.video_teacher.parts import (
    CHANNELS,
    NUM_TOKENS,
    build_pipeline,
    build_text_encoder,
    build_tokenizer,
    build_transformer,
    build_vae,
    encode_text,
)
from swd_models.families.wan import VideoLatents
from swd_schedules import downscale

Size = tuple[int, ...]
# Full latents and the lower scales of the preset, frames first; the shares of steps at each, early and late.
LATENT_SIZES: tuple[Size, ...] = ((5, 8, 8), (4, 6, 6), (3, 4, 4), (2, 4, 4))
EARLY_SHARES, LATE_SHARES = (0.4, 0.2, 0.2, 0.2), (0.7, 0.1, 0.1, 0.1)
VAE_BATCH, VAE_LR = 8, 3e-3
STILLS = 2 / 3  # the share of the autoencoder's steps, at the start, on single frames

SETTINGS = Settings(num_scenes=8_000, vae_steps=3_000, steps=14_000, early=0.2)


def draw_clips(settings: Settings) -> tuple[Tensor, list[str]]:
    """Draw the training clips: uint8 videos (N, 3, 17, 32, 32) and their captions, each as often as any other."""
    rng = np.random.default_rng(settings.seed)
    train = all_clips("train")
    clips = [train[i % len(train)] for i in range(settings.num_scenes)]
    videos = np.stack([(draw(clip, rng).transpose(3, 0, 1, 2) * 255).round() for clip in tqdm(clips, desc="draw")])
    return torch.from_numpy(videos.astype(np.uint8)), [clip.caption for clip in clips]


def train_vae(folder: Path, videos: Tensor, settings: Settings) -> AutoencoderKLWan:
    """Train the autoencoder, first on single frames, then on clips, with a weak KL."""
    torch.manual_seed(settings.seed)
    vae = build_vae()
    pixels = VideoLatents(vae).pixels
    start_as_images(vae.train().requires_grad_(True))

    def loss_at(step: int, progress: float) -> Tensor:
        generator = torch.Generator().manual_seed(1_000_003 * settings.seed + step)
        size = LATENT_SIZES[int(torch.multinomial(torch.tensor(EARLY_SHARES), 1, generator=generator))]
        if still := progress < STILLS:  # many colours and shapes a step, at the price of a few clips
            pick = torch.randint(len(videos), (4 * VAE_BATCH,), generator=generator)
            frame = int(torch.randint(NUM_FRAMES, (1,), generator=generator))
            x, size = videos[pick, :, frame : frame + 1], (1, *size[1:])
        else:
            x = videos[torch.randint(len(videos), (VAE_BATCH,), generator=generator)]
        x = downscale(x.float() / 127.5 - 1, pixels(size))
        posterior = vae.encode(x).latent_dist
        y = decode_unclamped(vae, posterior.sample(generator))
        edges = sum((y.diff(dim=d) - x.diff(dim=d)).abs().mean() for d in ((3, 4) if still else (2, 3, 4)))
        return F.mse_loss(y, x) + 0.1 * (F.l1_loss(y, x) + edges) + 1e-6 * posterior.kl().mean() / np.prod(size)

    settings = replace(settings, lr=VAE_LR)
    return run_stage(
        "vae", folder, nn.ModuleDict({"vae": vae}), loss_at, settings.vae_steps, settings, batch=settings.vae_batch
    )["vae"]


@torch.no_grad()
def start_as_images(vae: AutoencoderKLWan) -> None:
    """Let time pass through: pairs of frames are averaged on the way down and repeated on the way up.

    And let latents start with little noise, which would drown what the encoder says.
    """
    for name, module in vae.named_modules():
        if name.endswith("time_conv"):
            num_out, num_in = module.weight.shape[:2]
            identity = torch.eye(num_in).repeat(num_out // num_in, 1)[..., None, None]
            module.weight.zero_()
            module.bias.zero_()
            taps = (-1,) if num_out > num_in else (-2, -1)
            for tap in taps:
                module.weight[:, :, tap] = identity / len(taps)
    vae.quant_conv.bias[CHANNELS:] -= 4


def decode_unclamped(vae: AutoencoderKLWan, z: Tensor) -> Tensor:
    """Decode as `vae.decode` does, frame by frame, but for its clamp to [-1, 1], which stops gradients.

    With the clamp a channel that overshoots where the picture is at the other end never comes back.
    """
    vae.clear_cache()
    z, frames = vae.post_quant_conv(z), []
    for index in range(z.shape[2]):
        vae._conv_idx = [0]
        few = z[:, :, index : index + 1]
        frames.append(vae.decoder(few, feat_cache=vae._feat_map, feat_idx=vae._conv_idx, first_chunk=index == 0))
    vae.clear_cache()
    return torch.cat(frames, dim=2)


@torch.no_grad()
def encode_latents(folder: Path, vae: AutoencoderKLWan, videos: Tensor) -> dict[Size, Tensor]:
    """Encode every clip at every size, downscaled in pixel space; give the autoencoder its latents' statistics."""
    path = folder / "latents.safetensors"
    latents = VideoLatents(vae)
    if not path.exists():
        found = {}
        for size in LATENT_SIZES:
            chunks = tqdm(videos.split(64), desc=f"encode {size}")
            small = (downscale(chunk.float() / 127.5 - 1, latents.pixels(size)) for chunk in chunks)
            found["x".join(map(str, size))] = torch.cat([latents.encode(x) for x in small])
        save_file(found, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)
    found = load_file(path)
    raw = [found["x".join(map(str, size))] for size in LATENT_SIZES]
    mean, std = (statistic(raw[0].transpose(0, 1).flatten(1), dim=1) for statistic in (torch.mean, torch.std))
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())
    mean, std = (values.view(-1, 1, 1, 1) for values in (mean, std))
    return {size: (z - mean) / std for size, z in zip(LATENT_SIZES, raw, strict=True)}


def train_transformer(
    folder: Path, vae: AutoencoderKLWan, latents: dict[Size, Tensor], captions: list[str], settings: Settings
) -> WanPipeline:
    """Train text encoder and transformer by flow matching; return the whole pipeline."""
    torch.manual_seed(settings.seed + 1)
    tokenizer = build_tokenizer(captions)
    modules = nn.ModuleDict({"text_encoder": build_text_encoder(tokenizer), "transformer": build_transformer()})
    loss_at = _flow_matching(modules, tokenizer, latents, captions, settings)

    def look(step: int, average: nn.ModuleDict) -> dict[str, float]:
        return look_at(build_pipeline(vae, tokenizer, average), folder / f"step-{step:06d}.png")

    average = run_stage("transformer", folder, modules, loss_at, settings.steps, settings, look, batch=settings.batch)
    return build_pipeline(vae, tokenizer, average)


def _flow_matching(
    modules: nn.ModuleDict, tokenizer, latents: dict[Size, Tensor], captions: list[str], settings: Settings
) -> Callable[[int, float], Tensor]:
    options = {"padding": "max_length", "max_length": NUM_TOKENS, "return_tensors": "pt"}
    kinds = sorted(set(captions))
    tokens, empty = tokenizer(kinds, **options), tokenizer([""], **options)
    kind_of = torch.tensor([kinds.index(caption) for caption in captions])

    def loss_at(step: int, progress: float) -> Tensor:
        generator = torch.Generator().manual_seed(2_000_003 * (settings.seed + 1) + step)
        shares = EARLY_SHARES if progress < settings.early else LATE_SHARES
        size = LATENT_SIZES[int(torch.multinomial(torch.tensor(shares), 1, generator=generator))]
        pick = torch.randint(len(captions), (settings.batch,), generator=generator)
        x0, text = latents[size][pick], kind_of[pick]
        dropped = torch.rand(settings.batch, 1, generator=generator) < settings.drop_caption
        ids, mask = (torch.where(dropped, empty[key], tokens[key][text]) for key in ("input_ids", "attention_mask"))
        hidden = encode_text(modules["text_encoder"], ids, mask)
        noise, sigma = torch.randn(x0.shape, generator=generator), draw_levels(settings.batch, generator)
        level = sigma[:, None, None, None, None]
        velocity = modules["transformer"]((1 - level) * x0 + level * noise, 1000 * sigma, hidden).sample
        return F.mse_loss(velocity, noise - x0)

    return loss_at
