"""Score a run against its teacher: `uv run python -m benchmarks.teacher.score runs/tiny`."""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image
from tqdm import tqdm

from benchmarks.teacher.checker import Verdict, check
from benchmarks.teacher.scenes import random_scene
from swd_models.loading import load_teacher, quiet
from swd_sample import SwDPipeline

Sampler = Callable[[Sequence[str], int], list[Image]]
BATCH = 32


def prompts(count: int, *, held_out: bool, seed: int = 77) -> list[str]:
    """Draw captions: of combinations seen in training, or of those that never were."""
    rng = np.random.default_rng(seed)
    return [random_scene(rng, held_out=held_out).caption for _ in range(count)]


def score(sample: Sampler, captions: Sequence[str], name: str) -> dict[str, float]:
    """Return the share of images that are right, attribute by attribute and altogether."""
    verdicts = []
    for start in tqdm(range(0, len(captions), BATCH), desc=name):
        few = captions[start : start + BATCH]
        for image, caption in zip(sample(few, 10_000 + start), few, strict=True):
            verdicts.append(check(np.asarray(image, np.float32) / 255, caption))
    names = [*(field.name for field in fields(Verdict)), "all_right"]
    return {key: float(np.mean([getattr(verdict, key) for verdict in verdicts])) for key in names}


def samplers(run: Path) -> dict[str, Sampler]:
    """Return teacher, student, and the undistilled teacher under the student's schedule and at full scale."""
    data = json.loads((run / "config.json").read_text())
    steps, guidance = data["data"]["teacher_steps"], data["data"]["teacher_guidance"]
    teacher, student = load_teacher(data["model"]), SwDPipeline.from_run(run)
    schedule = student.schedule
    undistilled = SwDPipeline.from_pretrained(data["model"], schedule=schedule)

    def teach(captions: Sequence[str], seed: int) -> list[Image]:
        generators = [torch.Generator().manual_seed(seed + i) for i in range(len(captions))]
        return teacher(captions, size=schedule.sizes[-1], num_steps=steps, guidance=guidance, generators=generators)

    few = len(schedule.sizes)
    return {
        f"teacher, {steps} steps, guidance {guidance:g}": teach,
        f"student, {few} scale-wise steps": lambda captions, seed: student(captions, seed=seed),
        f"undistilled, same schedule, guidance {guidance:g}": lambda captions, seed: undistilled(
            captions, seed=seed, guidance=guidance
        ),
        f"undistilled, full scale, {few} steps, guidance {guidance:g}": lambda captions, seed: undistilled(
            captions, seed=seed, guidance=guidance, schedule=schedule.full_scale()
        ),
    }


def main() -> None:
    """Print a Markdown table and write RUN/score.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--count", type=int, default=128, help="prompts of each kind")
    parser.add_argument("--only", default="", help="score the rows whose name contains this")
    args = parser.parse_args()
    quiet()
    rows = {}
    for name, sample in samplers(args.run).items():
        if args.only in name:
            for kind in ("seen", "held out"):
                captions = prompts(args.count, held_out=kind == "held out")
                rows[f"{name} ({kind})"] = score(sample, captions, f"{name} ({kind})")
    (args.run / "score.json").write_text(json.dumps({"prompts": args.count, "rows": rows}, indent=1) + "\n")
    columns = list(next(iter(rows.values())))
    print(f"| | {' | '.join(columns)} |\n|---" + "|---" * len(columns) + "|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{row[column]:.2f}" for column in columns) + " |")


if __name__ == "__main__":
    main()
