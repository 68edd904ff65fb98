"""`swd-spectral analyze|design|check`: from latents to a spectrum, from a spectrum to a schedule, and back."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from swd_spectral.masking import Process, Spectrum
    from swd_spectral.measure import Measurement

ProcessName = Literal["flow", "vp"]
Family = Literal["sd35-medium", "sd35-large", "flux", "wan", "sdxl", "tokens"]


@dataclass(frozen=True)
class Source:
    """What images and videos are encoded with."""

    model: str = "embedded"
    """A diffusers directory or hub id whose autoencoder encodes; "embedded" ships with swd-models."""
    pixels: int | None = None
    """Images are cut to this square. Default: the smallest image's shorter side, at most 512."""
    num_frames: int = 21
    """Frames of each video."""
    drop_first: bool = False
    """Leave out the first latent frame over time: a causal video autoencoder's covers one frame, not four."""


@dataclass(frozen=True)
class Analyze:
    """Measure spectra; draw what noise masks at which timestep, and which sizes that allows (figures 1 and 13)."""

    inputs: tyro.conf.Positional[tuple[str, ...]]
    """Images, videos or latents (.safetensors): files, folders, a cache of swd-distill."""
    source: tyro.conf.OmitArgPrefixes[Source] = Source()
    timesteps: tuple[float, ...] = (800.0, 600.0, 400.0)
    """Timesteps to draw."""
    process: ProcessName = "flow"
    """Forward process: flow matching, or SDXL's variance-preserving one."""
    tau: float = 0.1
    """Signal-to-noise ratio up to which a loss counts as hidden."""
    out: Path = Path("runs/spectrum")
    """Folder for spectrum.json, spectrum.csv, masking.png and masking.svg."""


@dataclass(frozen=True)
class Design:
    """Propose scale schedules for a spectrum."""

    spectrum: tyro.conf.Positional[str]
    """spectrum.json of `analyze`, anything that `analyze` reads, or a published law: flux, wan."""
    steps: int = 4
    """Number of sampling steps."""
    family: Family = "tokens"
    """Whose cost a forward pass has; "tokens": proportional to the latent's cells."""
    full: str | None = None
    """Full latent size such as 128x128 or 21x60x104, for a published law."""
    temporal: tuple[float, float] | None = None
    """Amplitude and exponent of a law over time, for a published law."""
    multiple: int = 2
    """What divides height and width: the patch of a transformer, 4 for SDXL's U-Net."""
    smallest: str | None = None
    """Smallest latent size that the teacher knows, such as 8x8. Default: a quarter of the full one."""
    sizes: tuple[str, ...] = ()
    """Sizes to propose timesteps for, such as 8x8 10x10 12x12 16x16. Default: --steps sizes that grow evenly."""
    process: ProcessName = "flow"
    """Forward process: flow matching, or SDXL's variance-preserving one."""
    tau: float = 0.1
    """Signal-to-noise ratio up to which a loss counts as hidden."""
    source: tyro.conf.OmitArgPrefixes[Source] = Source()
    out: Path = Path("runs/design")
    """Folder for the schedules (JSON for `swd-distill --schedule`) and report.txt."""


@dataclass(frozen=True)
class Check:
    """Say what each step of a schedule loses; exit code 1 if noise does not hide it."""

    schedule: tyro.conf.Positional[str]
    """A preset of swd-schedules, a JSON file, or 1000:64x64,896:80x80,..."""
    spectrum: tyro.conf.Positional[str]
    """spectrum.json of `analyze`, anything that `analyze` reads, or a published law: flux, wan."""
    temporal: tuple[float, float] | None = None
    """Amplitude and exponent of a law over time, for a published law."""
    process: ProcessName = "flow"
    """Forward process: flow matching, or SDXL's variance-preserving one."""
    matched: bool = False
    """Count the noise at each step's own size, as the sampler adds it, which hides more."""
    tau: float = 0.1
    """Signal-to-noise ratio up to which a loss counts as hidden."""
    source: tyro.conf.OmitArgPrefixes[Source] = Source()


def analyze(options: Analyze) -> str:
    """Measure, write, and return a table for the user."""
    from swd_spectral.masking import smallest_safe_size
    from swd_spectral.plot import plot_masking

    measurement = _measure(options.inputs, options.source)
    process = _process(options.process)
    name = ", ".join(Path(text).name for text in options.inputs[:3]) + (" ..." if len(options.inputs) > 3 else "")
    size = "x".join(map(str, measurement.full))
    title = f"{name}: {measurement.space.num_samples} latents of {size}, {options.process} process"
    figure = plot_masking(measurement, options.timesteps, process, tau=options.tau, title=title)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "spectrum.json").write_text(measurement.to_json() + "\n")
    measurement.write_csv(options.out / "spectrum.csv")
    for suffix in ("png", "svg"):
        figure.savefig(options.out / f"masking.{suffix}")
    lines = [f"{title}"]
    lines += [f"{axis}: {law}" for axis, law in measurement.laws.items()]
    for t in options.timesteps:
        space = smallest_safe_size(measurement.space, t / 1000, measurement.space.extent, process, tau=options.tau)
        line = f"t={t:4.0f}: smallest safe size {space} of {measurement.space.extent} cells"
        if measurement.time:
            extent = measurement.time.extent
            frames = smallest_safe_size(measurement.time, t / 1000, extent, process, tau=options.tau, multiple=1)
            line += f", {frames} of {extent} frames"
        lines.append(line)
    return "\n".join([*lines, f"figure: {options.out / 'masking.png'}; numbers: {options.out / 'spectrum.json'}"])


def design(options: Design) -> str:
    """Propose, write, and return the report."""
    from swd_spectral.costs import COSTS, TokenCost
    from swd_spectral.design import default_timesteps, even_sizes, propose_schedule, propose_timesteps

    space, time, measured = _spectra(options.spectrum, options.temporal, options.source)
    full = _size(options.full) if options.full else measured
    if full is None:
        raise ValueError(f"expected --full with the law {options.spectrum}, for example --full 128x128")
    cost, process = COSTS.get(options.family, TokenCost(0.0, 1.0, 0.0)), _process(options.process)
    given = propose_schedule(
        space, full, default_timesteps(options.steps, process), cost, process,
        temporal=time, tau=options.tau, multiple=options.multiple,
        smallest=_size(options.smallest) if options.smallest else None,
    )  # fmt: skip
    proposals = {"smallest-sizes": given}
    if options.steps > 1 and (len(full) == 2 or time is not None):
        sizes = [_size(text) for text in options.sizes] or even_sizes(full, options.steps, multiple=options.multiple)
        if sizes[-1] != full:
            raise ValueError(f"expected --sizes that end in {'x'.join(map(str, full))}, got {options.sizes[-1]} last")
        proposals["lowest-timesteps"] = propose_timesteps(space, sizes, cost, process, temporal=time, tau=options.tau)
    report = "\n\n".join(f"{name}.json\n{proposal}" for name, proposal in proposals.items())
    options.out.mkdir(parents=True, exist_ok=True)
    for name, proposal in proposals.items():
        (options.out / f"{name}.json").write_text(proposal.schedule.to_json() + "\n")
    (options.out / "report.txt").write_text(report + "\n")
    return f"{report}\n\nuse one: swd-distill run PRESET --schedule {options.out / 'smallest-sizes.json'}"


def check(options: Check) -> tuple[str, bool]:
    """Return what each step loses, and whether noise hides it all."""
    from swd_schedules import presets
    from swd_spectral.design import check_schedule

    schedule = presets.resolve(options.schedule)
    space, time, _ = _spectra(options.spectrum, options.temporal, options.source)
    process = _process(options.process)
    steps = check_schedule(schedule, space, process, temporal=time, tau=options.tau, matched=options.matched)
    return "\n".join(map(str, steps)), all(step.safe for step in steps)


def _measure(inputs: Sequence[str], source: Source) -> "Measurement":
    from swd_spectral.inputs import read_latents
    from swd_spectral.measure import measure

    if not inputs:
        raise ValueError("expected at least one input, got none: swd-spectral analyze FOLDER_OF_IMAGES")
    latents = read_latents(inputs, source.model, pixels=source.pixels, num_frames=source.num_frames)
    return measure(latents, drop_first=source.drop_first)


def _spectra(
    text: str, temporal: tuple[float, float] | None, source: Source
) -> tuple["Spectrum", "Spectrum | None", tuple[int, ...] | None]:
    """Return the spectra over space and time, and the full size if it is known."""
    from swd_spectral.measure import Measurement
    from swd_spectral.powerlaw import FLUX_LAW, WAN_LAW, PowerLaw

    laws = {"flux": FLUX_LAW, "wan": WAN_LAW}
    law = PowerLaw(*temporal) if temporal else None
    if text in laws:
        return laws[text], law, None
    is_json = Path(text).suffix == ".json"
    found = Measurement.from_json(Path(text).read_text()) if is_json else _measure([text], source)
    return found.space, law or found.time, found.full


def _process(name: ProcessName) -> "Process":
    from swd_schedules import FlowMatching, VariancePreserving

    return VariancePreserving() if name == "vp" else FlowMatching()


def _size(text: str) -> tuple[int, ...]:
    sides = text.split("x")
    if len(sides) not in (2, 3) or not all(side.isdigit() and int(side) for side in sides):
        raise ValueError(f"expected a size such as 128x128 or 21x60x104, got {text!r}")
    return tuple(map(int, sides))


def main(argv: Sequence[str] | None = None) -> None:
    """Run `swd-spectral`; a user's error is one line and exit code 2."""
    commands = (
        Annotated[Analyze, tyro.conf.subcommand("analyze")]
        | Annotated[Design, tyro.conf.subcommand("design")]
        | Annotated[Check, tyro.conf.subcommand("check")]
    )
    options = tyro.cli(commands, prog="swd-spectral", args=argv)
    try:
        if isinstance(options, Analyze):
            print(analyze(options))
        elif isinstance(options, Design):
            print(design(options))
        else:
            text, safe = check(options)
            print(text)
            if not safe:
                raise SystemExit(1)
    except (ValueError, OSError) as error:
        if os.environ.get("SWD_TRACEBACK"):
            raise
        print(f"swd-spectral: error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
