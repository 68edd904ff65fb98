"""Resizing of latents and pixels: `(B, C, H, W)` and, with frames, `(B, C, T, H, W)`.

Space is resized frame by frame. Frames are interpolated linearly between the first and the last, which stay in place:
the paper's "adjacent frame blending" (section 4.1), and the convention under which 4 (T - 1) + 1 frames of a causal
video VAE map onto its T latents. Half-precision input is resized in float32 and cast back.
"""

from functools import cache
from math import pi, sqrt
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from swd_schedules.rules import UpscaleMode

DownscaleMode = Literal["area", "dct"]

# torch's own "nearest" reads the top-left corners of cells: at ratios such as 64 -> 80 it shifts the image.
_TORCH_MODES = {"nearest": "nearest-exact"}


def upscale(
    x: Float[Tensor, "batch channels *source"], size: tuple[int, ...], mode: UpscaleMode = "bicubic"
) -> Float[Tensor, "batch channels *target"]:
    """Enlarge to `size`, `(h, w)` or `(t, h, w)`; the same size returns `x` itself.

    `bicubic` (the paper's) and `bilinear` align pixel centres, without antialiasing; `nearest` takes the cell that
    contains the new centre; `dct` pads the orthonormal DCT-II with zeros, keeping amplitudes: it adds no new frequency.

    Raises:
        ValueError: `size` has another rank than `x`, or is smaller on some axis.
    """
    source = _source_size(x, size)
    if any(new < old for old, new in zip(source, size, strict=True)):
        raise ValueError(f"expected a size of at least {source}, got {size}; use downscale to shrink")
    return _resize(x, size, mode)


def downscale(
    x: Float[Tensor, "batch channels *source"], size: tuple[int, ...], mode: DownscaleMode = "area"
) -> Float[Tensor, "batch channels *target"]:
    """Shrink to `size`, `(h, w)` or `(t, h, w)`; the same size returns `x` itself.

    `area` averages the pixels under each new one: the paper shrinks in pixel space, before the VAE. `dct` truncates the
    orthonormal DCT-II, keeping amplitudes. Of 81 frames, 21 and 41 are exact picks (every 4th, every 2nd); 61 blends
    neighbours, which keeps motion even where the nearest frames would stutter.

    Raises:
        ValueError: `size` has another rank than `x`, or is larger on some axis.
    """
    source = _source_size(x, size)
    if any(new > old for old, new in zip(source, size, strict=True)):
        raise ValueError(f"expected a size of at most {source}, got {size}; use upscale to enlarge")
    return _resize(x, size, mode)


def _source_size(x: Tensor, size: tuple[int, ...]) -> tuple[int, ...]:
    source = tuple(x.shape[2:])
    if len(source) not in (2, 3) or len(size) != len(source):
        raise ValueError(
            f"expected latents (B, C, H, W) or (B, C, T, H, W) and a size for the same axes, "
            f"got shape {tuple(x.shape)} and size {size}; drop or add the frame axis"
        )
    return source


def _resize(x: Tensor, size: tuple[int, ...], mode: str) -> Tensor:
    if tuple(x.shape[2:]) == size:
        return x
    y = x.to(torch.promote_types(x.dtype, torch.float32))
    if y.ndim == 4:
        return _resize_space(y, size, mode).to(x.dtype)
    batch, _, num_frames = y.shape[:3]
    frames = _resize_space(y.transpose(1, 2).flatten(0, 1), size[1:], mode)
    video = frames.reshape(batch, num_frames, *frames.shape[1:]).transpose(1, 2)
    return _resize_time(video, size[0]).to(x.dtype)


def _resize_space(x: Float[Tensor, "n c h w"], size: tuple[int, ...], mode: str) -> Float[Tensor, "n c h2 w2"]:
    if tuple(x.shape[2:]) == size:
        return x
    if mode == "dct":
        rows, columns = (_dct_resampler(old, new).to(x) for old, new in zip(x.shape[2:], size, strict=True))
        return rows @ x @ columns.T
    return interpolate(x, size, mode=_TORCH_MODES.get(mode, mode))


def _resize_time(x: Float[Tensor, "n c t h w"], num_frames: int) -> Float[Tensor, "n c t2 h w"]:
    if x.shape[2] == num_frames:
        return x
    # Trilinear with the same height and width is linear in time alone.
    return interpolate(x, (num_frames, *x.shape[3:]), mode="trilinear", align_corners=True)


@cache
def _dct_resampler(old: int, new: int) -> Float[Tensor, "new old"]:
    kept = min(old, new)
    return sqrt(new / old) * _dct_matrix(new)[:kept].T @ _dct_matrix(old)[:kept]


def _dct_matrix(n: int) -> Float[Tensor, "n n"]:
    """Orthonormal DCT-II: row k is `sqrt(2 / n) cos(pi k (i + 1/2) / n)`, row 0 divided by sqrt(2)."""
    i = torch.arange(n, dtype=torch.float64)
    matrix = sqrt(2 / n) * torch.cos(pi / n * i[:, None] * (i + 0.5))
    matrix[0] /= sqrt(2)
    return matrix
