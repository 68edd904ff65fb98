"""What fits one card: `uv run python -m benchmarks.cards` writes docs/cards.md, as `swd-distill plan --memory` reckons.

Counted, and reckoned by data sheets: nothing is timed.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from swd_distill.config import Config
from swd_distill.planning.cards import Way, card_of, ways
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

## At a glance

Days with MMD alone / with the full loss, over the form of the base that is fastest there. A preset whose recipe is MMD
alone has one number.
"""


Ways = Mapping[int, Sequence[Way]]
"""What may be trained how, by the memory of the card."""


def ways_of(config: Config) -> Ways:
    """Return the ways of a preset on each card."""
    return {memory: tuple(ways(config, memory, GPUS[card_of(memory)])) for memory in MEMORIES}


def _days(way: Way, memory: int) -> float:
    return way.training_seconds(GPUS[card_of(memory)]) / 86400


def table(found: Ways) -> str:
    """Return a preset's table: a row for each base and loss, a column for each card."""
    rows: dict[str, list[str]] = {}
    for memory in MEMORIES:
        for way in found[memory]:
            base = {"int8": "int8, fp8"}.get(way.config.training.base, way.config.training.base)
            if base == "fp8":  # of the same size as int8
                continue
            cell = f"{_days(way, memory):.1f} ({way.found.share})" if way.found else "-"
            rows.setdefault(f"{base}, {way.loss}", []).append(cell)
    head = "".join(f" {memory} GiB: {card_of(memory)} |" for memory in MEMORIES)
    lines = [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    return "\n".join([f"| |{head}", "|---" * (len(MEMORIES) + 1) + "|", *lines])


def glance(presets: Mapping[str, Ways]) -> str:
    """Return one table of all presets: the fastest way of each loss on each card."""
    head = "".join(f" {memory} GiB |" for memory in MEMORIES)
    lines = [f"| |{head}", "|---" * (len(MEMORIES) + 1) + "|"]
    for name, found in presets.items():
        cells = []
        for memory in MEMORIES:
            best = [
                min((_days(way, memory), way.config.training.base) for way in fitting)
                for loss in ("MMD alone", "full")
                if (fitting := [way for way in found[memory] if way.found and way.loss == loss])
            ]
            bases = " / ".join(dict.fromkeys(base for _, base in best))
            cells.append(f"{' / '.join(f'{days:.1f}' for days, _ in best)} ({bases})" if best else "-")
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write(out: Path) -> Path:
    """Write the page of all full-size presets."""
    presets = {name: config for name, config in PRESETS.items() if not name.startswith("tiny")}
    found = {name: ways_of(config) for name, config in presets.items()}
    parts = [INTRODUCTION, glance(found)]
    for name, config in presets.items():
        training, students = config.training, len(Estimate.of(config).students())
        each = f"{students} students, each " if students > 1 else ""
        parts += [
            f"## {name}\n",
            f"{each}{training.iterations:,} iterations of {training.batch} samples, rank {training.rank}.\n",
            f"{table(found[name])}\n",
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
