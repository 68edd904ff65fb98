"""Power laws: what the spectra of images and of their latents follow, `P(k) = A k^-b`, with a floor or without."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from swd_spectral.density import Density

Interval = tuple[float, float]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PowerLaw:
    """`P(k) = amplitude * k^-exponent + floor`, k in cycles per image or clip, with confidence intervals if fitted.

    The floor is what an autoencoder adds at every frequency alike: the paper finds its latents slightly noisy.
    """

    amplitude: float
    exponent: float
    amplitude_interval: Interval | None = None
    exponent_interval: Interval | None = None
    floor: float = 0.0
    floor_interval: Interval | None = None

    def __call__(self, cycles: int | float) -> float:
        """Return the power at a frequency in cycles per image or clip; infinite at 0."""
        return self.amplitude * cycles**-self.exponent + self.floor if cycles > 0 else float("inf")

    def beyond(self, cycles: int | float) -> float:
        """Return the largest power at or above a frequency: a falling law's is there."""
        return self(cycles)

    def __str__(self) -> str:
        text = f"{self.amplitude:.4g} k^-{self.exponent:.3f}{_between(self.exponent_interval, '.2f')}"
        return text + (f" + {self.floor:.3g}{_between(self.floor_interval, '.2g')}" if self.floor else "")


def _between(interval: Interval | None, form: str) -> str:
    return f" ({interval[0]:{form}} to {interval[1]:{form}})" if interval else ""


def fit_power_law(
    density: Density,
    low: float = 2.0,
    high: float | None = None,
    *,
    floor: bool = False,
    confidence: float = 0.95,
) -> PowerLaw:
    """Fit a power law to the bins from `low` to `high` cycles, by least squares of logarithms weighted by sqrt(count).

    `high` is half the extent (the Nyquist frequency) unless given: beyond it only the corners have coefficients. Below
    two cycles a ring is as wide as its radius, and its mean power is no longer that of its mean frequency. With a
    `floor` all bins weigh the same: the few low ones are what tells the slope from it. The intervals are Student's t of
    the regression: they say how well the curve fits, not how samples vary.

    Raises:
        ValueError: too few bins with power between `low` and `high`, or no floor in them.
    """
    cycles, power, count = (t.numpy() for t in (density.cycles, density.power, density.count))
    high = density.extent / 2 if high is None else high
    kept = (cycles >= low * (1 - 1e-9)) & (cycles <= high * (1 + 1e-9)) & (power > 0)
    least = 5 if floor else 3
    if kept.sum() < least:
        raise ValueError(
            f"expected at least {least} bins between {low:g} and {high:g} cycles, got {kept.sum()}: widen them"
        )
    x, y, weight = np.log(cycles[kept]), np.log(power[kept]), np.sqrt(count[kept])
    (slope, intercept), covariance = np.polyfit(x, y, 1, w=weight, cov=True)
    if floor:
        return _fit_floor(x, y, (float(intercept), float(slope)), confidence)
    spread = stats.t.ppf((1 + confidence) / 2, kept.sum() - 2) * np.sqrt(np.diag(covariance))
    return PowerLaw(
        amplitude=float(np.exp(intercept)),
        exponent=float(-slope),
        amplitude_interval=(float(np.exp(intercept - spread[1])), float(np.exp(intercept + spread[1]))),
        exponent_interval=(float(-slope - spread[0]), float(-slope + spread[0])),
    )


def _fit_floor(x: Floats, y: Floats, start: tuple[float, float], confidence: float) -> PowerLaw:
    """Fit log(A k^-b + F) to the logarithms of power, from a law without a floor and half the lowest power."""

    def curve(x: Floats, amplitude: float, slope: float, floor: float) -> Floats:
        return np.logaddexp(amplitude + slope * x, floor)

    try:
        best, covariance = optimize.curve_fit(curve, x, y, (*start, y.min() - np.log(2)), maxfev=10_000)
    except RuntimeError:
        covariance = np.full((3, 3), np.inf)
    if not np.isfinite(covariance).all():
        raise ValueError("expected a power law above a floor, got one without: fit it so")
    spread = stats.t.ppf((1 + confidence) / 2, len(x) - 3) * np.sqrt(np.diag(covariance))
    with np.errstate(over="ignore"):  # a floor that may be anything may be infinite
        low, found, high = (np.exp(each) for each in (best - spread, best, best + spread))
    return PowerLaw(
        amplitude=float(found[0]),
        exponent=float(-best[1]),
        amplitude_interval=(float(low[0]), float(high[0])),
        exponent_interval=(float(-best[1] - spread[1]), float(-best[1] + spread[1])),
        floor=float(found[2]),
        floor_interval=(float(low[2]), float(high[2])),
    )


# Fits published for latents of whole images and videos. Which side of a video frame the cycles count along is not
# stated; along the shorter one, as here, the paper's schedule for Wan2.1 keeps to a ratio of .07 at every step.
FLUX_LAW = PowerLaw(203.6, 1.915)  # 128x128
WAN_LAW = PowerLaw(219.5, 2.423)  # 60x104, each frame
