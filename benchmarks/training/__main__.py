"""Seconds and FLOPs of an iteration of the trainer, beside the loop that people know: copies, and no cache.

`python -m benchmarks.training` writes training-DEVICE.json and .md: on a GPU of paper-size models with random weights,
without one of the embedded teacher. Table 5 in ratios: scale-wise against full scale, the full loss against MMD alone.
"""

import argparse
import gc
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from benchmarks.provenance import provenance, written
from benchmarks.training.encoding import Encoding, Kept, parts
from benchmarks.training.table5 import COPIES, ONE, TABLE_5, page
from benchmarks.training.updates import Fed, Inline, kinds, steps_at, timed, update
from swd_distill.config import Config
from swd_distill.devices import device_and_dtype
from swd_distill.planning.estimate import mmd_alone
from swd_distill.presets import PRESETS
from swd_distill.training.meter import Meter
from swd_losses import DiscriminatorHead
from swd_models import Denoiser, Roles, share_base
from swd_models.logs import quiet

NUM_COPIES = len(("teacher", "student", "fake"))


def build(held: str, config: Config, source: Encoding, load: Callable[[], Denoiser]) -> dict[str, Fed]:
    """Build the trainers of all cases, which share what they hold: trained in turn, they do not differ by it.

    Raises:
        torch.OutOfMemoryError: the bases do not fit the device.
    """
    kept = Kept(source, config.scales.sizes) if held == ONE else source
    bases = [load() for _ in range(1 if held == ONE else NUM_COPIES)]
    found: dict[str, Fed] = {}
    for case, each in cases(config).items():
        views = [share_base(base, each.training.rank, fake=each.needs_fake, seed=each.seed) for base in bases]
        teacher, student, fake = (views[index % len(views)] for index in range(NUM_COPIES))
        roles = Roles(teacher.teacher, student.student, fake.fake)
        kind = Fed if held == ONE else Inline
        found[case] = kind(each, kept, roles, _head(each, bases[0]))
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


def measure(trainers: Mapping[str, Fed], repeats: int) -> dict[str, dict[str, float]]:
    """Run each kind of update `repeats` + 1 times at each stage, all cases in turn: the first is counted, not timed.

    An iteration is the sum of its updates, each the mean over stages of medians.
    """
    seconds: dict[Any, list[float]] = defaultdict(list)
    costs: dict[Any, Meter] = {}
    num_stages = len(next(iter(trainers.values())).schedule.sizes)
    for stage in range(num_stages):
        steps = {(case, kind): steps_at(t, kind, stage) for case, t in trainers.items() for kind in kinds(t)}
        for (case, kind), step in steps.items():
            with Meter(_modules(trainers[case])) as costs[case, kind, stage]:
                update(trainers[case], kind, next(step))
        for _ in range(repeats):
            for (case, kind), step in steps.items():
                seconds[case, kind, stage].append(timed(trainers[case], kind, next(step))[0])
    return {case: _iteration(case, trainer, seconds, costs, num_stages) for case, trainer in trainers.items()}


def measure_kinds(
    config: Config, source: Encoding, load: Callable[[], Denoiser], repeats: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Measure one base, let go of it, then copies, where they fit the device."""
    found = {}
    for held in (ONE, COPIES):
        try:
            found[held] = measure(build(held, config, source, load), repeats)
        except torch.OutOfMemoryError as error:
            print(f"not measured: {held}: {str(error).splitlines()[0]}")
        free()
    return found


def free() -> None:
    """Give back the memory of what is no longer held."""
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def _iteration(name: Any, trainer: Fed, seconds: Any, costs: Any, num_stages: int) -> dict[str, float]:
    times = kinds(trainer)
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


def _modules(trainer: Fed) -> list[nn.Module]:
    roles, found = trainer.roles, [trainer.roles.teacher, trainer.roles.student]
    extra = [module for module in (roles.fake, trainer.head) if module is not None]
    return [*found, *extra, *(trainer.cache.modules if isinstance(trainer.cache, Encoding) else [])]


def _head(config: Config, base: Denoiser) -> DiscriminatorHead | None:
    device = next(base.parameters()).device
    return config.recipe.head(base.num_features).to(device) if config.recipe.gan_weight else None


def main(argv: Sequence[str] | None = None) -> None:
    """Time, and write."""
    on_gpu = torch.accelerator.is_available()
    known = list(TABLE_5) if on_gpu else ["tiny-long"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=known, default=known[:1])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args(argv)
    quiet()
    device, _ = device_and_dtype()  # as the trainer's commands
    settings = {"models": args.models, "batch": args.batch, "repeats": args.repeats, "device": device.type}
    record = provenance(settings) | {"models": {}}
    with written(record, len(args.models), page, args.out / f"training-{device.type}"):
        for name in args.models:
            training = replace(PRESETS[name].training, batch=args.batch)
            config = replace(PRESETS[name], training=training)
            record["models"][name] = measure_kinds(config, *parts(config, device), args.repeats)


if __name__ == "__main__":
    main()
