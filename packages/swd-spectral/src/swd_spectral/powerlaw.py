"""Power laws: what the spectra of images and of their latents follow, `P(k) = A k^-b`."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from swd_spectral.density import Density

Interval = tuple[float, float]


@dataclass(frozen=True)
class PowerLaw:
    """`P(k) = amplitude * k^-exponent`, k in cycles per image or clip, with confidence intervals if fitted."""

    amplitude: float
    exponent: float
    amplitude_interval: Interval | None = None
    exponent_interval: Interval | None = None

    def __call__(self, cycles: int | float) -> float:
        """Return the power at a frequency in cycles per image or clip; infinite at 0."""
        return self.amplitude * cycles**-self.exponent if cycles > 0 else float("inf")

    def beyond(self, cycles: int | float) -> float:
        """Return the largest power at or above a frequency: a falling law's is there."""
        return self(cycles)

    def __str__(self) -> str:
        interval = ""
        if self.exponent_interval:
            interval = " ({:.2f} to {:.2f})".format(*self.exponent_interval)
        return f"{self.amplitude:.4g} k^-{self.exponent:.3f}{interval}"


def fit_power_law(
    density: Density, low: float = 2.0, high: float | None = None, *, confidence: float = 0.95
) -> PowerLaw:
    """Fit a power law to the bins from `low` to `high` cycles, by least squares of logarithms weighted by sqrt(count).

    `high` is half the extent (the Nyquist frequency) unless given: beyond it only the corners have coefficients. Below
    two cycles a ring is as wide as its radius, and its mean power is no longer that of its mean frequency. The
    intervals are Student's t of the regression: they say how well a line fits, not how samples vary.

    Raises:
        ValueError: fewer than three bins with power between `low` and `high`.
    """
    cycles, power, count = (t.numpy() for t in (density.cycles, density.power, density.count))
    high = density.extent / 2 if high is None else high
    kept = (cycles >= low * (1 - 1e-9)) & (cycles <= high * (1 + 1e-9)) & (power > 0)
    if kept.sum() < 3:
        raise ValueError(f"expected at least 3 bins between {low:g} and {high:g} cycles, got {kept.sum()}: widen them")
    x, y, weight = np.log(cycles[kept]), np.log(power[kept]), np.sqrt(count[kept])
    (slope, intercept), covariance = np.polyfit(x, y, 1, w=weight, cov=True)
    spread = stats.t.ppf((1 + confidence) / 2, kept.sum() - 2) * np.sqrt(np.diag(covariance))
    return PowerLaw(
        amplitude=float(np.exp(intercept)),
        exponent=float(-slope),
        amplitude_interval=(float(np.exp(intercept - spread[1])), float(np.exp(intercept + spread[1]))),
        exponent_interval=(float(-slope - spread[0]), float(-slope + spread[0])),
    )


# Fits published for latents of whole images and videos. Which side of a video frame the cycles count along is not
# stated; along the shorter one, as here, the paper's schedule for Wan2.1 keeps to a ratio of .07 at every step.
FLUX_LAW = PowerLaw(203.6, 1.915)  # 128x128
WAN_LAW = PowerLaw(219.5, 2.423)  # 60x104, each frame
