"""`swd-eval report A B`: two results, with paired tests where both have scores of the same prompts."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swd_data import read_rows, stem
from swd_eval.runs.results import group_means, read_results

FLIPS = 10_000
SAME = (
    "mode", "weights", "processor", "tokenizer", "detector", "colours", "preprocessing", "dtype", "score",
    "reference mode", "reference n",
)  # fmt: skip
"""What two numbers must have in common to be compared."""


def compare(a: Path, b: Path) -> str:
    """Return a Markdown table of B against A.

    Scores of each image are compared pair by pair, over prompts: the mean difference, its 95 % interval, and the
    p-value of a permutation test that flips signs. Distances have no pairs: they stand beside each other. Neither is
    compared where weights, or what else they were measured with, differ; distances not where reference or number of
    images do.
    """
    results = [read_results(folder) for folder in (a, b)]
    skipped = {stem(row["file_name"]) for result in results for row in result.get("skipped", [])}
    samples = [_samples(folder, skipped) for folder in (a, b)]
    shared = [name for name in _scores(samples[0]) if name in _scores(samples[1])]
    head = ["| metric | A | B | B - A | 95 % | p | n |", "|---|---|---|---|---|---|---|"]
    note = f"; without {len(skipped)} that could not be read in A or B" if skipped else ""
    lines = [f"A: {_name(results[0])}\nB: {_name(results[1])}{note}", "", *head]
    numbers = [{each["metric"]: each for each in result["numbers"]} for result in results]
    lines += _paired(samples[0], samples[1], shared, numbers) if shared else []
    for metric, first in numbers[0].items():
        if metric not in shared and metric in numbers[1]:
            lines.append(_beside(metric, first, numbers[1][metric]))
    if len(lines) == 4:
        raise ValueError(f"expected a metric that both {a} and {b} have, got none")
    return "\n".join(lines)


def sign_flip_p_value(differences: Tensor, seed: int = 0) -> float:
    """Return the two-sided p-value of a mean of differences (N,) under random signs; exact up to 13 differences."""
    differences, num = differences.double(), len(differences)
    if num <= 13:
        bits = torch.arange(2**num)[:, None] >> torch.arange(num) & 1
        means = ((2.0 * bits - 1) * differences).mean(1).abs()
        return float((means >= abs(float(differences.mean())) - 1e-12).double().mean())
    generator = torch.Generator().manual_seed(seed)
    observed, extreme = abs(float(differences.mean())), 0
    for _ in range(FLIPS // 100):
        signs = 2.0 * torch.randint(0, 2, (100, num), generator=generator) - 1
        extreme += int(((signs.double() @ differences / num).abs() >= observed - 1e-12).sum())
    return (extreme + 1) / (FLIPS + 1)


def _paired(
    a: dict[str, dict[str, Any]], b: dict[str, dict[str, Any]], scores: list[str], numbers: list[dict[str, Any]]
) -> list[str]:
    if a.keys() != b.keys() or any(a[name]["prompt"] != b[name]["prompt"] for name in a):
        raise ValueError("expected the same file names and prompts in both results, got others: nothing pairs them")
    prompts, lines = [row["prompt"] for row in a.values()], []
    for score in scores:
        first, second = (torch.tensor([rows[name][score] for name in a]) for rows in (a, b))
        if others := _differing(*(_notes_of(score, each) for each in numbers)):
            means = f"{first.mean():.4g} | {second.mean():.4g}"
            lines.append(f"| {score} | {means} | not comparable: {', '.join(others)} | | | |")
            continue
        differences = group_means(second - first, prompts)
        mean, error = float(differences.mean()), float(differences.std(correction=1)) / len(differences) ** 0.5
        interval = f"[{mean - 1.96 * error:.3g}, {mean + 1.96 * error:.3g}]" if len(differences) > 1 else "-"
        cells = [score, f"{first.mean():.4g}", f"{second.mean():.4g}", f"{mean:+.3g}", interval]
        lines.append(f"| {' | '.join([*cells, f'{sign_flip_p_value(differences):.2g}', str(len(differences))])} |")
    return lines


def _beside(metric: str, first: dict[str, Any], second: dict[str, Any]) -> str:
    others = _differing(first["notes"], second["notes"])
    references = [each["notes"].get("reference", {}).get("sha256") for each in (first, second)]
    others += ["reference"] if references[0] != references[1] else []
    if metric.startswith(("fid", "fd", "kid")) and first["num"] != second["num"]:
        others.append(f"n {first['num']} and {second['num']}")
    values = f"{first['value']:.4g} | {second['value']:.4g}"
    if others:
        return f"| {metric} | {values} | not comparable: {', '.join(others)} | | | |"
    return f"| {metric} | {values} | {second['value'] - first['value']:+.3g} | | | {first['num']} |"


def _differing(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Return in what two numbers were measured otherwise; weights are known by their checksums, wherever they lie."""

    def told(value: Any) -> Any:
        return value.get("sha256", value) if isinstance(value, dict) else value

    return [key for key in SAME if told(first.get(key)) != told(second.get(key))]


def _notes_of(score: str, numbers: dict[str, Any]) -> dict[str, Any]:
    """Return the notes of the number that a score of samples belongs to: of the same name, or of which it is a part."""
    metric = "geneval" if score == "correct" else score
    names = [name for name in numbers if metric == name or metric.startswith(f"{name}-")]
    notes: dict[str, Any] = numbers[max(names, key=len)]["notes"] if names else {}
    return notes


def _samples(folder: Path, skipped: Collection[str]) -> dict[str, dict[str, Any]]:
    path = folder / "samples.jsonl"
    if not path.is_file():
        raise ValueError(f"expected samples.jsonl in {folder}, got none: run swd-eval images or videos first")
    samples = {}
    for number, row in read_rows(path):
        if not {"file_name", "prompt"} <= row.keys():
            raise ValueError(f"expected file_name and prompt in line {number} of {path}, got {', '.join(row)}")
        samples[stem(row["file_name"])] = row
    kept = {name: row for name, row in samples.items() if name not in skipped}
    if not kept:
        raise ValueError(f"expected scores of samples in {path}, got none")
    return kept


def _scores(samples: dict[str, dict[str, Any]]) -> list[str]:
    return [name for name in next(iter(samples.values())) if name not in ("file_name", "prompt")]


def _name(results: dict[str, Any]) -> str:
    kind = "videos" if "videos" in results else "images"
    return f"{results.get(kind)} ({results.get(f'num_{kind}')} {kind})"
