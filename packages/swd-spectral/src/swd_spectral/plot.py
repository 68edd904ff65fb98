"""Figures 1 and 13 of the paper for any latents: what noise masks, and which sizes that allows."""

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from swd_spectral.density import Density
from swd_spectral.masking import DEFAULT_TAU, FLOW, Process, lost_snr, noised
from swd_spectral.measure import Measurement

NOISE, CLEAN, NOISY = "#3b6fb6", "#7b4fa3", "#e8842c"
ALLOWED, LOST = "#57a55a", "#d1493f"


def plot_masking(
    measurement: Measurement,
    timesteps: Sequence[float] = (800, 600, 400),
    process: Process = FLOW,
    *,
    tau: float = DEFAULT_TAU,
    title: str = "",
) -> Figure:
    """Draw one panel a timestep, a row over space and, of videos, one over time.

    Noise (blue), clean (purple) and noisy latents (orange); dashed lines where smaller sizes end. Green: frequencies
    that noise masks and a smaller size may leave out. Red: those that the next smaller size would lose although they
    show.
    """
    densities = [density for density in (measurement.space, measurement.time) if density is not None]
    shape = (3.6 * len(timesteps) + 0.6, 3.5 * len(densities) + 0.6)
    figure = Figure(figsize=shape, layout="constrained", dpi=150)
    grid = figure.subplots(len(densities), len(timesteps), squeeze=False, sharey="row", sharex="row")
    for row, density in zip(grid, densities, strict=True):
        for axes, timestep in zip(row, timesteps, strict=True):
            _panel(axes, density, timestep, process, tau, measurement)
        row[0].set_ylabel("power spectral density (unit white noise = 1)")
        kept = density.power[(density.frequency > 0) & (density.power > 0)].tolist()  # the axis is logarithmic
        levels = [noised(0.0, timestep / 1000, process) for timestep in timesteps]
        row[0].set_ylim(min(*kept, *levels) / 3, 3 * max(kept or levels))
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    if title:
        figure.suptitle(title)
    return figure


def lower_sizes(density: Density) -> list[int]:
    """Return the sizes whose ends are drawn: halves of an image's shorter side, thirds or so of a clip."""
    if density.axis == "space":
        return [density.extent >> shift for shift in (1, 2, 3) if density.extent >> shift >= 2]
    return [n for n in (round(density.extent * share) for share in (0.76, 0.52, 0.29)) if n >= 2]


def _panel(
    axes: Axes, density: Density, timestep: float, process: Process, tau: float, measurement: Measurement
) -> None:
    sigma, kept = timestep / 1000, density.frequency > 0
    cycles, clean = density.cycles[kept], density.power[kept]
    level = noised(0.0, sigma, process)
    axes.axhline(level, color=NOISE, label="noise")
    axes.plot(cycles, clean, color=CLEAN, label="clean latents")
    if density.num_samples > 1:
        error = 2 * density.error[kept]
        axes.fill_between(cycles, (clean - error).clamp(min=1e-12), clean + error, color=CLEAN, alpha=0.25, lw=0)
    noisy = torch.tensor([noised(float(power), sigma, process) for power in clean])
    axes.plot(cycles, noisy, color=NOISY, label="noisy latents")
    law, above = measurement.laws.get(density.axis), ""
    if density.axis == "space" and measurement.floored:
        law, above = measurement.floored, f" + {measurement.floored.floor:.2g}"
    if law:
        fit = [law(float(k)) for k in cycles]
        axes.plot(cycles, fit, color=CLEAN, lw=0.8, ls=":", label=f"$k^{{-{law.exponent:.2f}}}${above} fit")
    # Frequencies beyond the full size's own Nyquist frequency exist in the corners of the plane alone: not drawn.
    axes.set(xscale="log", yscale="log", xlim=(float(cycles[0]), density.extent / 2))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    _areas(axes, density, sigma, process, tau)
    axes.set_title(f"t = {timestep:g}")
    axes.set_xlabel("cycles per image (shorter side)" if density.axis == "space" else "cycles per clip")


def _areas(axes: Axes, density: Density, sigma: float, process: Process, tau: float) -> None:
    """Mark where each lower size ends; shade what may be left out, and what the next step down would lose."""
    sizes = lower_sizes(density)
    for size in sizes:
        axes.axvline(size / 2, color="0.35", ls="--", lw=0.8)
        name = f"{size}x{size}" if density.axis == "space" else f"{size} frames"
        axes.annotate(
            name, (size / 2, 0.98), xycoords=axes.get_xaxis_transform(), rotation=90, ha="right", va="top", fontsize=8
        )
    safe = [size for size in sizes if lost_snr(density, sigma, size, process) <= tau]
    left = min(safe, default=density.extent) / 2
    lowest = max((size for size in sizes if size not in safe), default=2 * left) / 2
    axes.axvspan(left, density.extent / 2, color=ALLOWED, alpha=0.16, lw=0, label="masked: may be left out")
    axes.axvspan(lowest, left, color=LOST, alpha=0.16, lw=0, label="visible: must be kept")
