"""Rows of a measure for all images, kept on disk batch by batch: a run that stops goes on where it was."""

import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from swd_eval.files import claim
from swd_eval.measure import Measure, Prepare
from swd_eval.prompts import Sample


def collect(measure: Measure, samples: Sequence[Sample], folder: Path, *, batch: int = 16, threads: int = 4) -> Tensor:
    """Return the rows (N, K) of all samples, computing those that the folder lacks.

    Scores go to NAME.jsonl, a line for each image; features go to NAME.f32, K numbers for each.

    Raises:
        ValueError: an image cannot be read, or a number is not finite; rows before it are kept.
    """
    claim(folder / f"{measure.name}.json", measure.about)
    log = _Log(measure, folder)
    done = log.trim(samples)
    if done < len(samples):
        prepare, run = measure.load()
        with ThreadPoolExecutor(threads) as pool:
            for start in range(done, len(samples), batch):
                few = samples[start : start + batch]
                ready = list(pool.map(lambda sample: _open(sample, prepare), few))
                rows = run(ready, [sample.prompt for sample in few])
                log.append(few, rows.float().cpu().reshape(len(few), measure.dim))
                if sys.stderr.isatty():
                    end = "\n" if start + len(few) == len(samples) else ""
                    print(f"\r{measure.name} {start + len(few)} of {len(samples)}", end=end, file=sys.stderr)
    return log.read()


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
    rows = _Log(measure, folder).read()
    if len(rows) != num:
        raise ValueError(f"expected {measure.name} of {num} images in {folder}, got {len(rows)}: finish that run first")
    return rows


class _Log:
    """The rows of a measure on disk."""

    def __init__(self, measure: Measure, folder: Path) -> None:
        self.measure = measure
        self.path = folder / f"{measure.name}.{'jsonl' if measure.fields else 'f32'}"
        self.path.touch()

    def trim(self, samples: Sequence[Sample]) -> int:
        """Cut off a torn last row; return how many there are."""
        if not self.measure.fields:
            width = 4 * self.measure.dim
            done = min(self.path.stat().st_size // width, len(samples))
            with self.path.open("r+b") as file:
                file.truncate(done * width)
            return done
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        with self.path.open("r+b") as file:
            file.truncate(len(whole))
        return whole.count(b"\n")

    def append(self, samples: Sequence[Sample], rows: Tensor) -> None:
        """Write rows; those before one that is not finite, and then raise."""
        good = rows.isfinite().all(1).tolist()
        num = good.index(False) if False in good else len(good)
        with self.path.open("ab") as file:
            file.write(self._encode(samples[:num], rows[:num]))
        if num < len(good):
            raise ValueError(
                f"expected finite {self.measure.name} for {samples[num].name}, got {rows[num].tolist()[:4]}: "
                "check that image, and the weights"
            )

    def read(self) -> Tensor:
        """Return all rows."""
        if self.measure.fields:
            lines = [json.loads(line) for line in self.path.read_text(encoding="utf-8").split("\n") if line]
            return torch.tensor([[line[field] for field in self.measure.fields] for line in lines])
        return torch.from_numpy(np.fromfile(self.path, dtype="<f4").reshape(-1, self.measure.dim))

    def _encode(self, samples: Sequence[Sample], rows: Tensor) -> bytes:
        if not self.measure.fields:
            return rows.numpy().astype("<f4").tobytes()
        lines = [
            {"file_name": sample.name, "prompt": sample.prompt} | dict(zip(self.measure.fields, row, strict=True))
            for sample, row in zip(samples, rows.tolist(), strict=True)
        ]
        return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


def _open(sample: Sample, prepare: Prepare) -> object:
    try:
        with Image.open(sample.path) as image:
            return prepare(image.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # PIL raises SyntaxError for some broken PNGs
        raise ValueError(f"expected an image in {sample.path}, got what PIL cannot read: {error}") from None
