"""Schedules and the scale-wise sampler in plain torch, as a sampler function of ComfyUI.

It computes what `swd_schedules.sample_scalewise` does from the same noise. It is written out here so that the nodes
need nothing but ComfyUI.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import pi, sqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pixel_shuffle, pixel_unshuffle

UPSCALERS = ("bicubic", "bilinear", "nearest", "dct")
PATCH = 2
"""Sides of latents are multiples of it."""
_ENTRY = re.compile(r"(\d+(?:\.\d+)?):(\d{1,4}(?:x\d{1,4}){0,2})")
_FORMS = 'write 1000:64,896:80,... or {"timesteps": [1000, 896], "sizes": [[64, 64], [80, 80]]}'

Size = tuple[int, ...]


@dataclass(frozen=True)
class Schedule:
    """The latent size of each timestep: (h, w), or (t, h, w) of videos. Timesteps fall, sizes never shrink.

    Sizes count the cells of the autoencoder, as in training. ComfyUI may have `packed` x `packed` of them as channels
    of one: 2 of FLUX.2.
    """

    timesteps: tuple[float, ...]
    sizes: tuple[Size, ...]
    upscaler: str = "bicubic"
    packed: int = 1

    def __post_init__(self) -> None:
        falling = all(a > b for a, b in zip(self.timesteps, self.timesteps[1:], strict=False))
        if not (self.timesteps and falling and 10 <= self.timesteps[0] <= 1000 and self.timesteps[-1] > 0):
            raise ValueError(f"expected timesteps that fall from at most 1000, got {list(self.timesteps)}: {_FORMS}")
        grows = all(
            len(a) == len(b) and all(x <= y for x, y in zip(a, b, strict=True))
            for a, b in zip(self.sizes, self.sizes[1:], strict=False)
        )
        whole = all(len(size) in (2, 3) and all(0 < side <= 4096 for side in size) for size in self.sizes)
        if not (grows and whole and len(self.sizes) == len(self.timesteps)):
            raise ValueError(f"expected a size a timestep, never smaller, got {list(self.sizes)}: {_FORMS}")
        if any(side % self.packed for size in self.sizes for side in size[-2:]):
            raise ValueError(f"expected even sizes for this model, got {list(self.sizes)}: it packs 2x2 cells")
        if self.upscaler not in UPSCALERS:
            raise ValueError(f"expected an upscaler of {', '.join(UPSCALERS)}, got {self.upscaler!r}")

    @classmethod
    def parse(cls, text: str) -> "Schedule":
        """Read the inline form, an upscaler at its end if it has one, or JSON.

        Raises:
            ValueError: the text is neither.
        """
        text = text.strip()
        try:
            return cls._from_json(text) if text.startswith("{") else cls._from_inline(text)
        except (KeyError, TypeError, RecursionError, json.JSONDecodeError) as error:
            raise ValueError(f"expected a schedule, got {text[:60]!r}: {_FORMS}") from error

    @classmethod
    def _from_json(cls, text: str) -> "Schedule":
        data = json.loads(text)
        sizes = tuple(tuple(int(side) for side in size) for size in data["sizes"])
        return cls(tuple(float(t) for t in data["timesteps"]), sizes, data.get("upscaler", "bicubic"))

    @classmethod
    def _from_inline(cls, text: str) -> "Schedule":
        entries = [entry.strip() for entry in text.split(",")]
        upscaler = entries.pop() if len(entries) > 1 and ":" not in entries[-1] else "bicubic"
        found = [_ENTRY.fullmatch(entry) for entry in entries]
        if not all(found):
            raise ValueError(f"expected a schedule, got {text[:60]!r}: {_FORMS}")
        pairs = [(float(match[1]), tuple(int(side) for side in match[2].split("x"))) for match in found if match]
        return cls(tuple(t for t, _ in pairs), tuple(s if len(s) > 1 else s * 2 for _, s in pairs), upscaler)

    def fitted(self, width: int, height: int, cell: int) -> "Schedule":
        """Return the schedule that ends at so many pixels, at the same shares of each side; 0 keeps a side.

        Raises:
            ValueError: pixels that are no even number of cells.
        """
        last = self.sizes[-1]
        sides = [
            (old if pixels == 0 else pixels / cell) for pixels, old in zip((height, width), last[-2:], strict=True)
        ]
        if any(side % PATCH for side in sides):
            raise ValueError(f"expected width and height in multiples of {PATCH * cell}, got {width}x{height}")

        def share(size: Size) -> Size:
            shares = (s * new / old for s, new, old in zip(size[-2:], sides, last[-2:], strict=True))
            return (*size[:-2], *(max(1, round(each / PATCH)) * PATCH for each in shares))

        return replace(self, sizes=tuple(map(share, self.sizes)))

    def cells(self, x: Tensor) -> Tensor:
        """Return ComfyUI's latents in the cells of this schedule: unpacked, and of an image without a frame."""
        if x.ndim == 5 and len(self.sizes[0]) == 2 and x.shape[2] == 1:  # as Qwen-Image's
            x = x.squeeze(2)
        return pixel_shuffle(x, self.packed) if self.packed > 1 else x

    def latents(self, cells: Tensor, like: Tensor) -> Tensor:
        """Return cells as ComfyUI has latents: the way back of `cells`, to as many axes as `like`."""
        x = pixel_unshuffle(cells, self.packed) if self.packed > 1 else cells
        return x.unsqueeze(2) if x.ndim < like.ndim else x

    def table(self) -> str:
        """Return the steps in a line each."""
        rows = zip(self.timesteps, self.sizes, strict=True)
        return "\n".join(f"{t:.4g}: {'x'.join(map(str, size))}" for t, size in rows)


def upscale(x: Tensor, size: Size, mode: str = "bicubic") -> Tensor:
    """Enlarge latents (B, C, H, W) or (B, C, T, H, W): space frame by frame, frames linearly from first to last."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    y = x.float()
    if y.ndim == 4:
        return _space(y, size, mode).to(x.dtype)
    frames = _space(y.transpose(1, 2).flatten(0, 1), size[1:], mode)
    video = frames.unflatten(0, (len(y), -1)).transpose(1, 2)
    if video.shape[2] != size[0]:
        video = interpolate(video, (size[0], *size[1:]), mode="trilinear", align_corners=True)
    return video.to(x.dtype)


def _space(x: Tensor, size: Size, mode: str) -> Tensor:
    if tuple(x.shape[2:]) == tuple(size):
        return x
    if mode == "dct":
        rows, columns = (_dct(old, new).to(x) for old, new in zip(x.shape[2:], size, strict=True))
        return rows @ x @ columns.T
    return interpolate(x, tuple(size), mode="nearest-exact" if mode == "nearest" else mode)


def _dct(old: int, new: int) -> Tensor:
    """Return what pads the orthonormal DCT-II with zeros."""

    def basis(n: int) -> Tensor:
        i = torch.arange(n, dtype=torch.float64)
        found = sqrt(2 / n) * torch.cos(pi / n * i[:, None] * (i + 0.5))
        found[0] /= sqrt(2)
        return found

    return sqrt(new / old) * basis(new)[:old].T @ basis(old)


def sampler(schedule: Schedule, seed: int) -> Callable[..., Tensor]:
    """Return a sampler function of ComfyUI: predict x0, upscale it, renoise it, repeat.

    Sample i of a batch takes its noise from seed + i, on the CPU, as `swd-sample --seed` does. The steps are those
    whose levels are among the SIGMAS, but the last: a part of them, by SplitSigmas, is for one of two models. A part
    that is not the first begins with the latent that it is given.
    """

    def sample(
        model: Any,
        x: Tensor,
        sigmas: Tensor,
        extra_args: dict[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], None] | None = None,
        disable: bool | None = None,
    ) -> Tensor:
        options = extra_args or {}
        if options.get("denoise_mask") is not None:
            raise ValueError("expected a latent without a mask, got one: SwD Sampler makes whole images")
        noising = model.inner_model.inner_model.model_sampling
        steps = _steps(schedule, noising, sigmas)
        first, channels = steps[0], x.shape[1] // schedule.packed**2
        _check_latent(schedule.cells(x), schedule, first)
        noise = [torch.Generator().manual_seed(seed + i) for i in range(len(x))]
        for each in noise:  # as if the steps before had been run
            for size in schedule.sizes[:first]:
                torch.randn((1, channels, *size), generator=each)
        x0 = schedule.cells(model.latent_image) if first else None
        for count, step in enumerate(steps):
            drawn = torch.cat([torch.randn((1, channels, *schedule.sizes[step]), generator=each) for each in noise])
            drawn, sigma = drawn.to(x), sigmas[count]
            if x0 is None:  # the first step starts from noise alone, whatever its level
                x_t = drawn * (1 + sigma**2).sqrt() if has_table(noising) else drawn
            else:
                x0 = upscale(x0, schedule.sizes[step], schedule.upscaler)
                x_t = noising.noise_scaling(sigma, drawn, x0)
            x_t = schedule.latents(x_t, x)
            found = model(x_t, sigma * x.new_ones(len(x)), **options)
            if callback is not None:
                callback({"x": x_t, "i": count, "sigma": sigma, "sigma_hat": sigma, "denoised": found})
            x0 = schedule.cells(found)
        # ComfyUI takes the noise level of a part's end for granted: without noise it is x0 on the way there.
        return found if sigmas[-1] == 0 else noising.noise_scaling(sigmas[-1], torch.zeros_like(found), found)

    return sample


def has_table(noising: Any) -> bool:
    """Tell whether a model's noise levels are of a table, as SDXL's: it is no flow model."""
    return hasattr(noising, "log_sigmas")


def sigmas_of(schedule: Schedule, noising: Any) -> Tensor:
    """Return ComfyUI's noise levels of a schedule and 0: t / 1000 of a flow model, never shifted, else of its table."""
    timesteps = torch.tensor(schedule.timesteps, dtype=torch.float64)
    levels = noising.sigma(timesteps.round().clamp(max=999)) if has_table(noising) else timesteps / 1000
    return torch.cat([levels, levels.new_zeros(1)]).float()


def _steps(schedule: Schedule, noising: Any, sigmas: Tensor) -> list[int]:
    """Return the steps of a schedule that a row of noise levels has."""
    levels, wanted = sigmas_of(schedule, noising)[:-1], sigmas[:-1].cpu().float()
    for first in range(len(levels) - len(wanted) + 1):
        part = levels[first : first + len(wanted)]
        if len(wanted) and torch.allclose(part.cpu(), wanted, rtol=1e-4):
            return list(range(first, first + len(wanted)))
    shown = ", ".join(f"{float(sigma):.4g}" for sigma in sigmas)
    raise ValueError(f"expected the SIGMAS of this SwD Schedule, or a part of them in a row, got {shown}: connect them")


def _check_latent(x: Tensor, schedule: Schedule, first: int) -> None:
    """Raise ValueError for a latent that is not of the final size; of a part's, that the step before has left."""
    wanted = schedule.sizes[first - 1] if first else schedule.sizes[-1]
    if tuple(x.shape[2:]) != tuple(wanted):
        sizes = ["x".join(map(str, size)) for size in (wanted, tuple(x.shape[2:]))]
        raise ValueError(
            f"expected a latent of {sizes[0]} cells, got {sizes[1]}: connect width, height and length of SwD Schedule "
            "to the empty latent"
        )
