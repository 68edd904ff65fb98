"""What comes before training, images and cache: its hours, and what it holds on a GPU."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from swd_distill.planning.estimate import SMALLER, Estimate
from swd_distill.planning.roofline import GIB

if TYPE_CHECKING:
    from swd_distill.planning.roofline import Gpu

ROOM = 0.75
"""Of a device's memory: what the parts of a pipeline may take together, as `swd_models.placing` has it."""


@dataclass(frozen=True)
class Held:
    """What a stage holds on a GPU.

    Attributes:
        gib: Weights, and the most of tensors at a time.
        how: What it does to hold no more, in words.
    """

    gib: float
    how: str = ""


def before(found: Estimate, gpu: "Gpu", gib: float, gpus: int) -> list[str]:
    """Return a line for each stage before training: hours, and memory of the `gib` that it may fill."""
    from swd_distill.planning.hours import stage_hours

    hours, data = stage_hours(found, gpu, gpus), found.config.data
    lines = []
    for stage in ("generate", "encode"):
        if stage in hours:
            forwards = data.num_images * data.teacher_steps * found.counts.facts["passes"]
            count = f" ({forwards:,} forwards)" * (stage == "generate")
            lines.append(f"{stage} {hours[stage]:.1f} h{count}; {_line(found, stage, gib)}")
    return lines


def fitting_batch(found: Estimate, gib: float) -> int:
    """Return the most samples at a time, up to --data.batch, with which every stage before training fits; 0: none."""
    data = found.config.data
    stages = ("generate",) * (data.images is None) + ("encode",) * (not data.on_the_fly)
    return min((_largest(found, stage, gib) for stage in stages if found.counts.around), default=0)


def held(found: Estimate, stage: str, gib: float) -> Held:
    """Return what a stage holds on a device of which it may fill so many GiB.

    Parts of a pipeline are there together where that leaves room, else one at a time. The autoencoder decodes in half
    precision, one sample at a time or in tiles where more does not fit; it encodes in float32, before any text is. With
    --training.dtype float32 the teacher is held and computes so, and takes twice as much.
    """
    numbers, around, batch = found.counts.parameters, found.counts.around, found.config.data.batch
    text, texts = 2 * numbers["text"] / GIB, around["text"].peak * batch / GIB
    if stage == "encode":
        vae, images = 4 * numbers["vae"] / GIB, around["encode"].peak * batch / GIB
        return Held(vae + max(images, text + texts))
    width = 2 if found.config.training.dtype == "float32" else 1
    text, texts = width * text, width * texts
    base, vae = found.base_bytes(width) / GIB, 2 * width * numbers["vae"] / GIB
    pairs = batch * found.counts.facts["passes"]
    step, decoded = width * found.full.pieces["forward"].peak * pairs / GIB, width * around["decode"].peak / 2 / GIB
    weights = text + len(found.students()) * base + vae
    together = weights <= ROOM * gib
    ways = {"": batch * decoded, "decoded one by one": decoded, "decoded in tiles": decoded / 4}
    free = gib - (weights if together else vae)
    how, pixels = next(((how, size) for how, size in ways.items() if size <= free), [*ways.items()][-1])
    if together:
        return Held(weights + max(texts, step, pixels), how)
    parts = text + texts, base + step, vae + pixels
    return Held(max(parts), ", ".join(filter(None, ("one part at a time", how))))


def _line(found: Estimate, stage: str, gib: float) -> str:
    """Say what a stage holds, whether that fits, and else what would."""
    if not found.counts.around:
        return "its text encoders and autoencoder are not counted"
    kept, batch = held(found, stage, gib), found.config.data.batch
    how = f", {kept.how}" if kept.how else ""
    fits = "fits" if kept.gib <= gib else f"does not fit; {_advice(found, stage, gib)}"
    return f"{kept.gib:.1f} of {gib:.1f} GiB a GPU at {batch} a time{how}: {fits}"


def _advice(found: Estimate, stage: str, gib: float) -> str:
    """Say what would fit."""
    most, config = _largest(found, stage, gib), found.config
    if most:
        return f"--data.batch {most} would"
    for base in SMALLER if stage == "generate" else ():
        smaller = replace(found, config=replace(config, training=replace(config.training, base=base)))
        most = _largest(smaller, stage, gib)
        if base != config.training.base and most:
            batch = f" --data.batch {most}" if most < config.data.batch else ""
            return f"--training.base {base}{batch} would"
    return "take a device of more memory"


def _largest(found: Estimate, stage: str, gib: float) -> int:
    """Return the most samples at a time, up to --data.batch, with which a stage fits; 0: not one does."""
    data = found.config.data
    for batch in range(data.batch, 0, -1):
        less = replace(found, config=replace(found.config, data=replace(data, batch=batch)))
        if held(less, stage, gib).gib <= gib:
            return batch
    return 0
