"""Numbers, and all that is needed to trust them, as results.json and table.md."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from swd_eval.files import write_json, write_text

# The order of tables 2 and 3; then what the paper does not have.
ORDER = (
    "visionreward", "videoreward", "pickscore", "hpsv3", "image-reward", "fid", "geneval", "fd", "kid", "clip-score",
)  # fmt: skip
PACKAGES = ("swd-eval", "torch", "numpy", "pillow", "transformers", "efficientnet-lite-pytorch", "av")
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


def write_results(out: Path, name: str, numbers: Sequence[Number], settings: dict[str, Any]) -> str:
    """Write results.json and table.md, with the numbers of earlier runs into the same folder; return the table."""
    path = out / "results.json"
    earlier = json.loads(path.read_text(encoding="utf-8"))["numbers"] if path.is_file() else []
    new = {each.metric for each in numbers}
    made = {each["metric"]: each.pop("versions") for each in earlier} | dict.fromkeys(new, versions())
    kept = [_number(each) for each in earlier if each["metric"] not in new]
    ordered = sorted([*kept, *numbers], key=_place)
    table = render_table(name, ordered)
    rows = [asdict(each) | {"versions": made[each.metric]} for each in ordered]
    write_json(path, settings | {"numbers": rows})
    write_text(out / "table.md", table)
    return table


def render_table(name: str, numbers: Sequence[Number]) -> str:
    """Return the numbers as a Markdown table of one row, and what they are over."""
    heads = ["Model", *(f"{each.metric} {ARROWS[each.better]}".strip() for each in numbers)]
    cells = [name.replace("|", "\\|"), *(f"{each.value:.4g}" for each in numbers)]
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
    return Number(**row | {"interval": tuple(row["interval"]) if row["interval"] else None})


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _place(number: Number) -> int:
    stems = [index for index, stem in enumerate(ORDER) if number.metric == stem or number.metric.startswith(f"{stem}-")]
    return min(stems, default=len(ORDER))
