"""Images or videos with captions in Hugging Face's `imagefolder` form: files beside a metadata.jsonl or .csv."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from swd_distill.prompts import read_csv, read_jsonl
from swd_models.video import read_frames

METADATA = ("metadata.jsonl", "metadata.csv")


def read_imagefolder(folder: Path) -> list[tuple[Path, str]]:
    """Return (image file, text) pairs in the order of the metadata.

    Raises:
        ValueError: no metadata, a broken line, or a file that is not there.
    """
    found = next((folder / name for name in METADATA if (folder / name).is_file()), None)
    if found is None:
        raise ValueError(f"expected {' or '.join(METADATA)} in {folder}, got neither: run `swd-distill generate` first")
    pairs = []
    for number, row in _rows(found):
        name, text = row.get("file_name"), row.get("text")
        if not isinstance(name, str) or not isinstance(text, str):
            raise ValueError(f"expected file_name and text in line {number} of {found}, got {sorted(map(str, row))}")
        if not (folder / name).exists():  # a clip may be a folder of frames
            raise ValueError(f"expected the file {folder / name} of line {number} of {found}, got no such file")
        pairs.append((folder / name, text))
    if not pairs:
        raise ValueError(f"expected at least one image in {found}, got none")
    return pairs


def load_image(path: Path, height: int, width: int) -> Tensor:
    """Read an image, scale and crop it to the size, as a tensor (3, height, width) in [-1, 1].

    Raises:
        ValueError: no image, or one that would have to be enlarged.
    """
    try:
        image = Image.open(path).convert("RGB")
    except OSError as error:
        raise ValueError(f"expected an image, got {path}: {error}") from error
    return _fit(image, height, width, path)


def load_video(path: Path, num_frames: int, height: int, width: int) -> Tensor:
    """Read the first frames of a video, scaled and cropped, as a tensor (3, num_frames, height, width) in [-1, 1].

    Raises:
        ValueError: no video, one with fewer frames, or one that would have to be enlarged.
    """
    return torch.stack([_fit(frame, height, width, path) for frame in read_frames(path, num_frames)], dim=1)


def _fit(image: Image.Image, height: int, width: int, path: Path) -> Tensor:
    if image.height < height or image.width < width:
        raise ValueError(f"expected at least {width}x{height} pixels, got {image.width}x{image.height}: {path}")
    ratio = max(height / image.height, width / image.width)
    if ratio < 1:
        image = image.resize((round(image.width * ratio), round(image.height * ratio)), Image.Resampling.LANCZOS)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    pixels: Tensor = pil_to_tensor(image.crop((left, top, left + width, top + height)))
    return pixels.float() / 127.5 - 1


def _rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return the rows with their line numbers."""
    text = path.read_text(encoding="utf-8-sig")
    return read_csv(text) if path.suffix == ".csv" else read_jsonl(text, path)
