"""What fits one card: `uv run python -m benchmarks.cards` writes docs/cards.md, as `swd-distill plan --memory` reckons.

Counted, and reckoned by data sheets: nothing is timed.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from swd_distill.config import Config
from swd_distill.planning.cards import card_of, ways
from swd_distill.planning.estimate import Estimate
from swd_distill.planning.roofline import GPUS
from swd_distill.presets import PRESETS

MEMORIES = (16, 24, 32, 48, 80)
INTRODUCTION = """# What fits one card

`uv run python -m benchmarks.cards`; of one preset and any card: `swd-distill plan flux --memory 24`, which also prints
the command to run.

Each cell has the days that all iterations of a preset take, and the samples at a time; "-" where not one sample fits.
The fastest way that fits is taken: how many samples at a time, how many blocks are recomputed in backward, and whether
the optimiser holds its moments in 8 bits. Memory was counted on tensors without data; seconds are a roofline over the
data sheet of the card that heads the column. Neither was measured on these cards. Images and cache come before, and
take hours of their own.
"""


def table(config: Config) -> str:
    """Return a preset's table: a row for each base and loss, a column for each card."""
    rows: dict[str, list[str]] = {}
    for memory in MEMORIES:
        gpu = GPUS[card_of(memory)]
        for way in ways(config, memory, gpu):
            base = {"int8": "int8, fp8"}.get(way.config.training.base, way.config.training.base)
            if base == "fp8":  # of the same size as int8
                continue
            cell = "-"
            if way.found:
                days = way.training_seconds(gpu) / 86400
                cell = f"{days:.1f} ({way.found.share})"
            rows.setdefault(f"{base}, {way.loss}", []).append(cell)
    head = "".join(f" {memory} GiB: {card_of(memory)} |" for memory in MEMORIES)
    lines = [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    return "\n".join([f"| |{head}", "|---" * (len(MEMORIES) + 1) + "|", *lines])


def write(out: Path) -> Path:
    """Write the page of all full-size presets."""
    parts = [INTRODUCTION]
    for name, config in PRESETS.items():
        if not name.startswith("tiny"):
            training, students = config.training, len(Estimate.of(config).students())
            each = f"{students} students, each " if students > 1 else ""
            parts += [
                f"## {name}\n",
                f"{each}{training.iterations:,} iterations of {training.batch} samples, rank {training.rank}.\n",
                f"{table(config)}\n",
            ]
    out.write_text("\n".join(parts), encoding="utf-8")
    return out


def main(argv: Sequence[str] | None = None) -> None:
    """Write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/cards.md"))
    print(write(parser.parse_args(argv).out))


if __name__ == "__main__":
    main()
