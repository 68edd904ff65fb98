"""Images with captions from anything that Hugging Face `datasets` loads (extra `swd-distill[datasets]`)."""

import hashlib
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from swd_distill.data.samples import Sample, Source
from swd_sample.prompts import COLUMNS

TEXTS = (*COLUMNS, "txt")  # the last is that of tars in WebDataset's form


def open_hub(path: Path, streaming: bool, limit: int) -> Source:
    """Open the split "train" of a hub id or of a folder of parquet files, tars or whatever else `datasets` reads.

    Streaming reads it as it comes, up to `limit` samples; else it is downloaded, and unpacked into its cache, first.

    Raises:
        ValueError: no `datasets`, nothing that it reads, or no column of images or of texts.
    """
    found = _load(path, streaming)
    image, text = _columns(found, path)
    rows = found.select_columns([image, text]).cast_column(image, _datasets(path).Image(decode=False))
    return _Stream(rows, image, text, path, limit) if streaming else _Table(rows, image, text, path)


def _datasets(path: Path) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            f"expected metadata.jsonl or metadata.csv in {path}, or the package that reads other data sets: "
            "pip install 'swd-distill[datasets]'"
        ) from error
    return datasets


def _load(path: Path, streaming: bool) -> Any:
    datasets = _datasets(path)
    try:
        return datasets.load_dataset(str(path), split="train", streaming=streaming)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"expected a data set that `datasets` loads, got {path}: {error}") from error


def _columns(found: Any, path: Path) -> tuple[str, str]:
    """Return the names of the columns of images and texts."""
    names, kind = found.column_names or [], _datasets(path).Image
    images = ["image"] if "image" in names else [name for name in names if isinstance(found.features[name], kind)]
    texts = [name for name in TEXTS if name in names]
    if not images or not texts:
        raise ValueError(
            f"expected metadata.jsonl or metadata.csv, or columns image and {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]} "
            f"in {path}, got {', '.join(names) or 'none'}"
        )
    return images[0], texts[0]


class _Table:
    """A data set on disk, its rows in any order."""

    def __init__(self, rows: Any, image: str, text: str, path: Path) -> None:
        self._rows, self._image, self._path, self._texts = rows, image, path, rows[text][:]

    @property
    def digest(self) -> str:
        """Return the checksum of name and texts."""
        return _digest(self._path.name, self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        """Read samples."""
        for place, text in enumerate(self._texts[start:stop], start):
            name = f"row {place} of {self._path}"
            yield Sample(_checked(text, name), name, partial(self._open, place))

    def _open(self, place: int, count: int) -> list[Image.Image]:
        return _open(self._rows[place][self._image], count)


class _Stream:
    """A data set as it comes: rows that were passed by do not come again."""

    def __init__(self, rows: Any, image: str, text: str, path: Path, limit: int) -> None:
        self._rows, self._image, self._text, self._path = iter(rows), image, text, path
        self._limit, self._place = limit, 0

    @property
    def digest(self) -> str:
        """Return the checksum of name and limit."""
        return _digest(self._path.name, self._limit)

    def __len__(self) -> int:
        return self._limit

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        """Read samples, passing by those before."""
        assert self._place <= start
        while self._place < min(stop, self._limit):
            row = next(self._rows, None)
            if row is None:
                return
            name = f"row {self._place} of {self._path}"
            self._place += 1
            if self._place > start:
                yield Sample(_checked(row[self._text], name), name, partial(_open, row[self._image]))


def _open(value: dict[str, Any] | None, count: int) -> list[Image.Image]:
    """Open what `datasets` holds undecoded: bytes, or else a path, which may be remote."""
    if value is None:
        raise OSError("it has none")
    if value["bytes"] is not None:
        return [Image.open(BytesIO(value["bytes"]))]
    import datasets

    return [datasets.Image().decode_example(value)]


def _checked(text: Any, name: str) -> str:
    if not isinstance(text, str):
        raise ValueError(f"expected a text in {name}, got {text!r}")
    return text


def _digest(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
