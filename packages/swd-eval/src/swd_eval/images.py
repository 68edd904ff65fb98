"""`swd-eval images`: metrics of a folder of images."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swd_eval.collect import collect
from swd_eval.fetch import fetch
from swd_eval.fid import Statistics
from swd_eval.files import claim, write_text
from swd_eval.measure import Measure
from swd_eval.metrics import (
    DISTANCES,
    SCORES,
    check_names,
    check_reference,
    diagnostic_numbers,
    distance_number,
    diversity_number,
    open_score,
    score_number,
    space_of,
    weights_of,
)
from swd_eval.prompts import Sample, digests, read_samples
from swd_eval.reference import Reference, write_statistics
from swd_eval.results import Number, write_results


def evaluate_images(
    folder: Path,
    out: Path,
    metrics: Sequence[str],
    *,
    prompts: Path | None = None,
    ref: Path | None = None,
    weights: Path = Path("weights"),
    offline: bool = False,
    device: str | None = None,
    batch: int = 16,
) -> str:
    """Compute metrics of images into a folder, where each image is done once; return the table.

    Raises:
        ValueError: anything about the images, prompts, reference or weights that makes a number untrue.
    """
    check_names(metrics)
    samples = read_samples(folder, prompts)
    if ref and not ref.exists():
        raise ValueError(f"expected an .npz or a folder as --ref, got {ref}")
    reference = Reference(ref, out / "reference", batch) if ref else None
    _check(metrics, samples, reference)
    fetch(weights_of(metrics), weights, offline=offline)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    claim(out / "settings.json", digests(samples))
    run = _Run(samples, out, weights, device, batch, reference)
    numbers = run.numbers(metrics)
    run.write_samples()
    settings = {
        "images": str(folder.resolve()),
        "num_images": len(samples),
        "num_prompts": len({sample.prompt for sample in samples if sample.prompt}),
        **digests(samples),
        "device": _device_name(device),
    }
    return f"{write_results(out, folder.resolve().name, numbers, settings)}\nwrote {out}"


class _Run:
    """One folder of images under evaluation."""

    def __init__(
        self, samples: Sequence[Sample], out: Path, weights: Path, device: str, batch: int, reference: Reference | None
    ) -> None:
        self.samples, self.out, self.weights, self.device, self.batch = samples, out, weights, device, batch
        self.prompts, self.reference = [sample.prompt for sample in samples], reference
        self.scores: dict[str, Tensor] = {}

    def numbers(self, metrics: Sequence[str]) -> list[Number]:
        """Return all numbers, one measure after another: only one model is in memory."""
        spaces = {metric: space_of(metric, self.weights, self.device) for metric in metrics if metric in DISTANCES}
        for metric, space in spaces.items():
            assert self.reference is not None
            check_reference(metric, space, self.reference)
        numbers = [self._score(metric) for metric in metrics if metric in SCORES]
        if "diagnostics" in metrics:
            numbers += diagnostic_numbers(self.rows, self.prompts, self.reference)
        numbers += [self._distance(metric, space) for metric, space in spaces.items()]
        if "diagnostics" in metrics:
            different = {space.name: space for space in spaces.values()}
            varieties = [diversity_number(self.rows(space), self.prompts, space) for space in different.values()]
            numbers += [variety for variety in varieties if variety]
        return numbers

    def _score(self, metric: str) -> Number:
        measure = open_score(metric, self.weights, self.device)
        return score_number(metric, self.rows(measure), self.prompts, measure)

    def _distance(self, metric: str, space: Measure) -> Number:
        """Return a distance, and leave the statistics of both sides as files."""
        assert self.reference is not None
        rows, real, mode = self.rows(space), self.reference.rows(space), str(space.about["mode"])
        write_statistics(self.out / f"statistics-{mode}.npz", Statistics.of(rows), mode)
        if real is not None:
            write_statistics(self.out / f"reference-{mode}.npz", Statistics.of(real), mode)
        return distance_number(metric, rows, space, self.reference, self.device)

    def rows(self, measure: Measure) -> Tensor:
        """Return a measure's rows."""
        rows = collect(measure, self.samples, self.out, batch=self.batch)
        self.scores |= dict(zip(measure.fields, rows.T, strict=False))
        return rows

    def write_samples(self) -> None:
        """Write all scores of each image to samples.jsonl, also those of earlier runs into the same folder."""
        path = self.out / "samples.jsonl"
        rows: list[dict[str, Any]] = [{"file_name": each.name, "prompt": each.prompt} for each in self.samples]
        if path.is_file():
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        for index, row in enumerate(rows):
            row |= {name: float(values[index]) for name, values in self.scores.items()}
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_text(path, text)


def _check(metrics: Sequence[str], samples: Sequence[Sample], reference: Reference | None) -> None:
    """Raise ValueError for metrics that lack prompts or a reference."""
    unprompted = [sample.name for sample in samples if not sample.prompt]
    scores = [name for name in metrics if name in SCORES]
    if scores and unprompted:
        raise ValueError(f"expected a prompt for each image for {scores[0]}, got none: give --prompts FILE")
    distances = [name for name in metrics if name in DISTANCES]
    if distances and reference is None:
        raise ValueError(f"expected --ref with {distances[0]}, got none: an .npz, a folder of images, or of results")


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device
