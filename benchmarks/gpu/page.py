"""The page, laid out from the records."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.gpu.records import DONE, Record
from benchmarks.provenance import data_sheet, of
from swd_distill.planning.roofline import HOST_SECONDS, KERNEL_SECONDS, REACHED_BANDWIDTH, REACHED_PEAK, Gpu

NO_GPU = "Tiny models on the CPU, to see that all of this runs. Nothing here says anything about a GPU."
ON_GPU = (
    "Full-size models have random weights, which take as long as others; they sample in float16.\n"
    "Medians of {repeats} times or more after a first.\n"
    "An iteration at full scale is one with each step as the last."
)


def page(records: Sequence[Record]) -> str:
    """Lay out records of one call or of several."""
    return "\n\n".join([_head(records), _summary(records), *(_section(record) for record in records)])


def _head(records: Sequence[Record]) -> str:
    """Say what all is of; every section names its own machine and commit."""
    config = records[0]["config"]
    if config["device"] == "cpu":
        return f"# Run without a GPU\n\n`python -m benchmarks.gpu`. {NO_GPU}"
    sheets = {record["machine"]: data_sheet(record["machine"]) for record in records}
    known = [sheet for sheet in sheets.values() if sheet]
    lines = [_roofline(known)] if known else []
    lines += [f"No data sheet of {name} is known here: no roofline." for name, sheet in sheets.items() if not sheet]
    return "\n".join([f"# On a GPU\n\n`python -m benchmarks.gpu`. {ON_GPU.format(repeats=config['repeats'])}", *lines])


def _roofline(sheets: Sequence[Gpu]) -> str:
    return (
        f"Roofline: {'; '.join(sheet.source for sheet in sheets)}. {REACHED_PEAK:.0%} of the peak and "
        f"{REACHED_BANDWIDTH:.0%} of the bandwidth are taken to be reached,\n"
        f"a kernel to take {KERNEL_SECONDS * 1e6:g} us or more, and to ask for one {HOST_SECONDS * 1e6:g}."
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
