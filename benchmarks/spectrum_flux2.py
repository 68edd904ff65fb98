"""What noise hides of FLUX.2's latents, and the schedule that follows: writes docs/spectrum-flux2.md and its figure.

`uv run --group benchmarks python -m benchmarks.spectrum_flux2 PHOTOGRAPHS --tiny ../shared/flux2`

The weights are those of TAEF2, FLUX.2's tiny autoencoder, as its author published them. Photographs of 1024 px or more
come with Debian: lomiri-wallpapers-16.04, lomiri-wallpapers-20.04, mate-backgrounds and plasma-workspace-wallpapers,
without what is drawn.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import curve_fit

from swd_data import write_text
from swd_schedules import ScaleSchedule, presets
from swd_spectral import FLUX_LAW, smallest_safe_size
from swd_spectral.commands import analyze
from swd_spectral.design import propose_timesteps
from swd_spectral.masking import DEFAULT_TAU
from swd_spectral.measure import Measurement
from swd_spectral.options import Analyze, Source
from swd_spectral.plot import plot_masking
from swd_spectral.steps import Step, check_schedule, size_text

FULL, PIXELS = 128, 1024
SIZES = tuple((side, side) for side in (32, 64, 96, 128))
LEVELS = (900, 800, 700, 600)
DRAWN = (900.0, 800.0, 600.0)
COMMAND = "uv run --group benchmarks python -m benchmarks.spectrum_flux2 PHOTOGRAPHS --tiny ../shared/flux2"


def write(measured: Measurement, out: Path) -> Path:
    """Write the page beside the figure that `analyze` made."""
    law = measured.floored
    if law is None:
        raise ValueError("expected photographs whose latents have a floor, got none: take others, of 1024 px or more")
    proposal = propose_timesteps(measured.space, SIZES, math.prod)
    flux = check_schedule(presets.FLUX_4_PAPER, measured.space)
    ours = check_schedule(proposal.schedule, measured.space)
    page = out / "spectrum-flux2.md"
    amplitude, exponent, share = fold(measured)
    folded = worst_fit(measured, lambda k: amplitude * (k**-exponent + share * (FULL - k) ** -exponent))
    density = measured.space
    spread = float((density.error / density.power)[density.cycles >= 2].median())
    found, without = worst_fit(measured, law), worst_fit(measured, measured.laws["space"])
    text_of_page = f"""# The spectrum of FLUX.2's latents

`{COMMAND}`

{measured.space.num_samples} photographs of {PIXELS} px, encoded by FLUX.2's tiny autoencoder (TAEF2): {FULL}x{FULL}
cells of 8 px, 32 channels, each with mean 0 and variance 1 over these photographs. The spectrum of the real autoencoder
may differ a little.

![What noise masks](spectrum-flux2.png)

The power falls as {law}.
Here k counts cycles per image, and brackets hold 95 % intervals of the fit. What is added is a floor: the same power
at all frequencies, which the paper sees as "slightly noisy" latents. From 2 cycles on this fit is within
{100 * found:.0f} % of what was measured; a law without a floor is off by {100 * without:.0f} %.
Of the photographs themselves a bin has a standard error of about {100 * spread:.0f} %.
The law published for FLUX.1's latents has no floor: {FLUX_LAW}.

The floor need not be noise. A grid of {FULL} cells folds what is beyond {FULL // 2} cycles back below it: the power at
k is then A (k^-b + c ({FULL} - k)^-b), where c = 1 folds all of it. Fitted without a floor, A is {amplitude:.4g}, b
{exponent:.3f} and c {share:.2f}, and the curve comes within {100 * folded:.0f} %. The schedule is of what was measured,
whatever the reason.

| t | smallest safe size, of {FULL} | FLUX.1's |
|---|---|---|
{table(measured)}

A size is safe if noise hides what it cannot hold: signal to noise at most {DEFAULT_TAU:g} at each of those frequencies.

## The schedule

Sizes {", ".join(str(side) for side, _ in SIZES)}; timesteps the lowest that hide what the size before could not hold:

```text
{text(proposal.schedule)}
```

It takes {proposal.relative_cost:.3f} of the cells of as many steps at full scale.
Each step loses this, as signal to noise:

| step | ours | lost | `flux-4-paper` | lost |
|---|---|---|---|---|
{rows(ours, flux)}

FLUX.1's schedule would lose {max(step.worst for step in flux):.3f} at its worst step.
Noise of that level hides FLUX.1's high frequencies, and not FLUX.2's floor.
"""
    write_text(page, text_of_page)
    return page


def fold(measured: Measurement) -> tuple[float, float, float]:
    """Fit A (k^-b + c (n - k)^-b) to the logarithms of power: with c = 1, what n cells make of a power law."""
    density = measured.space
    kept = (density.cycles >= 2) & (density.cycles <= density.extent / 2)
    cycles, power = density.cycles[kept].numpy(), density.power[kept].numpy()

    def curve(k: NDArray[np.float64], amplitude: float, slope: float, share: float) -> NDArray[np.float64]:
        return amplitude + np.log(k**slope + np.exp(share) * (density.extent - k) ** slope)

    (amplitude, slope, share), _ = curve_fit(curve, cycles, np.log(power), (5.0, -1.7, 0.0))
    return float(np.exp(amplitude)), float(-slope), float(np.exp(share))


def worst_fit(measured: Measurement, law: Callable[[float], float]) -> float:
    """Return by how much a law misses the density at most, from 2 cycles to the Nyquist frequency."""
    density = measured.space
    kept = (density.cycles >= 2) & (density.cycles <= density.extent / 2)
    pairs = zip(density.cycles[kept].tolist(), density.power[kept].tolist(), strict=True)
    return max(abs(law(cycles) / power - 1) for cycles, power in pairs)


def table(measured: Measurement) -> str:
    """Return rows of smallest safe sizes."""
    sizes = [(t, *(smallest_safe_size(s, t / 1000, FULL) for s in (measured.space, FLUX_LAW))) for t in LEVELS]
    return "\n".join(f"| {t} | {here} | {there} |" for t, here, there in sizes)


def text(schedule: ScaleSchedule) -> str:
    """Return a schedule as `--schedule` reads it."""
    pairs = zip(schedule.timesteps, schedule.sizes, strict=True)
    return ",".join(f"{t:g}:{'x'.join(map(str, size))}" for t, size in pairs)


def rows(ours: Sequence[Step], theirs: Sequence[Step]) -> str:
    """Return what each step of two schedules loses."""
    return "\n".join(
        f"| {i} | {_step(a)} | {a.worst:.3f} | {_step(b)} | {b.worst:.3f} |"
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True), start=1)
    )


def _step(step: Step) -> str:
    return f"{step.timestep:.0f}: {size_text(step.source)} to {size_text(step.target)}"


def main() -> None:
    """Measure, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path, nargs="?", help="a folder of photographs of 1024 px or more")
    parser.add_argument("--tiny", type=Path, help="TAEF2's weights, or the folder of its two files")
    parser.add_argument("--spectrum", type=Path, help="spectrum.json of before, instead of the two")
    parser.add_argument("--work", type=Path, default=Path("runs/spectrum-flux2"), help="numbers and figures")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="page and figure")
    args = parser.parse_args()
    if args.spectrum is None:
        if args.photographs is None or args.tiny is None:
            parser.error("expected PHOTOGRAPHS and --tiny, or --spectrum")
        source = Source(tiny=args.tiny, pixels=PIXELS)
        print(analyze(Analyze((str(args.photographs),), source, timesteps=DRAWN, out=args.work)))
    measured = Measurement.load(args.spectrum or args.work / "spectrum.json")
    args.out.mkdir(parents=True, exist_ok=True)
    title = f"FLUX.2: {measured.space.num_samples} photographs of {PIXELS} px"
    plot_masking(measured, DRAWN, title=title).savefig(args.out / "spectrum-flux2.png")
    print(write(measured, args.out).read_text())


if __name__ == "__main__":
    main()
