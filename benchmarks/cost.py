"""What an iteration costs for the paper's models, counted, beside the paper's table 5.

`uv run python -m benchmarks.cost` writes benchmarks/results/cost.md. Counts are exact; nothing is timed.
"""

import argparse
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.provenance import commit, versions
from swd_distill.config import Config
from swd_distill.planning.counts import Counts
from swd_distill.planning.estimate import Estimate, mmd_alone
from swd_distill.planning.roofline import GPUS as DATA_SHEETS
from swd_distill.presets import PRESETS
from swd_models.logs import quiet

GPUS, A100 = 8, DATA_SHEETS["a100"]

# Table 5, seconds an iteration on 8 A100: scale-wise and full scale, each with the full loss and with MMD alone.
TABLE_5 = {
    "sd35-medium": (3.2, 0.4, 7.5, 1.0),
    "sd35-large": (7.8, 0.9, 13.4, 1.7),
    "flux": (11.3, 1.4, 22.8, 2.9),
    "wan": (23.9, 4.4, 70.6, 12.7),
}


def record(config: Config) -> dict[str, Any]:
    """Count one model's iteration, and reckon it on the paper's GPUs; blocks are recomputed, as the authors' are."""
    counts, alone = Counts.of(config), mmd_alone(config)
    plain, found = (Estimate(config, counts, config.training.batch // GPUS, n) for n in (0, counts.num_blocks))
    few = replace(config, recipe=replace(config.recipe, fake_updates=2))
    few = replace(few, training=replace(few.training, reuse_rollout=True))
    first, last = config.scales.sizes[0], config.scales.sizes[-1]

    def seconds(config: Config) -> list[float]:
        return [found.seconds(A100, size, config).total() for size in config.scales.sizes]

    return {
        "passes": {
            "checkpointed": sum(found.passes().values()),
            "plain": sum(plain.passes().values()),
            "levers": sum(plain.passes(few).values()),
            "mmd": sum(plain.passes(alone).values()),
        },
        "forwards": [counts.plain[size].forward / 1e12 for size in config.scales.sizes],
        "iterations": [found.flops(size) / 1e12 for size in config.scales.sizes],
        "in_forwards": found.flops(last) / found.full.forward,
        "loss": found.loss_ratio(),
        "scale": found.scale_ratio(),
        "scale_mmd": found.scale_ratio(alone),
        "sampling": found.sampling_ratio(),
        "share": found.share,
        "updates": 1 + config.recipe.fake_updates,
        "seconds": seconds(config),
        "seconds_mmd": seconds(alone),
        "seconds_text": A100.seconds(counts.around["text"].work, found.share).total(),
        "seconds_encode": _encoding(config, A100.seconds(counts.around["encode"].work, found.share).total()),
        "limits": {"first": _limits(found.seconds(A100, first)), "last": _limits(found.seconds(A100, last))},
    }


def _encoding(config: Config, seconds: float) -> list[float]:
    """Return the seconds of encoding a stage's size and the one before it, of those that all sizes take, by cells."""
    cells = [math.prod(size) for size in config.scales.sizes]
    return [seconds * (cells[i] + (cells[i - 1] if i else 0)) / sum(set(cells)) for i in range(len(cells))]


def _limits(seconds: Counter[str]) -> dict[str, float]:
    return {name: spent / seconds.total() for name, spent in seconds.items()}


def page(records: dict[str, dict[str, Any]]) -> str:
    """Lay out the tables."""
    passes = [
        f"| {name} | {p['checkpointed']:.2f} | {p['plain']:.2f} | {p['levers']:.2f} | {p['mmd']:.2f} |"
        for name, p in ((name, found["passes"]) for name, found in records.items())
    ]
    flops = [
        f"| {name} | {_join(found['forwards'], '.3g')} | {_join(found['iterations'], '.4g')} "
        f"| {found['in_forwards']:.1f} |"
        for name, found in records.items()
    ]
    lines = "\n".join
    return f"""# What an iteration costs

`uv run python -m benchmarks.cost`. Counted on tensors without data by the code that trains, as in `swd-distill plan`:
exact, and of no machine. Nothing here was timed. {", ".join(map(" ".join, versions().items()))}.

## Passes through all blocks

Forwards and backwards of blocks over their number, an iteration. The authors' loop is 37 for SD3.5-M,
5 (4 + 3p) + 6 + 7p with p the share of blocks up to the features, MMD alone 5; it runs text encoders and VAE besides,
whose outputs are here in the cache.
*Approximate*: two fake updates, not five, on one rollout of the student.

| | with checkpointing | without | approximate, without | MMD alone, without |
|---|---|---|---|---|
{lines(passes)}

A backward counts as a forward here: through frozen weights it computes gradients of activations alone. In attention it
takes 2.5 forwards, adapters have gradients of their own, and early blocks of SD3.5-M attend twice, so that FLOPs over
those of one forward are more:

| | TFLOP of a forward, by step | of an iteration, by step | over a forward, last step |
|---|---|---|---|
{lines(flops)}

## Beside table 5

Ratios: the paper's, of seconds on 8 A100; of FLOPs; of seconds by the roofline of `swd-distill plan` on an A100
(operation by operation: arithmetic, memory or launch, whichever is longest). The authors' loop also encodes text in
every update, and images: the last two columns add what those would take there. All blocks are recomputed in backward.

| full loss / MMD alone | paper | FLOPs | roofline | and text | and images |
|---|---|---|---|---|---|
{lines(_beside(name, found, "loss") for name, found in records.items())}

| scale-wise / full scale | paper | FLOPs | roofline | and text | and images |
|---|---|---|---|---|---|
{lines(_beside(name, found, "scale") for name, found in records.items())}

Reckoned seconds, {GPUS} A100, the paper's batches, and what limits the first step and the last:

| | samples a GPU | s by step | mean | paper | first step | last step |
|---|---|---|---|---|---|---|
{lines(_seconds(name, found) for name, found in records.items())}

The paper's seconds are fewer, up to three times; it does not state the batch of table 5.

Where they part: the smallest steps of SD3.5 Medium (256 tokens beside 333 of text) do not fill a GPU, and what the
authors encode does not shrink with the step. Wan's first ratio would be explained if its clips were encoded once an
iteration, not in every update: encoding takes about as long as an iteration of MMD alone."""


def _ratio(found: dict[str, Any], which: str, extra: Sequence[float]) -> float:
    """Return a ratio of reckoned seconds, with so many more in every update by step."""
    full = [seconds + found["updates"] * more for seconds, more in zip(found["seconds"], extra, strict=True)]
    alone = [seconds + more for seconds, more in zip(found["seconds_mmd"], extra, strict=True)]
    return sum(full) / sum(alone) if which == "loss" else mean(full) / full[-1]


def _beside(name: str, found: dict[str, Any], which: str) -> str:
    full, mmd, full_scale, _ = TABLE_5[name]
    paper, steps = full / (mmd if which == "loss" else full_scale), len(found["seconds"])
    text = [found["seconds_text"]] * steps
    both = [one + other for one, other in zip(text, found["seconds_encode"], strict=True)]
    ratios = [found[which], *(_ratio(found, which, extra) for extra in ([0.0] * steps, text, both))]
    return (
        f"| {name} | {paper:.3g} | " + " | ".join(f"{ratio:.3g} ({ratio / paper - 1:+.0%})" for ratio in ratios) + " |"
    )


def _seconds(name: str, found: dict[str, Any]) -> str:
    limits = (max(each.items(), key=lambda item: item[1]) for each in found["limits"].values())
    cells = " | ".join(f"{limit} {share:.0%}" for limit, share in limits)
    seconds = found["seconds"]
    return (
        f"| {name} | {found['share']} | {_join(seconds, '.3g')} | {mean(seconds):.3g} | {TABLE_5[name][0]} | {cells} |"
    )


def _join(values: Sequence[float], form: str) -> str:
    return " ".join(format(value, form) for value in values)


def main(argv: Sequence[str] | None = None) -> None:
    """Count and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=list(TABLE_5), help="to count anew; none: lay out")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args(argv)
    quiet()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "cost.json"
    records = json.loads(path.read_text()) if path.is_file() else {}
    for name in args.models:
        records[name] = record(PRESETS[name]) | {"commit": commit()}
        records = {name: records[name] for name in TABLE_5 if name in records}
        path.write_text(json.dumps(records, indent=1) + "\n")
    text = page(records)
    (args.out / "cost.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
