"""`swd-eval images` and `swd-eval videos`: metrics of a folder."""

import json
from collections.abc import Sequence
from pathlib import Path

from swd_data import Kind, Sample, claim, read_rows, read_samples, write_text
from swd_data.layout import samples_of, teachers_of
from swd_eval.devices import device_name, find_device
from swd_eval.distances.fid import Statistics
from swd_eval.fetch import fetch
from swd_eval.measure import Measure, require
from swd_eval.processes import is_main
from swd_eval.runs.metrics import (
    DISTANCES,
    SCORES,
    check_names,
    check_reference,
    diagnostic_numbers,
    distance_number,
    diversity_number,
    open_diagnostics,
    open_score,
    score_numbers,
    space_of,
    weights_of,
)
from swd_eval.runs.reference import Reference, write_statistics
from swd_eval.runs.results import WRITES, Number, write_results
from swd_eval.runs.rows import Rows, digests


def evaluate(
    folder: Path,
    out: Path,
    metrics: Sequence[str],
    *,
    kind: Kind = "images",
    prompts: Path | None = None,
    ref: Path | None = None,
    ref_rows: Path | None = None,
    weights: Path = Path("weights"),
    offline: bool = False,
    device: str | None = None,
    batch: int = 16,
    max_bad: float = 0.01,
) -> str:
    """Compute metrics of images or videos into a folder, where each is done once; return the table.

    What is computed of a folder that is the reference is kept in `ref_rows`, by default OUT/reference.

    Samples, or a reference's, that cannot be read are left out of all numbers, if they are no more than the share
    `max_bad`. In a launch of several processes all call it: each does its share, and the main one returns the table.

    Raises:
        ValueError: anything about the samples, prompts, reference or weights that makes a number untrue.
    """
    check_names(metrics, kind)
    named, folder, ref = folder.resolve().name, samples_of(folder), ref and teachers_of(ref)
    if batch < 1 or not 0 <= max_bad <= 1:
        raise ValueError(f"expected --batch of 1 or more and --max-bad from 0 to 1, got {batch} and {max_bad}")
    if kind == "videos":
        require("video", "av")
    samples = read_samples(folder, prompts, kind)
    reference = Reference(ref, ref_rows or out / "reference", kind, batch, max_bad) if ref else None
    _check(metrics, samples, reference, kind)
    fetch(weights_of(metrics), weights, offline=offline)
    device = find_device(device)
    claim(out / "settings.json", digests(samples, kind), "results", writes=WRITES)
    run = _Run(kind, metrics, Rows(samples, out, batch, max_bad), out, weights, device, reference)
    run.collect()
    if not is_main():
        return ""
    numbers, counted = run.numbers(), run.rows.samples
    run.write_samples()
    settings = {
        kind: str(folder.resolve()),
        f"num_{kind}": len(counted),
        "num_prompts": len({sample.prompt for sample in counted if sample.prompt}),
        **digests(samples, kind),
        "device": device_name(device),
        "skipped": run.rows.skipped,
    }
    notes = [*run.rows.note(kind), *(reference.left_out() if reference else ())]
    return f"{write_results(out, named, numbers, settings, notes)}\nwrote {out}"


class _Run:
    """One folder of images or videos under evaluation."""

    def __init__(
        self,
        kind: Kind,
        metrics: Sequence[str],
        rows: Rows,
        out: Path,
        weights: Path,
        device: str,
        reference: Reference | None,
    ) -> None:
        self.rows, self.out, self.device, self.reference = rows, out, device, reference
        self.spaces = {metric: space_of(metric, weights, device) for metric in metrics if metric in DISTANCES}
        self.scores = {metric: open_score(metric, weights, device) for metric in metrics if metric in SCORES}
        self.diagnostics = open_diagnostics(kind) if "diagnostics" in metrics else None
        compared = {each.name: each for each in (*(self.diagnostics or ()), *self.spaces.values())}
        self.compared, self.measures = list(compared.values()), [*self.scores.values(), *compared.values()]

    def collect(self) -> None:
        """Compute all rows."""
        for metric, space in self.spaces.items():
            assert self.reference is not None
            check_reference(metric, space, self.reference)
        self.rows.collect(self.measures)
        if self.reference:
            self.reference.collect(self.compared)

    def numbers(self) -> list[Number]:
        """Return all numbers, of rows that are there."""
        prompts, numbers = [sample.prompt for sample in self.rows.samples], []
        for metric, measure in self.scores.items():
            numbers += score_numbers(metric, self.rows.of(measure), prompts, measure)
        if self.diagnostics:
            numbers += diagnostic_numbers(*self.diagnostics, self.rows.of, prompts, self.reference)
        numbers += [self._distance(metric, space) for metric, space in self.spaces.items()]
        if self.diagnostics:
            different = {space.name: space for space in self.spaces.values()}
            varieties = [diversity_number(self.rows.of(space), prompts, space) for space in different.values()]
            numbers += [variety for variety in varieties if variety]
        return numbers

    def _distance(self, metric: str, space: Measure) -> Number:
        """Return a distance, and leave the statistics of both sides as files."""
        assert self.reference is not None
        rows, real, mode = self.rows.of(space), self.reference.rows(space), str(space.about["mode"])
        write_statistics(self.out / f"statistics-{mode}.npz", Statistics.of(rows), mode)
        if real is not None:
            write_statistics(self.out / f"reference-{mode}.npz", Statistics.of(real), mode)
        return distance_number(metric, rows, space, self.reference, self.device)

    def write_samples(self) -> None:
        """Write all scores of each image to samples.jsonl, also those of earlier runs into the same folder."""
        path, samples = self.out / "samples.jsonl", self.rows.samples
        before = {row.get("file_name"): row for _, row in read_rows(path)} if path.is_file() else {}
        rows = [before.get(each.name, {"file_name": each.name, "prompt": each.prompt}) for each in samples]
        for measure in filter(lambda each: each.fields, self.measures):
            for row, values in zip(rows, self.rows.of(measure).tolist(), strict=True):
                row |= dict(zip(measure.fields, values, strict=False))
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_text(path, text)


def _check(metrics: Sequence[str], samples: Sequence[Sample], reference: Reference | None, kind: Kind) -> None:
    """Raise ValueError for metrics that lack prompts or a reference, and for a reference that is none."""
    ref = reference and reference.path
    if ref and not (ref.is_dir() or (ref.is_file() and kind == "images")):
        what = "an .npz or a folder" if kind == "images" else "a folder"
        raise ValueError(f"expected {what} as --ref, got {ref}")
    scores = [name for name in metrics if name in SCORES]
    if scores and not all(sample.prompt for sample in samples):
        without = [sample.name for sample in samples if not sample.prompt]
        raise ValueError(
            f"expected a prompt for each {kind.removesuffix('s')} for {scores[0]}, got {len(without)} of "
            f"{len(samples)} without, first {without[0]}: give --prompts FILE, or a .txt beside each"
        )
    distances = [name for name in metrics if name in DISTANCES]
    if distances and reference is None:
        raise ValueError(
            f"expected --ref FOLDER with {distances[0]}, got no --ref: give real images, a run, or results; --metrics "
            "diagnostics needs none"
        )
