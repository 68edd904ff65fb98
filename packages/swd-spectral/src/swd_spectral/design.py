"""From a spectrum to a scale schedule, and back: what each step of a schedule loses (sections 3 and 4.1)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

from swd_schedules import ScaleSchedule, VariancePreserving, presets, shifted_grid
from swd_spectral.costs import Cost, relative_cost
from swd_spectral.masking import (
    DEFAULT_TAU,
    FLOW,
    Process,
    Spectrum,
    lost_snr,
    smallest_safe_size,
    smallest_safe_timestep,
)
from swd_spectral.steps import Size, Step, check_schedule, coarser_side, size_text


@dataclass(frozen=True)
class Proposal:
    """A schedule, what it costs beside as many steps at full scale, what each step loses, and why it is so."""

    schedule: ScaleSchedule
    steps: tuple[Step, ...]
    relative_cost: float
    why: str

    @property
    def worst(self) -> float:
        """Return the largest signal-to-noise ratio that any step loses."""
        return max(step.worst for step in self.steps)

    def __str__(self) -> str:
        head = f"{self.schedule}\n{self.why}\ncost: {self.relative_cost:.3f} of full scale; worst SNR {self.worst:.3g}"
        return "\n".join([head, *map(str, self.steps)])


def propose_schedule(
    spectrum: Spectrum,
    full: Size,
    timesteps: Sequence[float],
    cost: Cost,
    process: Process = FLOW,
    *,
    temporal: Spectrum | None = None,
    tau: float = DEFAULT_TAU,
    multiple: int = 2,
    smallest: Size | None = None,
) -> Proposal:
    """Give each timestep the smallest size from which the next step loses nothing visible: the cheapest at `tau`.

    `full` is (h, w) or (t, h, w); height and width keep its proportions within `multiple`, the model's patch. No size
    is below `smallest`, by default a quarter of `full` on every axis: a teacher knows no lower ones well (appendix B).

    Raises:
        ValueError: `full` or `smallest` is none that the model takes.
    """
    check_sizes(full, multiple, smallest)
    least = smallest or tuple(_up(side / 4, multiple if axis >= len(full) - 2 else 1) for axis, side in enumerate(full))
    sizes: list[Size] = []
    for t in timesteps[1:]:
        safe = _safe_size(spectrum, temporal, t / 1000, full, process, tau, multiple)
        sizes.append(tuple(max(pair) for pair in zip(safe, least, strict=True)))
    schedule = ScaleSchedule(tuple(timesteps), (*sizes, full))
    low = size_text(least)
    why = f"Timesteps given; sizes the smallest whose loss the next step hides (tau {tau:.3g}, from {low} up)."
    return _proposal(schedule, spectrum, temporal, process, tau, cost, why)


def propose_timesteps(
    spectrum: Spectrum,
    sizes: Sequence[Size],
    cost: Cost,
    process: Process = FLOW,
    *,
    temporal: Spectrum | None = None,
    tau: float = DEFAULT_TAU,
) -> Proposal:
    """Give each size the lowest timestep that hides what the size before it could not hold: the least noise at `tau`.

    Less noise keeps more of the prediction before. Timesteps are rounded up to whole ones and kept 1 apart.

    Raises:
        ValueError: no such schedule: sizes shrink, or repeat, so that no loss bounds the timestep from below.
    """
    full, timesteps = sizes[-1], [1000.0]
    ScaleSchedule(tuple(1000.0 - i for i in range(len(sizes))), tuple(sizes))  # whatever the timesteps: its rules
    for source, target in pairwise(sizes):
        if source == target:
            raise ValueError(f"expected growing sizes, got {size_text(source)} twice: leave one out")
        bounds = [0.0]
        if source[-2:] != target[-2:]:
            bounds.append(smallest_safe_timestep(spectrum, coarser_side(source, full), process, tau=tau))
        if source[:-2] != target[:-2]:
            if temporal is None:
                raise ValueError("expected a temporal spectrum for frames that grow, got none: give temporal=")
            bounds.append(smallest_safe_timestep(temporal, source[0], process, tau=tau))
        to_come = len(sizes) - len(timesteps)  # each needs a timestep of its own above 0
        timesteps.append(float(max(to_come, min(ceil(max(bounds)), timesteps[-1] - 1))))
    schedule = ScaleSchedule(tuple(timesteps), tuple(sizes))
    why = f"Sizes given; timesteps the lowest that hide what the size before could not hold (tau {tau:.3g})."
    return _proposal(schedule, spectrum, temporal, process, tau, cost, why)


def check_sizes(full: Size, multiple: int, smallest: Size | None = None) -> None:
    """Raise ValueError for a full size that `multiple` does not divide, or a smallest size that does not go with it."""
    if multiple < 1:
        raise ValueError(f"expected a multiple of 1 or more, got {multiple}: the patch of the model")
    if any(side % multiple for side in full[-2:]):
        nearest = (*full[:-2], *(max(multiple, side // multiple * multiple) for side in full[-2:]))
        raise ValueError(
            f"expected a full size in multiples of {multiple}, the model's patch, got {size_text(full)}: take "
            f"{size_text(nearest)}, or another multiple"
        )
    if smallest is None:
        return
    if len(smallest) != len(full) or any(low > high for low, high in zip(smallest, full, strict=True)):
        raise ValueError(f"expected a smallest size within {size_text(full)}, got {size_text(smallest)}")
    if any(side % multiple for side in smallest[-2:]):
        raise ValueError(f"expected a smallest size in multiples of {multiple}, got {size_text(smallest)}: round it up")


def default_timesteps(num_steps: int, process: Process = FLOW) -> tuple[float, ...]:
    """Return timesteps as the paper spaces them: its own for 4 and 6 steps, else even on the 28-step grid down to 602.

    SDXL's (VP) are even from 1000 to 400.
    """
    if num_steps < 1:
        raise ValueError(f"expected at least 1 step, got {num_steps}")
    if isinstance(process, VariancePreserving):
        return tuple(1000 - 600 * i / max(num_steps - 1, 1) for i in range(num_steps))
    paper = {4: presets.SD35_MEDIUM_4, 6: presets.SD35_MEDIUM_6}
    if num_steps in paper:
        return paper[num_steps].timesteps
    if num_steps > 19:
        raise ValueError(f"expected at most 19 steps of flow matching, got {num_steps}: ask for fewer")
    grid = shifted_grid(28)
    return tuple(1000 * grid[round(18 * i / max(num_steps - 1, 1))] for i in range(num_steps))


def even_sizes(full: Size, num_steps: int, *, multiple: int = 2, smallest: float = 0.25) -> list[Size]:
    """Return sizes that grow evenly from a share of `full` on every axis, each the nearest multiple."""
    shares = [smallest + (1 - smallest) * i / max(num_steps - 1, 1) for i in range(num_steps)]
    shares[-1] = 1.0
    return [_scaled(full, share, multiple) for share in shares]


def _proposal(
    schedule: ScaleSchedule,
    spectrum: Spectrum,
    temporal: Spectrum | None,
    process: Process,
    tau: float,
    cost: Cost,
    why: str,
) -> Proposal:
    steps = check_schedule(schedule, spectrum, process, temporal=temporal, tau=tau)
    return Proposal(schedule, steps, relative_cost(schedule, cost), why)


def _safe_size(
    spectrum: Spectrum,
    temporal: Spectrum | None,
    sigma: float,
    full: Size,
    process: Process,
    tau: float,
    multiple: int,
) -> Size:
    space = next(
        (s for s in _smaller(full, multiple) if lost_snr(spectrum, sigma, coarser_side(s, full), process) <= tau),
        full[-2:],
    )
    if len(full) == 2:
        return space
    if temporal is None:
        return full[0], *space
    return smallest_safe_size(temporal, sigma, full[0], process, tau=tau, multiple=1), *space


def _smaller(full: Size, multiple: int) -> Iterator[Size]:
    """Yield the heights and widths below `full` in its proportions, smallest first."""
    for rows in range(multiple, full[-2], multiple):
        yield _scaled(full[-2:], rows / full[-2], multiple)


def _scaled(full: Size, share: float, multiple: int) -> Size:
    space = (max(multiple, multiple * round(share * side / multiple)) for side in full[-2:])
    return *(max(1, round(share * frames)) for frames in full[:-2]), *space


def _up(value: float, multiple: int) -> int:
    return multiple * ceil(value / multiple)
