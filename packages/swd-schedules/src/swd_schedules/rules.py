"""What a schedule has to keep to, each rule with the line that a user reads."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from numbers import Integral
from typing import Literal, cast, get_args

UpscaleMode = Literal["bicubic", "bilinear", "nearest", "dct"]
MOST_STAGES, MOST_CELLS, MOST_OF_ALL = 64, 4096, 2**22
LOWEST_START = 10.0
"""Schedules start near 1000; one that starts below this counts in sigmas."""


def check_timesteps(timesteps: Sequence[float]) -> None:
    """Raise ValueError unless timesteps fall strictly within (0, 1000], from where there is noise."""
    if not 1 <= len(timesteps) <= MOST_STAGES:
        raise ValueError(f"expected 1 to {MOST_STAGES} timesteps, got {len(timesteps) or 'none'}; give one a step")
    for t in timesteps:
        if not 0 < t <= 1000:
            raise ValueError(f"expected timesteps in (0, 1000], got {t:g}; count as 1000 (pure noise), 896, 602")
    if timesteps[0] < LOWEST_START:
        raise ValueError(
            f"expected a first timestep of {LOWEST_START:g} or more, got {timesteps[0]:g}; got sigmas? multiply by 1000"
        )
    for before, after in pairwise(timesteps):
        if after >= before:
            raise ValueError(
                f"expected strictly falling timesteps, got {before:g} then {after:g}; start with the noisiest"
            )


def check_sizes(sizes: Sequence[tuple[int, ...]]) -> None:
    """Raise ValueError unless sizes are whole, of one rank, and shrink nowhere."""
    for size in sizes:
        if len(size) not in (2, 3) or not all(isinstance(side, Integral) and 1 <= side <= MOST_CELLS for side in size):
            raise ValueError(
                f"expected sizes (h, w) or (t, h, w) of whole numbers in 1..{MOST_CELLS}, got {size}; "
                "count latent cells"
            )
        if prod(size) > MOST_OF_ALL:
            raise ValueError(
                f"expected at most {MOST_OF_ALL} latent cells, got {size}; no model has memory for as many"
            )
    for before, after in pairwise(sizes):
        if len(before) != len(after):
            raise ValueError(f"expected sizes of one rank, got {before} then {after}; give all or none a frame axis")
        if any(new < old for old, new in zip(before, after, strict=True)):
            raise ValueError(
                f"expected sizes that never shrink, got {before} then {after}; order them from small to large"
            )


def check_upscaler(name: object) -> UpscaleMode:
    """Return the name of an upscaler; raise ValueError if it is none."""
    if name not in get_args(UpscaleMode):
        raise ValueError(f"expected an upscaler of {', '.join(get_args(UpscaleMode))}, got {name!r}")
    return cast(UpscaleMode, name)
