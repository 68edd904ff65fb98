"""What the large teacher reaches, and what nine minutes of a GPU would: `python -m benchmarks.large_teacher.curve`."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from benchmarks.large_teacher.__main__ import ON_GPU, SETTINGS
from benchmarks.large_teacher.checker import Verdict, check
from benchmarks.large_teacher.drawing import draw
from benchmarks.large_teacher.pipeline import TRAINED
from benchmarks.large_teacher.scenes import random_scene
from benchmarks.provenance import ROOT, of, provenance, write
from benchmarks.teacher.export import UNSEEN
from benchmarks.teacher.train import LAST, VAE_SHARE
from swd_models import load_latents
from swd_models.logs import quiet

ATTRIBUTES = tuple(Verdict.__dataclass_fields__)
LOOKED_AT = 64
"""Captions of a look."""
GFLOP = {12: 2.2, 16: 3.3, 20: 4.9, 24: 6.8, 32: 12.3}
"""Forward and backward of one sample, as README.md has them."""
GPU_TFLOPS = 60.0
"""Of an H100, as README.md reckons a step: 512 samples at 24x24 in 58 ms."""
GPU_VAE_STEP = 0.013
"""Seconds of a step of the autoencoder on an H100, as README.md reckons them."""
VAE_SAMPLES = SETTINGS.vae_steps * SETTINGS.vae_batch

Row = Mapping[str, float]


def looks(log: Path) -> list[Row]:
    """Return the lines of a log that have a look at samples, by step; of a step that was run twice the last."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    found = {line["step"]: line for line in lines if line["stage"] == "transformer" and "all_right" in line}
    return [found[step] for step in sorted(found)]


def gpu_samples(minutes: float) -> float:
    """Reckon how many samples a training by the clock sees on an H100."""
    seconds = 60 * minutes * (1 - VAE_SHARE) - LAST
    early, late = (  # shares of the time: the clock is ahead of the steps
        sum(share * GFLOP[size] for share, size in zip(shares, ON_GPU.latent_sizes, strict=True))
        for shares in (ON_GPU.early_shares, ON_GPU.late_shares)
    )
    return 1000 * GPU_TFLOPS * seconds * (ON_GPU.early / early + (1 - ON_GPU.early) / late)


def extrapolate(samples: Sequence[float], right: Sequence[float], to: float) -> float:
    """Return the share that is right after more samples: its logit grows with the samples' logarithm."""
    shares = (LOOKED_AT * np.asarray(right) + 0.5) / (LOOKED_AT + 1)  # neither 0 nor 1
    weights = np.sqrt(shares * (1 - shares))  # of a logit's deviation the inverse
    slope, start = np.polyfit(np.log(samples), np.log(shares / (1 - shares)), 1, w=weights)
    return float(1 / (1 + np.exp(-(start + slope * np.log(to)))))


def reached(rows: Sequence[Row], to: float) -> dict[str, float]:
    """Return the shares that are right after `to` samples by the curves of looks; all right is their product."""
    samples = [row["samples"] for row in rows]
    found = {name: extrapolate(samples, [row[name] for row in rows], to) for name in ATTRIBUTES}
    return found | {"all_right": float(np.prod(list(found.values())))}


@torch.no_grad()
def read_back(count: int, model: Path) -> dict[str, dict[str, float]]:
    """Return the shares that the checker finds right of unseen drawings, before and after the autoencoder."""
    rng, generator = np.random.default_rng(12_345), torch.Generator().manual_seed(0)
    scenes = [random_scene(rng, UNSEEN[i % 2]) for i in range(count)]
    latents, names = load_latents(str(model)), (*ATTRIBUTES, "all_right")
    right = {what: dict.fromkeys(names, 0) for what in ("drawings", "after a round trip")}
    for few in tqdm([scenes[i : i + 32] for i in range(0, count, 32)], desc="round trip"):
        images = draw(torch.tensor([scene.row for scene in few]), generator)
        back = (latents.decode(latents.encode(2 * images - 1)) + 1) / 2
        for what, each in zip(right, (images, back), strict=True):
            for image, scene in zip(each.permute(0, 2, 3, 1).numpy(), few, strict=True):
                found = check(image, scene.caption)
                for name in names:
                    right[what][name] += getattr(found, name)
    return {what: {name: number / count for name, number in each.items()} for what, each in right.items()}


def page(record: Mapping[str, Any]) -> str:
    """Lay out a record."""
    rows, later = record["looks"], record["nine minutes"]
    names = [*ATTRIBUTES, "all_right"]
    table = "\n".join(
        f"| {row['step']} | {row['samples'] / 1000:.0f}k | {row['seconds'] / 60:.0f} | "
        + " | ".join(f"{row[name]:.2f}" for name in names)
        + " |"
        for row in rows
    )
    product = np.prod([rows[-1][name] for name in ATTRIBUTES])
    after = record["checker"]["after a round trip"]
    drawn, machines = record["checker"], ", ".join(dict.fromkeys(row["machine"] for row in rows))
    return f"""# The large teacher

`uv run --group benchmarks python -m benchmarks.large_teacher.curve`

Trained for {record["hours"]:.1f} hours on {machines}: autoencoder, transformer and looks;
encoding comes on top. The best all right of {LOOKED_AT} held-out captions is
**{max(row["all_right"] for row in rows):.2f}** (28 steps, guidance 3).

| step | samples | minutes | {" | ".join(name.replace("_", " ") for name in names)} |
|---|---|---|{"---|" * len(names)}
{table}

**What nine minutes of an H100 would reach** is reckoned, not run: {record["samples"] / 1e6:.1f} million samples, all
right {later["all_right"]:.2f}. Each attribute's logit is taken to grow with the logarithm of samples, as in the looks
above, and all right to be the product of attributes (which gives {product:.2f} for the last look). The curve goes
{record["samples"] / rows[-1]["samples"]:.0f} times as far as it was seen: take it for a direction.

| {" | ".join(name.replace("_", " ") for name in names)} |
|{"---|" * len(names)}
| {" | ".join(f"{later[name]:.2f}" for name in names)} |

**The autoencoder bounds it.** The checker finds all right in {drawn["drawings"]["all_right"]:.4f} of
{record["config"]["count"]} unseen drawings, and in {after["all_right"]:.4f} of them after the autoencoder
({", ".join(f"{name} {share:.2f}" for name, share in after.items() if share < 0.99 and name != "all_right")}). Samples
cannot be right more often. It has seen {VAE_SAMPLES / 1000:.0f}k pictures; nine minutes of an H100 are reckoned to show
it {VAE_SHARE * 540 / GPU_VAE_STEP * ON_GPU.vae_batch / 1000:.0f}k.

![curves](large-teacher.png)

{of(record)}
"""


def plot(rows: Sequence[Row], to: float, path: Path) -> None:
    """Draw the looks, and the curves through them."""
    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    samples = [row["samples"] for row in rows]
    further = np.geomspace(samples[0], to, 60)
    curves = [reached(rows, each) for each in further]
    for number, name in enumerate([*ATTRIBUTES, "all_right"]):
        style: dict[str, Any] = {"color": f"C{number}"} if name != "all_right" else {"color": "black", "linewidth": 2.5}
        axes.plot(further, [curve[name] for curve in curves], label=name.replace("_", " "), **style)
        axes.plot(samples, [row[name] for row in rows], "o", color=style["color"], markersize=4)
    axes.set(xscale="log", xlabel="samples seen", ylabel="share right", ylim=(0, 1))
    axes.axvline(to, color="gray", linestyle=":", label="nine GPU minutes, reckoned")
    axes.legend(fontsize=8, bbox_to_anchor=(1.01, 1), loc="upper left")
    figure.savefig(path, dpi=120, bbox_inches="tight")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, reckon, and write the page beside the other results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=TRAINED.parent, help="where it was trained")
    parser.add_argument("--model", type=Path, default=TRAINED, help="its pipeline")
    parser.add_argument("--count", type=int, default=1500, help="drawings that the checker reads")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "large-teacher")
    args = parser.parse_args(argv)
    quiet()
    rows = looks(args.work / "log.jsonl")
    if len(rows) < 2:
        raise SystemExit(f"expected two looks or more in {args.work / 'log.jsonl'}, got {len(rows)}: train on")
    samples = gpu_samples(9.0)
    lines = [json.loads(line) for line in (args.work / "log.jsonl").read_text().splitlines()]
    stages = {line["stage"]: line["seconds"] for line in lines}
    record = provenance({"count": args.count}) | {
        "looks": rows,
        "hours": sum(stages.values()) / 3600,
        "samples": samples,
        "nine minutes": reached(rows, samples),
        "checker": read_back(args.count, args.model),
    }
    write(record, page(record), args.out)
    plot(rows, samples, args.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
