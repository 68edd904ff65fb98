"""What noise hides of FLUX.2's latents, and the schedule that follows: writes docs/spectrum-flux2.md and its figure.

`uv run --group benchmarks python -m benchmarks.spectrum_flux2 PHOTOGRAPHS --tiny ../shared/flux2`

The weights are those of TAEF2, FLUX.2's tiny autoencoder, as its author published them. Photographs of 1024 px or more
come with Debian: lomiri-wallpapers-16.04, lomiri-wallpapers-20.04 and mate-backgrounds, without what is drawn.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from swd_schedules import ScaleSchedule, presets
from swd_spectral import FLUX_LAW, PowerLaw, smallest_safe_size
from swd_spectral.commands import analyze
from swd_spectral.design import propose_timesteps
from swd_spectral.masking import DEFAULT_TAU
from swd_spectral.measure import Measurement
from swd_spectral.options import Analyze, Source
from swd_spectral.steps import Step, check_schedule, size_text

FULL, PIXELS = 128, 1024
SIZES = tuple((side, side) for side in (32, 64, 96, 128))
LEVELS = (900, 800, 700, 600)
DRAWN = (900.0, 800.0, 600.0)


def write(measured: Measurement, out: Path, command: str) -> Path:
    """Write the page beside the figure that `analyze` made."""
    law = measured.floored
    assert law
    proposal = propose_timesteps(measured.space, SIZES, math.prod)
    flux = check_schedule(presets.FLUX_4_PAPER, measured.space)
    ours = check_schedule(proposal.schedule, measured.space)
    page = out / "spectrum-flux2.md"
    page.write_text(f"""# The spectrum of FLUX.2's latents

`{command}`

{measured.space.num_samples} photographs of {PIXELS} px, encoded by FLUX.2's tiny autoencoder (TAEF2): {FULL}x{FULL} cells of 8 px, 32 channels,
each with mean 0 and variance 1 over these photographs. The real autoencoder's spectrum may differ a little.

![What noise masks](spectrum-flux2.png)

The power falls as {law}, k in cycles per image; between brackets 95 % intervals of the fit. The second part is a floor:
the autoencoder writes at the highest frequencies as much as it likes, which the paper sees as "slightly noisy" latents.
The fit is within {100 * worst_fit(measured, law):.0f} % of what was measured at every frequency above 2 cycles; a law without a floor is off by
{100 * worst_fit(measured, measured.laws["space"]):.0f} %. FLUX.1's latents have none to speak of: {FLUX_LAW}.

| t | smallest safe size, of {FULL} | FLUX.1's |
|---|---|---|
{table(measured)}

A size is safe if noise hides what it cannot hold: signal to noise at most {DEFAULT_TAU:g} at each of those frequencies.

## The schedule

For sizes {", ".join(str(side) for side, _ in SIZES)} the lowest timesteps that hide what the size before could not hold:

    {text(proposal.schedule)}

{proposal.relative_cost:.3f} of the cells of as many steps at full scale. What each step loses, as signal to noise:

| step | ours | lost | `flux-4-paper` | lost |
|---|---|---|---|---|
{rows(ours, flux)}

FLUX.1's schedule would lose {max(step.worst for step in flux):.3f} at its worst step: FLUX.2's floor shows through noise that
hides all of FLUX.1's high frequencies.
""")
    return page


def worst_fit(measured: Measurement, law: PowerLaw) -> float:
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
    parser.add_argument("photographs", type=Path, help="a folder of photographs of 1024 px or more")
    parser.add_argument("--tiny", type=Path, required=True, help="TAEF2's weights, or the folder of its two files")
    parser.add_argument("--work", type=Path, default=Path("runs/spectrum-flux2"), help="numbers and figures")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="page and figure")
    args = parser.parse_args()
    numbers = args.work / "spectrum.json"
    if not numbers.is_file():
        source = Source(tiny=args.tiny, pixels=PIXELS)
        print(analyze(Analyze((str(args.photographs),), source, timesteps=DRAWN, out=args.work)))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "spectrum-flux2.png").write_bytes((args.work / "masking.png").read_bytes())
    command = "uv run --group benchmarks python -m benchmarks.spectrum_flux2 PHOTOGRAPHS --tiny ../shared/flux2"
    print(write(Measurement.load(numbers), args.out, command).read_text())


if __name__ == "__main__":
    main()
