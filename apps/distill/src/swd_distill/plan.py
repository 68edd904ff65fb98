"""`swd-distill plan`: what a run will cost, before any of it is spent."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from swd_distill.config import Config

if TYPE_CHECKING:
    from swd_distill.estimate import Estimate

# Dense half-precision peaks in TFLOP/s, of the makers' data sheets.
DEVICES = {"a100": 312, "h100": 989, "h200": 989, "l40s": 362, "rtx4090": 165}


@dataclass(frozen=True)
class Plan(Config):
    """Count what a run costs, on tensors without data: a known model needs no weights."""

    gpus: int = 8
    """Processes, one a GPU."""
    memory: float = 80.0
    """GiB of each."""
    device: Literal["a100", "h100", "h200", "l40s", "rtx4090"] = "h100"
    """Whose half-precision peak the seconds are reckoned with."""
    efficiency: float = 0.4
    """Share of that peak which the run is assumed to reach."""

    @property
    def share(self) -> int:
        """Return the samples that a GPU holds at a time."""
        training = self.training
        count = self.gpus * training.accumulate
        if training.batch % count:
            raise ValueError(
                f"expected --training.batch divisible by {self.gpus} GPU(s) x {training.accumulate} share(s), got "
                f"{training.batch}: change --gpus, --training.batch or --training.accumulate"
            )
        return training.batch // count


def plan(options: Plan) -> str:
    """Return the page."""
    from swd_distill.estimate import Estimate

    training, share = options.training, options.share
    found = Estimate.of(options, share)
    lines = [
        f"{options.name}: {options.scales}; batch {training.batch} on {options.gpus} GPU(s), {share} at a time",
        *_flops(found),
        *_memory(found, options),
        *_disk(options),
        *_time(found, options),
    ]
    return "\n".join(lines)


def _flops(found: "Estimate") -> list[str]:
    config, passes = found.config, found.passes()
    names = [f"{_name(size):>12}" for size in config.scales.sizes]
    rows = {
        "forward": [cost.forward for cost in found.stages],
        "iteration": [cost.flops(config) for cost in found.stages],
    }
    lines = ["", f"TFLOP a sample   {''.join(names)}        mean"]
    for name, values in rows.items():
        cells = "".join(f"{value / 1e12:12.3f}" for value in (*values, sum(values) / len(values)))
        lines.append(f"{name:17}{cells}")
    roles = ", ".join(f"{role} {count:.2f}" for role, count in passes.items() if count)
    lines += [
        f"passes through all blocks an iteration: {roles}; {sum(passes.values()):.2f} in all",
        f"sampling: {found.sampling_ratio():.3f} of {len(found.stages)} steps at full scale",
        f"training: {found.scale_ratio():.3f} of full scale at every step",
    ]
    if config.needs_fake and config.recipe.mmd_weight:
        lines.append(f"training: {found.loss_ratio():.2f} times MMD alone")
    return lines


def _memory(found: "Estimate", options: Plan) -> list[str]:
    from swd_distill.cost import Counted

    training, largest = options.training, options.scales.sizes[-1]
    other = replace(options, training=replace(training, gradient_checkpointing=not training.gradient_checkpointing))
    peaks = {options: found.full.peak(options), other: Counted(other).at(largest, options.share).peak(other)}
    lines = ["", "GiB a GPU"]
    for config, peak in peaks.items():
        parts = found.memory(peak)
        total, which = sum(parts.values()), "with" if config.training.gradient_checkpointing else "without"
        fits = "fits" if total < options.memory else f"does not fit {options.memory:g}: raise --training.accumulate"
        detail = ", ".join(f"{name} {size:.2f}" for name, size in parts.items() if size)
        lines.append(f"{which} gradient checkpointing {total:.1f} ({detail}): {fits}")
    return lines


def _disk(config: Config) -> list[str]:
    from swd_distill.estimate import cache_gib

    parts = ", ".join(f"{name} {size:,.1f}" for name, size in cache_gib(config).items())
    return ["", f"GiB of cache for {config.data.num_images:,} images, each with a prompt of its own: {parts}"]


def _time(found: "Estimate", options: Plan) -> list[str]:
    from swd_models.loading import empty_denoiser

    data = options.data
    rate = options.gpus * DEVICES[options.device] * 1e12 * options.efficiency
    updates, seconds = options.training.iterations, found.iteration() * options.training.batch / rate
    passes = 1 if empty_denoiser(options.model).guidance is not None else 2
    forwards = data.num_images * data.teacher_steps * passes
    return [
        "",
        f"reckoned, not measured, at {options.efficiency:.0%} of {options.gpus} x {DEVICES[options.device]} TFLOP/s "
        f"({options.device}):",
        f"iteration {seconds:.2f} s; {updates:,} iterations {seconds * updates / 3600:.1f} h",
        f"the teacher's images {forwards * found.full.forward / rate / 3600:.1f} h ({forwards:,} forwards; without "
        "text and decoding)",
    ]


def _name(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
