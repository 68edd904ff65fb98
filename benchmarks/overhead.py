"""What sampling and training take beyond their networks: the goal is at most 5 % on tiny models at batch 8.

`python -m benchmarks.overhead` writes overhead-cpu.json and .md. Clocks are around the networks themselves, inside real
runs on the CPU: the forwards of denoisers and head, and the backwards through them.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.latency.models import tiny
from benchmarks.latency.rows import TINY, schedules
from benchmarks.provenance import of, provenance, write
from benchmarks.training.encoding import Kept, parts
from swd_distill.presets import PRESETS
from swd_distill.training.batches import Draw
from swd_distill.training.trainer import Trainer
from swd_models import Denoiser, load_denoiser, share_base
from swd_models.logs import quiet
from swd_schedules import ScaleSchedule, sample_scalewise, upscale

GOAL = 0.05
NETWORKS = "networks"
CPU = torch.device("cpu")
Spent = dict[str, float]


class Clock:
    """Seconds by name, of calls within calls once: an inner one's belong to the outer."""

    def __init__(self) -> None:
        self.spent: Spent = defaultdict(float)
        self._depth = 0

    def start(self, *_: Any) -> None:
        """Enter."""
        self._depth += 1
        if self._depth == 1:
            self._began = time.perf_counter()

    def stop(self, name: str, *_: Any) -> None:
        """Leave."""
        self._depth -= 1
        if self._depth == 0:
            self.spent[name] += time.perf_counter() - self._began

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose calls are timed."""

        def run(*args: Any, **kwargs: Any) -> Any:
            self.start()
            try:
                return call(*args, **kwargs)
            finally:
                self.stop(name)

        return run


@contextmanager
def on_networks(clock: Clock, modules: Sequence[nn.Module]) -> Iterator[None]:
    """Time the forwards of modules."""
    with ExitStack() as hooks:
        for module in modules:
            hooks.callback(module.register_forward_pre_hook(clock.start).remove)
            hooks.callback(module.register_forward_hook(partial(clock.stop, NETWORKS)).remove)
        yield


@torch.no_grad()
def sampling(denoiser: Denoiser, schedule: ScaleSchedule, cond: Mapping[str, Tensor], seed: int) -> Spent:
    """Time one run of the sampler."""
    batch = len(cond["prompt_embeds"])
    clock, began = Clock(), time.perf_counter()
    with (
        on_networks(clock, [denoiser]),
        patch("swd_schedules.sampling.upscale", clock.timed("resizing", upscale)),
        patch("torch.randn", clock.timed("noise", torch.randn)),
    ):
        sample_scalewise(
            partial(denoiser.denoise, cond=cond),
            schedule,
            (batch, denoiser.num_channels),
            process=denoiser.process,
            generator=torch.Generator().manual_seed(seed),
        )
    return _with_rest(clock, time.perf_counter() - began)


def training(trainer: Trainer, step: int) -> Spent:
    """Time one iteration, whose FLOPs were counted before."""
    roles, clock = trainer.roles, Clock()
    networks = [module for module in (roles.teacher, roles.student, roles.fake, trainer.head) if module]
    take, autograd = trainer.loader.take, torch.autograd
    with on_networks(clock, networks), ExitStack() as patches:
        for target, name, call in (
            (autograd, "backward", clock.timed(NETWORKS, autograd.backward)),
            (autograd, "grad", clock.timed(NETWORKS, autograd.grad)),
            (trainer.loader, "take", clock.timed("loader", take)),
            (nn.utils, "clip_grad_norm_", clock.timed("clipping", nn.utils.clip_grad_norm_)),
            *((n.optimizer, "step", clock.timed("optimiser", n.optimizer.step)) for n in trainer.networks.values()),
        ):
            patches.enter_context(patch.object(target, name, call))
        began = time.perf_counter()
        trainer.iterate(step)
        whole = time.perf_counter() - began
    return _with_rest(clock, whole)


def _with_rest(clock: Clock, whole: float) -> Spent:
    return dict(clock.spent) | {"arithmetic and python": whole - sum(clock.spent.values()), "whole": whole}


def build_trainer(name: str, batch: int) -> Trainer:
    """Build a preset's trainer over samples in memory."""
    preset = PRESETS[name]
    config = replace(preset, training=replace(preset.training, batch=batch))
    roles = share_base(load_denoiser(config.model), config.training.rank, fake=config.needs_fake, seed=config.seed)
    head = config.recipe.head(roles.teacher.num_features) if config.recipe.gan_weight else None
    return Trainer(config, Kept(parts(config, CPU)[0], config.scales.sizes), roles, head)


def medians(run: Callable[[int], Spent], warmup: int, count: int) -> dict[str, Any]:
    """Run often; return the median of each share of the networks' time, and of that time itself."""
    found = [run(step) for step in range(warmup + count)][warmup:]
    names = sorted({name for one in found for name in one} - {NETWORKS, "whole"})
    shares = {name: median(one.get(name, 0.0) / one[NETWORKS] for one in found) for name in names}
    over = median(one["whole"] / one[NETWORKS] for one in found) - 1
    return {"networks_seconds": median(one[NETWORKS] for one in found), "over": over, "shares": shares, "runs": count}


def page(record: Mapping[str, Any]) -> str:
    """Lay out a record."""
    config, rows = record["config"], record["rows"]
    names = sorted({name for row in rows.values() for name in row["shares"]})
    lines = [
        f"| {what} | {row['networks_seconds'] * 1000:.1f} | {row['over']:.1%} "
        f"| {'yes' if row['over'] <= GOAL else 'no'} | "
        + " | ".join(f"{row['shares'][name]:.1%}" if name in row["shares"] else "" for name in names)
        + " |"
        for what, row in rows.items()
    ]
    return f"""# Overhead

`python -m benchmarks.overhead`. On the CPU, float32, batch {config["batch"]}, medians of {config["runs"]} runs.
Networks: forwards of the denoisers and the head, and backwards, which hold those of the losses. All else in shares of
that. Sampling is the loop over the schedule, without text and decoding.

{of(record)}

| | networks, ms | all else | at most {GOAL:.0%} | {" | ".join(names)} |
{"|---" * (4 + len(names))}|
""" + "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Time, and write."""
    trained = ["tiny", "tiny-long", "tiny-video"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", choices=list(TINY), default=list(TINY), help="to sample")
    parser.add_argument("--presets", nargs="*", choices=trained, default=trained, help="to train")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args(argv)
    quiet()
    record = provenance({name: value for name, value in vars(args).items() if name != "out"}) | {"rows": {}}
    for model in args.models:
        made, schedule = tiny(model), schedules(model)["scale-4"]
        cond = made.text(args.batch)
        record["rows"][f"sampling, {model}"] = medians(partial(sampling, made.denoiser, schedule, cond), 3, args.runs)
    for name in args.presets:
        trainer = build_trainer(name, args.batch)
        warmup = _steps_until_counted(trainer)
        record["rows"][f"training, {name}"] = medians(partial(training, trainer), warmup, args.runs)
    write(record, page(record), args.out / "overhead-cpu")


def _steps_until_counted(trainer: Trainer) -> int:
    """Return the step by which each update has met every stage, when the trainer counts FLOPs no more."""
    wanted = {(update, stage.index) for update in trainer.updates() for stage in trainer.schedule.stages}
    step = 0
    while wanted:
        for update in trainer.updates():
            draw = Draw(trainer.config.seed, step, update, trainer.places[0])
            wanted.discard((update, draw.stage(trainer.schedule, trainer.recipe).index))
        step += 1
    return step


if __name__ == "__main__":
    main()
