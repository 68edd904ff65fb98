"""Images with captions from anything that Hugging Face `datasets` loads (extra `swd-distill[datasets]`)."""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from PIL import Image

from swd_data import check_text, image_size, open_image, reading
from swd_data.images import Colour
from swd_distill.data.samples import Sample, Source

TEXTS = ("text", "prompt", "caption", "txt")  # the last is that of tars in WebDataset's form


def open_hub(path: Path, streaming: bool, limit: int, background: Colour) -> Source:
    """Open the split "train" of a hub id or of a folder of parquet files, tars or whatever else `datasets` reads.

    Streaming reads it as it comes, up to `limit` samples; else it is downloaded, and unpacked into its cache, first.

    Raises:
        ValueError: no `datasets`, nothing that it reads, or no column of images or of texts.
    """
    found = _load(path, streaming)
    image, text = _columns(found, path)
    rows = found.select_columns([image, text]).cast_column(image, _datasets(path).Image(decode=False))
    columns = _Columns(image, text, path, background)
    return _Stream(rows, columns, limit) if streaming else _Table(rows, columns)


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
            "expected metadata.jsonl or metadata.csv, or columns image and text, prompt or caption "
            f"in {path}, got {', '.join(names) or 'none'}"
        )
    return images[0], texts[0]


@dataclass(frozen=True)
class _Columns:
    """How a row becomes a sample."""

    image: str
    text: str
    path: Path
    background: Colour

    def sample(self, place: int, text: Any, cell: Callable[[], Any]) -> Sample:
        """Return the sample of a row; `cell` gets what its column of images holds."""
        name = f"row {place} of {self.path}"

        def frames(count: int) -> list[Image.Image]:
            if not isinstance(text, str):
                raise ValueError(f"expected a text in {name}, got {text!r}")
            check_text(text, name)
            return [open_image(_file(cell(), name, self.path), name, background=self.background)]

        return Sample(str(text), name, place, frames, lambda: image_size(_file(cell(), name, self.path), name))


class _Table:
    """A data set on disk, its rows in any order."""

    def __init__(self, rows: Any, columns: _Columns) -> None:
        self._rows, self._columns, self._texts = rows, columns, rows[columns.text][:]

    @property
    def digest(self) -> str:
        """Return the checksum of name and texts."""
        return _digest(self._columns.path.name, self._texts)

    def files(self, start: int, stop: int) -> str | None:
        """Return a checksum of the sizes of all files of a folder that is here, for a row is not of one alone."""
        return self._sizes

    @cached_property
    def _sizes(self) -> str | None:
        path = self._columns.path
        found = sorted(path.rglob("*")) if path.is_dir() else []
        sizes = [(str(file.relative_to(path)), file.stat().st_size) for file in found if file.is_file()]
        return hashlib.sha256(repr(sizes).encode()).hexdigest() if sizes else None

    def __len__(self) -> int:
        return len(self._texts)

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        """Read samples."""
        for place, text in enumerate(self._texts[start:stop], start):
            yield self._columns.sample(place, text, partial(self._cell, place))

    def _cell(self, place: int) -> Any:
        return self._rows[place][self._columns.image]


class _Stream:
    """A data set as it comes: rows that were passed by do not come again."""

    def __init__(self, rows: Any, columns: _Columns, limit: int) -> None:
        self._rows, self._columns = iter(rows), columns
        self._limit, self._place = limit, 0

    @property
    def digest(self) -> str:
        """Return the checksum of name and limit."""
        return _digest(self._columns.path.name, self._limit)

    def files(self, start: int, stop: int) -> None:
        """Return nothing: what comes is not there before."""

    def __len__(self) -> int:
        return self._limit

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        """Read samples, passing by those before."""
        assert self._place <= start
        while self._place < min(stop, self._limit):
            row = next(self._rows, None)
            if row is None:
                return
            place, self._place = self._place, self._place + 1
            if place >= start:
                cell = row[self._columns.image]
                yield self._columns.sample(place, row[self._columns.text], partial(lambda cell: cell, cell))


def _file(cell: dict[str, Any] | None, name: str, path: Path) -> bytes:
    """Return what is in a cell: bytes, or else a path, which `datasets` opens where it is the data set's own."""
    if cell is None:
        raise ValueError(f"expected an image, got none in {name}")
    if cell["bytes"] is not None:
        return bytes(cell["bytes"])
    if not _is_own(str(cell["path"]), path):
        raise ValueError(
            f"expected an image of the data set in {name}, got the path {cell['path']!r:.200}, which leads out of it: "
            "put the image in"
        )
    from datasets.utils.file_utils import xopen  # files, archives and addresses of the hub alike

    with reading(name, "an image", Exception), xopen(cell["path"], "rb") as file:
        return bytes(file.read())  # for `open_image`: `datasets` would take it for anything that Pillow knows


def _is_own(given: str, path: Path) -> bool:
    """Tell whether a path in a row leads to a file of the data set: in its folder, the hub's cache, or its repository.

    Rows may name any file and any address.
    """
    import datasets
    from huggingface_hub.constants import HF_HUB_CACHE

    given = given.rpartition("::")[2]  # of a file in an archive, the archive
    if os.environ.get("SWD_FOLLOW_LINKS") and "://" not in given:
        return True
    if "://" in given:
        return given.startswith(f"hf://datasets/{path}@")
    roots = (path, Path(HF_HUB_CACHE), Path(datasets.config.HF_DATASETS_CACHE))
    return any(Path(given).resolve().is_relative_to(root.resolve()) for root in roots)


def _digest(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
