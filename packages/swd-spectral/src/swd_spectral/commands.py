"""`analyze`, `design` and `check`: from options to files and the text that a user reads."""

from collections.abc import Sequence
from pathlib import Path

from swd_data import check_own, own, write_text, write_whole
from swd_data.skipped import FILE
from swd_schedules import FlowMatching, VariancePreserving, presets
from swd_spectral.costs import COSTS, TokenCost
from swd_spectral.design import (
    Proposal,
    check_sizes,
    default_timesteps,
    even_sizes,
    propose_schedule,
    propose_timesteps,
)
from swd_spectral.inputs import read_latents
from swd_spectral.limits import parse_size
from swd_spectral.masking import Process, Spectrum, smallest_safe_size
from swd_spectral.measure import Measurement, measure
from swd_spectral.options import Analyze, Check, Design, ProcessName, Source
from swd_spectral.powerlaw import FLUX_LAW, WAN_LAW, PowerLaw
from swd_spectral.steps import Size, check_schedule, size_text

FILES = ("masking.png", "masking.svg", "spectrum.csv", "spectrum.json")
LAWS = {"flux": FLUX_LAW, "wan": WAN_LAW}


def analyze(options: Analyze) -> str:
    """Measure, write, and return a table for the user."""
    from swd_spectral.plot import plot_masking  # needs matplotlib, and half a second

    options.check()
    check_own(options.folder, FILES)
    measurement, process = _measure(options.inputs, options.source, options.folder), _process(options.process)
    name = ", ".join(Path(text).name for text in options.inputs[:3]) + (" ..." if len(options.inputs) > 3 else "")
    title = (
        f"{name}: {measurement.space.num_samples} latents of {size_text(measurement.full)}, {options.process} process"
    )
    figure = plot_masking(measurement, options.timesteps, process, tau=options.tau, title=title)
    own(options.folder, FILES)
    measurement.save(options.folder / "spectrum.json")
    measurement.write_csv(options.folder / "spectrum.csv")
    for suffix in ("png", "svg"):
        write_whole(options.folder / f"masking.{suffix}", figure.savefig)
    laws = [f"{axis}: {law}" for axis, law in measurement.laws.items()]
    laws += [f"space, with a floor: {measurement.floored}"] if measurement.floored else []
    sizes = [_safe(measurement, t, process, options.tau) for t in options.timesteps]
    files = [f"figure: {options.folder / 'masking.png'}", f"numbers: {options.folder / 'spectrum.json'}"]
    return "\n".join([title, *laws, *sizes, *files])


def design(options: Design) -> str:
    """Propose, write, and return the report."""
    options.check()
    process = _process(options.process)
    timesteps = default_timesteps(options.steps, process)
    full = parse_size("--full", options.full) if options.full else None
    smallest = parse_size("--smallest", options.smallest) if options.smallest else None
    sizes = [parse_size("--sizes", text) for text in options.sizes]
    if full:
        check_sizes(full, options.multiple, smallest)
    space, time, measured = _spectra(options.spectrum, options.temporal, options.source, options.folder)
    if full and measured:
        _check_measured(measured, full, options.temporal is not None)
    full = full or measured
    if full is None:
        raise ValueError(f"expected --full with the law {options.spectrum}, got none: for example --full 128x128")
    cost = COSTS.get(options.family, TokenCost(0.0, 1.0, 0.0))
    given = propose_schedule(
        space, full, timesteps, cost, process,
        temporal=time, tau=options.tau, multiple=options.multiple, smallest=smallest,
    )  # fmt: skip
    proposals = {"smallest-sizes": given}
    if sizes:
        _check_given(sizes, full, time is not None)
    sizes = sizes or _growing(full, options.steps, options.multiple, smallest)
    if len(sizes) > 1 and (time is not None or not _frames_grow(sizes)):
        proposals["lowest-timesteps"] = propose_timesteps(space, sizes, cost, process, temporal=time, tau=options.tau)
    return _write(options.folder, proposals)


def check(options: Check) -> tuple[str, bool]:
    """Return what each step loses, and whether noise hides it all."""
    options.check()
    schedule, process = presets.resolve(options.schedule), _process(options.process)
    space, time, measured = _spectra(options.spectrum, options.temporal, options.source, options.folder)
    if measured:
        _check_measured(measured, schedule.sizes[-1], options.temporal is not None)
    steps = check_schedule(schedule, space, process, temporal=time, tau=options.tau, matched=options.matched)
    return "\n".join(map(str, steps)), all(step.safe for step in steps)


def _safe(measurement: Measurement, timestep: float, process: Process, tau: float) -> str:
    space, time, sigma = measurement.space, measurement.time, timestep / 1000
    size = smallest_safe_size(space, sigma, space.extent, process, tau=tau)
    line = f"t={timestep:4.0f}: smallest safe size {size} of {space.extent} cells"
    if time is None:
        return line
    frames = smallest_safe_size(time, sigma, time.extent, process, tau=tau, multiple=1)
    return f"{line}, {frames} of {time.extent} frames"


def _check_measured(measured: Size, full: Size, has_temporal: bool) -> None:
    """Raise ValueError for a spectrum of latents of another size: it knows nothing of what that one adds."""
    space = measured[-2:] == full[-2:]
    frames = has_temporal or len(measured) == 2 or len(full) == 2 or measured[0] == full[0]
    if not (space and frames):
        raise ValueError(
            f"expected a spectrum of latents of {size_text(full)}, got one of {size_text(measured)}: analyze data of "
            "that size, or ask for this one"
        )


def _check_given(sizes: Sequence[Size], full: Size, has_temporal: bool) -> None:
    """Raise ValueError for --sizes that no timesteps can be found for."""
    if len(sizes) < 2:
        raise ValueError(f"expected two --sizes or more, got {size_text(sizes[0])} alone: one has no step to hide")
    if sizes[-1] != full:
        raise ValueError(f"expected --sizes that end in {size_text(full)}, got {size_text(sizes[-1])} last")
    if _frames_grow(sizes) and not has_temporal:
        raise ValueError("expected --temporal with --sizes whose frames grow, got none: a law such as --temporal 0.5 2")


def _frames_grow(sizes: Sequence[Size]) -> bool:
    return len({size[0] for size in sizes if len(size) == 3}) > 1


def _growing(full: Size, num_steps: int, multiple: int, smallest: Size | None) -> list[Size]:
    """Return sizes that grow evenly, none below the smallest; fewer than steps where they repeat."""
    least = smallest or (0,) * len(full)
    sizes = even_sizes(full, num_steps, multiple=multiple)
    return list(dict.fromkeys(tuple(max(pair) for pair in zip(size, least, strict=True)) for size in sizes))


def _write(out: Path, proposals: dict[str, Proposal]) -> str:
    report = "\n\n".join(f"{name}.json\n{proposal}" for name, proposal in proposals.items())
    own(out, [*(f"{name}.json" for name in proposals), "report.txt"])
    for name, proposal in proposals.items():
        write_text(out / f"{name}.json", proposal.schedule.to_json() + "\n")
    write_text(out / "report.txt", report + "\n")
    return f"{report}\n\nuse one: swd-distill run PRESET --schedule {out / 'smallest-sizes.json'}"


def _measure(inputs: Sequence[str], source: Source, out: Path) -> Measurement:
    if not inputs:
        raise ValueError("expected at least one input, got none: swd-spectral analyze FOLDER_OF_IMAGES")
    own(out, [FILE])
    return measure(read_latents(inputs, source, out), drop_first=source.drop_first)


def _spectra(
    text: str, temporal: tuple[float, float] | None, source: Source, out: Path
) -> tuple[Spectrum, Spectrum | None, Size | None]:
    """Return the spectra over space and time, and the full size if it is known."""
    law = PowerLaw(*temporal) if temporal else None
    if text in LAWS:
        return LAWS[text], law, None
    is_json = Path(text).suffix.lower() == ".json"
    found = Measurement.load(Path(text)) if is_json else _measure([text], source, out)
    return found.space, law or found.time, found.full


def _process(name: ProcessName) -> Process:
    return VariancePreserving() if name == "vp" else FlowMatching()
