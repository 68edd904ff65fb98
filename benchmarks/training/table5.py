"""The page of the training benchmark, beside table 5."""

from collections.abc import Mapping
from typing import Any

from benchmarks.cost import TABLE_5
from benchmarks.provenance import of

__all__ = ["COPIES", "ONE", "TABLE_5", "page"]

ONE, COPIES = "one base, cached", "copies, encoding"


def page(record: Mapping[str, Any]) -> str:
    """Lay out a record."""
    config = record["config"]
    where = (
        "On a GPU, models of full size with random weights."
        if config["device"] != "cpu"
        else "**Run without a GPU**: the embedded teacher (six blocks) in place of the paper's models,\n"
        "with two updates of the fake model an iteration where the authors have five, so that the full loss costs less "
        "beside MMD alone."
    )
    tables = [_costs(name, found) + "\n\n" + _ratios(name, found) for name, found in record["models"].items() if found]
    head = f"""# Training

`python -m benchmarks.training`. {where}
Batch {config["batch"]}; the trainer's own updates, all cases of a kind in turn, batches ready before the clock starts
but where they are encoded; an iteration is the sum of its updates, each the mean over the stages of the median of
{config["repeats"]} times.

{of(record)}"""
    foot = f"""*{ONE}*: teacher, student and fake model share a base; latents and text are read.
*{COPIES}*: a base each, and autoencoder and text encoders beside them, which encode images and text in every
update, as in the loops that people know. FLOPs and memory are counted operation by operation, exactly. Memory is of
weights (adapters and head too), of AdamW's moments, and the most of all other tensors in an update. A kind that is not
here does not fit the device."""
    return "\n\n".join([head, *tables, foot])


def _costs(name: str, found: Mapping[str, Any]) -> str:
    lines = [
        f"| {held}: {case} | {row['seconds']:.3f} | {row['tflop']:.4f} | {row['tflop'] / row['seconds']:.3f} | "
        + " | ".join(f"{row[key]:.0f}" for key in ("weights_mib", "optimisers_mib", "tensors_mib"))
        + " |"
        for held, rows in found.items()
        for case, row in rows.items()
    ]
    head = "s an iteration | TFLOP | TFLOP/s | MiB of weights | of moments | of other tensors"
    return "\n".join([f"## {name}", "", f"| | {head} |", "|---" * 7 + "|", *lines])


def _ratios(name: str, found: Mapping[str, Any]) -> str:
    ours, theirs = found[ONE], found.get(COPIES, {})
    first, last = "scale-wise, full loss", "full scale, full loss"
    pairs = {
        "scale-wise / full scale, full loss": (ours[first], ours[last]),
        "scale-wise / full scale, MMD alone": (ours["scale-wise, MMD"], ours["full scale, MMD"]),
        "full loss / MMD alone, scale-wise": (ours[first], ours["scale-wise, MMD"]),
    } | {f"{COPIES} / {ONE}: {case}": (theirs[case], ours[case]) for case in theirs}
    lines = [
        f"| {what} | {one['seconds'] / other['seconds']:.2f} | {one['tflop'] / other['tflop']:.2f} "
        f"| {_paper(name, what)} |"
        for what, (one, other) in pairs.items()
    ]
    return "\n".join(["| ratio | seconds | FLOPs | table 5 |", "|---" * 4 + "|", *lines])


def _paper(name: str, what: str) -> str:
    """Return table 5's ratio: of this model, or, where a tiny one ran, of the range of the paper's four."""
    pairs = {
        "scale-wise / full scale, full loss": (0, 2),
        "scale-wise / full scale, MMD alone": (1, 3),
        "full loss / MMD alone, scale-wise": (0, 1),
    }
    if what not in pairs:
        return ""
    one, other = pairs[what]
    ratios = [row[one] / row[other] for model, row in TABLE_5.items() if name in (model, "tiny-long")]
    return " to ".join(f"{value:.2f}" for value in sorted({min(ratios), max(ratios)}))
