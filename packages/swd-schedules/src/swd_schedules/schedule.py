"""Scale schedules: the latent size at each timestep (section 4.1 of the paper)."""

import json
from dataclasses import dataclass, replace
from math import sqrt

from swd_schedules.forms import read_inline, read_json
from swd_schedules.rules import UpscaleMode, check_sizes, check_timesteps, check_upscaler


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
        timesteps: Strictly falling, in (0, 1000], at most 64. A first one below 10 is refused: it must be a sigma.
        sizes: `(h, w)` or `(t, h, w)` in latent cells, at most 4096 a side and 2^22 in all, never shrinking on any
            axis; sizes may repeat. Whether a model's patch divides them is for the model to check.
        upscaler: What takes x0 to the next size, in sampling and in training.

    Raises:
        ValueError: A rule above is broken.
    """

    timesteps: tuple[float, ...]
    sizes: tuple[tuple[int, ...], ...]
    upscaler: UpscaleMode = "bicubic"

    def __post_init__(self) -> None:
        check_timesteps(self.timesteps)
        check_sizes(self.sizes)
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
        return cls(*read_inline(text))

    @classmethod
    def from_json(cls, text: str) -> "ScaleSchedule":
        """Read what `to_json` wrote.

        Raises:
            ValueError: The text is no JSON, has other keys, or describes no valid schedule.
        """
        return cls(*read_json(text))

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

    def within(self, low: float, high: float) -> tuple[Stage, ...]:
        """Return the stages of noise levels in [low, high), or in [low, 1]: those of one expert of a model of two."""
        return tuple(stage for stage in self.stages if low <= stage.sigma and (stage.sigma < high or high == 1))

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


def _size_text(size: tuple[int, ...]) -> str:
    return "x".join(str(axis) for axis in size)
