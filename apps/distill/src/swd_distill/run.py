"""Everything that is missing, in order: images, cache, student, and the picture of what came out."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from swd_data import make_folder, read_object, save_image, typed
from swd_distill.config import Config
from swd_distill.data.cache import MANIFEST
from swd_distill.data.encode import check_files, claim_cache, encode
from swd_distill.data.generate import claim_images, generate, teacher_of
from swd_distill.data.prompts import limited
from swd_distill.data.sources import claim_source, open_source
from swd_distill.devices import device_and_dtype, from_main, processes
from swd_distill.folder import claimed, comparison_of, settled
from swd_distill.train import train
from swd_distill.training.evaluation import SEED
from swd_distill.training.trainer import share_places
from swd_models.loading import shipped_prompts
from swd_models.parts import Media
from swd_sample import SwDPipeline
from swd_sample.grid import grid

Sampler = Callable[[list[str], int], list[Media]]
NUM_COMPARED = 8


def run(config: Config) -> str:
    """Do what is missing of a run; return the line that says where things are."""
    config = settled(config)
    share_places(config)  # neither should a batch that cannot be split,
    if config.data.images is None:
        config = limited(config)  # nor a bad file leave a run folder behind
    picture = comparison_of(config)
    with claimed(config):
        done = picture.is_file()
        if not done:
            _make(config, picture)
        else:
            _check_sources(config)
    state = "already done" if done else "done"
    trial = typed("swd-sample", str(config.out), _prompt(config))
    seen = f"see {picture}" if picture.is_file() else "without a comparison, for which one device must hold the base"
    return f"{state}: {seen}\nLoRA: {config.out / 'lora'}\ntry: {trial}"


def _check_sources(config: Config) -> None:
    """Refuse prompts or images that have changed since a run was made of them: with those it is another run."""
    if config.data.on_the_fly and config.images.is_dir():
        claim_source(config, open_source(config))
    if config.data.images is None:
        if config.images.is_dir():
            claim_images(config)
    elif config.images.is_dir() and config.cache.is_dir():  # of the hub, all would be downloaded to see it
        check_files(config, claim_cache(config))


def _make(config: Config, picture: Path) -> None:
    # Of a whole cache the teacher's images may be gone, to save room: they would take days, and be of no use.
    cached = not config.data.on_the_fly and not config.images.is_dir() and (config.cache / MANIFEST).is_file()
    measured = config.evaluation.metrics and config.evaluation.ref is None  # against them
    cached = from_main(cached and config.data.images is None and not measured)
    if config.data.images is None and not cached:
        generate(config)
    if not (config.data.on_the_fly or cached):
        encode(config)
    train(config, verify=cached)  # else encoding has compared the cache with its checksums
    if config.training.shard_base:  # the whole base may fit no device
        return
    if processes().is_main_process:
        make_folder(picture.parent)
        save_image(compare(config), picture)


def compare(config: Config) -> Image.Image:
    """Sample the same prompts with teacher, student, and the undistilled teacher under the student's schedule.

    One model after the other: each is let go before the next is loaded.
    """
    prompts, schedule = _prompts_to_compare(config), config.scales
    steps, guidance, few = config.data.teacher_steps, config.data.teacher_guidance, len(schedule.sizes)
    rows = {f"teacher, {steps} steps, cfg {guidance:g}": _in_batches(config, _teacher(config), prompts)}
    device, dtype = device_and_dtype(config.training.dtype)
    student = SwDPipeline.from_run(config.out, device=str(device), dtype=dtype)
    rows[f"student, {few} scale-wise steps"] = _in_batches(config, partial(_sample, student), prompts)
    del student
    base = SwDPipeline.from_pretrained(
        config.model,
        base_loras=config.teacher_lora,
        base=config.training.base,
        schedule=schedule,
        device=str(device),
        dtype=dtype,
        text_tokens=config.data.text_tokens,
    )
    undistilled = partial(_sample, base, guidance=guidance)
    rows[f"undistilled, same {few} steps, cfg {guidance:g}"] = _in_batches(config, undistilled, prompts)
    return grid(rows, prompts)


def _in_batches(config: Config, sample: Sampler, prompts: list[str]) -> list[Media]:
    """Sample prompt i with the seed SEED + i."""
    batch = config.data.batch
    starts = range(0, len(prompts), batch)
    return [item for i in starts for item in sample(prompts[i : i + batch], SEED + i)]


def _sample(pipe: SwDPipeline, prompts: list[str], seed: int, guidance: float = 1.0) -> list[Media]:
    return pipe(prompts, seed=seed, guidance_scale=guidance)


def _teacher(config: Config) -> Sampler:
    teacher = teacher_of(config)

    def sample(prompts: list[str], seed: int) -> list[Media]:
        return teacher(
            prompts,
            size=config.scales.sizes[-1],
            num_steps=config.data.teacher_steps,
            guidance=config.data.teacher_guidance,
            generators=[torch.Generator().manual_seed(seed + i) for i in range(len(prompts))],
        )

    return sample


def _prompt(config: Config) -> str:
    """Return a prompt of a kind that the model knows: a tiny one knows no other."""
    known = shipped_prompts(config.model, unseen=True) or (config.cache / MANIFEST).is_file()
    return _prompts_to_compare(config)[0] if known else "a prompt"


def _prompts_to_compare(config: Config) -> list[str]:
    """Return prompts that training has not seen where the model brings some, else the first that it has."""
    if unseen := shipped_prompts(config.model, unseen=True):
        return unseen[:NUM_COMPARED]
    if config.data.on_the_fly:
        return [sample.text for sample in open_source(config).read(0, NUM_COMPARED)]
    return list(read_object(config.cache / MANIFEST)["captions"])
