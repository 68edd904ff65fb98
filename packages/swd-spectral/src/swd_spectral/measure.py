"""Measure a data set once, keep the numbers: densities over space and, of videos, over time."""

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swd_spectral.density import Density, DensityMeter
from swd_spectral.powerlaw import PowerLaw, fit_power_law

Size = tuple[int, ...]
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
        laws = {"space": fit_power_law(self.space)} if self.space.extent >= 12 else {}
        if self.time and self.time.extent >= 6:
            laws["time"] = fit_power_law(self.time, low=0.5)
        return laws

    def to_json(self) -> str:
        """Write everything as JSON; `from_json` gives back an equal measurement."""
        data = {"full": self.full, "space": _to_dict(self.space), "time": self.time and _to_dict(self.time)}
        return json.dumps(data, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Measurement":
        """Read what `to_json` wrote; ValueError for anything else."""
        try:
            data = json.loads(text)
            time = None if data["time"] is None else _from_dict(data["time"], "time")
            return cls(tuple(data["full"]), _from_dict(data["space"], "space"), time)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"expected a spectrum.json of `swd-spectral analyze`, got {text[:60]!r} ({error!r}): run it first"
            ) from error

    def write_csv(self, path: Path) -> None:
        """Write one row a bin."""
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["axis", "cycles", *_KEYS])
            for density in filter(None, (self.space, self.time)):
                columns = [density.cycles, *(getattr(density, key) for key in _KEYS)]
                for row in zip(*(column.tolist() for column in columns), strict=True):
                    writer.writerow([density.axis, *(f"{value:.9g}" for value in row)])


def measure(batches: Iterable[Tensor], *, drop_first: bool = False) -> Measurement:
    """Measure latents (B, C, H, W) or (B, C, T, H, W), batch after batch, in fixed memory.

    Raises:
        ValueError: no batch, or batches of several sizes.
    """
    space, time, full = DensityMeter("space"), DensityMeter("time", drop_first=drop_first), None
    for x in batches:
        space.update(x)
        if x.ndim == 5 and x.shape[2] - drop_first > 1:
            time.update(x)
        full = tuple(x.shape[2:])
    if full is None:
        raise ValueError("expected at least one batch of latents, got none")
    return Measurement(full, space.result(), time.result() if time.num_samples else None)


def _to_dict(density: Density) -> dict[str, Any]:
    columns = {key: getattr(density, key).tolist() for key in _KEYS}
    return {"extent": density.extent, "num_samples": density.num_samples, **columns}


def _from_dict(data: dict[str, Any], axis: Any) -> Density:
    columns = {key: torch.tensor(data[key], dtype=torch.float64) for key in _KEYS}
    return Density(axis=axis, extent=data["extent"], num_samples=data["num_samples"], **columns)
