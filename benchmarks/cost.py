"""What an iteration costs for the paper's models, counted, beside the paper's table 5.

`uv run python -m benchmarks.cost` writes benchmarks/results/cost.md. Counts are exact; nothing is timed.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.provenance import commit, versions
from swd_distill.config import Config
from swd_distill.cost import Counted
from swd_distill.estimate import Estimate, mmd_alone
from swd_distill.presets import PRESETS
from swd_models.loading import quiet

# Table 5, seconds an iteration on 8 A100: scale-wise and full scale, each with the full loss and with MMD alone.
TABLE_5 = {
    "sd35-medium": (3.2, 0.4, 7.5, 1.0),
    "sd35-large": (7.8, 0.9, 13.4, 1.7),
    "flux": (11.3, 1.4, 22.8, 2.9),
    "wan": (23.9, 4.4, 70.6, 12.7),
}


# What seconds hold besides the FLOPs of a transformer.
REMARKS = {
    "sd35-medium": "Its smallest steps (32x32 is 256 tokens beside 333 of text) do not fill a GPU, and text encoders, "
    "which the authors run in every iteration, do not shrink with the step.",
    "sd35-large": "The same, over longer steps.",
    "wan": "The same, and a causal VAE that the authors run on clips of full length in every iteration.",
}


def record(config: Config) -> dict[str, Any]:
    """Count one model's iteration."""
    found, alone = Estimate.of(config), mmd_alone(config)
    full, first = found.full.forward, config.scales.sizes[0]

    def passes(config: Config, **training: Any) -> float:
        counted = Counted(replace(config, training=replace(config.training, **training)))
        return sum(counted.at(first).passes(config).values())

    few = replace(config, recipe=replace(config.recipe, fake_updates=2))
    few = replace(few, training=replace(few.training, gradient_checkpointing=False, reuse_rollout=True))
    return {
        "passes": {
            "checkpointed": sum(found.passes().values()),
            "plain": passes(config, gradient_checkpointing=False),
            "levers": passes(few),
            "mmd": passes(alone, gradient_checkpointing=False),
        },
        "forwards": [cost.forward / 1e12 for cost in found.stages],
        "iterations": [cost.flops(config) / 1e12 for cost in found.stages],
        "in_forwards": found.full.flops(config) / full,
        "loss": found.loss_ratio(),
        "scale": found.scale_ratio(),
        "scale_mmd": found.scale_ratio(alone),
        "sampling": found.sampling_ratio(),
    }


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

Ratios: ours of FLOPs; the paper's of seconds on 8 A100.

| | full loss / MMD alone | paper | off | scale-wise / full scale | paper | off | with MMD alone | paper |
|---|---|---|---|---|---|---|---|---|
{lines(_beside(name, found) for name, found in records.items())}

Where they part:

{lines(_why(name, records[name]) for name in REMARKS if name in records)}"""


def _beside(name: str, found: dict[str, Any]) -> str:
    full, mmd, full_scale, full_scale_mmd = TABLE_5[name]
    loss, scale = full / mmd, full / full_scale
    return (
        f"| {name} | {found['loss']:.2f} | {loss:.2f} | {found['loss'] / loss - 1:+.0%} | {found['scale']:.3f} "
        f"| {scale:.3f} | {found['scale'] / scale - 1:+.0%} | {found['scale_mmd']:.3f} | {mmd / full_scale_mmd:.3f} |"
    )


def _why(name: str, found: dict[str, Any]) -> str:
    """Say what fixed part of an iteration would explain the paper's seconds."""
    full, mmd, full_scale, _ = TABLE_5[name]
    scale, loss = full / full_scale, full / mmd
    fixed, of_mmd = (scale - found["scale"]) / (1 - scale), (found["loss"] - loss) / (loss - 1)
    part = (
        f"a part that is the same at every size, {fixed:.2f} of a full-scale iteration, would explain the second ratio"
    )
    if of_mmd > 0:
        part += f", and one that is the same for both losses, {of_mmd:.2f} of an iteration of MMD alone, the first"
    return f"- {name}: {REMARKS[name]} Reckoned, not measured: {part}."


def _join(values: Sequence[float], form: str) -> str:
    return " ".join(format(value, form) for value in values)


def main(argv: Sequence[str] | None = None) -> None:
    """Count and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=list(TABLE_5), help="to count anew; none: lay out")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args(argv)
    quiet()
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
