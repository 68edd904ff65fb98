"""What a run takes, from counted iterations: FLOPs and their ratios, seconds on a GPU, memory, disk."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from swd_distill.config import Base, Config, Optimizer
from swd_distill.planning.counts import Counts
from swd_distill.planning.pieces import StageCost
from swd_distill.planning.roofline import GIB, Gpu, Ops
from swd_schedules import Stage

Size = tuple[int, ...]
BYTES = {"bf16": 2.0, "int8": 1.0, "fp8": 1.0, "nf4": 0.5 + 1 / 64 + 4 / (64 * 256)}
ROW_BYTES = {"int8": 5, "fp8": 4, "nf4": 0}
"""Of a parameter in a quantised layer, and of a row's scale; nf4 has a scale in a byte for each 64 parameters, and one
in four bytes for 256 of those."""
SMALLER: tuple[Base, ...] = ("int8", "nf4")
"""Bases of fewer bits that every card of today computes with, the largest first."""
HEADROOM = 0.95
"""Of a device's memory: the rest is for what libraries take for themselves, and for gaps."""


@dataclass(frozen=True)
class Estimate:
    """A config with its counts, for a share of a batch and so many blocks recomputed in backward."""

    config: Config
    counts: Counts
    share: int = 1
    checkpointed: int = 0
    processes: int = 1

    @classmethod
    def of(cls, config: Config, share: int = 1, checkpointed: int | None = None) -> Self:
        """Count a config, or read what ships; by default all blocks or none are recomputed, as `recomputed` says."""
        counts = Counts.of(config)
        return cls(
            config, counts, share, recomputed(config, counts.num_blocks) if checkpointed is None else checkpointed
        )

    @property
    def full(self) -> StageCost:
        """Return the cost of the last step, at full scale, without recomputed blocks."""
        return self.counts.plain[self.config.scales.sizes[-1]]

    def flops(self, size: Size, config: Config | None = None) -> float:
        """Return the FLOPs of an iteration at a size for one sample; also of a config with fewer losses."""
        config, (plain, recomputing) = config or self.config, self._costs(size)
        return plain.flops(config) + self._part * (recomputing.flops(config) - plain.flops(config))

    def iteration(self, config: Config | None = None) -> float:
        """Return the FLOPs of an iteration for one sample, mean over the stages."""
        sizes = self.config.scales.sizes
        return sum(self.flops(size, config) for size in sizes) / len(sizes)

    def passes(self, config: Config | None = None) -> dict[str, float]:
        """Return the forwards and backwards of an iteration by role."""
        config = config or self.config
        plain, recomputing = (cost.passes(config) for cost in self._costs(self.config.scales.sizes[-1]))
        return {role: count + self._part * (recomputing[role] - count) for role, count in plain.items()}

    def seconds(self, gpu: Gpu, size: Size, config: Config | None = None) -> Counter[str]:
        """Return the seconds of an iteration at a size for the share, by what limits them."""
        config, (plain, recomputing) = config or self.config, self._costs(size)
        found: Counter[str] = Counter()
        for cost, part in ((plain, 1 - self._part), (recomputing, self._part)):
            for limit, spent in gpu.seconds(cost.work(config), self.share).items():
                found[limit] += part * spent  # type: ignore[assignment]
        return found + gpu.seconds(self._updates(config), 1) + gpu.seconds(self._turned_back(config), 1)

    def mean_seconds(self, gpu: Gpu, config: Config | None = None) -> float:
        """Return the seconds of an iteration for the share, mean over the stages."""
        sizes = self.config.scales.sizes
        return sum(self.seconds(gpu, size, config).total() for size in sizes) / len(sizes)

    def students(self) -> tuple[tuple[Stage, ...], ...]:
        """Return the stages of each student: there is one, or one for each expert of a model of two.

        Raises:
            ValueError: an expert without a stage.
        """
        boundary = self.counts.facts.get("boundary")
        return (self.config.scales.stages,) if boundary is None else self.config.halves(boundary / 1000)

    def training_seconds(self, gpu: Gpu) -> float:
        """Return the seconds of all iterations, of all students, for the share."""
        means = (
            sum(self.seconds(gpu, stage.target).total() for stage in stages) / len(stages) for stages in self.students()
        )
        return self.config.training.iterations * sum(means)

    def loss_ratio(self) -> float:
        """Return what the full loss costs over MMD alone (table 5), in FLOPs."""
        return self.iteration() / self.iteration(mmd_alone(self.config))

    def scale_ratio(self, config: Config | None = None) -> float:
        """Return what training costs scale-wise over full scale at every step (table 5), in FLOPs."""
        return self.iteration(config) / self.flops(self.config.scales.sizes[-1], config)

    def sampling_ratio(self) -> float:
        """Return what sampling costs scale-wise over as many steps at full scale (table 4), in FLOPs."""
        sizes = self.config.scales.sizes
        return sum(self.counts.plain[size].forward for size in sizes) / (len(sizes) * self.full.forward)

    def memory(self) -> dict[str, float]:
        """Return the GiB of a process on a GPU by what holds them: the base is in half precision, what is trained not.

        A base in float32 is taken for twice of all that its half is. Of a quantised one, the largest layer is whole
        while it is used, once in its own numbers and once on the way there.
        """
        numbers, training = self.counts.parameters, self.config.training
        width = 2 if training.dtype == "float32" else 1
        base = self.base_bytes(width)
        whole = 0 if training.base == "bf16" else 2 * 2 * width * numbers["largest"]
        trained = numbers["student"] + (numbers.get("fake", 0) if self.config.needs_fake else 0)
        kept = {
            "base": base * self._held,
            "adapters and head": 4 * trained,
            "optimisers": (2 if training.optimizer == "adamw-8bit" else 8) * trained,
            "average": 4 * numbers["student"] if training.ema else 0,
            "gradients and activations": width * self.peak() + whole,
        }
        return {name: size / GIB for name, size in kept.items()}

    def base_bytes(self, width: int = 1) -> int:
        """Return the bytes of the base as --training.base holds it, the rest of it in half precision, or `width` 2."""
        numbers, base = self.counts.parameters, self.config.training.base
        whole = 2 * width * numbers["base"]
        if base == "bf16":
            return whole
        saved = round((2 * width - BYTES[base]) * numbers["quantised"])
        return whole - saved + ROW_BYTES[base] * numbers["rows"]

    def total(self) -> float:
        """Return the GiB of a process on a GPU."""
        return sum(self.memory().values())

    def peak(self) -> float:
        """Return the most bytes of tensors at the largest size: of one sample, and what each further one adds."""
        peaks = dict(self.counts.peaks)
        if len(peaks) <= self.counts.num_blocks:  # not each number is counted; the last block of a pass is no more work
            peaks[self.counts.num_blocks - 1] = peaks[self.counts.num_blocks]
        nodes, values = sorted(peaks), []
        for count in nodes:
            one, two = (cost.peak(self.config) for cost in peaks[count])
            values.append(one + (self.share - 1) * (two - one))
        return float(np.interp(self.checkpointed, nodes, values))

    @property
    def _held(self) -> float:
        """Return how much of the base a process holds: all, or of each of its views a part."""
        views = 3 if self.config.needs_fake else 2
        return min(1.0, views / self.processes) if self.config.training.shard_base else 1.0

    @property
    def _part(self) -> float:
        return self.checkpointed / self.counts.num_blocks

    def _costs(self, size: Size) -> tuple[StageCost, StageCost]:
        return self.counts.plain[size], self.counts.recomputed(size)

    def _turned_back(self, config: Config) -> tuple[Ops, ...]:
        """Return what a quantised base adds: in each pass its weights are read, and written as they were."""
        base, quantised = config.training.base, self.counts.parameters.get("quantised", 0)
        passes = sum(self.passes(config).values())
        return () if base == "bf16" else (Ops(1, False, 0.0, passes * (BYTES[base] + 2) * quantised, 0.0),)

    def _updates(self, config: Config) -> tuple[Ops, ...]:
        """Return AdamW and clipping: a parameter, its gradient and two moments are read, three of them written."""
        numbers, fakes = self.counts.parameters, config.recipe.fake_updates if config.needs_fake else 0
        updated = numbers["student"] + fakes * numbers.get("fake", 0)
        return (Ops(1, False, 0.0, (7 + 3) * 4 * updated, 0.0),)


def recomputed(config: Config, num_blocks: int) -> int:
    """Return how many blocks a config recomputes in backward; "auto", which a device decides, counts as all."""
    asked = config.training.checkpointing
    return (
        {"none": 0, "all": num_blocks, "auto": num_blocks}[asked] if isinstance(asked, str) else min(asked, num_blocks)
    )


def fewest(estimate: Estimate, gib: float) -> Estimate | None:
    """Return the estimate with the fewest recomputed blocks that fit so many GiB; None: not even all do."""
    blocks = estimate.counts.num_blocks
    fits = (replace(estimate, checkpointed=count) for count in range(blocks + 1))
    return next((each for each in fits if each.total() <= gib), None)


def largest_share(estimate: Estimate, gib: float) -> int:
    """Return the most samples whose pass fits so many GiB with all blocks recomputed; 0: not one."""
    all_blocks = replace(estimate, checkpointed=estimate.counts.num_blocks)
    shares = range(estimate.share, 0, -1)
    return next((share for share in shares if replace(all_blocks, share=share).total() <= gib), 0)


def _smaller(found: Estimate, gib: float) -> str | None:
    """Return the flags of the base with the most bits, and the optimiser, with which one sample fits."""
    training = found.config.training
    eight: Optimizer = "adamw-8bit"
    for base in (training.base, *SMALLER):
        for optimizer in (training.optimizer, eight):
            each = replace(training, base=base, optimizer=optimizer)
            if largest_share(replace(found, share=1, config=replace(found.config, training=each)), gib):
                flags = [f"--training.base {base}"] * (base != training.base)
                return " ".join(flags + [f"--training.optimizer {eight}"] * (optimizer != training.optimizer))
    return None


def advice(found: Estimate, gib: float, processes: int) -> str:
    """Say what would fit where a share does not with all blocks recomputed."""
    training, most = found.config.training, largest_share(found, gib)
    if most == 0:
        kept = {name: size for name, size in found.memory().items() if name != "gradients and activations"}
        heaviest = max(kept, key=kept.__getitem__)
        smaller = _smaller(found, gib)
        ways = f"{smaller} would fit" if smaller else "take a device of more memory"
        return (
            f"no batch fits {gib:.1f} GiB: {sum(kept.values()):.1f} are held whatever the batch, {kept[heaviest]:.1f} "
            f"of them the {heaviest}; {ways}, or a lower --training.rank, or with several processes "
            "--training.shard-base"
        )
    counts = (count for count in range(1, training.batch + 1) if training.batch % (processes * count) == 0)
    count = next((count for count in counts if training.batch // (processes * count) <= most), None)
    if count is None:
        return f"{most} samples at a time fit: take a --training.batch that {processes} processes can share evenly"
    return f"{most} samples at a time fit: --training.accumulate {count}"


def mmd_alone(config: Config) -> Config:
    """Return the config with MMD alone."""
    return replace(config, recipe=replace(config.recipe, dmd_weight=0.0, gan_weight=0.0))


def cache_gib(config: Config, facts: Mapping[str, int], prompts: int | None = None) -> dict[str, float]:
    """Return the GiB of the cache by what is in it, on a GPU: bfloat16, every image with a text of its own.

    Of so many `prompts` each is there once; text in float8 takes half.
    """
    images, width = config.data.num_images, 2 if config.data.text_dtype == "model" else 1
    latents = facts["channels"] * sum(math.prod(size) for size in set(config.scales.sizes))
    texts = images if prompts is None else min(images, prompts)
    return {"latents": 2 * images * latents / GIB, "text": width * texts * facts["text"] / GIB}
