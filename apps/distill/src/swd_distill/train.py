"""Train a student on a cache, from the newest checkpoint on."""

import json
import math
import os
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from signal import SIGTERM
from typing import Self

import torch
from tqdm import tqdm

from swd_distill.cache import Cache
from swd_distill.checkpoints import load_checkpoint, save_checkpoint
from swd_distill.config import Config
from swd_distill.devices import device_and_dtype, processes
from swd_distill.encode import fitting
from swd_distill.files import claim, temporary_of, write_text
from swd_distill.stopped import Stopped
from swd_distill.stopping import Stopping
from swd_distill.streams import stream
from swd_distill.trainer import Trainer, share_places
from swd_losses import DiscriminatorHead
from swd_models import load_denoiser, load_latents, save_lora, share_base
from swd_models.parts import Media
from swd_sample.grid import grid
from swd_sample.media import to_media
from swd_schedules import sample_scalewise


def train(config: Config) -> Path:
    """Train to `config.training.iterations`; return the folder with the LoRA.

    Every process calls this; the main one writes. SIGTERM or SIGINT ends it after the step and a checkpoint.
    """
    state = processes()
    share_places(config)
    cache = Cache.open(config.cache, fitting(config))
    with state.main_process_first():
        claim_run(config)
    trainer = build_trainer(config, cache)
    start = load_checkpoint(config.out / "checkpoints", trainer)
    total, training = config.training.iterations, config.training
    with ExitStack() as open_things:
        stopping = open_things.enter_context(Stopping(trainer.device))
        log = open_things.enter_context(_Log(config.out / "metrics.jsonl", start)) if state.is_main_process else None
        bar = tqdm(total=total, initial=start, desc="train", unit="it", disable=not state.is_main_process)
        open_things.enter_context(bar)
        for step in range(start, total):
            began = time.perf_counter()
            found = trainer.iterate(step)
            bar.update()
            bar.set_postfix({name: f"{found[name]:.3g}" for name in ("mmd", "dmd", "gan") if name in found})
            last, stop = step + 1 == total, stopping.asked()
            if log is not None:
                log.write({"step": step + 1, **found, "seconds": time.perf_counter() - began})
                if last or (not stop and (step + 1) % training.sample_every == 0):
                    sample_grid(config, trainer, step + 1)
                if last or stop or (step + 1) % training.save_every == 0:
                    log.flush()
                    save_checkpoint(config.out / "checkpoints", trainer, step + 1)
            if last and state.is_main_process:
                with trainer.student.averaged():
                    save_lora(trainer.roles.student, config.out / "lora", schedule=config.scales)
            if stop:
                state.wait_for_everyone()  # none is gone before all is saved
                raise Stopped(step + 1, total, stopping.signal or SIGTERM)
    state.wait_for_everyone()
    return config.out / "lora"


class _Log:
    """A file of JSON lines from a step on: those of iterations that will be run again are dropped."""

    def __init__(self, path: Path, step: int) -> None:
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()[:step]
            write_text(path, "".join(f"{line}\n" for line in lines))
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, found: dict[str, float]) -> None:
        finite = {name: value if math.isfinite(value) else None for name, value in found.items()}  # JSON knows no NaN
        self._file.write(json.dumps(finite) + "\n")

    def flush(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())


def claim_run(config: Config) -> None:
    """Write config.json, or check that the run folder belongs to a run of the same numbers."""
    no_matter = {"out", "dry_run", "data.batch"} | {
        f"training.{name}" for name in ("save_every", "sample_every", "keep", "accumulate", "max_skips")
    }
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
    with trainer.student.averaged():
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
    grid({"": media}, captions).save(temporary_of(path), format="png")
    return temporary_of(path).replace(path)
