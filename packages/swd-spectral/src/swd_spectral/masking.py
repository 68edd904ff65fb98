"""What noise hides: which latent size a noise level needs (section 3).

A grid of S cells along a side holds frequencies below S / 2 cycles per image. A smaller grid loses the frequencies from
its own S / 2 on, and nothing is missed where noise hides them: where their signal-to-noise ratio is at most `tau`.
"""

from typing import Protocol, runtime_checkable

from swd_schedules import FlowMatching, VariancePreserving

Process = FlowMatching | VariancePreserving
FLOW = FlowMatching()

DEFAULT_TAU = 0.1
"""The signal-to-noise ratio, frequency by frequency, up to which a loss counts as hidden.

Calibrated, not derived. The paper calls 32x32 safe and 16x16 not, for 128x128 latents at t = 800: under the published
law of FLUX latents that holds from .063 to .237, and all schedules of the paper keep to .092. At .1 what is lost is
hard to see beside the noise, at .02 hardly anything is lost. At 1, where signal and noise are equal, even 8x8 would
pass.
"""


@runtime_checkable
class Spectrum(Protocol):
    """A clean spectrum of full-size latents: a `PowerLaw`, or a measured `Density`."""

    def beyond(self, cycles: int | float) -> float:
        """Return the largest power at or above a frequency in cycles per image or clip."""
        ...


def noised(power: float, sigma: float, process: Process = FLOW) -> float:
    """Return the power of x_t at a frequency where x0 has `power`: `a^2 power + s^2` for x_t = a x0 + s noise."""
    if isinstance(process, FlowMatching):
        return (1 - sigma) ** 2 * power + sigma**2
    abar = float(process.alpha_bar(sigma))
    return abar * power + 1 - abar


def lost_snr(
    spectrum: Spectrum, sigma: float, size: int | float, process: Process = FLOW, *, cells_averaged: float = 1.0
) -> float:
    """Return the largest signal-to-noise ratio at a noise level among the frequencies that `size` cells cannot hold.

    `size` counts cells along the shorter side of an image, or frames. As in the paper, signal and noise are those of
    full-size latents. In truth a scale-wise sampler adds the noise at the step's own size, where a cell is an average
    of n full cells and each frequency's power n times lower: `cells_averaged=n` gives that ratio, which is n times
    smaller.
    """
    return spectrum.beyond(size / 2) / (cells_averaged * max(float(process.noise_to_signal(sigma)), 1e-300))


def smallest_safe_size(
    spectrum: Spectrum,
    sigma: float,
    full: int,
    process: Process = FLOW,
    *,
    tau: float = DEFAULT_TAU,
    multiple: int = 2,
) -> int:
    """Return the smallest size, along the shorter side or in frames, that loses nothing visible at a noise level.

    A multiple of `multiple`, at most `full`, which loses nothing at all. For a law A k^-b and the noise-to-signal
    ratio r of the process it is 2 (A / (tau r))^(1 / b), rounded up.
    """
    for size in range(multiple, full, multiple):
        if lost_snr(spectrum, sigma, size, process) <= tau:
            return size
    return full


def smallest_safe_timestep(
    spectrum: Spectrum, size: int | float, process: Process = FLOW, *, tau: float = DEFAULT_TAU
) -> float:
    """Return the lowest timestep at which `size` cells (shorter side, or frames) lose nothing visible; 1000 if none.

    By bisection to 1e-3, as the ratio of noise to signal rises with the timestep.
    """
    low, high = 0.0, 1000.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        if lost_snr(spectrum, middle / 1000, size, process) <= tau:
            high = middle
        else:
            low = middle
    return high


def matched_sigma(sigma: float, ratio: int | float) -> float:
    """Return the flow level with the signal-to-noise ratio of `sigma` in latents averaged over ratio x ratio cells.

    (sigma / m) / (1 - sigma + sigma / m), as averaging leaves 1 / m of the noise: t = 800 at 128x128 is t = 500 at
    32x32.
    """
    return (sigma / ratio) / (1 - sigma + sigma / ratio)
