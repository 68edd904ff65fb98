"""Latents from what people have: images, videos, latent files, a training cache."""

from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm import tqdm

from swd_schedules.devices import find_device

IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
VIDEOS = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif"}
LATENTS = {".safetensors"}
LARGEST, MULTIPLE = 512, 16  # pixels


def read_latents(
    inputs: Sequence[str], model: str = "embedded", *, pixels: int | None = None, num_frames: int = 21, batch: int = 4
) -> Iterator[Tensor]:
    """Yield batches of latents of one size, from files and folders of one kind: images, videos or latents.

    Images and frames are shrunk, cut square to `pixels` (default: what the smallest image has, at most 512) and
    encoded by the autoencoder of `model`; videos frame by frame. Of latent files (the shards of a training cache among
    them) the largest size is read.

    Raises:
        ValueError: nothing to read, kinds mixed, or an image smaller than asked for.
    """
    files = [path for text in inputs for path in _files(Path(text))]
    kinds = {_kind(path) for path in files}
    if len(kinds) != 1 or not kinds <= {"images", "videos", "latents"}:
        found = ", ".join(sorted(kinds)) or "none"
        raise ValueError(f"expected images, videos or latents (.safetensors), got {found} in {', '.join(inputs)}")
    kind = kinds.pop()
    if kind == "latents":
        return _read_files(files, batch)
    return _encode(files, kind, model, pixels, num_frames, batch)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"expected a file or folder, got {path}, which does not exist")
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGES | VIDEOS | LATENTS)
    return [file for file in found if file.stem != "uncond"]  # a cache keeps the empty prompt's embedding so


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    kinds = {"images": IMAGES, "videos": VIDEOS, "latents": LATENTS}
    return next((name for name, suffixes in kinds.items() if suffix in suffixes), f"{path.suffix or path.name} files")


def _read_files(files: Sequence[Path], batch: int) -> Iterator[Tensor]:
    for path in tqdm(files, desc="latents", disable=len(files) < 2):
        try:
            with safe_open(path, framework="pt") as file:
                latents = file.get_slice(_largest(file, path))
                for start in range(0, latents.get_shape()[0], 16 * batch):
                    yield latents[start : start + 16 * batch]
        except SafetensorError as error:
            raise ValueError(f"expected a safetensors file, got {path}: {error}") from error


def _largest(file: Any, path: Path) -> str:
    """Return the tensor that holds latents: the only one, `latents`, or the largest `latents.HxW` of a cache."""
    names: list[str] = list(file.keys())
    candidates = [name for name in names if name.split(".")[0] == "latents"] or (names if len(names) == 1 else [])
    if not candidates:
        raise ValueError(f"expected a tensor named latents in {path}, got {', '.join(sorted(names)[:5])}")
    cells = {name: prod(file.get_slice(name).get_shape()[1:]) for name in candidates}
    return max(candidates, key=cells.__getitem__)


def _encode(
    files: Sequence[Path], kind: str, model: str, pixels: int | None, num_frames: int, batch: int
) -> Iterator[Tensor]:
    from swd_models import load_latents  # as above

    clips = ((path, _frames(path, kind, num_frames)) for path in files)
    side = pixels or min(LARGEST, *(_shorter_side(path, kind) for path in files)) // MULTIPLE * MULTIPLE
    device = find_device()
    autoencoder = load_latents(model)
    autoencoder.vae.to(device)
    for path, frames in tqdm(clips, desc=f"encode {kind}", total=len(files)):
        images = torch.stack([_to_tensor(frame, side, path) for frame in frames])
        with torch.no_grad():
            latents = torch.cat([autoencoder.encode(few.to(device)) for few in torch.split(images, batch)])
        yield latents if kind == "images" else latents.transpose(0, 1)[None]


def _shorter_side(path: Path, kind: str) -> int:
    return min(_frames(path, kind, 1)[0].size)


def _frames(path: Path, kind: str, num_frames: int) -> list[Image.Image]:
    """Read an image, or the first frames of a video."""
    if kind == "videos":
        from swd_models.video import read_frames  # imports diffusers: not for latents on disk

        return read_frames(path, num_frames)
    try:
        with Image.open(path) as image:
            return [ImageOps.exif_transpose(image).convert("RGB")]
    except OSError as error:
        raise ValueError(f"expected an image, got {path}, which cannot be read: {error}") from error


def _to_tensor(image: Image.Image, side: int, path: Path) -> Tensor:
    if min(image.size) < side:
        raise ValueError(f"expected images of {side} px or more, got {min(image.size)} in {path}: pass --pixels")
    square = ImageOps.fit(image, (side, side), Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(square, np.float32) / 127.5 - 1).permute(2, 0, 1)
