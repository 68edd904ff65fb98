"""Images and videos: from a model's tensors to PIL, and to files."""

from pathlib import Path

import torch
from torch import Tensor

from swd_data import save_image, write_video
from swd_models.parts import Media, to_pil


def to_media(pixels: Tensor) -> list[Media]:
    """Turn images (B, 3, y, x) or videos (B, 3, frames, y, x) in [-1, 1] into PIL images or lists of frames."""
    return to_pil(((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).movedim(1, -1).cpu())


def save_media(media: Media, path: Path, fps: int | None = None, *, playable: bool = False) -> None:
    """Write an image, or the frames of a video at `fps` (`playable`: as every player knows it), whole or not at all."""
    if isinstance(media, list):
        assert fps is not None
        write_video(path, media, fps, playable=playable)
    else:
        save_image(media, path)
