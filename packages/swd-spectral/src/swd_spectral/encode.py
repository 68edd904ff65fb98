"""Images and videos to latents, as they look: cut square, encoded by a family's autoencoder."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL.Image import Image
from torch import Tensor
from tqdm import tqdm

from swd_data import Skipped, fit_image, image_size, open_image, read_frames
from swd_schedules.devices import find_device
from swd_spectral.options import MULTIPLE, Source

LARGEST = 512  # pixels


def encode(files: Sequence[Path], kind: str, source: Source, skipped: Skipped, batch: int) -> Iterator[Tensor]:
    """Yield latents of one image, or of one video's frames, after the other, without the bad ones."""
    from swd_models import load_latents  # imports diffusers: not for latents on disk
    from swd_models.loading import family_of

    family_of(source.model)  # whether there is such a model is said first
    side = source.pixels or _common_side(files, kind, source, skipped)
    if side is None:
        return
    device, autoencoder = find_device(), load_latents(source.model)
    autoencoder.vae.to(device)
    for path in tqdm(files, desc=f"encode {kind}"):
        if str(path) in skipped.reasons:
            continue
        try:
            pixels = torch.stack([_pixels(frame, side, path) for frame in _frames(path, kind, source)])
        except ValueError as error:
            skipped.add(str(path), error)
            continue
        with torch.no_grad():
            latents = torch.cat([autoencoder.encode(few.to(device)) for few in torch.split(pixels, batch)])
        if not latents.isfinite().all():
            skipped.add(str(path), ValueError(f"expected finite latents, got NaN or infinity of {path}: try another"))
            continue
        yield latents if kind == "images" else latents.transpose(0, 1)[None]


def _common_side(files: Sequence[Path], kind: str, source: Source, skipped: Skipped) -> int | None:
    """Return the largest square that all hold, at most LARGEST pixels a side; None if none is good."""
    sides = []
    for path in files:
        try:
            size = image_size(path) if kind == "images" else read_frames(path, 1, source.fps)[0].size
            if min(size) < MULTIPLE:
                raise ValueError(_too_small(size, MULTIPLE, path))
        except ValueError as error:
            skipped.add(str(path), error)
            continue
        sides.append(min(size))
    return min(LARGEST, *sides) // MULTIPLE * MULTIPLE if sides else None


def _frames(path: Path, kind: str, source: Source) -> list[Image]:
    return [open_image(path)] if kind == "images" else read_frames(path, source.num_frames, source.fps)


def _pixels(image: Image, side: int, path: Path) -> Tensor:
    """Return an image in [-1, 1], (3, side, side)."""
    if min(image.size) < side:
        raise ValueError(_too_small(image.size, side, path))
    return torch.from_numpy(fit_image(image, side, side, str(path))).permute(2, 0, 1).float() / 127.5 - 1


def _too_small(size: tuple[int, int], side: int, path: Path) -> str:
    width, height = size
    advice = "leave it out" + (", or pass a lower --pixels" if side > MULTIPLE else "")
    return f"expected {side} pixels a side or more, got {width}x{height} in {path}: {advice}"
