"""Images or videos with captions in Hugging Face's `imagefolder` form: files beside a metadata.jsonl or .csv."""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL import Image

from swd_distill.data.samples import Sample
from swd_models.video import read_frames
from swd_sample.prompts import read_rows

METADATA = ("metadata.jsonl", "metadata.csv")


class ImageFolder:
    """The files of a folder in the order of its metadata.

    Raises:
        ValueError: no metadata, a broken line, or a file that is not there.
    """

    def __init__(self, folder: Path, video: bool) -> None:
        self._pairs, self._open = read_imagefolder(folder), _open_video if video else _open_image

    @property
    def digest(self) -> str:
        """Return the checksum of names and texts."""
        return hashlib.sha256(repr([(path.name, text) for path, text in self._pairs]).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._pairs)

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        """Read samples."""
        for path, text in self._pairs[start:stop]:
            yield Sample(text, str(path), partial(self._open, path))


def read_imagefolder(folder: Path) -> list[tuple[Path, str]]:
    """Return (image file, text) pairs in the order of the metadata."""
    found = metadata_of(folder)
    if found is None:
        raise ValueError(f"expected {' or '.join(METADATA)} in {folder}, got neither: run `swd-distill generate` first")
    pairs = []
    for number, row in read_rows(found):
        name, text = row.get("file_name"), row.get("text")
        if not isinstance(name, str) or not isinstance(text, str):
            raise ValueError(f"expected file_name and text in line {number} of {found}, got {sorted(map(str, row))}")
        if not (folder / name).exists():  # a clip may be a folder of frames
            raise ValueError(f"expected the file {folder / name} of line {number} of {found}, got no such file")
        pairs.append((folder / name, text))
    if not pairs:
        raise ValueError(f"expected at least one image in {found}, got none")
    return pairs


def metadata_of(folder: Path) -> Path | None:
    """Return the file that makes a folder an image folder, if it has one."""
    return next((folder / name for name in METADATA if (folder / name).is_file()), None)


def _open_image(path: Path, count: int) -> list[Image.Image]:
    return [Image.open(path)]


def _open_video(path: Path, count: int) -> list[Image.Image]:
    return read_frames(path, count)
