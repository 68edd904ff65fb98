"""What of a preset fits one card: each base, with MMD alone or its full loss, and the fastest way that fits."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from swd_distill.config import Base, Config, Optimizer
from swd_distill.data.prompts import limited
from swd_distill.planning.before import before, fitting_batch
from swd_distill.planning.counts import Counts
from swd_distill.planning.estimate import HEADROOM, Estimate, fewest, mmd_alone
from swd_distill.planning.hours import stage_hours
from swd_distill.planning.roofline import GPUS, Gpu
from swd_distill.presets import PRESETS
from swd_models.loading import shipped_prompts

MAX_SHARE = 16
"""Samples at a time, beyond which no card of one's own is faster."""


@dataclass(frozen=True)
class Way:
    """A base and a loss on a card: the estimate of the fastest way that fits, if any does."""

    config: Config
    least: float
    """GiB that it takes at the least: a sample at a time, all blocks recomputed, the optimiser in 8 bits."""
    found: Estimate | None

    @property
    def loss(self) -> str:
        """Return what is trained with."""
        return "full" if self.config.needs_fake else "MMD alone"

    def seconds(self, gpu: Gpu) -> float:
        """Return the seconds of an iteration."""
        assert self.found is not None
        return self.training_seconds(gpu) / (self.config.training.iterations * len(self.found.students()))

    def training_seconds(self, gpu: Gpu) -> float:
        """Return the seconds of all iterations."""
        assert self.found is not None
        return self.found.training_seconds(gpu) * (self.config.training.batch // self.found.share)

    def flags(self) -> list[str]:
        """Return the flags that choose it, beside a preset's."""
        assert self.found is not None
        config, found = self.config, self.found
        accumulate, optimizer = config.training.batch // found.share, found.config.training.optimizer
        parts = [f"--training.base {config.training.base}"] * (config.training.base != "bf16")
        parts += [f"--training.accumulate {accumulate}"] * (accumulate > 1)
        parts += [f"--training.optimizer {optimizer}"]
        if not config.needs_fake and PRESETS[config.name].needs_fake:
            parts += ["--recipe.dmd-weight 0", "--recipe.gan-weight 0"]
        return parts


def ways(config: Config, gib: float, gpu: Gpu) -> Iterator[Way]:
    """Return a way for each base and loss on a card of so many GiB, largest base and fullest loss first."""
    counts = Counts.of(config)
    for base in get_args(Base):
        for loss in (config, mmd_alone(config)) if config.needs_fake and config.recipe.mmd_weight else (config,):
            each = replace(loss, training=replace(loss.training, base=base))
            small = _with_optimizer(each, "adamw-8bit")
            least = Estimate(small, counts, 1, counts.num_blocks).total()
            yield Way(each, least, _fastest(each, counts, HEADROOM * gib, gpu) if least <= HEADROOM * gib else None)


def _fastest(config: Config, counts: Counts, gib: float, gpu: Gpu) -> Estimate | None:
    """Return what takes the least time for a batch, the optimiser whole where that costs none."""
    batch = config.training.batch
    shares = [share for share in range(1, min(batch, MAX_SHARE) + 1) if batch % share == 0]
    every = _with_optimizer(config, "adamw"), _with_optimizer(config, "adamw-8bit")
    fitting = [fewest(Estimate(each, counts, share), gib) for each in every for share in shares]
    found = [each for each in fitting if each is not None]
    return min(found, key=lambda each: each.mean_seconds(gpu) / each.share, default=None)


def _with_optimizer(config: Config, name: Optimizer) -> Config:
    return replace(config, training=replace(config.training, optimizer=name))


def card_of(gib: float) -> str:
    """Return the GPU whose memory is nearest."""
    return min(GPUS, key=lambda name: abs(GPUS[name].memory - gib))


def page(config: Config, gib: float, name: str) -> list[str]:
    """Return the lines of `plan PRESET --memory GIB`, the command of the best way last."""
    gpu, found = GPUS[name], list(ways(config, gib, GPUS[name]))
    head = ("base", "loss", "GiB", "at a time", "recomputed", "optimiser", "s an iteration", "days it trains")
    lines = [_row(head), *(_row(_cells(way, gpu)) for way in found)]
    fits = [way for way in found if way.found]
    if not fits:
        least = min(found, key=lambda way: way.least)
        return [
            *lines,
            "",
            f"nothing fits {gib:g} GiB: {least.least / HEADROOM:.0f} GiB are the least, with {least.loss}",
        ]
    best = max(fits, key=lambda way: way.config.needs_fake)  # the first of these has the most bits
    commands = [_command(config, best, gib), *_faster(best, fits, gpu)]
    alone = next((way for way in fits if not way.config.needs_fake), None)
    if best.config.needs_fake and alone:
        commands.append(f"or with {alone.loss}: {_command(config, alone, gib)}")
    assert best.found is not None
    first = replace(best.found, config=_before(best.found.config, best, gib))
    hours = stage_hours(first, gpu, 1) | {"train": best.training_seconds(gpu) / 3600}
    fewer = "" if config.data.images else "; fewer images (--data.num-images) or your own (--data.images) take less"
    whole = f"in all {sum(hours.values()) / 24:.1f} days with the first of these{fewer}"
    return [*lines, "", *commands, "", "before it trains:", *before(first, gpu, HEADROOM * gib, 1), whole]


def _faster(best: Way, fits: Sequence[Way], gpu: Gpu) -> list[str]:
    """Say that another base takes less time than the one with the most bits, where it does."""
    same = [way for way in fits if way.loss == best.loss]
    fastest, most = min(same, key=lambda way: way.seconds(gpu)), best.config.training.base
    share = fastest.seconds(gpu) / best.seconds(gpu)
    if share > 0.97:
        return []
    return [f"({most} has the most bits of what fits; {fastest.config.training.base} takes {share:.2f} of its time)"]


def _before(config: Config, way: Way, gib: float) -> Config:
    """Return a config that takes as few samples at a time before training as fit there."""
    assert way.found is not None
    found = replace(way.found, config=replace(way.found.config, data=config.data))
    return replace(config, data=replace(config.data, batch=fitting_batch(found, HEADROOM * gib) or config.data.batch))


def _command(config: Config, way: Way, gib: float) -> str:
    return " ".join([f"swd-distill run {config.name}", *way.flags(), *_given(_before(config, way, gib))])


def _given(config: Config) -> list[str]:
    """Return the flags that a user has added to a preset, but for what a card decides."""
    brings = config.data.prompts or config.data.images or shipped_prompts(config.model)
    parts = [] if brings else ["--data.prompts prompts.txt"]
    decided = {"base", "accumulate", "optimizer", "checkpointing"}
    preset = PRESETS[config.name]
    whole = replace(config, data=replace(config.data, num_images=preset.data.num_images))
    if config.data.prompts and limited(whole) == config:  # few prompts make few images, whoever asks
        decided.add("num_images")
    for group in ("data", "training", "recipe"):
        values, own = vars(getattr(config, group)), vars(getattr(preset, group))
        for name, value in values.items():
            if value != own[name] and name not in decided:
                flag = f"--{group}.{'no-' if value is False else ''}{name.replace('_', '-')}"
                parts += [flag] if isinstance(value, bool) else [flag, *_words(value)]
    for name in ("model", "schedule", "out", "teacher_lora", "init_lora", "seed"):
        if getattr(config, name) != getattr(preset, name):
            parts += [f"--{name.replace('_', '-')}", *_words(getattr(config, name))]
    return parts


def _words(value: object) -> list[str]:
    return [shlex.quote(str(each)) for each in (value if isinstance(value, tuple) else (value,))]


def _cells(way: Way, gpu: Gpu) -> Sequence[str]:
    base, found = way.config.training.base, way.found
    if found is None:
        return base, way.loss, f"{way.least:.1f}", "-", "-", "-", "does not fit", "-"
    seconds = way.seconds(gpu)
    return (
        base, way.loss, f"{found.total():.1f}", str(found.share), f"{found.checkpointed} of {found.counts.num_blocks}",
        found.config.training.optimizer, f"{seconds:.1f}", f"{way.training_seconds(gpu) / 86400:.1f}",
    )  # fmt: skip


def _row(cells: Sequence[str]) -> str:
    widths = (6, 11, 7, 11, 13, 12, 16, 16)
    return "".join(
        f"{cell:<{width}}" if i < 2 else f"{cell:>{width}}"
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
