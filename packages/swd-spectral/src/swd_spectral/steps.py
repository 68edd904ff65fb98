"""What each step of a scale schedule loses against a spectrum (section 3)."""

from dataclasses import dataclass

from swd_schedules import ScaleSchedule
from swd_spectral.masking import DEFAULT_TAU, FLOW, Process, Spectrum, lost_snr

Size = tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """What one step of a schedule loses: its input was upscaled from `source`.

    `space` and `time` are the largest signal-to-noise ratios among frequencies that `source` cannot hold; 0 where it
    holds all.
    """

    timestep: float
    source: Size
    target: Size
    space: float
    time: float
    tau: float

    @property
    def worst(self) -> float:
        """Return the larger of both ratios."""
        return max(self.space, self.time)

    @property
    def safe(self) -> bool:
        """Tell whether noise hides what is lost."""
        return self.worst <= self.tau

    def __str__(self) -> str:
        sizes = f"{size_text(self.source)} -> {size_text(self.target)}"
        if self.worst == 0:
            return f"t={self.timestep:4.0f}  {sizes}: nothing lost"
        where = "space" if self.space >= self.time else "time"
        verdict = "hidden" if self.safe else "LOST: raise the timestep or the size before"
        return f"t={self.timestep:4.0f}  {sizes}: SNR {self.worst:.3g} in {where}, tau {self.tau:g}: {verdict}"


def check_schedule(
    schedule: ScaleSchedule,
    spectrum: Spectrum,
    process: Process = FLOW,
    *,
    temporal: Spectrum | None = None,
    tau: float = DEFAULT_TAU,
    matched: bool = False,
) -> tuple[Step, ...]:
    """Say what each step of a schedule loses against the spectrum of its last, full size.

    A step at t_i predicts x0 at s_i from what was upscaled from s_{i-1}: frequencies above s_{i-1}'s Nyquist frequency
    are missing from the signal, and the noise at t_i must hide that. `matched=True` counts the noise at the step's own
    size (see `lost_snr`), which hides more. Frames are checked against `temporal`.

    Raises:
        ValueError: frames grow and no temporal spectrum is given.
    """
    full = schedule.sizes[-1]
    if temporal is None and any(size[:-2] != full[:-2] for size in schedule.sizes):
        raise ValueError(
            "expected a spectrum over time for a schedule whose frames grow, got one of images: give --temporal "
            "AMPLITUDE EXPONENT, or the spectrum.json of videos"
        )
    return tuple(
        Step(
            timestep=1000 * stage.sigma,
            source=stage.source,
            target=stage.target,
            space=_lost_in_space(spectrum, stage.sigma, stage.source, stage.target, full, process, matched),
            time=_lost_in_time(temporal, stage.sigma, stage.source, stage.target, full, process, matched),
            tau=tau,
        )
        for stage in schedule.stages
    )


def coarser_side(size: Size, full: Size) -> float:
    """Return the cells along the shorter side of `full` that hold what `size` holds: its coarser axis decides."""
    return min(full[-2:]) * min(size[-2] / full[-2], size[-1] / full[-1])


def _lost_in_space(
    spectrum: Spectrum, sigma: float, source: Size, target: Size, full: Size, process: Process, matched: bool
) -> float:
    if source[-2:] == target[-2:]:
        return 0.0
    averaged = full[-2] * full[-1] / (target[-2] * target[-1]) if matched else 1.0
    return lost_snr(spectrum, sigma, coarser_side(source, full), process, cells_averaged=averaged)


def _lost_in_time(
    temporal: Spectrum | None, sigma: float, source: Size, target: Size, full: Size, process: Process, matched: bool
) -> float:
    if temporal is None or source[:-2] == target[:-2]:
        return 0.0
    averaged = full[0] / target[0] if matched else 1.0
    return lost_snr(temporal, sigma, source[0], process, cells_averaged=averaged)


def size_text(size: Size) -> str:
    """Write a size as 21x60x104."""
    return "x".join(map(str, size))
