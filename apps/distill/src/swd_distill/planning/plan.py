"""`swd-distill plan`: what a run will cost, before any of it is spent."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from swd_distill.config import Config, Optimizer

if TYPE_CHECKING:
    from swd_distill.planning.estimate import Estimate
    from swd_distill.planning.roofline import Gpu


@dataclass(frozen=True)
class Plan(Config):
    """Count what a run costs, on tensors without data: a known model needs no weights."""

    gpus: int | None = None
    """Processes, one a GPU. Default: 8; with --memory alone, one card, and all that fits it."""
    gpu: str | None = None
    """Whose data sheet the seconds are reckoned with: a100, h100, h200, l40s, rtx4080, rtx4090, rtx5090 or mi300x.
    Default: h100; with --memory, the card whose memory is nearest."""
    memory: float | None = None
    """GiB of each. Default: those of the GPU."""

    def check(self) -> None:
        """Raise ValueError for what would fail later, in one line and before any work."""
        from swd_distill.planning.roofline import GPUS

        if self.gpu not in (None, *GPUS):
            raise ValueError(f"expected --gpu of {', '.join(GPUS)}, got {self.gpu}: give the nearest, and its --memory")
        if self.memory is not None and not 0 < self.memory < math.inf:
            raise ValueError(f"expected --memory above 0, in GiB, got {self.memory:g}")
        if self.device != "auto":
            raise ValueError(f"expected the GPU of a plan as --gpu, got --device {self.device}: it computes nothing")
        if self.gpus is not None and self.gpus < 1:
            raise ValueError(f"expected --gpus of at least 1, got {self.gpus}")
        super().check()

    @property
    def num_gpus(self) -> int:
        """Return the number of GPUs."""
        return 8 if self.gpus is None else self.gpus

    @property
    def share(self) -> int:
        """Return the samples that a GPU holds at a time."""
        training, gpus = self.training, self.num_gpus
        count = gpus * training.accumulate
        if training.batch % count:
            raise ValueError(
                f"expected --training.batch divisible by {gpus} GPU(s) x {training.accumulate} share(s), got "
                f"{training.batch}: change --gpus, --training.batch or --training.accumulate"
            )
        return training.batch // count


def plan(options: Plan) -> str:
    """Return the page."""
    from swd_distill.planning.ahead import counted
    from swd_distill.planning.before import before
    from swd_distill.planning.cards import card_of
    from swd_distill.planning.estimate import HEADROOM, Estimate, fewest
    from swd_distill.planning.roofline import GPUS, REACHED_BANDWIDTH, REACHED_PEAK

    if options.gpus is None and options.memory is not None:
        return _card(options, options.memory)
    name = options.gpu or ("h100" if options.memory is None else card_of(options.memory))
    gpus, gpu, share = options.num_gpus, GPUS[name], options.share
    memory = gpu.memory if options.memory is None else options.memory
    if options.training.optimizer == "auto":
        optimizer: Optimizer = "adamw-8bit" if memory < 21 else "adamw"
        options = replace(options, training=replace(options.training, optimizer=optimizer))
    own, images = counted(options)
    options = replace(options, data=own.data)
    training, gib = options.training, HEADROOM * memory
    found = replace(Estimate.of(options, share), processes=gpus)
    if options.chooses_blocks:
        found = fewest(found, gib) or found
    lines = [
        f"{options.name}: {options.scales}",
        f"batch {training.batch} on {gpus} x {name}, {share} at a time",
        _recipe(options),
        *_experts(found),
        *_flops(found),
        *_memory(found, gib, gpus),
        *_disk(found),
        *images,
        "",
        f"Reckoned, not measured: {gpu.source}, of which {REACHED_PEAK:.0%} of the peak and {REACHED_BANDWIDTH:.0%} of "
        "the bandwidth are reached.",
        *_seconds(found, gpu),
        "",
        *before(found, gpu, gib, gpus),
        _training(found, gpu, gpus) + ("" if found.total() <= gib else ": does not fit, see above"),
    ]
    return "\n".join(lines)


def _card(options: Plan, memory: float) -> str:
    """Return what fits one card."""
    from swd_distill.planning.cards import card_of, page
    from swd_distill.planning.roofline import GPUS

    name = options.gpu or card_of(memory)
    lines = [
        f"{options.name}: {options.scales}",
        f"batch {options.training.batch} on a card of {memory:g} GiB, as fast as {name}",
        _recipe(options),
        "",
        *page(options, memory, name),
        "",
        f"Reckoned, not measured: {GPUS[name].source}.",
        f"more of a row, with its flags: swd-distill plan {options.name} --gpus 1 --gpu {name} --memory {memory:g}",
    ]
    return "\n".join(lines)


def _recipe(config: Config) -> str:
    """Say which losses a run has, and how they weigh."""
    recipe = config.recipe
    weights = {"MMD": recipe.mmd_weight, "DMD": recipe.dmd_weight, "GAN": recipe.gan_weight}
    losses = " + ".join(f"{weight:g} {name}" for name, weight in weights.items() if weight)
    if not config.needs_fake:
        return f"recipe: {losses} alone, without a fake model"
    where = "over the run" if recipe.balance_over == "run" else "in each sample"
    how = f"shares of MMD's gradient {where}" if recipe.balance else "weights, which hold for one model"
    return f"recipe: {losses} ({how}), {recipe.fake_updates} fake updates an update"


def _experts(found: "Estimate") -> list[str]:
    """Say which stages each student has, where there are two."""
    steps = [", ".join(_name(stage.target) for stage in stages) for stages in found.students()]
    if len(steps) == 1:
        return []
    return [f"two experts, one after the other: high noise at {steps[0]}, low noise at {steps[1]}"]


def _flops(found: "Estimate") -> list[str]:
    config, passes, sizes = found.config, found.passes(), found.config.scales.sizes
    rows = {
        "forward": [found.counts.plain[size].forward for size in sizes],
        "iteration": [found.flops(size) for size in sizes],
    }
    lines = ["", _row("TFLOP a sample", [*map(_name, sizes), "mean"])]
    for name, values in rows.items():
        lines.append(_row(name, [f"{value / 1e12:.3f}" for value in (*values, sum(values) / len(values))]))
    roles = ", ".join(f"{role} {count:.2f}" for role, count in passes.items() if count)
    lines += [
        f"passes through all blocks an iteration: {roles}; {sum(passes.values()):.2f} in all",
        f"spent on: {_spent(found)}",
        f"sampling: {found.sampling_ratio():.3f} of {len(sizes)} steps at full scale",
        f"training: {found.scale_ratio():.3f} of full scale at every step",
    ]
    if config.needs_fake and config.recipe.mmd_weight:
        lines.append(f"training: {found.loss_ratio():.2f} times MMD alone")
    return lines


def _spent(found: "Estimate") -> str:
    """Return what share of an iteration's FLOPs each of its parts takes, over all steps."""
    spent: Counter[str] = Counter()
    for size in found.config.scales.sizes:
        cost = found.counts.plain[size]
        for name, count in cost.times(found.config).items():
            spent[name if count == 1 else f"{count} x {name}"] += count * cost.pieces[name].flops
    return ", ".join(f"{name} {flops / spent.total():.0%}" for name, flops in spent.most_common())


def _memory(found: "Estimate", gib: float, gpus: int) -> list[str]:
    from swd_distill.planning.estimate import advice

    blocks = found.counts.num_blocks
    lines = ["", f"GiB a GPU while it trains, of {gib:.1f} that it may fill"]
    for count in sorted({0, found.checkpointed, blocks}):
        each = replace(found, checkpointed=count)
        detail = ", ".join(f"{name} {size:.2f}" for name, size in each.memory().items() if size)
        fits = "fits" if each.total() <= gib else "does not fit"
        chosen = "; this one is taken" if count == found.checkpointed and fits == "fits" else ""
        lines.append(f"{count} of {blocks} blocks recomputed: {each.total():.1f} ({detail}): {fits}{chosen}")
    if replace(found, checkpointed=blocks).total() > gib:
        lines.append(advice(found, gib, gpus))
    return lines


def _disk(found: "Estimate") -> list[str]:
    from swd_distill.planning.estimate import cache_gib

    if found.config.data.on_the_fly:
        return []
    parts = ", ".join(f"{name} {size:,.1f}" for name, size in cache_gib(found.config, found.counts.facts).items())
    return ["", f"GiB of cache for {found.config.data.num_images:,} images, each with a prompt of its own: {parts}"]


def _seconds(found: "Estimate", gpu: "Gpu") -> list[str]:
    """Return seconds of iterations by step, and of networks at the last; each with what limits it."""
    sizes = found.config.scales.sizes
    by_step = [found.seconds(gpu, size) for size in sizes]
    mean = sum(each.total() for each in by_step) / len(sizes)
    lines = [
        _row("s an iteration", [*map(_name, sizes), "mean"]),
        _row("", [f"{each.total():.2f}" for each in by_step] + [f"{mean:.2f}"]),
        _row("limited by", [_limit(each) for each in by_step]),
        f"at the last step, ms for {found.share} sample(s): "
        + ", ".join(
            f"{name} {spent.total() * 1e3:.0f} ({_limit(spent)})"
            for name, piece in found.full.pieces.items()
            for spent in (gpu.seconds(piece.work, found.share),)
        ),
    ]
    if found.config.needs_fake and found.config.recipe.mmd_weight:
        from swd_distill.planning.estimate import mmd_alone

        ratio = found.mean_seconds(gpu) / found.mean_seconds(gpu, mmd_alone(found.config))
        lines.append(f"in seconds, the full loss is {ratio:.2f} times MMD alone")
    return lines


def _training(found: "Estimate", gpu: "Gpu", gpus: int) -> str:
    """Return the hours of training."""
    from swd_distill.planning.hours import stage_hours

    hours, students, updates = stage_hours(found, gpu, gpus), len(found.students()), found.config.training.iterations
    each = f"{updates:,} iterations of {3600 * hours['train'] / updates / students:.2f} s"
    return f"train {hours['train']:.1f} h ({'2 students, each ' * (students > 1)}{each})"


def _limit(spent: Counter[str]) -> str:
    name, most = max(spent.items(), key=lambda item: item[1])
    return f"{name} {most / spent.total():.0%}" if spent.total() else ""


def _row(name: str, cells: Sequence[str]) -> str:
    return f"{name:17}" + "".join(f"{cell:>14}" for cell in cells)


def _name(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
