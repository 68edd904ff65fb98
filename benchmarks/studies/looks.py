"""What a study of looks adds to its page: power by frequency as curves, and the spread over seeds as a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.studies.records import Record
from benchmarks.teacher.spread import FREE, PROMPTS, SEEDS, repeated, spread_of_drawings
from benchmarks.teacher.worlds import world_of

Rows = Mapping[str, Sequence[Record]]
BANDS = {"1/16 to 1/4": (1 / 16, 1 / 4), "to 1/2": (1 / 4, 1 / 2), "to 3/4": (1 / 2, 3 / 4), "to 1": (3 / 4, 1)}
"""Shares of the highest frequency along a side, a cycle every two pixels."""

STYLES = {"teacher": {"color": "black", "linewidth": 2.5}, "drawings": {"color": "gray", "linestyle": "--"}}


def looks(rows: Rows, captions: Sequence[str], model: str, picture: Path) -> str:
    """Draw the curves; return both tables, each row the mean over its seeds."""
    draw_power(rows, picture)
    head = "| power against drawings, dB, by share of the highest frequency | " + " | ".join(BANDS) + " |"
    bands = [head, "|---" * (len(BANDS) + 1) + "|"]
    highest = world_of(model).pixels / 2
    for name, records in rows.items():
        powers = (_band(records, low * highest, high * highest) for low, high in BANDS.values())
        bands.append(f"| {name} | {' | '.join(powers)} |")
    columns = ("features", *FREE)
    spreads = [
        f"| spread over {SEEDS} seeds, {PROMPTS} prompts | {' | '.join(columns)} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    drawn = {"drawings": [{"spread": spread_of_drawings(repeated(captions), model)}]}
    for name, records in {**drawn, **rows}.items():
        means = (np.mean([record["spread"][column] for record in records]) for column in columns)
        spreads.append(f"| {name} | {' | '.join(f'{mean:.3f}' for mean in means)} |")
    return "\n".join([*bands, "", f"![power by frequency]({picture.name})", "", *spreads])


def draw_power(rows: Rows, path: Path) -> None:
    """Draw each row's power over that of drawings; 0 dB is as drawn."""
    figure = Figure(figsize=(9, 4.5))
    axes = figure.subplots()
    for name, records in rows.items():
        if name.startswith("undistilled"):
            continue
        style = STYLES.get(name.split(",")[0], {})
        axes.plot(records[0]["power"]["cycles"], _power(records), label=name, **style)
    axes.axhline(0, color="gray", linewidth=0.8)
    axes.set(xlabel="cycles an image", ylabel="power against drawings, dB")
    axes.legend(fontsize=7, ncols=2)
    figure.savefig(path, dpi=110, bbox_inches="tight")


def _power(records: Sequence[Record]) -> np.ndarray:
    return np.mean([record["power"]["dB"] for record in records], axis=0)


def _band(records: Sequence[Record], low: float, high: float) -> str:
    cycles = np.asarray(records[0]["power"]["cycles"])
    return f"{_power(records)[(cycles >= low) & (cycles < high)].mean():+.2f}"
