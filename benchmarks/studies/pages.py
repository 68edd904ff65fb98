"""A study's page and pictures, laid out from its records."""

import argparse
import math
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.studies.looks import looks
from benchmarks.studies.records import Record, path_of
from benchmarks.studies.study import SEEDS, STUDENT, Study
from benchmarks.studies.verdicts import verdict
from benchmarks.teacher.score import table, unseen_prompts
from swd_models.parts import Media
from swd_sample.grid import grid

NUM_PICTURED, PER_ROW = 32, 8
OVER_FULL = ", judged over the full base"


def save_sheet(media: Sequence[Media], path: Path) -> None:
    """Write equal samples beside each other, pixel by pixel; of a video its first, middle and last frame, stacked."""
    stills = [[item[0], item[len(item) // 2], item[-1]] if isinstance(item, list) else [item] for item in media]
    columns = [np.concatenate([np.asarray(frame) for frame in frames]) for frames in stills]
    Image.fromarray(np.concatenate(columns, axis=1)).save(path)


def read_sheet(path: Path, count: int) -> list[Media]:
    """Return the `count` square samples of a sheet, of videos their three frames."""
    sheet = Image.open(path)
    side, height = sheet.width // count, sheet.height
    columns = [
        [sheet.crop((left, top, left + side, top + side)) for top in range(0, height, side)]
        for left in range(0, sheet.width, side)
    ]
    return [frames if len(frames) > 1 else frames[0] for frames in columns]


def picture(rows: dict[str, Path], captions: Sequence[str], count: int) -> Image.Image:
    """Lay out the first `count` samples of the sheets side by side, a few captions at a time, one below the other."""
    sheets = {name: read_sheet(path, min(NUM_PICTURED, len(captions))) for name, path in rows.items()}
    parts = []
    for start in range(0, min(count, len(captions)), PER_ROW):
        some = slice(start, start + PER_ROW)
        parts.append(grid({name: images[some] for name, images in sheets.items()}, captions[some]))
    canvas = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        canvas.paste(part, (0, top))
        top += part.height
    return canvas


def verdicts(study: Study, rows: dict[str, list[Record]]) -> str:
    """Judge a study's claims by the seeds: a 95 % interval of the paired difference tells, or leaves it open."""
    lines = [
        "| claim | all right: difference | verdict | kid x 1000: difference |",
        "|---|---|---|---|",
        *(
            verdict(claim.text, rows[claim.row], rows[claim.other], claim.margin)
            for claim in study.claims
            if {claim.row, claim.other} <= rows.keys()
        ),
    ]
    return "\n".join([*lines, "", ""]) if len(lines) > 2 else ""


def write(study: Study, rows: dict[str, list[Record]], args: argparse.Namespace) -> Path:
    """Write the table and the pictures; return the page."""
    base = study.base
    captions = unseen_prompts(base.model, args.count)
    seeds = ", ".join(map(str, args.seeds or SEEDS))
    more = {name: num for name, num in study.seeds.items() if f"{STUDENT}{name}" in rows and not args.seeds}
    seeds += "".join(f" (of `{name}` 0 to {num - 1})" for name, num in more.items())
    each = f", {study.repeats} samples of each" if study.repeats > 1 else ""
    times = [
        f"{name} {', '.join(format(record['minutes'], '.1f') for record in records)}"
        for name, records in rows.items()
        if "minutes" in records[0]
    ]
    machines = sorted({record["machine"] for records in rows.values() for record in records})
    others = {name: config.scales for name, config in study.students.items() if config.scales != base.scales}
    cells = sum(map(math.prod, base.scales.sizes))
    notes = "".join(
        f"\n`{name}`: {scales}, {sum(map(math.prod, scales.sizes)) / cells:.2f} of those cells."
        for name, scales in others.items()
    )
    advice = study.advice and f"{study.advice}\n"
    seen = f"{looks(rows, captions, base.model, args.out / f'{study.page}-power.png')}\n\n" if study.looks else ""
    command = "" if args.of == "scenes" else f" --of {args.of}"
    command += f" --students {shlex.join(args.students)}" if args.students else ""
    path = args.out / f"{study.page}.md"
    path.write_text(f"""# {study.title}

`uv run --group benchmarks python -m benchmarks.studies.students{command}`; seeds {seeds};
{len(captions)} prompts that no training saw, every second with a held-out combination{each}.
Guidance {base.data.teacher_guidance:g} for teacher and undistilled model, none for students.
`kid x 1000`, `fd` (features of EfficientNet-Lite0: no FID) and `spectrum` (dB) are distances to drawings of the same
captions; all right is the share of samples in which a checker finds all that the caption says. After ±: the standard
deviation over seeds.
Schedule: {base.scales}.{notes}

{table({name: [record["scores"] for record in records] for name, records in rows.items()})}

{verdicts(study, rows)}{seen}{advice}Minutes, with images: {"; ".join(times)}. Machine: {"; ".join(machines)}.

![samples]({study.page}.png)
""")
    if 0 in (args.seeds or SEEDS):
        # What is judged over the full base looks as over its own.
        shown = [name for name in rows if not name.endswith(OVER_FULL)]
        sheets = {name: path_of(study, args.out, name, 0).with_suffix(".png") for name in shown}
        shown = picture(sheets, captions, PER_ROW)
        shown = shown if study.looks else shown.quantize(256)  # the sheets keep every pixel
        shown.save(args.out / f"{study.page}.png", optimize=True)
        if args.of == "scenes":  # the README's
            pair = {name: sheets[name] for name in (next(iter(sheets)), f"{STUDENT}{base.name}") if name in sheets}
            shown = picture(pair, captions, NUM_PICTURED).quantize(256)
            shown.save(args.out / "teacher-and-student.png", optimize=True)
    return path
