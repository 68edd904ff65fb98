"""The page, laid out from the records."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.gpu.records import DONE, Record
from benchmarks.provenance import data_sheet, of
from swd_distill.planning.roofline import HOST_SECONDS, KERNEL_SECONDS, REACHED_BANDWIDTH, REACHED_PEAK, Gpu

NO_GPU = "Tiny models on the CPU, to see that all of this runs. Nothing here says anything about a GPU."
ON_GPU = (
    "Full-size models have random weights, which take as long as others. Medians of {repeats} times after a first.\n"
    "An iteration at full scale is one with each step as the last."
)


def page(records: Sequence[Record]) -> str:
    """Lay out records of one call or of several."""
    return "\n\n".join([_head(records[0]), _summary(records), *(_section(record) for record in records)])


def _head(record: Record) -> str:
    """Say what all is of; every section names its own machine and commit."""
    if record["config"]["device"] == "cpu":
        return f"# Run without a GPU\n\n`python -m benchmarks.gpu`. {NO_GPU}"
    sheet, repeats = data_sheet(record["machine"]), record["config"]["repeats"]
    return f"# On a GPU\n\n`python -m benchmarks.gpu`. {ON_GPU.format(repeats=repeats)}\n{_roofline(sheet)}"


def _roofline(sheet: Gpu | None) -> str:
    if sheet is None:
        return "No data sheet of this device is known here, so no roofline is reckoned."
    return (
        f"Roofline: {sheet.source}; {REACHED_PEAK:.0%} of the peak and {REACHED_BANDWIDTH:.0%} of the bandwidth are "
        f"taken to be reached,\na kernel to take {KERNEL_SECONDS * 1e6:g} us or more, and to ask for one "
        f"{HOST_SECONDS * 1e6:g}."
    )


def _summary(records: Sequence[Record]) -> str:
    lines = [
        f"| {each['stage']} | {each['ended']} | {each['seconds']:.0f} | {each['machine']} | {each['commit'][:12]} |"
        for each in records
    ]
    return "\n".join(["| stage | | s in all | machine | commit |", "|---" * 5 + "|", *lines])


def _section(record: Record) -> str:
    parts = [f"## {record['stage']}", f"{record['title']}.\n{of(record)}"]
    if record["ended"] != DONE:
        parts.append(f"**{record['ended']}**: {record['error']}.")
    if record["rows"]:
        parts.append(table(record["rows"]))
    return "\n\n".join(parts)


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Lay out rows, with the columns that any of them has a value for."""
    columns = list(dict.fromkeys(name for row in rows.values() for name, value in row.items() if value is not None))
    lines = [
        f"| {name} | " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for name, row in rows.items()
    ]
    return "\n".join(["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|", *lines])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
