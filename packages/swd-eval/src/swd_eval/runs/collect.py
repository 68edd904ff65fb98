"""Rows of a measure for all samples, kept on disk batch by batch: a run that stops goes on where it was.

Several processes do every second, third, ... batch each. A batch is the same samples whoever does it and whenever, as
what a network makes of a sample depends in its last bits on those beside it. A sample that cannot be read has a row of
NaN in its place, and its reason in a file beside the rows.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from swd_data import (
    VIDEOS,
    Clip,
    Sample,
    Skipped,
    claim,
    make_folder,
    open_image,
    read_object,
    read_rows,
    write_text,
    write_whole,
)
from swd_data.errors import is_expected
from swd_eval.measure import Measure, Prepare, Run
from swd_eval.processes import place, together


def collect(
    measure: Measure,
    samples: Sequence[Sample],
    folder: Path,
    *,
    batch: int = 16,
    threads: int = 4,
    skipped: Skipped | None = None,
) -> Tensor:
    """Return the rows (N, K) of all samples, computing those that the folder lacks; all processes call it.

    Scores go to NAME.jsonl, a line for each sample; features go to NAME.f32, K numbers for each. Until all are there,
    each batch is a file in NAME.parts. With `skipped` a sample that cannot be read is noted there and in
    NAME.skipped.jsonl, and its row is NaN.

    Raises:
        ValueError: a sample cannot be read, or with `skipped` too many, or a number is not finite; the batches before
            it are kept.
    """
    claim(folder / f"{measure.name}.json", measure.about, measure.name, writes=_names(measure))
    reasons = folder / f"{measure.name}.skipped.jsonl"
    if len(_read(measure, folder)) != len(samples):
        parts = _Parts(measure, samples, folder / f"{measure.name}.parts", batch, skipped)
        with together():
            make_folder(parts.folder)
            parts.failed.unlink(missing_ok=True)
        with together():
            parts.compute(threads)
        with together():
            if place()[0] == 0:
                found = parts.reasons()
                note(skipped, found)  # of all processes: here they may be too many
                reasons.unlink(missing_ok=True)
                if found:
                    write_reasons(reasons, found)
                whole = _encode(measure, samples, parts.read())
                write_whole(_path(measure, folder), lambda path: path.write_bytes(whole))
                shutil.rmtree(parts.folder)
    note(skipped, read_reasons(reasons))
    return _read(measure, folder)


def _names(measure: Measure) -> list[str]:
    return [f"{measure.name}.{suffix}" for suffix in ("f32", "jsonl", "parts", "skipped.jsonl")]


def stored(measure: Measure, folder: Path, num: int) -> Tensor:
    """Return the `num` rows that another run left in its folder.

    Raises:
        ValueError: it did not compute this measure, or with other weights or preprocessing.
    """
    path = folder / f"{measure.name}.json"
    if not path.is_file():
        raise ValueError(f"expected {measure.name} among the results in {folder}, got none: compute it there first")
    if read_object(path) != json.loads(json.dumps(measure.about)):
        raise ValueError(f"expected {path} made in the same mode, with the same weights, got others: not comparable")
    rows = _read(measure, folder)
    if len(rows) != num:
        raise ValueError(
            f"expected {measure.name} of {num} samples in {folder}, got {len(rows)}: finish that run first"
        )
    return rows


def note(skipped: Skipped | None, reasons: Mapping[str, str]) -> None:
    """Note samples that cannot be read, of which some may be known.

    Raises:
        ValueError: they are too many.
    """
    for name, reason in reasons.items():
        if skipped is not None and name not in skipped.reasons:
            skipped.add(name, ValueError(reason))


def read_reasons(*paths: Path) -> dict[str, str]:
    """Return why samples could not be read, by their names, as files say; one that is not there says nothing."""
    rows = [row for path in paths if path.is_file() for _, row in read_rows(path)]
    return {str(row.get("file_name")): str(row.get("reason")) for row in rows}


def write_reasons(path: Path, reasons: Mapping[str, str]) -> None:
    """Write what `read_reasons` reads."""
    rows = [{"file_name": name, "reason": reason} for name, reason in reasons.items()]
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


class _Parts:
    """The batches of a measure, each a file of float32, whole or absent."""

    def __init__(
        self, measure: Measure, samples: Sequence[Sample], folder: Path, batch: int, skipped: Skipped | None
    ) -> None:
        self.measure, self.samples, self.folder, self.batch, self.skipped = measure, samples, folder, batch, skipped
        self.starts = range(0, len(samples), batch)
        self.failed = folder / "failed"
        """There where a process failed, so that the others stop too."""

    def compute(self, threads: int) -> None:
        """Write the batches of this process that are not there."""
        index, number = place()
        missing = [start for start in self.starts[index::number] if not self._is_whole(start)]
        if not missing:
            return
        done = len(self.starts[index::number]) - len(missing)
        quiet = True if index else None  # None: where stderr is no terminal
        bar = tqdm(total=done + len(missing), initial=done, desc=self.measure.name, unit="batch", disable=quiet)
        try:
            with bar, ThreadPoolExecutor(threads) as pool:
                prepare, run = self.measure.load()
                for start in missing:
                    if self.failed.exists():
                        return
                    self._compute(start, prepare, run, pool)
                    bar.update()
        except Exception:
            self.failed.touch()
            raise

    def read(self) -> Tensor:
        """Return the rows of all batches."""
        rows = [np.fromfile(self._path(start), dtype="<f4") for start in self.starts]
        return torch.from_numpy(np.concatenate(rows).reshape(-1, self.measure.dim))

    def reasons(self) -> dict[str, str]:
        """Return why samples of all batches could not be read."""
        return read_reasons(*map(self._reasons_path, self.starts))

    def _compute(self, start: int, prepare: Prepare, run: Run, pool: Executor) -> None:
        few = self._few(start)
        found = list(pool.map(lambda sample: _open(sample, prepare), few))
        good = [index for index, each in enumerate(found) if not isinstance(each, ValueError)]
        rows = torch.full((len(few), self.measure.dim), torch.nan)
        bad = {few[index].name: error for index, error in enumerate(found) if isinstance(error, ValueError)}
        for name, error in bad.items():
            if self.skipped is None:
                raise error
            self.skipped.add(name, error)
        if good:
            kept = [few[index] for index in good]
            rows[good] = self._checked(kept, run([found[index] for index in good], [each.prompt for each in kept]))
        self._reasons_path(start).unlink(missing_ok=True)  # of a run with other batches
        if bad:
            write_reasons(self._reasons_path(start), {name: " ".join(str(bad[name]).split()) for name in bad})
        write_whole(self._path(start), lambda path: rows.numpy().astype("<f4").tofile(path))

    def _checked(self, samples: Sequence[Sample], rows: Tensor) -> Tensor:
        rows = rows.float().cpu().reshape(len(samples), self.measure.dim)
        for sample, row in zip(samples, rows, strict=True):
            if not row.isfinite().all():
                raise ValueError(
                    f"expected finite {self.measure.name} for {sample.name}, got {row.tolist()[:4]}: "
                    "check that file, and the weights"
                )
        return rows

    def _few(self, start: int) -> Sequence[Sample]:
        return self.samples[start : start + self.batch]

    def _path(self, start: int) -> Path:
        return self.folder / f"{start}.f32"

    def _reasons_path(self, start: int) -> Path:
        return self.folder / f"{start}.jsonl"

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
        rows = [_numbers(row, measure.fields, f"line {number} of {path}") for number, row in read_rows(path)]
        return torch.tensor(rows).reshape(-1, measure.dim)
    if path.stat().st_size % (4 * measure.dim):
        raise ValueError(f"expected {measure.dim} numbers a sample in {path}, got part of them: delete it")
    return torch.from_numpy(np.fromfile(path, dtype="<f4").reshape(-1, measure.dim))


def _numbers(row: Mapping[str, Any], fields: Sequence[str], where: str) -> list[float]:
    found = [row.get(field, "") for field in fields]
    if not all(isinstance(value, int | float | None) for value in found):
        raise ValueError(f"expected {', '.join(fields[:4])} in {where}, got {', '.join(row)}: delete that file")
    return [torch.nan if value is None else float(value) for value in found]


def _encode(measure: Measure, samples: Sequence[Sample], rows: Tensor) -> bytes:
    if not measure.fields:
        return rows.numpy().astype("<f4").tobytes()
    lines = [
        {"file_name": sample.name, "prompt": sample.prompt}
        | {field: None if value != value else value for field, value in zip(measure.fields, row, strict=True)}
        for sample, row in zip(samples, rows.tolist(), strict=True)
    ]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


def _open(sample: Sample, prepare: Prepare) -> object:
    """Return what the network takes, or why the sample cannot be read."""
    try:
        is_video = sample.path.suffix.lower() in VIDEOS
        return prepare(Clip.open(sample.path) if is_video else open_image(sample.path))
    except ValueError as error:
        if is_expected(error):
            return error
        raise
