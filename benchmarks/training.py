"""Seconds and FLOPs of an iteration of the trainer, beside the loop that people know: copies, and no cache.

`python -m benchmarks.training` writes training-DEVICE.json and .md: on a GPU of paper-size models with random weights,
without one of the embedded teacher. Table 5 in ratios: scale-wise against full scale, the full loss against MMD alone.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from benchmarks.cost import TABLE_5
from benchmarks.encoding import Encoding, Kept, parts
from benchmarks.provenance import of, provenance, write
from swd_distill.batches import STUDENT, Batch, Draw
from swd_distill.config import Config
from swd_distill.devices import device_and_dtype
from swd_distill.estimate import mmd_alone
from swd_distill.meter import Meter
from swd_distill.presets import PRESETS
from swd_distill.trainer import Trainer
from swd_losses import DiscriminatorHead
from swd_models import Denoiser, Roles, share_base
from swd_models.loading import quiet

ONE, COPIES = "one base, cached", "copies, encoding"


class Inline(Trainer):
    """A trainer that makes each batch when it needs it, in its own thread: with `Encoding`, encodes in every update."""

    def _take(self, draw: Draw) -> Batch:
        return draw.batch(self.cache, self.schedule, self.recipe).to(self.device)


def build(config: Config, source: Encoding, load: Callable[[], Denoiser]) -> dict[tuple[str, str], Trainer]:
    """Build all trainers that are compared, by what is held and by case.

    The cases of one kind share what they hold: trained in turn, they would not differ if each had its own.
    """
    kept = Kept(source, config.scales.sizes)
    base, (teacher, of_student, of_fake) = load(), (load() for _ in range(3))
    found: dict[tuple[str, str], Trainer] = {}
    for case, each in cases(config).items():
        shared = share_base(base, each.training.rank, fake=each.needs_fake, seed=each.seed)
        student = share_base(of_student, each.training.rank, fake=False, seed=each.seed).student
        fake = share_base(of_fake, each.training.rank, seed=each.seed).fake if each.needs_fake else None
        apart = Roles(teacher.requires_grad_(False), student, fake)
        found[ONE, case] = Trainer(each, kept, shared, _head(each, base))
        found[COPIES, case] = Inline(each, source, apart, _head(each, base))
    return found


def cases(config: Config) -> dict[str, Config]:
    """Return the config scale-wise and at full scale, with its full loss and with MMD alone."""
    full = replace(config, schedule=f"{config.schedule}-full")
    return {
        "scale-wise, full loss": config,
        "scale-wise, MMD": mmd_alone(config),
        "full scale, full loss": full,
        "full scale, MMD": mmd_alone(full),
    }


def measure(trainers: Mapping[tuple[str, str], Trainer], repeats: int) -> dict[tuple[str, str], dict[str, float]]:
    """Train all in turn until each kind of update was timed `repeats` times at each stage, after a first time.

    That first one is counted. An iteration is the sum of its updates, each the mean over stages of medians.
    """
    seconds: dict[Any, list[float]] = defaultdict(list)
    costs: dict[Any, Meter] = {}
    num_stages = len(next(iter(trainers.values())).schedule.sizes)
    for step in count():
        for name, trainer in trainers.items():
            for update in trainer.updates():
                kind = STUDENT if update == STUDENT else "fake"
                stage = Draw(trainer.config.seed, step, update, trainer.places[0]).stage(trainer.schedule).index
                key = (name, kind, stage)
                if key in costs:
                    seconds[key].append(_timed(trainer, step, update))
                else:
                    with Meter(_modules(trainer)) as costs[key]:
                        _update(trainer, step, update)
        wanted = [(name, kind, i) for name, t in trainers.items() for kind in t.networks for i in range(num_stages)]
        if all(len(seconds[key]) >= repeats for key in wanted):
            break
    return {name: _iteration(name, trainer, seconds, costs, num_stages) for name, trainer in trainers.items()}


def _iteration(name: Any, trainer: Trainer, seconds: Any, costs: Any, num_stages: int) -> dict[str, float]:
    times = {STUDENT: 1} | ({"fake": trainer.recipe.fake_updates} if trainer.roles.fake else {})
    keys = [(name, kind, stage) for kind in times for stage in range(num_stages)]
    held = {p.data_ptr(): p.nbytes for module in _modules(trainer) for p in module.parameters()}
    trained = sum(parameter.nbytes for network in trainer.networks.values() for parameter in network.parameters)
    return {
        "seconds": sum(times[key[1]] * median(seconds[key]) for key in keys) / num_stages,
        "tflop": sum(times[key[1]] * costs[key].flops for key in keys) / num_stages / 1e12,
        "timed": min(len(seconds[key]) for key in keys),
        "weights_mib": sum(held.values()) / 2**20,
        "optimisers_mib": 2 * trained / 2**20,
        "tensors_mib": max(costs[key].peak for key in keys) / 2**20,
    }


def _modules(trainer: Trainer) -> list[nn.Module]:
    roles, found = trainer.roles, [trainer.roles.teacher, trainer.roles.student]
    extra = [module for module in (roles.fake, trainer.head) if module is not None]
    return [*found, *extra, *(trainer.cache.modules if isinstance(trainer.cache, Encoding) else [])]


def _update(trainer: Trainer, step: int, update: str) -> None:
    if update == STUDENT:
        trainer.update_student(step)
    else:
        trainer.update_fake(step, update)


def _timed(trainer: Trainer, step: int, update: str) -> float:
    began = time.perf_counter()
    _update(trainer, step, update)  # ends with a number that is read, so the device is done
    return time.perf_counter() - began


def _head(config: Config, base: Denoiser) -> DiscriminatorHead | None:
    device = next(base.parameters()).device
    return config.recipe.head(base.num_features).to(device) if config.recipe.gan_weight else None


def page(record: Mapping[str, Any]) -> str:
    """Lay out a record."""
    config = record["config"]
    where = (
        "On a GPU, models of full size with random weights."
        if config["device"] == "cuda"
        else "**Run without a GPU**: the embedded teacher (six blocks) in place of the paper's models,\n"
        "with two updates of the fake model an iteration where the authors have five, so that the full loss costs less "
        "beside MMD alone."
    )
    tables = [_costs(name, found) + "\n\n" + _ratios(name, found) for name, found in record["models"].items()]
    head = f"""# Training

`python -m benchmarks.training`. {where}
Batch {config["batch"]}; the trainer's own updates, all cases in turn; an iteration is the sum of its updates, each the
mean over the stages of the median of {config["repeats"]} times or more.

{of(record)}"""
    foot = f"""*{ONE}*: teacher, student and fake model share a base; latents and text are read.
*{COPIES}*: a base each, and autoencoder and text encoders beside them, which encode images and text in every
update, as in the loops that people know. FLOPs and memory are counted operation by operation, exactly. Memory is of
weights (adapters and head too), of AdamW's moments, and the most of all other tensors in an update."""
    return "\n\n".join([head, *tables, foot])


def _costs(name: str, found: Mapping[str, Any]) -> str:
    lines = [
        f"| {held}: {case} | {row['seconds']:.3f} | {row['tflop']:.4f} | {row['tflop'] / row['seconds']:.3f} | "
        + " | ".join(f"{row[key]:.0f}" for key in ("weights_mib", "optimisers_mib", "tensors_mib"))
        + " |"
        for held, rows in found.items()
        for case, row in rows.items()
    ]
    head = "s an iteration | TFLOP | TFLOP/s | MiB of weights | of moments | of other tensors"
    return "\n".join([f"## {name}", "", f"| | {head} |", "|---" * 7 + "|", *lines])


def _ratios(name: str, found: Mapping[str, Any]) -> str:
    ours, theirs = found[ONE], found[COPIES]
    first, last = "scale-wise, full loss", "full scale, full loss"
    pairs = {
        "scale-wise / full scale, full loss": (ours[first], ours[last]),
        "scale-wise / full scale, MMD alone": (ours["scale-wise, MMD"], ours["full scale, MMD"]),
        "full loss / MMD alone, scale-wise": (ours[first], ours["scale-wise, MMD"]),
    } | {f"{COPIES} / {ONE}: {case}": (theirs[case], ours[case]) for case in ours}
    lines = [
        f"| {what} | {one['seconds'] / other['seconds']:.2f} | {one['tflop'] / other['tflop']:.2f} "
        f"| {_paper(name, what)} |"
        for what, (one, other) in pairs.items()
    ]
    return "\n".join(["| ratio | seconds | FLOPs | table 5 |", "|---" * 4 + "|", *lines])


def _paper(name: str, what: str) -> str:
    """Return table 5's ratio: of this model, or, where a tiny one ran, of the range of the paper's four."""
    pairs = {
        "scale-wise / full scale, full loss": (0, 2),
        "scale-wise / full scale, MMD alone": (1, 3),
        "full loss / MMD alone, scale-wise": (0, 1),
    }
    if what not in pairs:
        return ""
    one, other = pairs[what]
    ratios = [row[one] / row[other] for model, row in TABLE_5.items() if name in (model, "tiny-long")]
    return " to ".join(f"{value:.2f}" for value in sorted({min(ratios), max(ratios)}))


def main(argv: Sequence[str] | None = None) -> None:
    """Time, and write."""
    on_gpu = torch.cuda.is_available()
    known = list(TABLE_5) if on_gpu else ["tiny-long"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=known, default=known[:1])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args(argv)
    quiet()
    device, _ = device_and_dtype()  # as the trainer's commands: TF32 for the adapters
    settings = {"models": args.models, "batch": args.batch, "repeats": args.repeats, "device": device.type}
    record = provenance(settings) | {"models": {}}
    for name in args.models:
        training = replace(PRESETS[name].training, batch=args.batch)
        config = replace(PRESETS[name], training=training)
        found = measure(build(config, *parts(config, device)), args.repeats)
        record["models"][name] = {held: {c: v for (h, c), v in found.items() if h == held} for held in (ONE, COPIES)}
    write(record, page(record), args.out / f"training-{device.type}")


if __name__ == "__main__":
    main()
