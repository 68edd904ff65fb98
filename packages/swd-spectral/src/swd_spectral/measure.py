"""Measure a data set once, keep the numbers: densities over space and, of videos, over time."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from swd_data import read_object, whole, write_json
from swd_spectral.density import Density, DensityMeter
from swd_spectral.powerlaw import PowerLaw, fit_power_law

Size = tuple[int, ...]
MOST_CELLS = 4096  # a side: as in schedules
_KEYS = ("frequency", "power", "error", "count")


@dataclass(frozen=True)
class Measurement:
    """The spectra of latents of one size, `full`: (h, w) or (t, h, w)."""

    full: Size
    space: Density
    time: Density | None

    @property
    def laws(self) -> dict[str, PowerLaw]:
        """Return the power law of each density that has enough bins: of 12 cells or 6 frames."""
        laws = {"space": _law(self.space, 2.0) if self.space.extent >= 12 else None}
        if self.time and self.time.extent >= 6:
            laws["time"] = _law(self.time, 0.5)
        return {axis: law for axis, law in laws.items() if law}

    @property
    def floored(self) -> PowerLaw | None:
        """Return the law over space with the floor that its autoencoder adds; None: none is seen."""
        law = _law(self.space, 2.0, floor=True) if self.space.extent >= 12 else None
        # A floor below the lowest power's tenth, or one that may be anything, is none.
        space = self.space
        fitted = space.power[(space.cycles >= 2) & (space.cycles <= space.extent / 2) & (space.power > 0)]
        lowest = float(fitted.min()) if len(fitted) else 0.0
        seen = law is not None and law.floor_interval is not None and law.floor_interval[0] > lowest / 10
        return law if seen else None

    def save(self, path: Path) -> None:
        """Write everything as JSON; `load` gives back an equal measurement."""
        write_json(path, {"full": self.full, "space": _to_dict(self.space), "time": self.time and _to_dict(self.time)})

    @classmethod
    def load(cls, path: Path) -> "Measurement":
        """Read what `save` wrote.

        Raises:
            ValueError: no such file, or another; the line names it.
        """
        data = read_object(path, "a spectrum.json of `swd-spectral analyze`")
        try:
            time = None if data["time"] is None else _from_dict(data["time"], "time")
            return cls(_read_size(data["full"]), _from_dict(data["space"], "space"), time)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise ValueError(
                f"expected a spectrum.json of `swd-spectral analyze`, got {path}, which is none ({error!r}): "
                "run it first"
            ) from error

    def write_csv(self, path: Path) -> None:
        """Write one row a bin."""
        with whole(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["axis", "cycles", *_KEYS])
            for density in filter(None, (self.space, self.time)):
                columns = [density.cycles, *(getattr(density, key) for key in _KEYS)]
                for row in zip(*(column.tolist() for column in columns), strict=True):
                    writer.writerow([density.axis, *(f"{value:.9g}" for value in row)])


def measure(batches: Iterable[Tensor], *, drop_first: bool = False) -> Measurement:
    """Measure latents (B, C, H, W) or (B, C, T, H, W), batch after batch, in fixed memory.

    Raises:
        ValueError: no batch, batches of several sizes, or samples that are the same everywhere.
    """
    space, time, full = DensityMeter("space"), DensityMeter("time", drop_first=drop_first), None
    for x in batches:
        space.update(x)
        if x.ndim == 5 and x.shape[2] - drop_first > 1:
            time.update(x)
        full = tuple(x.shape[2:])
    if full is None:
        raise ValueError("expected at least one batch of latents, got none")
    found = space.result()
    # Of a constant, the transform in float32 leaves about 1e-14 of its power elsewhere.
    if not float(found.power[1:].max()) > 1e-12 * float(found.power[0]):
        raise ValueError("expected latents that differ from place to place, got constant ones: any size holds them")
    return Measurement(full, found, time.result() if time.num_samples else None)


def _law(density: Density, low: float, *, floor: bool = False) -> PowerLaw | None:
    """Fit a law; None where too few bins have any power, as of pictures that stand still."""
    try:
        return fit_power_law(density, low, floor=floor)
    except ValueError:
        return None


def _to_dict(density: Density) -> dict[str, Any]:
    columns = {key: getattr(density, key).tolist() for key in _KEYS}
    columns["error"] = [None if isnan(value) else value for value in columns["error"]]  # of one sample
    return {"extent": density.extent, "num_samples": density.num_samples, **columns}


def _from_dict(data: dict[str, Any], axis: Any) -> Density:
    """Read a density; raise some exception for what is none."""
    columns = {key: np.array([nan if x is None else x for x in data[key]], np.float64) for key in _KEYS}
    if len({column.shape for column in columns.values()}) > 1 or columns["power"].ndim != 1:
        raise ValueError(f"{', '.join(_KEYS)} of {axis} have not one length")
    known = np.stack([columns[key] for key in _KEYS if key != "error"])
    if not (np.isfinite(known).all() and (known >= 0).all() and known.shape[1] > 1):
        raise ValueError(f"{axis} has no spectrum of numbers from 0 up")
    tensors = {key: torch.from_numpy(column) for key, column in columns.items()}
    return Density(axis=axis, extent=_read_size([data["extent"]])[0], num_samples=int(data["num_samples"]), **tensors)


def _read_size(value: Any) -> Size:
    size = tuple(value)
    if not 1 <= len(size) <= 3 or not all(isinstance(side, int) and 1 <= side <= MOST_CELLS for side in size):
        raise ValueError(f"{value!r} is no size")
    return size
