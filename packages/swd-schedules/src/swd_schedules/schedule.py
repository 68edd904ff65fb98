"""Scale schedules: the latent size at each timestep (section 4.1 of the paper)."""

import json
import re
from dataclasses import dataclass, replace
from itertools import pairwise
from math import sqrt
from typing import cast, get_args

from swd_schedules.resize import UpscaleMode

_ENTRY = re.compile(r"(\d+(?:\.\d+)?(?:e-?\d+)?):(\d+(?:x\d+){0,2})")


@dataclass(frozen=True)
class Stage:
    """One step of a schedule: denoise at `target` what was upscaled from `source` and noised to `sigma`."""

    index: int
    sigma: float
    source: tuple[int, ...]
    target: tuple[int, ...]


@dataclass(frozen=True)
class ScaleSchedule:
    """Pair each timestep t_i with the latent size s_i at which the model sees its input and predicts x0.

    This is the sampler's pairing, for training too; the paper's figure 3 and its training paragraph write s_{i+1}.

    Attributes:
        timesteps: Strictly falling, in (0, 1000].
        sizes: `(h, w)` or `(t, h, w)` in latent cells, never shrinking on any axis; sizes may repeat. Whether a model's
            patch divides them is for the model to check.
        upscaler: What takes x0 to the next size, in sampling and in training.

    Raises:
        ValueError: A rule above is broken.
    """

    timesteps: tuple[float, ...]
    sizes: tuple[tuple[int, ...], ...]
    upscaler: UpscaleMode = "bicubic"

    def __post_init__(self) -> None:
        _check_timesteps(self.timesteps)
        _check_sizes(self.sizes)
        if len(self.timesteps) != len(self.sizes):
            raise ValueError(
                f"expected one size per timestep, got {len(self.timesteps)} timesteps and {len(self.sizes)} sizes; "
                "repeat a size to stay on it"
            )
        check_upscaler(self.upscaler)

    @classmethod
    def square(cls, timesteps: tuple[float, ...], sizes: tuple[int, ...]) -> "ScaleSchedule":
        """Build a schedule of square image latents from their side lengths."""
        return cls(timesteps, tuple((side, side) for side in sizes))

    @classmethod
    def parse(cls, text: str) -> "ScaleSchedule":
        """Read the inline form `1000:8x8,896:10x10`; `1000:8` means a square, `1000:6x20x34` a video.

        An upscaler other than bicubic stands at the end: `1000:8,896:16,dct`.
        """
        timesteps, sizes = [], []
        entries, _, last = text.rpartition(",")
        named = bool(entries) and ":" not in last
        for entry in (entries if named else text).split(","):
            match = _ENTRY.fullmatch(entry.strip())
            if match is None:
                raise ValueError(
                    f"expected entries such as 1000:8x8, got {entry.strip()!r}; write timestep:size, split by commas"
                )
            size = tuple(int(axis) for axis in match[2].split("x"))
            timesteps.append(float(match[1]))
            sizes.append(size if len(size) > 1 else size * 2)
        return cls(tuple(timesteps), tuple(sizes), check_upscaler(last.strip()) if named else "bicubic")

    @classmethod
    def from_json(cls, text: str) -> "ScaleSchedule":
        """Read what `to_json` wrote.

        Raises:
            ValueError: The text is no JSON, has other keys, or describes no valid schedule.
        """
        expected = 'expected JSON such as {"timesteps": [1000, 602], "sizes": [[8, 8], [16, 16]]}'
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{expected}, got {text[:60]!r}; check the syntax ({error})") from error
        if not isinstance(data, dict) or set(data) - {"upscaler"} != {"timesteps", "sizes"}:
            raise ValueError(f"{expected}, got {text[:60]!r}; give exactly these two keys, or upscaler too")
        timesteps, sizes = data["timesteps"], data["sizes"]
        if not _is_list_of((int, float), timesteps):
            raise ValueError(f"{expected}, got timesteps {timesteps!r}; give a list of numbers")
        if not (_is_list_of(list, sizes) and all(_is_list_of(int, size) for size in sizes)):
            raise ValueError(f"{expected}, got sizes {sizes!r}; give a list of lists of whole numbers")
        return cls(
            tuple(float(t) for t in timesteps),
            tuple(tuple(size) for size in sizes),
            check_upscaler(data.get("upscaler", "bicubic")),
        )

    def to_json(self) -> str:
        """Write the schedule as one line of JSON; `from_json` gives back an equal one."""
        upscaler = {} if self.upscaler == "bicubic" else {"upscaler": self.upscaler}  # so other readers read the rest
        return json.dumps({"timesteps": self.timesteps, "sizes": self.sizes} | upscaler)

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Noise levels in (0, 1]: timestep / 1000."""
        return tuple(t / 1000 for t in self.timesteps)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Steps in sampling order; each source is the previous size, and stage 0 starts at its own target."""
        sources = (self.sizes[0], *self.sizes[:-1])
        rows = zip(self.sigmas, sources, self.sizes, strict=True)
        return tuple(Stage(index, *row) for index, row in enumerate(rows))

    def full_scale(self) -> "ScaleSchedule":
        """Return the baseline of section 5: the same timesteps, all at the final size."""
        return replace(self, sizes=self.sizes[-1:] * len(self.sizes))

    def thin(self, num_steps: int) -> "ScaleSchedule":
        """Keep `num_steps` stages, evenly spread, with the first and the last; one is pure noise at the last size.

        Raises:
            ValueError: Fewer than one step, or more than there are.
        """
        last = len(self.sizes) - 1
        if not 1 <= num_steps <= last + 1:
            raise ValueError(f"expected 1 to {last + 1} steps, got {num_steps}; this schedule has no others")
        if num_steps == 1:
            return replace(self, timesteps=self.timesteps[:1], sizes=self.sizes[-1:])
        kept = [round(i * last / (num_steps - 1)) for i in range(num_steps)]
        return replace(self, timesteps=tuple(self.timesteps[i] for i in kept), sizes=tuple(self.sizes[i] for i in kept))

    def reshaped(self, aspect: float, multiple: int = 1) -> "ScaleSchedule":
        """Return the schedule of about the same areas in the shape `aspect`, width over height; frames stay.

        Heights and widths are the multiples of `multiple` (what the model divides by) that are nearest.
        """

        def nearest(side: float) -> int:
            return max(1, round(side / multiple)) * multiple

        areas = (size[-2] * size[-1] for size in self.sizes)
        sides = ((nearest(sqrt(area / aspect)), nearest(sqrt(area * aspect))) for area in areas)
        return replace(self, sizes=tuple((*size[:-2], *hw) for size, hw in zip(self.sizes, sides, strict=True)))

    def __str__(self) -> str:
        # Four digits keep the once- and the twice-shifted grid apart (895.7, 895.9).
        steps = (f"{t:.4g}@{_size_text(size)}" for t, size in zip(self.timesteps, self.sizes, strict=True))
        return " -> ".join(steps) + ("" if self.upscaler == "bicubic" else f" ({self.upscaler})")


def _check_timesteps(timesteps: tuple[float, ...]) -> None:
    if not timesteps:
        raise ValueError("expected at least one timestep, got none; a schedule has one step or more")
    for t in timesteps:
        if not 0 < t <= 1000:
            raise ValueError(f"expected timesteps in (0, 1000], got {t:g}; multiply noise levels in (0, 1] by 1000")
    for before, after in pairwise(timesteps):
        if after >= before:
            raise ValueError(
                f"expected strictly falling timesteps, got {before:g} then {after:g}; start with the noisiest"
            )


def _check_sizes(sizes: tuple[tuple[int, ...], ...]) -> None:
    for size in sizes:
        if len(size) not in (2, 3) or min(size) < 1:
            raise ValueError(f"expected sizes (h, w) or (t, h, w) of at least 1, got {size}; count latent cells")
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


def _is_list_of(kind: type | tuple[type, ...], value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _size_text(size: tuple[int, ...]) -> str:
    return "x".join(str(axis) for axis in size)
