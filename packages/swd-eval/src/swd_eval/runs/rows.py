"""The rows of all measures for the samples of a folder: of those that each of them could read."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from swd_data import Kind, Sample, Skipped
from swd_eval.measure import Measure
from swd_eval.processes import is_main, together
from swd_eval.runs.collect import collect, note, read_reasons, write_reasons


def digests(samples: Sequence[Sample], kind: Kind = "images") -> dict[str, str]:
    """Return digests of files and prompts, the former by names and sizes: reading all twice would double the time."""
    rows = {
        f"{kind}_sha256": [(sample.name, sample.path.stat().st_size) for sample in samples],
        "prompts_sha256": [sample.prompt for sample in samples],
    }
    return {name: hashlib.sha256(json.dumps(row).encode()).hexdigest() for name, row in rows.items()}


class Rows:
    """Rows on disk, and the samples that count: those that no measure of this folder, ever, failed to read."""

    def __init__(self, samples: Sequence[Sample], folder: Path, batch: int, max_bad: float) -> None:
        """Take the share of the samples that may be bad."""
        self._all, self._folder, self._batch = samples, folder, batch
        self._skipped = Skipped(folder / "skipped.jsonl", len(samples), max_bad)

    @property
    def samples(self) -> list[Sample]:
        """The samples that count."""
        return [sample for sample in self._all if sample.name not in self._skipped.reasons]

    @property
    def skipped(self) -> list[dict[str, Any]]:
        """The others: the name of each, its place among all, and the reason."""
        reasons = self._skipped.reasons
        return [
            {"file_name": sample.name, "row": row, "reason": reasons[sample.name]}
            for row, sample in enumerate(self._all)
            if sample.name in reasons
        ]

    def collect(self, measures: Iterable[Measure]) -> None:
        """Compute all rows, one measure after another: only one model is in memory. All processes call it.

        Raises:
            ValueError: too many samples cannot be read.
        """
        note(self._skipped, read_reasons(*sorted(self._folder.glob("*.skipped.jsonl"))))
        for measure in measures:
            collect(measure, self._all, self._folder, batch=self._batch, skipped=self._skipped)
        with together():  # from here on nobody notes anything
            if not self.samples:
                raise ValueError(f"expected samples that can be read, got none: see {self._skipped.path}")
        if is_main():
            self._skipped.path.unlink(missing_ok=True)  # what was mended since
            if self.skipped:
                write_reasons(self._skipped.path, {row["file_name"]: row["reason"] for row in self.skipped})

    def of(self, measure: Measure) -> Tensor:
        """Return the rows of a measure that was collected, of the samples that count."""
        rows = collect(measure, self._all, self._folder, batch=self._batch, skipped=self._skipped)
        return keep(rows, self.skipped)

    def note(self, what: str) -> list[str]:
        """Return what a reader has to know of the samples that are left out."""
        if not self.skipped:
            return []
        share = f"{len(self.skipped)} of {len(self._all)}"
        return [f"{share} {what} cannot be read and are left out of all numbers: see {self._skipped.path.name}"]


def keep(rows: Tensor, skipped: Sequence[dict[str, Any]]) -> Tensor:
    """Return rows without those that are skipped."""
    places = {row["row"] for row in skipped}
    return rows[[place for place in range(len(rows)) if place not in places]] if places else rows
