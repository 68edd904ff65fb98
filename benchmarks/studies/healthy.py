"""What metrics look like in a healthy run, and in three that are not: docs/healthy-runs.md shows the picture.

`uv run --group benchmarks python -m benchmarks.studies.healthy` trains four runs of tiny-long with weights of 30 and 1,
cut to 300 iterations, on the same images (half an hour on two cores; runs resume), and draws docs/healthy-runs.png from
their metrics.jsonl.
"""

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.studies.claims import LONG, by_hand
from swd_distill.config import Config
from swd_distill.data.encode import encode
from swd_distill.data.generate import generate
from swd_distill.train import train
from swd_models.logs import quiet

HEALTHY = replace(by_hand(LONG, 30.0), training=replace(LONG.training, iterations=300, sample_every=100))
RUNS = {
    "healthy": HEALTHY,
    "learning rates x30": replace(HEALTHY, training=replace(HEALTHY.training, lr=0.03, fake_lr=0.03)),
    "guidance 12": replace(HEALTHY, recipe=replace(HEALTHY.recipe, guidance=12.0)),
    "fake model does not learn": replace(HEALTHY, training=replace(HEALTHY.training, fake_lr=1e-6)),
}
PANELS = {
    "mmd": "MMD",
    "norm": "norm of the student's gradient",
    "gap": "gap of the scores",
    "fake/accuracy": "accuracy of the head",
    "contrast": "contrast of samples",
    "saturation": "saturation of samples",
}
LOGARITHMIC, WINDOW = ("mmd", "norm"), 25


def run(name: str, config: Config, work: Path) -> list[dict[str, float]]:
    """Train one run on the images of the first; return its metrics."""
    first = replace(HEALTHY, out=work / "healthy")
    config = replace(config, out=work / name.replace(" ", "-"))
    generate(first)
    encode(first)
    if not config.cache.is_dir():
        shutil.copytree(first.cache, config.cache)
    try:
        train(config)
    except ValueError as error:  # it may well end so
        print(f"{name}: {error}")
    return [json.loads(line) for line in (config.out / "metrics.jsonl").read_text().splitlines()]


def draw(metrics: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """Draw running medians."""
    figure, axes = plt.subplots(2, 3, figsize=(12, 6), sharex=True)
    for axis, (key, title) in zip(axes.flat, PANELS.items(), strict=True):
        for name, rows in metrics.items():
            values = np.array([np.nan if row[key] is None else row[key] for row in rows])
            smooth = [np.nanmedian(values[max(0, i - WINDOW) : i + 1]) for i in range(len(values))]
            axis.plot([row["step"] for row in rows], smooth, label=name)
        axis.set_title(title, fontsize=10)
        axis.set_yscale("log" if key in LOGARITHMIC else "linear")
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[1]:
        axis.set_xlabel("step")
    axes[0, 0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> None:
    """Train and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/healthy"), help="the runs")
    parser.add_argument("--out", type=Path, default=Path("docs/healthy-runs.png"))
    args = parser.parse_args(argv)
    quiet()
    draw({name: run(name, config, args.work) for name, config in RUNS.items()}, args.out)


if __name__ == "__main__":
    main()
