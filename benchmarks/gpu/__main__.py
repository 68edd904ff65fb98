"""One command for a GPU that is at hand for minutes: does all run, how fast, and how far from the roofline.

`python -m benchmarks.gpu --minutes 9` runs its stages in order of importance, each only if what it is expected to take
still fits: smoke (the tiny preset from end to end, every family, updates of SD3.5 Medium at full size, adapters by PEFT
and by us), latency (table 4's rows of SD3.5 Medium, FLUX, SDXL, Wan), training (table 5). Each writes its record as it
ends, OUT/STAGE.json, and the page OUT/README.md is laid out anew; what fails or is cut off leaves an older record as it
is, and writes OUT/STAGE.attempt.json. Called again at the same commit on the same machine,
it goes on with what is missing. Without a GPU the same code measures tiny models, and the page says so.
`python -m benchmarks.gpu.pack` lays out what a bare machine without network needs.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swd_sample.environment import prepare_torch

if TYPE_CHECKING:
    from benchmarks.gpu.setting import Setting
    from benchmarks.gpu.stages import Stage


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what fits, and write."""
    began = time.monotonic()  # imports are part of the budget
    prepare_torch()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0, help="the budget of the whole call")
    parser.add_argument("--only", nargs="+", metavar="STAGE", help="stages, or beginnings of their names")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/gpu; without a GPU build/gpu-on-cpu")
    args = parser.parse_args(argv)

    from benchmarks.gpu.setting import here
    from benchmarks.gpu.stages import STAGES
    from swd_models.logs import quiet

    wanted = [stage for stage in STAGES if not args.only or stage.name.startswith(tuple(args.only))]
    if not wanted:
        parser.error(f"expected --only of {', '.join(stage.name for stage in STAGES)}, got {' '.join(args.only)}")
    quiet()
    setting = here()
    out = args.out or Path("build/gpu-on-cpu" if setting.device.type == "cpu" else "benchmarks/results/gpu")
    print(measure(setting, wanted, out, began + 60 * args.minutes))


def measure(setting: "Setting", stages: Sequence["Stage"], out: Path, until: float) -> str:
    """Measure what is missing of stages; return the page of all records that are there."""
    from benchmarks.gpu.page import page
    from benchmarks.gpu.records import LOST, holds, make, read, write
    from benchmarks.gpu.stages import STAGES

    for number, stage in enumerate(stages):
        path = out / f"{stage.name}.json"
        attempt = path.with_suffix(".attempt.json")
        if holds(read(path)) or holds(read(attempt)):
            print(f"{stage.name}: there already", flush=True)
            continue
        record = make(stage, setting, until - time.monotonic())
        print(f"{stage.name}: {record['ended']} in {record['seconds']:.1f} s {record['error']}", flush=True)
        write(record, path)
        named = (out / f"{each.name}{kind}" for each in STAGES for kind in (".json", ".attempt.json"))
        records = [found for each in named if (found := read(each))]
        (out / "README.md").write_text(page(records) + "\n")
        if LOST in record:
            begin_again([each.name for each in stages[number + 1 :]], until)
    return (out / "README.md").read_text()


def begin_again(stages: Sequence[str], until: float) -> None:
    """Go on with stages in a new process: after a fault of the device this one can use it no more."""
    if not stages:
        return
    left = max(0.0, until - time.monotonic()) / 60
    print(f"the device is lost to this process: another goes on, for {left:.1f} minutes", flush=True)
    os.execv(
        sys.executable,
        [sys.executable, "-m", "benchmarks.gpu", *sys.argv[1:], "--minutes", str(left), "--only", *stages],
    )


if __name__ == "__main__":
    main()
