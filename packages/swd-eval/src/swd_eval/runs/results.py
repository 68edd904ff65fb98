"""Numbers, and all that is needed to trust them, as results.json and table.md."""

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from swd_data import cell, read_object, write_json, write_text

# The order of tables 2 and 3; then what the paper does not have.
ORDER = (
    "visionreward", "videoreward", "pickscore", "hpsv3", "image-reward", "fid", "geneval", "fd", "kid", "clip-score",
)  # fmt: skip
PACKAGES = ("swd-eval", "torch", "numpy", "pillow", "transformers", "efficientnet-lite-pytorch", "av")
WRITES = ("results.json", "table.md", "samples.jsonl", "skipped.jsonl", "reference")
KEYS = {"metric", "value", "num", "notes"}
ARROWS = {"higher": "↑", "lower": "↓", "neither": ""}


@dataclass(frozen=True)
class Number:
    """A metric's value."""

    metric: str
    value: float
    interval: tuple[float, float] | None
    """95 %, over the draw of images or prompts; None where it has no meaning."""
    num: int
    """Images, videos or prompts that it is over."""
    better: Literal["higher", "lower", "neither"] = "neither"
    notes: dict[str, Any] = field(default_factory=dict)


def mean_of(metric: str, values: Tensor, prompts: Sequence[str], **rest: Any) -> Number:
    """Return the mean of scores (N,) with an interval over prompts: images of one prompt are not independent."""
    values = values.double()
    groups = group_means(values, prompts)
    mean = float(values.mean())
    width = 1.96 * float(groups.std()) / len(groups) ** 0.5 if len(groups) > 1 else float("inf")
    interval = (mean - width, mean + width) if len(groups) > 1 else None
    return Number(metric, mean, interval, len(values), **rest)


def group_means(values: Tensor, prompts: Sequence[str]) -> Tensor:
    """Return the mean of each prompt's values; an image without a prompt is its own group."""
    keys = [prompt or index for index, prompt in enumerate(prompts)]
    places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    index = torch.tensor([places[key] for key in keys])
    sums = torch.zeros(len(places), dtype=torch.float64).index_add_(0, index, values.double())
    return sums / index.bincount()


def write_results(
    out: Path, name: str, numbers: Sequence[Number], settings: dict[str, Any], notes: Sequence[str] = ()
) -> str:
    """Write results.json and table.md, with the numbers of earlier runs into the same folder; return the table.

    Earlier numbers go where they are over other samples, for more of them turned out to be bad, or against another
    reference.
    """
    path, new = out / "results.json", {each.metric for each in numbers}
    before = read_results(out) if path.is_file() else {"numbers": []}
    earlier = [each for each in before["numbers"] if each["metric"] not in new]
    if earlier and _skipped(before) != _skipped(settings):
        names = ", ".join(each["metric"] for each in earlier)
        notes = [*notes, f"no longer here, as they were over other samples: {names}; ask for them again"]
        earlier = []
    against = {_reference(each.notes) for each in numbers} - {None}
    others = [each for each in earlier if against and _reference(each["notes"]) not in {None, *against}]
    if others:
        names = ", ".join(each["metric"] for each in others)
        notes = [*notes, f"no longer here, as they were against another reference: {names}; ask for them again"]
        earlier = [each for each in earlier if each not in others]
    made = {each["metric"]: each.pop("versions", {}) for each in earlier} | dict.fromkeys(new, versions())
    ordered = sorted([*map(_number, earlier), *numbers], key=_place)
    table = render_table(name, ordered) + "".join(f"- {note}\n" for note in notes)
    rows = [asdict(each) | {"versions": made[each.metric]} for each in ordered]
    write_json(path, settings | {"numbers": rows})
    write_text(out / "table.md", table)
    return table


def read_results(folder: Path) -> dict[str, Any]:
    """Read the results.json of a folder.

    Raises:
        ValueError: it has none, or one of something else.
    """
    path = folder / "results.json"
    if not path.is_file():
        raise ValueError(f"expected results.json in {folder}, got none: run swd-eval images or videos first")
    results = read_object(path, "results of swd-eval")
    numbers = results.get("numbers")
    if not isinstance(numbers, list) or not all(isinstance(row, dict) and row.keys() >= KEYS for row in numbers):
        raise ValueError(f"expected results of swd-eval images or videos in {path}, got others")
    return results


def render_table(name: str, numbers: Sequence[Number]) -> str:
    """Return the numbers as a Markdown table of one row, and what they are over."""
    heads = ["Model", *(f"{each.metric} {ARROWS[each.better]}".strip() for each in numbers)]
    cells = [cell(name), *(f"{each.value:.4g}" for each in numbers)]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", f"| {' | '.join(cells)} |", ""]
    for each in numbers:
        interval = f"[{each.interval[0]:.4g}, {each.interval[1]:.4g}]" if each.interval else "no interval"
        notes = "".join(f"; {key} {_short(value)}" for key, value in each.notes.items() if not isinstance(value, dict))
        if any(isinstance(value, dict) and value.get("known") is False for value in each.notes.values()):
            notes += "; WEIGHTS ARE NOT THE PUBLISHED ONES (sha256)"
        lines.append(f"- {each.metric}: {each.value:.6g}, {interval}, n = {each.num}{notes}")
    return "\n".join(lines) + "\n"


def versions() -> dict[str, str]:
    """Return the versions of what computed the numbers."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _number(row: dict[str, Any]) -> Number:
    found = {field.name: row[field.name] for field in fields(Number) if field.name in row}
    return Number(**found | {"interval": tuple(row["interval"]) if row.get("interval") else None})


def _skipped(results: dict[str, Any]) -> set[str]:
    return {row["file_name"] for row in results.get("skipped", [])}


def _reference(notes: dict[str, Any]) -> str | None:
    """Return the checksum of what a number is measured against; None of one that is measured against nothing."""
    reference = notes.get("reference")
    return reference.get("sha256") if isinstance(reference, dict) else None


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _place(number: Number) -> int:
    stems = [index for index, stem in enumerate(ORDER) if number.metric == stem or number.metric.startswith(f"{stem}-")]
    return min(stems, default=len(ORDER))
