"""Rows of a measure for all samples, kept on disk batch by batch: a run that stops goes on where it was.

Several processes do every second, third, ... batch each. A batch is the same samples whoever does it and whenever, as
what a network makes of a sample depends in its last bits on those beside it.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from swd_eval.files import claim, write_whole
from swd_eval.measure import Measure, Prepare
from swd_eval.processes import place, together
from swd_eval.prompts import VIDEOS, Sample
from swd_eval.video import Video


def collect(measure: Measure, samples: Sequence[Sample], folder: Path, *, batch: int = 16, threads: int = 4) -> Tensor:
    """Return the rows (N, K) of all samples, computing those that the folder lacks; all processes call it.

    Scores go to NAME.jsonl, a line for each sample; features go to NAME.f32, K numbers for each. Until all are there,
    each batch is a file in NAME.parts.

    Raises:
        ValueError: a sample cannot be read, or a number is not finite; the batches before it are kept.
    """
    claim(folder / f"{measure.name}.json", measure.about)
    rows = _read(measure, folder)
    if len(rows) == len(samples):
        return rows
    parts = _Parts(measure, samples, folder / f"{measure.name}.parts", batch)
    with together():
        parts.folder.mkdir(exist_ok=True)
        parts.failed.unlink(missing_ok=True)
    with together():
        parts.compute(threads)
    with together():
        if place()[0] == 0:
            write_whole(_path(measure, folder), lambda path: path.write_bytes(_encode(measure, samples, parts.read())))
            shutil.rmtree(parts.folder)
    return _read(measure, folder)


def stored(measure: Measure, folder: Path, num: int | None) -> Tensor:
    """Return the `num` rows that another run left in its folder.

    Raises:
        ValueError: it did not compute this measure, or with other weights or preprocessing.
    """
    path = folder / f"{measure.name}.json"
    if not path.is_file():
        raise ValueError(f"expected {measure.name} among the results in {folder}, got none: compute it there first")
    if json.loads(path.read_text(encoding="utf-8")) != json.loads(json.dumps(measure.about)):
        raise ValueError(f"expected {path} made in the same mode, with the same weights, got others: not comparable")
    rows = _read(measure, folder)
    if len(rows) != num:
        raise ValueError(
            f"expected {measure.name} of {num} samples in {folder}, got {len(rows)}: finish that run first"
        )
    return rows


class _Parts:
    """The batches of a measure, each a file of float32, whole or absent."""

    def __init__(self, measure: Measure, samples: Sequence[Sample], folder: Path, batch: int) -> None:
        self.measure, self.samples, self.folder, self.batch = measure, samples, folder, batch
        self.starts = range(0, len(samples), batch)
        self.failed = folder / "failed"
        """There where a process failed, so that the others stop too."""

    def compute(self, threads: int) -> None:
        """Write the batches of this process that are not there."""
        index, number = place()
        missing = [start for start in self.starts[index::number] if not self._is_whole(start)]
        if not missing:
            return
        try:
            prepare, run = self.measure.load()
            with ThreadPoolExecutor(threads) as pool:
                for start in missing:
                    if self.failed.exists():
                        return
                    few = self._few(start)
                    ready = list(pool.map(lambda sample: _open(sample, prepare), few))
                    self._write(start, run(ready, [sample.prompt for sample in few]))
                    if index == 0 and sys.stderr.isatty():
                        end = "\n" if start == missing[-1] else ""
                        done = f"{start + len(few)} of {len(self.samples)}"
                        print(f"\r{self.measure.name} {done}", end=end, file=sys.stderr)
        except Exception:
            self.failed.touch()
            raise

    def read(self) -> Tensor:
        """Return the rows of all batches."""
        rows = [np.fromfile(self._path(start), dtype="<f4") for start in self.starts]
        return torch.from_numpy(np.concatenate(rows).reshape(-1, self.measure.dim))

    def _write(self, start: int, rows: Tensor) -> None:
        few = self._few(start)
        rows = rows.float().cpu().reshape(len(few), self.measure.dim)
        for sample, row in zip(few, rows, strict=True):
            if not row.isfinite().all():
                raise ValueError(
                    f"expected finite {self.measure.name} for {sample.name}, got {row.tolist()[:4]}: "
                    "check that file, and the weights"
                )
        write_whole(self._path(start), lambda path: rows.numpy().astype("<f4").tofile(path))

    def _few(self, start: int) -> Sequence[Sample]:
        return self.samples[start : start + self.batch]

    def _path(self, start: int) -> Path:
        return self.folder / f"{start}.f32"

    def _is_whole(self, start: int) -> bool:
        """Tell whether a batch is there, and of this size: another run may have had larger or smaller ones."""
        path = self._path(start)
        return path.is_file() and path.stat().st_size == 4 * self.measure.dim * len(self._few(start))


def _path(measure: Measure, folder: Path) -> Path:
    return folder / f"{measure.name}.{'jsonl' if measure.fields else 'f32'}"


def _read(measure: Measure, folder: Path) -> Tensor:
    """Return the rows that are there: all, or none."""
    path = _path(measure, folder)
    if not path.is_file():
        return torch.empty(0, measure.dim)
    if measure.fields:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        return torch.tensor([[line[field] for field in measure.fields] for line in lines])
    return torch.from_numpy(np.fromfile(path, dtype="<f4").reshape(-1, measure.dim))


def _encode(measure: Measure, samples: Sequence[Sample], rows: Tensor) -> bytes:
    if not measure.fields:
        return rows.numpy().astype("<f4").tobytes()
    lines = [
        {"file_name": sample.name, "prompt": sample.prompt} | dict(zip(measure.fields, row, strict=True))
        for sample, row in zip(samples, rows.tolist(), strict=True)
    ]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


def _open(sample: Sample, prepare: Prepare) -> object:
    if sample.path.suffix.lower() in VIDEOS:
        return prepare(Video.open(sample.path))
    try:
        with Image.open(sample.path) as image:
            return prepare(image.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # PIL raises SyntaxError for some broken PNGs
        raise ValueError(f"expected an image in {sample.path}, got what PIL cannot read: {error}") from None
