"""Images or clips with captions in a folder, as `swd_data.read_pairs` finds them."""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL import Image

from swd_data import image_size, open_image, read_frames, read_pairs
from swd_data.images import Colour
from swd_distill.data.samples import Sample


class ImageFolder:
    """The samples of a folder in its order: images, or clips read at `fps` frames a second.

    Raises:
        ValueError: no captions, or a broken line.
    """

    def __init__(self, folder: Path, fps: int | None, background: Colour) -> None:
        self._pairs = read_pairs(folder, "videos" if fps else "images")
        self._fps, self._background = fps, background

    @property
    def digest(self) -> str:
        """Return the checksum of names and texts."""
        rows = [(pair.path.name, pair.prompt) for pair in self._pairs]
        return hashlib.sha256(repr(rows).encode()).hexdigest()

    def files(self, start: int, stop: int) -> str:
        """Return a checksum of the sizes of samples' files, in bytes: to read them all would take long."""
        paths = [pair.path for pair in self._pairs[start:stop]]
        sizes = [path.stat().st_size if path.is_file() else None for path in paths]
        return hashlib.sha256(repr(sizes).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._pairs)

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        """Read samples."""
        for place, pair in enumerate(self._pairs[start:stop], start):
            name = f"{pair.path} of {pair.where}" if not pair.path.exists() else str(pair.path)
            yield Sample(
                pair.prompt, name, place, partial(self._open, pair.path, name), partial(self._shape, pair.path)
            )

    def _open(self, path: Path, name: str, count: int) -> list[Image.Image]:
        if not path.exists():
            raise ValueError(f"expected the file {name}, got no such file")
        if self._fps:
            return read_frames(path, count, self._fps, background=self._background)
        return [open_image(path, background=self._background)]

    def _shape(self, path: Path) -> tuple[int, int]:
        return read_frames(path, 1)[0].size if self._fps else image_size(path)
