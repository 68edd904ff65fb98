"""Images or clips with captions, read when they are asked for, whatever they come from."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

Size = tuple[int, ...]


@dataclass(frozen=True)
class Sample:
    """A caption and what it describes.

    Attributes:
        name: What messages call it.
        open: Returns so many first frames of a clip; of an image that one, not decoded yet.
    """

    text: str
    name: str
    open: Callable[[int], list[Image.Image]]

    def frames(self, count: int) -> list[Image.Image]:
        """Open an image, or the first frames of a clip.

        Raises:
            ValueError: neither, or a clip with fewer frames.
        """
        try:
            return self.open(count)
        except OSError as error:
            raise ValueError(f"expected an image, got {self.name}: {error}") from error


class Source(Protocol):
    """Samples in an order that stays."""

    @property
    def digest(self) -> str:
        """Return a checksum of what can be told of them without reading images."""
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
        ValueError: a broken image, or one that would have to be enlarged.
    """
    height, width = size[-2:]
    try:
        tensors = [_fit(frame.convert("RGB"), height, width, name) for frame in frames]
    except OSError as error:
        raise ValueError(f"expected an image, got {name}: {error}") from error
    return tensors[0] if len(size) == 2 else torch.stack(tensors, dim=1)


def _fit(image: Image.Image, height: int, width: int, name: str) -> Tensor:
    if image.height < height or image.width < width:
        raise ValueError(f"expected at least {width}x{height} pixels, got {image.width}x{image.height}: {name}")
    ratio = max(height / image.height, width / image.width)
    if ratio < 1:
        image = image.resize((round(image.width * ratio), round(image.height * ratio)), Image.Resampling.LANCZOS)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return torch.from_numpy(np.array(image.crop((left, top, left + width, top + height)))).permute(2, 0, 1)
