"""Train students of the embedded teacher, seed by seed, and compare them with it.

`uv run --group benchmarks python -m benchmarks.students` does what is missing and writes the page and the pictures of
benchmarks/results. Each row and seed is one file of benchmarks/results/students: committed, it is not computed again,
on whatever machine.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.provenance import fingerprint, machine, versions
from benchmarks.teacher.score import Sampler, reference_samplers, score, table, unseen_prompts
from swd_distill.config import Config
from swd_distill.presets import PRESETS
from swd_distill.run import run
from swd_models.loading import quiet, resolve_model
from swd_sample import SwDPipeline
from swd_sample.grid import grid

TINY, LONG = PRESETS["tiny"], PRESETS["tiny-long"]
STUDENTS = {
    "tiny": TINY,
    # `swd-spectral design runs/tiny/cache --steps 4`: .49 of the cells of full scale, tiny's own schedule .55.
    "tiny-designed": replace(TINY, schedule=str(Path(__file__).parent / "designed.json")),
    "tiny-long": LONG,
    "tiny-long-mmd": replace(LONG, recipe=replace(LONG.recipe, dmd_weight=0.0, gan_weight=0.0)),
}
NUM_PICTURED, PER_ROW = 32, 8
Record = dict[str, Any]


def train_student(name: str, seed: int, work: Path) -> tuple[Config, float]:
    """Train a student unless its run is finished; return its config and the minutes spent on it in all."""
    config = replace(STUDENTS[name], seed=seed, out=work / f"{name}-{seed}")
    clock, began = config.out / "seconds.json", time.monotonic()
    spent = json.loads(clock.read_text()) if clock.is_file() else 0.0
    if not (config.out / "lora").is_dir():
        try:
            run(config)
        finally:
            spent += time.monotonic() - began
            config.out.mkdir(parents=True, exist_ok=True)
            clock.write_text(json.dumps(spent))
    return config, spent / 60


def recorded(path: Path, of: Record, make: Callable[[], Record]) -> Record:
    """Return the record in a file if it is of the same thing, else make it and write it."""
    of = json.loads(json.dumps(of, default=str))
    if path.is_file():
        record: Record = json.loads(path.read_text())
        if _covers(of, record["of"]):
            return record
    record = {"of": of, **make(), "machine": machine(), "versions": versions()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".tmp").write_text(json.dumps(record, indent=1) + "\n")
    path.with_suffix(".tmp").replace(path)
    return record


def _covers(now: Any, then: Any) -> bool:
    """Tell whether all that was noted still holds; settings that came later are taken to have changed nothing."""
    if isinstance(then, dict):
        return isinstance(now, dict) and all(name in now and _covers(now[name], value) for name, value in then.items())
    return bool(now == then)


def measure(name: str, sample: Sampler, captions: Sequence[str], seed: int, sheet: Path) -> Record:
    """Score a sampler; the first seed's first images are kept as a sheet, for the pictures."""
    if seed == 0:
        few = captions[:NUM_PICTURED]
        sheet.parent.mkdir(parents=True, exist_ok=True)
        save_sheet([image for i in range(0, len(few), PER_ROW) for image in sample(few[i : i + PER_ROW], i)], sheet)
    return {"scores": score(sample, captions, f"{name}, seed {seed}", seed=10_000 * (seed + 1))}


def save_sheet(images: Sequence[Image.Image], path: Path) -> None:
    """Write equal images beside each other, pixel by pixel."""
    Image.fromarray(np.concatenate([np.asarray(image) for image in images], axis=1)).save(path)


def read_sheet(path: Path) -> list[Image.Image]:
    """Return the square images of a sheet."""
    sheet = Image.open(path)
    side = sheet.height
    return [sheet.crop((left, 0, left + side, side)) for left in range(0, sheet.width, side)]


def measure_all(args: argparse.Namespace, store: Path) -> dict[str, list[Record]]:
    """Train and score what is missing, references first; return the records of each row, one a seed."""
    captions = unseen_prompts(TINY.model, args.count)
    teacher = fingerprint(Path(resolve_model(TINY.model)))
    steps, guidance = TINY.data.teacher_steps, TINY.data.teacher_guidance
    samplers = reference_samplers(TINY.model, TINY.scales, steps, guidance)
    of: Record = {"teacher": teacher, "prompts": args.count}
    reference = of | {"schedule": json.loads(TINY.scales.to_json()), "steps": steps, "guidance": guidance}
    rows: dict[str, list[Record]] = {}
    for seed in args.seeds:
        for name, sample in samplers.items():
            path = store / f"{_slug(name)}-{seed}.json"
            make = partial(measure, name, sample, captions, seed, path.with_suffix(".png"))
            rows.setdefault(name, []).append(recorded(path, reference | {"seed": seed}, make))
        for name in args.students:
            path = store / f"{name}-{seed}.json"
            config = replace(STUDENTS[name], seed=seed).to_json() | {"out": None}
            make = partial(_train_and_measure, name, captions, seed, args.work, path.with_suffix(".png"))
            rows.setdefault(f"student, {name}", []).append(recorded(path, of | {"config": config}, make))
    return rows


def _train_and_measure(name: str, captions: Sequence[str], seed: int, work: Path, sheet: Path) -> Record:
    config, minutes = train_student(name, seed, work)
    pipe = SwDPipeline.from_run(config.out)

    def sample(few: Sequence[str], first_seed: int) -> list[Image.Image]:
        return pipe(few, seed=first_seed)

    return measure(name, sample, captions, seed, sheet) | {"minutes": minutes}


def _slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.replace("'", "")).split())


def picture(rows: dict[str, Path], captions: Sequence[str]) -> Image.Image:
    """Lay out the sheets side by side, a few captions at a time, one below the other."""
    sheets, parts = {name: read_sheet(path) for name, path in rows.items()}, []
    for start in range(0, len(captions), PER_ROW):
        some = slice(start, start + PER_ROW)
        parts.append(grid({name: images[some] for name, images in sheets.items()}, captions[some]))
    canvas = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        canvas.paste(part, (0, top))
        top += part.height
    return canvas


def write(rows: dict[str, list[Record]], args: argparse.Namespace, store: Path) -> None:
    """Write the table and the pictures."""
    captions = unseen_prompts(TINY.model, args.count)
    times = [
        f"{name} {', '.join(format(record['minutes'], '.1f') for record in records)}"
        for name, records in rows.items()
        if "minutes" in records[0]
    ]
    machines = sorted({record["machine"] for records in rows.values() for record in records})
    page = f"""# Students of the embedded teacher

`uv run --group benchmarks python -m benchmarks.students`; seeds {", ".join(map(str, args.seeds))};
{len(captions)} prompts that no training saw, every second with a held-out combination.
Schedule: {TINY.scales}. Guidance {TINY.data.teacher_guidance:g} for teacher and undistilled model, none for students.

{table({name: [record["scores"] for record in records] for name, records in rows.items()})}

Minutes in all, with images and cache: {"; ".join(times)}. Machine: {"; ".join(machines)}.

![samples](students.png)
"""
    (args.out / "students.md").write_text(page)
    if 0 in args.seeds:
        sheets = {name: store / f"{_slug(name.removeprefix('student, '))}-0.png" for name in rows}
        picture(sheets, captions[:PER_ROW]).save(args.out / "students.png")
        first, *_ = sheets
        pair = {name: sheets[name] for name in (first, "student, tiny") if name in sheets}
        picture(pair, captions[:NUM_PICTURED]).save(args.out / "teacher-and-student.png")


def main(argv: Sequence[str] | None = None) -> None:
    """Train, score, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/students"), help="the runs")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="table, pictures, records")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--students", nargs="+", choices=list(STUDENTS), default=list(STUDENTS))
    parser.add_argument("--count", type=int, default=512, help="prompts")
    args = parser.parse_args(argv)
    quiet()
    store = args.out / "students"
    write(measure_all(args, store), args, store)
    print((args.out / "students.md").read_text())


if __name__ == "__main__":
    main()
