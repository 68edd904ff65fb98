"""Train a student on a cache, from the newest checkpoint on."""

import json
import time
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from swd_distill.cache import Cache
from swd_distill.checkpoints import load_checkpoint, save_checkpoint
from swd_distill.config import Config
from swd_distill.devices import device_and_dtype, one_process
from swd_distill.encode import fitting
from swd_distill.files import claim, write_text
from swd_distill.streams import stream
from swd_distill.trainer import Trainer
from swd_losses import DiscriminatorHead
from swd_models import load_denoiser, load_latents, save_lora, share_base
from swd_models.parts import Media
from swd_sample.grid import grid
from swd_sample.media import to_media
from swd_schedules import sample_scalewise


def train(config: Config) -> Path:
    """Train to `config.training.iterations`; return the folder with the LoRA."""
    one_process("train")
    cache = Cache.open(config.cache, fitting(config))
    claim_run(config)
    trainer = build_trainer(config, cache)
    start = load_checkpoint(config.out / "checkpoints", trainer)
    metrics = config.out / "metrics.jsonl"
    _forget_after(metrics, start)
    total, training = config.training.iterations, config.training
    with metrics.open("a", encoding="utf-8") as log, tqdm(total=total, initial=start, desc="train", unit="it") as bar:
        for step in range(start, total):
            began = time.perf_counter()
            found = trainer.iterate(step)
            found["seconds"] = time.perf_counter() - began
            log.write(json.dumps({"step": step + 1, **found}) + "\n")
            bar.update()
            bar.set_postfix({name: f"{found[name]:.3g}" for name in ("mmd", "dmd", "gan") if name in found})
            if (step + 1) % training.save_every == 0 or step + 1 == total:
                log.flush()
                save_checkpoint(config.out / "checkpoints", trainer, step + 1)
            if (step + 1) % training.sample_every == 0 or step + 1 == total:
                sample_grid(config, trainer, step + 1)
    return save_lora(trainer.roles.student, config.out / "lora", schedule=config.scales).parent


def claim_run(config: Config) -> None:
    """Write config.json, or check that the run folder belongs to a run of the same numbers."""
    no_matter = {"out", "dry_run", "data.batch", "training.save_every", "training.sample_every"}
    claim(config.out / "config.json", config.to_json(), "a run", ignore=no_matter)


def build_trainer(config: Config, cache: Cache) -> Trainer:
    """Load the teacher, share its weights with student and fake, and draw the head."""
    device, dtype = device_and_dtype()
    teacher = load_denoiser(config.model, dtype=dtype).to(device)
    if config.training.gradient_checkpointing:  # before the views are made, which copy the switch
        teacher.backbone.enable_gradient_checkpointing()
    roles = share_base(teacher, config.training.rank, fake=config.needs_fake, seed=config.seed)
    return Trainer(
        config, cache, roles, _new_head(config, teacher.num_features).to(device) if config.recipe.gan_weight else None
    )


def _new_head(config: Config, width: int) -> DiscriminatorHead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return config.recipe.head(width)


@torch.no_grad()
def sample_grid(config: Config, trainer: Trainer, step: int) -> Path:
    """Sample the first captions of the cache with the student and write samples/step-N.png."""
    cache, student = trainer.cache, trainer.roles.student
    captions = cache.captions
    # Training holds no autoencoder: it comes for the picture and goes. One sample at a time, for memory is full.
    latents = load_latents(config.model, dtype=device_and_dtype()[1])
    latents.vae.to(trainer.device)
    media: list[Media] = []
    for i in range(len(captions)):
        cond = {key: value.to(trainer.device) for key, value in cache.cond([i]).items()}
        x0 = sample_scalewise(
            partial(student.denoise, cond=cond),
            trainer.schedule,
            (1, student.num_channels),
            process=student.process,
            generator=stream(config.seed, "grid", i),
            device=trainer.device,
        )
        media += to_media(latents.decode(x0))
    path = config.out / "samples" / f"step-{step:06d}.png"
    path.parent.mkdir(exist_ok=True)
    grid({"": media}, captions).save(path)
    return path


def _forget_after(metrics: Path, step: int) -> None:
    """Drop the lines of iterations that will be run again."""
    if metrics.is_file():
        lines = metrics.read_text(encoding="utf-8").splitlines()[:step]
        write_text(metrics, "".join(f"{line}\n" for line in lines))
