"""Score a run against its teacher: `uv run --group benchmarks python -m benchmarks.teacher.score runs/tiny`.

The run's model tells what is judged: scenes, or the clips of the video teacher.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.teacher.distances import distances
from benchmarks.teacher.worlds import world_of
from swd_models import load_latents
from swd_models.loading import load_teacher, resolve_model
from swd_models.logs import quiet
from swd_models.parts import Media
from swd_sample import SwDPipeline
from swd_sample.media import to_media
from swd_schedules import ScaleSchedule
from swd_schedules.devices import default_dtype, find_device

Sampler = Callable[[Sequence[str], int], list[Media]]
Scores = dict[str, float]
BATCH, SEED = 32, 10_000
JUDGED = ("kid x 1000", "all_right")


def unseen_prompts(model: str, count: int | None = None) -> list[str]:
    """Return captions that no training has seen, by default all; every second has a combination that none has."""
    captions = (Path(resolve_model(model)) / "prompts_test.txt").read_text().splitlines()
    count = len(captions) if count is None else count
    if not 0 < count <= len(captions):
        raise ValueError(f"expected 1 to {len(captions)} prompts, got {count}")
    return captions[:count]


def sample_all(sample: Sampler, captions: Sequence[str], name: str, seed: int = SEED) -> list[Media]:
    """Sample captions, a batch at a time."""
    samples = []
    for start in tqdm(range(0, len(captions), BATCH), desc=name):
        samples += sample(captions[start : start + BATCH], seed + start)
    return samples


def score(samples: Sequence[Media], captions: Sequence[str], model: str = "embedded") -> Scores:
    """Return the share of samples that are right: by attribute, altogether, and so for each split of the captions.

    Before that, how far they are from drawings.
    """
    world = world_of(model)
    verdicts = [
        world.check(np.asarray(item, np.float32) / 255, caption)
        for item, caption in zip(samples, captions, strict=True)
    ]
    scores = {key: float(np.mean([getattr(v, key) for v in verdicts])) for key in vars(verdicts[0])}
    right = np.array([verdict.all_right for verdict in verdicts])
    splits = np.array([world.parse(caption).split for caption in captions])
    scores |= {split: float(right[splits == split].mean()) for split in ("captions", "combinations")}
    return distances(samples, captions, model) | scores | {"all_right": float(right.mean())}


def reference_samplers(model: str, schedule: ScaleSchedule, steps: int, guidance: float) -> dict[str, Sampler]:
    """Return what a student is compared with, all with guidance: its teacher, and the undistilled in few steps."""
    device = find_device()
    teacher = load_teacher(model, device=device, dtype=default_dtype(device))
    teacher.pipe.to(device)
    undistilled = SwDPipeline.from_pretrained(model, schedule=schedule)

    def sample_teacher(captions: Sequence[str], seed: int) -> list[Media]:
        generators = [torch.Generator().manual_seed(seed + i) for i in range(len(captions))]
        size = schedule.sizes[-1]
        return teacher(captions, size=size, num_steps=steps, guidance=guidance, generators=generators)

    few = {
        f"undistilled, {len(schedule.sizes)} steps, student's schedule": schedule,
        f"undistilled, {len(schedule.sizes)} steps, full scale": schedule.full_scale(),
        "undistilled, 2 steps, full scale": schedule.full_scale().thin(2),
    }
    return {f"teacher, {steps} steps": sample_teacher} | {
        name: partial(_sample_undistilled, undistilled, guidance, short) for name, short in few.items()
    }


def drawn_sampler(model: str) -> dict[str, Sampler]:
    """Return what no sampler can do better than: drawings of other seeds, through the autoencoder."""
    world, latents = world_of(model), load_latents(model)

    @torch.no_grad()
    def draw(captions: Sequence[str], seed: int) -> list[Media]:
        images = world.draw(captions, seed)
        pixels = torch.from_numpy(np.stack([np.asarray(image, np.float32) for image in images])).movedim(-1, 1)
        return to_media(latents.decode(latents.encode(pixels / 127.5 - 1)))

    return {"drawings, encoded and decoded": draw}


def _sample_undistilled(
    pipe: SwDPipeline, guidance: float, schedule: ScaleSchedule, captions: Sequence[str], seed: int
) -> list[Media]:
    return pipe(captions, seed=seed, guidance_scale=guidance, schedule=schedule)


def table(rows: Mapping[str, Sequence[Scores]]) -> str:
    """Return a Markdown table: the mean over seeds and, of more than one, the standard deviation of what is judged."""
    columns = list(dict.fromkeys(column for seeds in rows.values() for scores in seeds for column in scores))
    lines = [
        "| | " + " | ".join(column.replace("_", " ") for column in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name, seeds in rows.items():
        cells = [_cell([scores.get(column) for scores in seeds], column in JUDGED) for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: Sequence[float | None], spread: bool) -> str:
    if None in values:  # measured before this column was
        return "—"
    text = f"{np.mean(values):.3f}"
    return f"{text} ± {np.std(values, ddof=1):.3f}" if spread and len(values) > 1 else text


def main() -> None:
    """Print the table and write RUN/score.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--count", type=int, default=112, help="prompts")
    parser.add_argument("--only", default="", help="score the rows whose name contains this")
    args = parser.parse_args()
    quiet()
    config = json.loads((args.run / "config.json").read_text())
    model, data = config["model"], config["data"]
    student = SwDPipeline.from_run(args.run)
    samplers: dict[str, Sampler] = {"student": lambda captions, seed: student(captions, seed=seed)}
    samplers |= reference_samplers(model, student.schedule, data["teacher_steps"], data["teacher_guidance"])
    captions = unseen_prompts(model, args.count)
    rows = {
        name: [score(sample_all(sample, captions, name), captions, model)]
        for name, sample in samplers.items()
        if args.only in name
    }
    (args.run / "score.json").write_text(json.dumps({"prompts": args.count, "rows": rows}, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
