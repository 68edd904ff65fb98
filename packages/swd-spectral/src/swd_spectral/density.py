"""Power spectral densities of latents: radial over space, one-dimensional over time (section 3, appendix F).

Orthonormal: white noise of unit variance has power 1 at every frequency, on every grid. Power is averaged over samples
and channels; take logarithms afterwards.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.fft import dct
from torch import Tensor

Axis = Literal["space", "time"]
TimeMethod = Literal["dct", "fft", "hann"]
_CHUNK = 1 << 17  # values transformed at a time: what a core's cache holds


@dataclass(frozen=True)
class Density:
    """A power spectral density.

    Attributes:
        axis: "space" or "time".
        extent: Cells along the shorter side, or frames: `cycles = frequency * extent` counts cycles per image or clip.
        frequency: Mean frequency of each bin in cycles per cell, rising.
        power: Mean power of each bin; 1 for unit white noise.
        error: Standard error of the mean over samples; NaN for a single one.
        count: Fourier coefficients of one channel in each bin. `sum(count * power) = sum(count) * mean(x^2)`.
        num_samples: Samples that the mean is over.
    """

    axis: Axis
    extent: int
    frequency: Float[Tensor, " bins"]
    power: Float[Tensor, " bins"]
    error: Float[Tensor, " bins"]
    count: Float[Tensor, " bins"]
    num_samples: int

    @property
    def cycles(self) -> Float[Tensor, " bins"]:
        """Return the frequencies in cycles per image (along its shorter side) or clip."""
        return self.frequency * self.extent

    def beyond(self, cycles: int | float) -> float:
        """Return the largest power at or above a frequency in cycles: what a grid with this Nyquist frequency loses.

        Between bins, power is interpolated in logarithms. Zero beyond the last bin.
        """
        higher = self.power[self.cycles >= cycles]
        if not len(higher):
            return 0.0
        kept = (self.cycles > 0) & (self.power > 0)
        if not kept.any():
            return 0.0
        known, power = self.cycles[kept].log().numpy(), self.power[kept].log().numpy()
        here = float(np.exp(np.interp(np.log(cycles), known, power))) if cycles > 0 else 0.0
        return max(here, float(higher.max()))


class DensityMeter:
    """Average the densities of any number of samples in fixed memory.

    Examples:
        >>> meter = DensityMeter("space")
        >>> for latents in batches:
        ...     meter.update(latents)
        >>> meter.result().power
    """

    def __init__(self, axis: Axis = "space", *, method: TimeMethod = "dct", drop_first: bool = False) -> None:
        if axis not in ("space", "time"):
            raise ValueError(f'expected the axis "space" or "time", got {axis!r}')
        self.axis, self.method, self.drop_first = axis, method, drop_first
        self.num_samples = 0
        self._size: tuple[int, ...] | None = None
        self._sum = self._squares = torch.zeros(1)

    def update(self, x: Float[Tensor, "batch *rest"]) -> None:
        """Add samples: latents (B, C, H, W) or (B, C, T, H, W); over time the frame axis is needed."""
        if x.ndim not in ((4, 5) if self.axis == "space" else (5,)) or 0 in x.shape:
            shape = "(B, C, H, W) or (B, C, T, H, W)" if self.axis == "space" else "(B, C, T, H, W)"
            raise ValueError(f"expected latents {shape}, got {tuple(x.shape)}")
        size = tuple(x.shape[-2:] if self.axis == "space" else x.shape[2:3])
        if self._size not in (None, size):
            raise ValueError(f"expected samples of one size, got {size} after {self._size}: measure each size alone")
        power = radial_power(x) if self.axis == "space" else temporal_power(x, self.method, self.drop_first)
        power = power.double().cpu()
        if not power.isfinite().all():
            raise ValueError("expected finite latents, got some with NaN or infinite power: leave them out")
        self._size = size
        self._sum = self._sum + power.sum(0)
        self._squares = self._squares + power.square().sum(0)
        self.num_samples += len(x)

    def result(self) -> Density:
        """Return the density of all samples so far."""
        if self._size is None:
            raise ValueError("expected at least one sample, got none")
        n = self.num_samples
        mean = self._sum / n
        variance = (self._squares / n - mean.square()).clamp(min=0) * n / (n - 1) if n > 1 else mean * torch.nan
        if self.axis == "space":
            _, count, frequency = _radial_bins(*self._size)
            extent = min(self._size)
        else:
            extent = self._size[0] - self.drop_first
            frequency, count = _temporal_bins(extent, self.method)
        return Density(self.axis, extent, frequency, mean, (variance / n).sqrt(), count, n)


def rapsd(x: Float[Tensor, "batch *rest"]) -> Density:
    """Return the radially averaged power spectral density of latents (B, C, H, W) or (B, C, T, H, W)."""
    meter = DensityMeter("space")
    meter.update(x)
    return meter.result()


def temporal_psd(
    x: Float[Tensor, "batch channels frames height width"], method: TimeMethod = "dct", *, drop_first: bool = False
) -> Density:
    """Return the power spectral density over frames of latents (B, C, T, H, W).

    `drop_first` leaves out the first latent frame: in causal video autoencoders it covers one frame, not four.
    """
    meter = DensityMeter("time", method=method, drop_first=drop_first)
    meter.update(x)
    return meter.result()


def radial_power(x: Float[Tensor, "batch *rest"]) -> Float[Tensor, "batch bins"]:
    """Return each sample's power in rings of width 1 / max(H, W) cycles per cell: mean of |rfft2|^2 / (H W).

    Rings are in cycles per cell on both axes, also where H and W differ; corner frequencies above 1/2 are kept.
    """
    height, width = x.shape[-2:]
    ring, count, _ = _radial_bins(height, width)
    index, weight = ring.to(x.device), _half_weights(height, width).to(x.device)
    images = _wide(x).reshape(len(x), -1, height, width)
    power = torch.stack([_mean_power(image) for image in images]).double()
    sums = torch.zeros(len(x), len(count), dtype=torch.float64, device=x.device)
    sums.index_add_(1, index, power * weight)
    return sums / (count.to(x.device) * height * width)


def temporal_power(
    x: Float[Tensor, "batch channels frames height width"], method: TimeMethod = "dct", drop_first: bool = False
) -> Float[Tensor, "batch bins"]:
    """Return each sample's power at each frequency over frames, averaged over channels and places.

    "dct": the orthonormal DCT-II, k / (2 T) cycles per frame. It continues a sequence by its mirror image, so a slow
    drift is not mistaken for the jump that a periodic transform ("fft", or "hann" with a window) sees at the ends.
    """
    x = x[:, :, int(drop_first) :]
    num_frames = x.shape[2]
    if num_frames < 2:
        raise ValueError(f"expected at least 2 frames, got {num_frames}")
    series = _wide(x).transpose(1, 2).flatten(2)
    if method == "dct":
        matrix = torch.from_numpy(dct(np.eye(num_frames), axis=0, norm="ortho")).to(series)
        return (matrix @ series).square().mean(2)
    if method not in ("fft", "hann"):
        raise ValueError(f'expected the method "dct", "fft" or "hann", got {method!r}')
    window = torch.ones(num_frames) if method == "fft" else torch.hann_window(num_frames, periodic=False)
    window = (window / window.square().mean().sqrt()).to(series)
    spectrum = torch.fft.rfft(series * window[None, :, None], dim=1)
    return torch.view_as_real(spectrum).square().sum(-1).mean(2) / num_frames


def _wide(x: Tensor) -> Tensor:
    """Return a tensor in float32 or float64: torch promotes no float8."""
    return x if x.dtype == torch.float64 else x.to(torch.float32)


def _mean_power(image: Float[Tensor, "c h w"]) -> Float[Tensor, " half"]:
    """Return the mean over channels of |rfft2|^2, flat; few channels at a time stay in the cache."""
    step = max(1, _CHUNK // image[0].numel())
    parts = (torch.view_as_real(torch.fft.rfft2(part)).flatten(1) for part in torch.split(image, step))
    squares = torch.stack([torch.linalg.vecdot(part, part, dim=0) for part in parts]).sum(0)
    return squares.reshape(-1, 2).sum(1) / len(image)


@cache
def _radial_bins(
    height: int, width: int
) -> tuple[Int[Tensor, " half"], Float[Tensor, " bins"], Float[Tensor, " bins"]]:
    """Return the ring of each coefficient of `rfft2`, and each ring's count of coefficients and mean frequency."""
    fy, fx = torch.fft.fftfreq(height, dtype=torch.float64), torch.fft.rfftfreq(width, dtype=torch.float64)
    frequency = torch.hypot(fy[:, None], fx[None, :]).flatten()
    # Rings without a coefficient, in the corners of narrow grids, are left out.
    _, ring = torch.unique((frequency * max(height, width)).round(), return_inverse=True)
    weight = _half_weights(height, width)
    count = torch.bincount(ring, weight)
    return ring, count, torch.bincount(ring, weight * frequency) / count


@cache
def _half_weights(height: int, width: int) -> Float[Tensor, " half"]:
    """Return how many coefficients of the whole plane each one of `rfft2` stands for: itself, and mostly its mirror."""
    weight = torch.full((height, width // 2 + 1), 2.0, dtype=torch.float64)
    weight[:, 0] = 1
    if width % 2 == 0:
        weight[:, -1] = 1
    return weight.flatten()


def _temporal_bins(num_frames: int, method: TimeMethod) -> tuple[Float[Tensor, " bins"], Float[Tensor, " bins"]]:
    if method == "dct":
        order = torch.arange(num_frames, dtype=torch.float64)
        return order / (2 * num_frames), torch.ones_like(order)
    return torch.fft.rfftfreq(num_frames, dtype=torch.float64), _half_weights(1, num_frames)
