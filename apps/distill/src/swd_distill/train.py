"""Train a student on a cache, from the newest checkpoint on."""

import gc
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from signal import SIGTERM

import torch
from tqdm import tqdm

from swd_data import is_hub_id, make_folder
from swd_distill.config import Config
from swd_distill.data.cache import Cache
from swd_distill.data.encode import fitting
from swd_distill.data.live import Live
from swd_distill.data.prompts import as_made
from swd_distill.data.sources import claim_source
from swd_distill.data.streams import stream
from swd_distill.devices import device_and_dtype, from_main, in_all, processes
from swd_distill.folder import claimed, iterations_of, settled
from swd_distill.planning.memory import recompute_blocks
from swd_distill.stopped import Stopped
from swd_distill.training.checkpoints import load_checkpoint, save_checkpoint
from swd_distill.training.evaluation import Evaluator
from swd_distill.training.log import Log, peak_gib
from swd_distill.training.network import Metrics
from swd_distill.training.stopping import Stopping
from swd_distill.training.trainer import Trainer, share_places
from swd_losses import DiscriminatorHead
from swd_models import Expert, load_denoiser, load_latents, save_lora, share_base
from swd_models.compiling import compiling
from swd_models.loading import experts_of
from swd_models.lora.files import STEPS_KEY, TOKENS_KEY
from swd_models.lora.loading import start_from
from swd_models.parts import Media, trim
from swd_models.placing import decode_in_tiles
from swd_models.roles import compile_blocks, shard_base
from swd_sample.grid import grid
from swd_sample.media import to_media
from swd_schedules import sample_scalewise


def train(config: Config, *, verify: bool = True) -> Path:
    """Train to `config.training.iterations`; return the folder with the LoRA. `verify` the cache if the config asks.

    Of a model of two experts, each has its student, one after the other: all that they write is in OUT/high-noise and
    OUT/low-noise, but for the LoRAs, which are in folders of these names in OUT/lora.

    Every process calls this; the main one writes. SIGTERM or SIGINT ends it after the step and a checkpoint.
    """
    config = as_made(settled(config))
    share_places(config)
    cache = Live(config) if config.data.on_the_fly else _open_cache(config, verify=verify)
    with claimed(config):
        if isinstance(cache, Live):
            claim_source(config, cache.source)
        experts = experts_of(config.model)
        for expert in experts:
            lora = config.out / "lora" / expert.name
            if len(experts) == 1 or not _is_done(lora, config.training.iterations):
                _train(replace(config, out=config.out / expert.name), expert, cache, lora)
                gc.collect()  # what refers to itself would hold its memory while the next is loaded
    return config.out / "lora"


def _is_done(lora: Path, iterations: int) -> bool:
    """Tell whether a student needs no more, whose expert would take minutes to load; the main process decides."""
    return from_main(in_all(lambda: iterations_of(lora) == iterations))


def _train(config: Config, expert: Expert, cache: Cache, lora: Path) -> None:
    """Train one denoiser's student in the config's folder, and write its LoRA into another."""
    state, training, total = processes(), config.training, config.training.iterations
    evaluator = Evaluator(config) if config.evaluation.metrics else None
    trainer = build_trainer(config, cache, expert)
    make_folder(config.out)
    start = load_checkpoint(config.out / "checkpoints", trainer)
    if start > total:
        raise ValueError(f"expected --training.iterations of at least {start}, which are done, got {total}")
    if evaluator:
        evaluator.forget_beyond(start)
    with Log(config, start) as log, Stopping(trainer.device) as stopping:
        look = partial(_look, config, trainer, evaluator, log, cache.captions)
        if start:
            look(start, again=False)  # where it was ended before it had
        for step in range(start + 1, total + 1):
            log.write(step, iterate(trainer, step - 1))
            last, stop = step == total, stopping.asked()
            if last or stop or step % training.save_every == 0:  # first: looks take minutes, and may fail
                log.flush()
                if state.is_main_process:
                    save_checkpoint(config.out / "checkpoints", trainer, step)
                state.wait_for_everyone()  # none is gone before all is saved
            if last or not stop:
                look(step)
            if stop:
                raise Stopped(step, total, stopping.signal or SIGTERM, expert.name)
    if state.is_main_process:
        notes = _made_on(config) | {STEPS_KEY: str(total)} | ({"swd_expert": expert.name} if expert.name else {})
        with trainer.student.averaged():
            save_lora(trainer.roles.student, lora, schedule=config.scales, notes=notes)
    state.wait_for_everyone()


def _look(
    config: Config,
    trainer: Trainer,
    evaluator: Evaluator | None,
    log: Log,
    captions: Sequence[str],
    step: int,
    *,
    again: bool = True,
) -> None:
    """Draw samples and measure the student where a step is due for it; or not `again` what is there already."""
    last, draws = step == config.training.iterations, processes().is_main_process or config.training.shard_base
    drawn, measured = False, False
    if not again:
        drawn, measured = from_main((log.picture_of(step).is_file(), evaluator is not None and evaluator.has(step)))
    # The main process draws, or all do: none can alone where the base is split.
    if draws and not drawn and (last or step % config.training.sample_every == 0):
        log.picture(step, grid({"": sample(config, trainer)}, captions))
    if evaluator and not measured and (last or step % config.evaluation.every == 0):
        log.evaluation(step, evaluator.measure(step, trainer))


def _made_on(config: Config) -> dict[str, str]:
    """Return what the LoRA's header says of its base: names, not where they lie on this machine."""
    model = Path(config.model).name if Path(config.model).is_dir() else config.model
    notes = {
        "swd_model": model,
        "swd_teacher_lora": " ".join(map(_name, config.teacher_lora)),
        "swd_init_lora": _name(config.init_lora or ""),
        "swd_base": config.training.base if config.training.base != "bf16" else "",
        TOKENS_KEY: str(config.data.text_tokens or ""),
    }
    return {name: value for name, value in notes.items() if value}


def _name(lora: str) -> str:
    """Return what a LoRA is called: a hub id, or the last of a path."""
    return lora if is_hub_id(lora.rpartition(":")[0] or lora, ".safetensors") else Path(lora).name


def _open_cache(config: Config, *, verify: bool) -> Cache:
    return Cache.open(config.cache, fitting(config), verify=verify and config.data.verify)


def iterate(trainer: Trainer, step: int) -> Metrics:
    """Run an iteration; return its metrics, with what it took of the machine."""
    began, waited = time.perf_counter(), trainer.loader.waited
    found, gib = trainer.iterate(step), peak_gib(trainer.device)
    found |= {"seconds": time.perf_counter() - began, "wait": trainer.loader.waited - waited}
    return found if gib is None else found | {"gib": gib}


def build_trainer(config: Config, cache: Cache, expert: Expert | None = None) -> Trainer:
    """Load the teacher, or an expert of it, share its weights with student and fake, and draw the head."""
    training = config.training
    device, dtype = device_and_dtype(training.dtype)
    place = "cpu" if training.shard_base else device  # whose blocks go there one by one
    teacher = load_denoiser(
        config.model, expert=expert, loras=config.teacher_lora, base=training.base, device=place, dtype=dtype
    )
    roles = share_base(teacher, training.rank, fake=config.needs_fake, seed=config.seed)
    if config.init_lora:
        start_from(roles.student, config.init_lora)
    if training.shard_base:
        shard_base(roles, device)
    cond = {name: tuple(value.shape[1:]) for name, value in cache.uncond.items()}
    recompute_blocks(config, roles, len(share_places(config)[0]), cond)
    if training.compile:
        bound = compile_blocks(roles, training.compile)
        if processes().is_main_process:
            tqdm.write(compiling(training.compile, bound))
    return Trainer(
        config, cache, roles, _new_head(config, teacher.num_features).to(device) if config.recipe.gan_weight else None
    )


def _new_head(config: Config, width: int) -> DiscriminatorHead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return config.recipe.head(width)


@torch.no_grad()
def sample(config: Config, trainer: Trainer) -> list[Media]:
    """Sample the first captions of the cache with the student.

    An expert runs its own stages: the low-noise one begins, as in training, from real latents of the size before.
    """
    cache, student = trainer.cache, trainer.roles.student
    # Training holds no autoencoder: it comes for the picture and goes. One sample at a time, for memory is full.
    latents, levels = load_latents(config.model, dtype=device_and_dtype()[1]), trainer.levels
    first = trainer.schedule.within(*levels)[0]
    latents.vae.to(trainer.device)
    decode_in_tiles(latents, config.scales.sizes[-1], trainer.device, 1)
    media: list[Media] = []
    with trainer.student.averaged():
        for i in range(len(cache.captions)):
            cond = {key: value.to(trainer.device) for key, value in trim(cache.cond([i])).items()}
            start = cache.latents([i], first.source).to(trainer.device) if first.index else None
            x0 = sample_scalewise(
                partial(student.denoise, cond=cond),
                trainer.schedule,
                (1, student.num_channels),
                process=student.process,
                generator=stream(config.seed, "grid", i),
                levels=levels,
                start=start,
                device=trainer.device,
            )
            media += to_media(latents.decode(x0))
    return media
