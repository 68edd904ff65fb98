"""How long a device waits for this machine in `encode` and `generate` at 1024 px: the goal is at most 5 % on 2 cores.

`python -m benchmarks.feeding` writes feeding.json and .md. The real commands run on PNG files of photographs; of SD3.5
Medium's networks there are stand-ins without data, on a device without arithmetic that takes as long as an H100 would.
`--before RECORD` puts what the same benchmark wrote of earlier code beside it.
"""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.provenance import of, provenance, write
from benchmarks.standins import (
    BATCH,
    FORWARD,
    PRESET,
    RATE,
    SIDE,
    Device,
    StandInEncoder,
    StandInLatents,
    StandInPipeline,
    photographs,
)
from swd_distill.config import Config
from swd_distill.data.encode import encode
from swd_distill.data.generate import generate
from swd_models.parts import Teacher

GOAL, CORES = 0.05, 2
BEFORE = """
Before, each size was downscaled on the CPU, encoded and fetched in turn, in bfloat16, which takes a GPU less than is
assumed here: it waited longer still. Images were written one after the other, at PNG's default level. What its commit
lacks is this benchmark.
"""


def encoding(config: Config, images: Path, batches: int) -> dict[str, float]:
    """Measure `encode` on so many batches of PNG files."""
    files = []
    for index, image in enumerate(photographs()):
        files.append(images / f"{index}.png")
        image.save(files[-1], compress_level=1)
    rows = [
        {"file_name": file.name, "text": "a photograph"} for file in islice(cycle(files), batches * config.data.batch)
    ]
    (images / "metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    device = Device()
    with device.holds_meta(), patch("swd_distill.data.encode.Encoder", lambda config: StandInEncoder(device)):
        encode(replace(config, data=replace(config.data, images=images)))
    return device.row(batches)


def generating(config: Config, batches: int) -> dict[str, float]:
    """Measure `generate`."""
    (config.out / "prompts.txt").write_text("a photograph\n")
    device = Device()
    teacher: Any = Teacher(StandInPipeline(device), StandInLatents(device), layers=())
    data = replace(
        config.data, prompts=config.out / "prompts.txt", num_images=batches * config.data.batch, images_per_prompt=0
    )
    with patch("swd_distill.data.generate.load_teacher", lambda *_, **__: teacher):
        generate(replace(config, data=data))
    return device.row(batches)


def page(record: Mapping[str, Any]) -> str:
    """Lay out a record, and that of before if it has one."""
    records = {"before": record["before"], "now": record} if "before" in record else {"now": record}
    lines = [
        f"| {command} | {when} | {row['batches']} | {row['busy']:.2f} | {row['waited']:.1%} "
        f"| {'yes' if row['waited'] <= GOAL else 'no'} | {row['after']:.1f} |"
        for command in record["rows"]
        for when, each in records.items()
        for row in [each["rows"][command]]
    ]
    sources = "\n".join(f"- {when}: {of(each)}" for when, each in records.items())
    return f"""# Feeding

`python -m benchmarks.feeding`. `encode` and `generate` of SD3.5 Medium at {SIDE} px in batches of {BATCH}, on {CORES}
cores, from and to PNG files of photographs. The device is a stand-in that takes as long as an H100 would: the FLOPs of
the autoencoder in float32 at the schedule's sizes at {RATE / 1e12:.0f} TFLOP/s (half of TF32's peak), or
{FORWARD * 1000:.0f} ms a forward, two a step. It is handed work ahead, as a GPU is, and a copy from it comes when what
is copied is computed. It waits where it has done all that it was handed; reckoned up to its last batch.
{BEFORE if "before" in record else ""}
{sources}

| | | batches | device, s a batch | it waits | at most {GOAL:.0%} | s after its last batch |
|---|---|---|---|---|---|---|
""" + "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encode", type=int, default=160, help="batches, 2 or more; a shard of the cache is 128")
    parser.add_argument("--generate", type=int, default=4, help="batches, 2 or more")
    parser.add_argument("--before", type=Path, help="record of earlier code")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args(argv)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    torch.set_num_threads(CORES)
    record = provenance({"encode": args.encode, "generate": args.generate, "steps": PRESET.data.teacher_steps})
    with TemporaryDirectory() as folder:
        out, images = Path(folder) / "run", Path(folder) / "images"
        out.mkdir()
        images.mkdir()
        config = replace(PRESET, out=out)
        rows = {"encode": encoding(config, images, args.encode), "generate": generating(config, args.generate)}
    before = {"before": json.loads(args.before.read_text())} if args.before else {}
    record |= {"rows": rows} | before
    write(record, page(record), args.out / "feeding")


if __name__ == "__main__":
    main()
