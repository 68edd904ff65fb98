"""Images and videos: from a model's tensors to PIL, and to files."""

from pathlib import Path

import torch
from torch import Tensor

from swd_models.parts import Media, to_pil


def to_media(pixels: Tensor) -> list[Media]:
    """Turn images (B, 3, y, x) or videos (B, 3, frames, y, x) in [-1, 1] into PIL images or lists of frames."""
    return to_pil(((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).movedim(1, -1).cpu())


def save_media(media: Media, path: Path, *, playable: bool = False) -> None:
    """Write an image, or the frames of a video (`playable`: as every player knows it): whole or not at all."""
    temporary = path.with_suffix(f".tmp{path.suffix}")
    if isinstance(media, list):
        from swd_models.video import write_video

        write_video(temporary, media, playable=playable)
    else:
        media.save(temporary, compress_level=1)  # of a PNG: a quarter of the time for a tenth more bytes
    temporary.replace(path)
