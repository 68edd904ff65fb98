"""Cost of a density: `uv run --group benchmarks python -m benchmarks.spectra`; ratios within one run, and memory."""

import resource
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.provenance import machine
from swd_spectral import DensityMeter, rapsd

SHAPE = (64, 16, 128, 128)


def numpy_loop(x: np.ndarray) -> list[float]:
    """Average the power ring by ring, as one would write it first."""
    height, width = x.shape[-2:]
    power = np.abs(np.fft.fft2(x)) ** 2 / (height * width)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    ring = np.round(frequency * max(height, width)).astype(int)
    return [float(power[..., ring == r].mean()) for r in range(ring.max() + 1)]


def best(call: Callable[[], object], repeats: int) -> float:
    """Return the shortest time of a call, in seconds."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def peak_mib() -> float:
    """Return the most memory that the process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print a table."""
    x = torch.randn(SHAPE)
    bare = best(lambda: torch.fft.rfft2(x), 10)
    ours = best(lambda: rapsd(x), 10)
    loop = best(lambda: numpy_loop(x.numpy()), 1)
    np.testing.assert_allclose(rapsd(x).power.numpy(), numpy_loop(x.numpy()), rtol=1e-4)
    print(f"{machine()}, {'x'.join(map(str, SHAPE))}: rapsd {ours:.3f} s")
    print(f"bare rfft2 {bare:.3f} s: rapsd takes {ours / bare:.2f} of it")
    print(f"loop over rings {loop:.2f} s: {loop / ours:.1f} times longer")
    meter, peaks = DensityMeter(), {}
    for index in range(60):
        meter.update(x[:16])
        peaks[16 * (index + 1)] = peak_mib()
    print("peak memory after", ", ".join(f"{n} samples: {peaks[n]:.0f} MiB" for n in (160, 480, 960)))


if __name__ == "__main__":
    main()
