"""`swd-eval images` on 500 samples of the embedded teacher and of a student, without a download.

`uv run --group benchmarks python -m benchmarks.evaluation RUN` makes the folders in runs/evaluation, measures each
against samples of the teacher from other seeds, and writes evaluation.md, .json and .png in benchmarks/results. Blurred
and noisy samples show what the distances see.
"""

import argparse
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageFilter

from benchmarks.provenance import commit, fingerprint, machine, versions
from benchmarks.teacher import checker
from benchmarks.teacher.score import unseen_prompts
from swd_distill.data.generate import generate
from swd_distill.presets import PRESETS
from swd_eval.runs.evaluate import evaluate
from swd_models.loading import resolve_model
from swd_models.logs import quiet
from swd_sample import SwDPipeline
from swd_sample.folder import sample_folder

NUM, TINY = 500, PRESETS["tiny"]
METRICS = ("fd-lite0", "kid-lite0", "diagnostics")
SHOWN = ("fd-lite0", "kid-lite0", "spectrum-distance", "contrast-drift", "saturation-drift")
Harm = Callable[[Image.Image, int], Image.Image]


def blur(image: Image.Image, place: int) -> Image.Image:
    """Blur by a Gaussian of one pixel."""
    return image.filter(ImageFilter.GaussianBlur(1))


def noise(image: Image.Image, place: int) -> Image.Image:
    """Add noise of .1 of the range."""
    pixels = np.asarray(image, np.float32) + np.random.default_rng(place).normal(0, 25.5, (*image.size[::-1], 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def teacher(prompts: Path, out: Path, seed: int) -> Path:
    """Sample the teacher; return the folder."""
    return generate(replace(TINY, data=replace(TINY.data, prompts=prompts, num_images=NUM), out=out, seed=seed))


def harmed(source: Path, out: Path, harm: Harm) -> Path:
    """Harm a folder of samples; return the new one."""
    if not (out / "metadata.jsonl").is_file():
        out.mkdir(parents=True, exist_ok=True)
        for place, path in enumerate(sorted(source.glob("*.png"))):
            harm(Image.open(path).convert("RGB"), place).save(out / path.name)
        shutil.copy(source / "metadata.jsonl", out)
    return out


def folders(student: Path, work: Path) -> dict[str, Path]:
    """Make what is missing of all folders, the reference first."""
    work.mkdir(parents=True, exist_ok=True)
    captions, prompts = unseen_prompts("embedded", NUM), work / "prompts.txt"
    prompts.write_text("\n".join(captions) + "\n")
    reference, samples = (teacher(prompts, work / f"teacher-{seed}", seed) for seed in (2, 1))
    pipe = SwDPipeline.from_run(student)
    undistilled = SwDPipeline.from_pretrained("embedded", schedule=pipe.schedule)
    made = {"student, 4 scale-wise steps": pipe, "undistilled, the same 4 steps, no guidance": undistilled}
    for name, sampler in made.items():
        made_with = {"model": "embedded", "lora": fingerprint(student / "lora") if sampler is pipe else None}
        folder = _folder(work, name)
        sample_folder(sampler, captions, folder, schedule=pipe.schedule, seed=0, batch=32, made_with=made_with)
    return {
        "reference": reference,
        "teacher, other seeds": samples,
        **{name: _folder(work, name) for name in made},
        "teacher, blurred": harmed(samples, work / "blurred", blur),
        "teacher, noisy": harmed(samples, work / "noisy", noise),
    }


def _folder(work: Path, name: str) -> Path:
    return work / name.partition(",")[0]


def all_right(folder: Path) -> float:
    """Return the share of a folder's samples that the scene checker finds all right."""
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    verdicts = [
        checker.check(np.asarray(Image.open(folder / row["file_name"]).convert("RGB"), np.float32) / 255, row["text"])
        for row in rows
    ]
    return float(np.mean([verdict.all_right for verdict in verdicts]))


def measure(folder: Path, reference: Path, out: Path) -> dict[str, Any]:
    """Run `swd-eval images`; return its numbers by metric, and the checker's."""
    evaluate(folder, out, METRICS, ref=reference, offline=True)
    found = json.loads((out / "results.json").read_text())["numbers"]
    numbers = {number["metric"]: {key: number[key] for key in ("value", "interval")} for number in found}
    return numbers | {"all right": {"value": all_right(folder), "interval": None}}


def draw(rows: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw a bar for each row and metric, with its interval."""
    figure, axes = plt.subplots(1, len(SHOWN) + 1, figsize=(15, 3), sharey=True)
    for axis, metric in zip(axes, ("all right", *SHOWN), strict=True):
        for place, (name, numbers) in enumerate(reversed(rows.items())):
            value, interval = numbers[metric]["value"], numbers[metric]["interval"]
            errors = None if interval is None else [[value - interval[0]], [interval[1] - value]]
            color = "tab:orange" if name.startswith("student") else "tab:blue" if place > 1 else "tab:gray"
            axis.barh(place, value, xerr=errors, color=color)
        axis.set_title(metric, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(rows)), list(reversed(rows)), fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def page(rows: Mapping[str, Mapping[str, Any]], about: Mapping[str, Any]) -> str:
    """Lay out the table."""
    heads = ("all right", *SHOWN)
    lines = [
        f"| {name} | " + " | ".join(f"{numbers[metric]['value']:.4g}" for metric in heads) + " |"
        for name, numbers in rows.items()
    ]
    body = "\n".join(lines)
    return f"""# 500 samples, measured

`uv run --group benchmarks python -m benchmarks.evaluation RUN`. `swd-eval images` without a download; the reference is
the teacher's samples of the same unseen prompts from other seeds. Student: `{about["student"]}`,
commit: {about["commit"]}. {about["machine"]}.

| | {" | ".join(heads)} |
|---{"|---" * len(heads)}|
{body}

fd-lite0 and kid-lite0 are distances in the features of EfficientNet-Lite0, and no FID. Of 500 samples fd-lite0 is
biased: between two draws of the teacher itself it is not 0.

![bars](evaluation.png)
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Make, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("student", type=Path, help="a finished run of tiny or tiny-long")
    parser.add_argument("--work", type=Path, default=Path("runs/evaluation"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args(argv)
    quiet()
    made = folders(args.student, args.work)
    reference = made.pop("reference")
    rows = {
        name: measure(folder, reference, args.work / "measured" / folder.name / folder.parent.name)
        for name, folder in made.items()
    }
    config = json.loads((args.student / "config.json").read_text())
    about = {
        "student": f"{config['name']}, seed {config['seed']}",
        "recipe": config["recipe"],
        "teacher": fingerprint(Path(resolve_model("embedded"))),
        "lora": fingerprint(args.student / "lora"),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
    }
    (args.out / "evaluation.json").write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")
    draw(rows, args.out / "evaluation.png")
    text = page(rows, about)
    (args.out / "evaluation.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
