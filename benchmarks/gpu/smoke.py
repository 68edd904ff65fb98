"""Tiny models from end to end, in the dtype of the device."""

import math
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.devices import free, timed
from benchmarks.gpu.setting import Rows, Setting
from benchmarks.training.encoding import Captions, Encoding, Kept
from swd_distill.config import Config
from swd_distill.data.cache import Cache
from swd_distill.data.encode import encode, fitting
from swd_distill.data.generate import generate
from swd_distill.presets import PRESETS
from swd_distill.run import run
from swd_distill.train import build_trainer
from swd_distill.training.checkpoints import load_checkpoint, save_checkpoint
from swd_distill.training.network import Metrics
from swd_distill.training.trainer import Trainer
from swd_models import Denoiser, load_latents
from swd_models.adapters import adapter_parameters, adapter_state, merge_adapters
from swd_schedules import sample_scalewise

FAMILIES = ("tiny-flux", "tiny-wan", "tiny-sdxl")


def tiny(setting: Setting, rows: Rows) -> None:
    """Generate, encode, train with the full loss, resume, sample."""
    preset = PRESETS["tiny-long"]
    with tempfile.TemporaryDirectory() as folder:
        config = replace(
            preset,
            out=Path(folder) / "run",
            data=replace(preset.data, num_images=16, teacher_steps=4, batch=8),
            training=replace(preset.training, iterations=3, batch=4, sample_every=3, trackers=(), checkpointing="none"),
        )
        for name, call in {"generate, 16 images": generate, "encode": encode}.items():
            rows[name] = {"seconds": timed(partial(call, config))}
        rows["resume"] = _resume(config, Path(folder) / "checkpoints")
        rows["train 3 iterations, sample, compare"] = {"seconds": timed(partial(run, config))}


def _resume(config: Config, folder: Path) -> dict[str, Any]:
    """Train four iterations at once, and two and two: how far the adapters are apart."""
    cache = Cache.open(config.cache, fitting(config))
    at_once, first, second = (build_trainer(config, cache) for _ in range(3))
    metrics = [at_once.iterate(step) for step in range(4)]
    for step in range(2):
        first.iterate(step)
    save_checkpoint(folder, first, 2)
    for step in range(load_checkpoint(folder, second), 4):
        second.iterate(step)
    return {
        "largest difference": max(map(_apart, *(_trained(trainer) for trainer in (at_once, second)))),
        "finite": _finite(metrics),
    }


def _finite(metrics: Iterable[Metrics]) -> bool:
    return all(math.isfinite(value) for each in metrics for value in each.values())


def _trained(trainer: Trainer) -> list[Tensor]:
    return [parameter for network in trainer.networks.values() for parameter in network.parameters]


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).detach().abs().max())


def families(setting: Setting, rows: Rows) -> None:
    """Train and sample the tiny member of each family; merge its adapters, and sample again."""
    for name in FAMILIES:
        preset = PRESETS[name]
        config = replace(preset, training=replace(preset.training, batch=2, trackers=(), checkpointing="none"))
        latents = load_latents(config.model, dtype=setting.dtype)
        latents.vae.to(setting.device)
        cache = Kept(Encoding(config, latents, Captions(config.model)), config.scales.sizes)
        trainer = build_trainer(config, cache)
        first, began = trainer.iterate(0), time.perf_counter()
        metrics = [first, trainer.iterate(1)]  # which ends with a read
        rows[name] = {"s an iteration": time.perf_counter() - began, "finite": _finite(metrics)}
        rows[name] |= _merged(setting, config, trainer, cache)
        pixels = latents.decode(_sample(setting, config, trainer.roles.student, cache))
        rows[name] |= {"pixels": "x".join(map(str, pixels.shape[1:]))}
        del trainer, latents
        free()


def _merged(setting: Setting, config: Config, trainer: Trainer, cache: Cache) -> dict[str, Any]:
    """Merge the student's adapters, grown large first: how far its samples move, and how far without them."""
    student = trainer.roles.student
    grow(student, std=0.1)  # far beyond the rounding of bfloat16
    apart, base = (_sample(setting, config, role, cache) for role in (student, trainer.roles.teacher))
    merge_adapters(student)
    merged = _sample(setting, config, student, cache)
    return {"merged / apart": distance(merged, apart), "base / apart": distance(base, apart)}


def grow(denoiser: Denoiser, std: float = 0.02) -> None:
    """Give adapters numbers as after some training: at first they add nothing."""
    assert adapter_state(denoiser)
    with torch.no_grad():
        for parameter in adapter_parameters(denoiser):
            parameter.normal_(std=std, generator=torch.Generator(parameter.device).manual_seed(0))


def distance(one: Tensor, other: Tensor) -> float:
    """Return the norm of a difference over that of `other`."""
    return float((one.float() - other.float()).norm() / other.float().norm())


@torch.no_grad()
def _sample(setting: Setting, config: Config, denoiser: Denoiser, cache: Cache) -> Tensor:
    cond = {name: value.to(setting.device) for name, value in cache.cond([0]).items()}
    return sample_scalewise(
        partial(denoiser.denoise, cond=cond),
        config.scales,
        (1, denoiser.num_channels),
        process=denoiser.process,
        generator=torch.Generator().manual_seed(config.seed),
        device=setting.device,
    )
