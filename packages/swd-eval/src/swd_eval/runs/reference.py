"""What images or videos are compared with: statistics in an .npz, a folder of the kind, or a folder of results."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from swd_data import Kind, Sample, checksum, find_files, reading, write_whole
from swd_eval.distances.fid import Statistics
from swd_eval.measure import Measure
from swd_eval.runs.collect import stored
from swd_eval.runs.results import read_results
from swd_eval.runs.rows import Rows, digests, keep


@dataclass(frozen=True)
class Reference:
    """A file of statistics or a folder."""

    path: Path
    out: Path
    """Where rows of a folder of images or videos are kept, those of each folder by itself."""
    kind: Kind = "images"
    batch: int = 16
    max_bad: float = 0.01

    def collect(self, measures: Sequence[Measure]) -> None:
        """Compute what the numbers need, or look whether it is there; all processes call it.

        Raises:
            ValueError: too many samples cannot be read, or what `rows` raises.
        """
        if self._of_samples:
            self._rows.collect(measures)
        for measure in measures:
            self.rows(measure)

    def rows(self, measure: Measure) -> Tensor | None:
        """Return a measure's rows for the reference; None if only statistics are there.

        Raises:
            ValueError: results of another mode, weights or preprocessing.
        """
        if self.path.is_file():
            return None
        if self._of_samples:
            return self._rows.of(measure)
        results = read_results(self.path)
        num, skipped = results.get(f"num_{self.kind}"), results.get("skipped", [])
        if not isinstance(num, int):
            raise ValueError(f"expected results of {self.kind} in {self.path}, got others")
        return keep(stored(measure, self.path, num + len(skipped)), skipped)

    def statistics(self, measure: Measure) -> Statistics:
        """Return mean and covariance of a space's features."""
        rows = self.rows(measure)
        return read_statistics(self.path, measure) if rows is None else Statistics.of(rows)

    def note(self) -> dict[str, Any]:
        """Return what a result says of the reference: a file's checksum, or a digest of a folder's names and sizes."""
        sha256: str | None
        if self.path.is_file():
            sha256 = checksum(self.path)
        elif self._of_samples:
            sha256 = self._digest
        else:
            sha256 = read_results(self.path).get(f"{self.kind}_sha256")
        return {"path": str(self.path.resolve()), "sha256": sha256}

    def left_out(self) -> list[str]:
        """Return what a reader has to know of samples that could not be read."""
        return self._rows.note(f"{self.kind} of the reference") if self._of_samples else []

    @property
    def _of_samples(self) -> bool:
        return self.path.is_dir() and not (self.path / "results.json").is_file()

    @cached_property
    def _samples(self) -> list[Sample]:
        return [Sample(name, path, "") for name, path in find_files(self.path, self.kind).items()]

    @cached_property
    def _digest(self) -> str:
        return digests(self._samples, self.kind)[f"{self.kind}_sha256"]

    @cached_property
    def _rows(self) -> Rows:
        return Rows(self._samples, self.out / self._digest[:12], self.batch, self.max_bad)


def read_statistics(path: Path, measure: Measure) -> Statistics:
    """Read `mu` and `sigma` of an .npz, and `mode` and `num` if they are there.

    Raises:
        ValueError: the file holds something else, or statistics of another mode or dimension.
    """
    broken = (ValueError, zipfile.BadZipFile, AttributeError, TypeError, MemoryError)
    with reading(path, "an .npz with mu and sigma", *broken), np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in ("mu", "sigma", "mode", "num") if name in file}
    if not {"mu", "sigma"} <= arrays.keys():
        raise ValueError(f"expected mu and sigma in {path}, got neither or one of them")
    mode, wanted = str(arrays.get("mode", "")), measure.about["mode"]
    if mode and mode != wanted:
        raise ValueError(f"expected statistics of mode {wanted} in {path}, got {mode}: modes are not comparable")
    mu, sigma = (torch.from_numpy(arrays[name].astype(np.float64)) for name in ("mu", "sigma"))
    if mu.shape != (measure.dim,) or sigma.shape != (measure.dim, measure.dim):
        raise ValueError(f"expected {measure.dim} dimensions in {path}, got mu {tuple(mu.shape)}: another network's?")
    if not (mu.isfinite().all() and sigma.isfinite().all()):
        raise ValueError(f"expected finite statistics in {path}, got NaN or infinity")
    return Statistics(mu, sigma, None, int(arrays.get("num", 0)) or None)


def write_statistics(path: Path, statistics: Statistics, mode: str) -> None:
    """Write an .npz that pytorch-fid reads too, with the mode and the number of images."""
    mu, sigma = statistics.mu.cpu().numpy(), statistics.sigma.cpu().numpy()
    write_whole(path, lambda temporary: np.savez(temporary, mu=mu, sigma=sigma, mode=mode, num=statistics.num or 0))


def stated_mode(path: Path) -> str:
    """Return the mode that a reference states; third parties' files state none, and are taken at the user's word."""
    if not path.is_file():
        return "of this run"
    with np.load(path, allow_pickle=False) as file:
        return str(file["mode"]) if "mode" in file else "not stated"
