"""What images or videos are compared with: statistics in an .npz, a folder of the kind, or a folder of results."""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from swd_eval.runs.collect import collect, stored
from swd_eval.distances.fid import Statistics
from swd_eval.files import write_whole
from swd_eval.measure import Measure
from swd_eval.prompts import Kind, Sample, digests, find_files
from swd_eval.weights import checksum


@dataclass(frozen=True)
class Reference:
    """A file of statistics or a folder."""

    path: Path
    out: Path
    """Where rows of a folder of images or videos are kept, those of each folder by itself."""
    kind: Kind = "images"
    batch: int = 16

    def rows(self, measure: Measure) -> Tensor | None:
        """Return a measure's rows for the reference; None if only statistics are there.

        Raises:
            ValueError: results of another mode, weights or preprocessing.
        """
        if self.path.is_file():
            return None
        if (self.path / "results.json").is_file():
            return stored(measure, self.path, results_of(self.path).get(f"num_{self.kind}"))
        samples = self._samples()
        return collect(measure, samples, self.out / self._digest(samples)[:12], batch=self.batch)

    def statistics(self, measure: Measure) -> Statistics:
        """Return mean and covariance of a space's features."""
        rows = self.rows(measure)
        return read_statistics(self.path, measure) if rows is None else Statistics.of(rows)

    def note(self) -> dict[str, Any]:
        """Return what a result says of the reference: a file's checksum, or a digest of a folder's names and sizes."""
        sha256: str | None
        if self.path.is_file():
            sha256 = checksum(self.path)
        elif (self.path / "results.json").is_file():
            sha256 = results_of(self.path).get(f"{self.kind}_sha256")
        else:
            sha256 = self._digest(self._samples())
        return {"path": str(self.path.resolve()), "sha256": sha256}

    def _samples(self) -> list[Sample]:
        return [Sample(name, path, "") for name, path in find_files(self.path, self.kind).items()]

    def _digest(self, samples: Sequence[Sample]) -> str:
        return digests(samples, self.kind)[f"{self.kind}_sha256"]


def read_statistics(path: Path, measure: Measure) -> Statistics:
    """Read `mu` and `sigma` of an .npz, and `mode` and `num` if they are there.

    Raises:
        ValueError: the file holds something else, or statistics of another mode or dimension.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("mu", "sigma", "mode", "num") if name in file}
    except (ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise ValueError(f"expected an .npz with mu and sigma, got {path}: {error}") from None
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


def results_of(folder: Path) -> dict[str, Any]:
    """Read the results.json of a folder."""
    path = folder / "results.json"
    if not path.is_file():
        raise ValueError(f"expected results.json in {folder}, got none: run swd-eval images or videos first")
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return results
