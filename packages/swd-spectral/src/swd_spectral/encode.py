"""Images and videos to latents, as they look: cut square, encoded by a family's autoencoder."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
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
    encoder = _load(source)  # whether there is such a model is said first
    side = source.pixels or _common_side(files, kind, source, skipped)
    if side is None:
        return
    latents = _encoded(files, kind, source, skipped, batch, side, encoder)
    yield from latents if source.tiny is None else _normalised(latents)


def _load(source: Source) -> Callable[[Tensor], Tensor]:
    """Return what encodes pixels in [-1, 1]: a model's autoencoder, or a tiny one."""
    device = find_device()
    if source.tiny is not None:
        from swd_models.autoencoders.files import load_tiny_autoencoder
        from swd_models.autoencoders.taehv import TinyVideoAutoencoder

        tiny = load_tiny_autoencoder(source.tiny).to(device)
        if isinstance(tiny, TinyVideoAutoencoder):
            return lambda pixels: tiny.encode_images(pixels.to(device))
        return lambda pixels: cast(Tensor, tiny.encode(pixels.to(device)).latents)
    from swd_models import load_latents  # imports diffusers: not for latents on disk

    autoencoder = load_latents(source.model)
    autoencoder.vae.to(device)
    return lambda pixels: autoencoder.encode(pixels.to(device))


def _encoded(
    files: Sequence[Path],
    kind: str,
    source: Source,
    skipped: Skipped,
    batch: int,
    side: int,
    encoder: Callable[[Tensor], Tensor],
) -> Iterator[Tensor]:
    for path in tqdm(files, desc=f"encode {kind}"):
        if str(path) in skipped.reasons:
            continue
        try:
            pixels = torch.stack([_pixels(frame, side, path) for frame in _frames(path, kind, source)])
        except ValueError as error:
            skipped.add(str(path), error)
            continue
        with torch.no_grad():
            latents = torch.cat([encoder(few) for few in torch.split(pixels, batch)])
        if not latents.isfinite().all():
            skipped.add(str(path), ValueError(f"expected finite latents, got NaN or infinity of {path}: try another"))
            continue
        yield latents if kind == "images" else latents.transpose(0, 1)[None]


def _normalised(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield latents with mean 0 and variance 1 in each channel over all of them, which a temporary file holds."""
    total = squares = torch.zeros(1, dtype=torch.float64)
    count, kept = 0, 0
    with tempfile.TemporaryFile() as file:
        for latents in batches:
            np.save(file, latents.cpu().numpy())
            values = latents.transpose(0, 1).flatten(1).double().cpu()
            total, squares, count = total + values.sum(1), squares + values.square().sum(1), count + values.shape[1]
            kept += 1
        mean = total / max(count, 1)
        std = (squares / max(count, 1) - mean.square()).clamp(min=1e-12).sqrt()
        file.seek(0)
        for _ in range(kept):
            latents = torch.from_numpy(np.load(file))
            shape = (1, -1, *(1,) * (latents.ndim - 2))
            yield (latents - mean.float().view(shape)) / std.float().view(shape)


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
