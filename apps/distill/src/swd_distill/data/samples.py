"""Images or clips with captions, read when they are asked for, whatever they come from."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from swd_data import fit_image

Size = tuple[int, ...]


@dataclass(frozen=True)
class Sample:
    """A caption and what it describes.

    Attributes:
        name: What messages call it.
        place: Its row in its source.
        frames: Opens so many frames of a clip, or an image; raises ValueError for what is neither, or too short.
        shape: Returns width and height.
    """

    text: str
    name: str
    place: int
    frames: Callable[[int], list[Image.Image]]
    shape: Callable[[], tuple[int, int]]


class Source(Protocol):
    """Samples in an order that stays."""

    @property
    def digest(self) -> str:
        """Return a checksum of what can be told of them without reading images."""
        ...

    def files(self, start: int, stop: int) -> str | None:
        """Return a checksum of the sizes of samples' files; None where they have none that may change."""
        ...

    def __len__(self) -> int:
        """Count them; of a stream, the most that there may be."""
        ...

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        """Read samples; fewer where they end before. A stream only goes forward."""
        ...


def num_frames(pixels: Size) -> int:
    """Return how many frames a size in pixels takes: (height, width) is an image."""
    return pixels[0] if len(pixels) == 3 else 1


def to_pixels(frames: list[Image.Image], size: Size, name: str) -> Tensor:
    """Scale and crop frames to a size in pixels: (3, height, width) or (3, frames, height, width) in 0..255.

    Raises:
        ValueError: they would have to be enlarged.
    """
    height, width = size[-2:]
    tensors = [torch.from_numpy(fit_image(frame, height, width, name)).permute(2, 0, 1) for frame in frames]
    return tensors[0] if len(size) == 2 else torch.stack(tensors, dim=1)
