"""Draw scenes, a batch at a time and on any device: antialiased, textured, lit from a side, with 1/f noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from benchmarks.large_teacher.scenes import COLORS, PIXELS, RELATIONS, SHAPES, SIZES, TEXTURES

CROSS_ARM, STAR_INNER = 0.36, 0.52  # half an arm's width; where a star's sides meet; in radii
CORNERS = {"square": (4, 0.72), "triangle": (3, 0.56), "star": (5, 1.12)}  # and centre to edge, of a star to its tips
PERIOD = 7.0
"""Pixels from a stripe or dot to the next, and between every second check."""
DOT = 2.1
"""Radius of a dot in pixels."""
GROUND_CONTRAST = 0.78
"""Of a ground's pattern to the ground."""
INK, LIGHTER = 0.5, (0.32, 0.32, 0.32)
"""A pattern is in a darker shade of its colour, on black in a lighter one."""
MOST_ITEMS = 3
SPACING = (0.0, 0.0, 60.0, 42.0)  # between the centres of a row, by its count
PLAY = (0.0, 26.0, 9.0, 1.5)  # how far each may stray along the row
APART, STRAY = 31.0, 5.0  # of a row from the middle
WINDOW = 40  # pixels that hold any shape


@cache
def _table(values: tuple[Any, ...], device: torch.device) -> Tensor:
    """Return numbers on a device: copied once, for each copy waits for all that the device still does."""
    return torch.tensor(values, device=device)


@dataclass(frozen=True)
class _Free:
    """Draws what a caption leaves open."""

    num: int
    generator: torch.Generator

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        device = self.generator.device
        return low + (high - low) * torch.rand(self.num, *shape, generator=self.generator, device=device)

    def noise(self, num: int) -> Tensor:
        """Return 1/f noise of unit variance, (N, num, PIXELS, PIXELS)."""
        device = self.generator.device
        white = torch.randn(self.num, num, PIXELS, PIXELS, generator=self.generator, device=device)
        fy, fx = torch.fft.fftfreq(PIXELS, device=device)[:, None], torch.fft.rfftfreq(PIXELS, device=device)
        pink = torch.fft.irfft2(torch.fft.rfft2(white) / torch.hypot(fy, fx).clamp(min=1 / PIXELS))
        pink = pink - pink.mean((-2, -1), keepdim=True)
        return pink / pink.std((-2, -1), keepdim=True)


def draw(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Draw scenes, given by their rows (N, 13), as images (N, 3, 128, 128) in [0, 1], on the generator's device."""
    rows = rows.to(generator.device)
    free = _Free(len(rows), generator)
    grid = torch.arange(PIXELS, device=rows.device) + 0.5 - PIXELS / 2
    x, y = grid.expand(PIXELS, PIXELS), grid[:, None].expand(PIXELS, PIXELS)
    angle = free.uniform(0, 2 * math.pi, 1, 1)
    light = (angle.cos() * x + angle.sin() * y) / PIXELS  # about -.7 to .7 from the dark to the lit side
    noise = free.uniform(0.02, 0.045, 2, 1, 1) * free.noise(2)
    image = _ground(rows[:, 11], rows[:, 12], x, y, free) * (1 + 0.2 * light + noise[:, 0])[:, None]
    shading = 1 + 0.3 * light + noise[:, 1]
    each, window = torch.arange(len(rows), device=rows.device)[:, None, None], torch.arange(WINDOW, device=rows.device)
    for group in (0, 1):
        numbers = rows[:, 5 * group : 5 * group + 5]
        centers = _centers(numbers[:, 0], rows[:, 10], 1 - 2 * group, free)
        for i in range(MOST_ITEMS):
            left, top = (centers[:, i] + (PIXELS - WINDOW) / 2).round().long().clamp(0, PIXELS - WINDOW).unbind(1)
            where = each, top[:, None, None] + window[:, None], left[:, None, None] + window
            surface, cover = _item(numbers, centers[:, i], grid[where[2]], grid[where[1]], free)
            cover = cover * (i < numbers[:, 0])[:, None, None]
            pixels, lit = image.movedim(1, -1), (surface * shading[where][:, None]).movedim(1, -1)
            pixels[where] = torch.lerp(pixels[where], lit, cover[..., None])
    return image.clamp(0, 1)


def _centers(count: Tensor, where: Tensor, sign: int, free: _Free) -> Tensor:
    """Return where the shapes of a group are, (N, MOST_ITEMS, 2) in pixels from the middle."""
    device = count.device
    place = torch.arange(MOST_ITEMS, device=device) - (count[:, None] - 1) / 2
    along_row = place * _table(SPACING, device)[count, None] + _table(PLAY, device)[count, None] * free.uniform(
        -1, 1, MOST_ITEMS
    )
    from_middle = APART + free.uniform(-STRAY, STRAY, MOST_ITEMS)
    direction = sign * _table(tuple(RELATIONS.values()), device)[where].float()
    across = direction.flip(-1).abs()
    return from_middle[..., None] * direction[:, None] + along_row[..., None] * across[:, None]


def _item(numbers: Tensor, center: Tensor, x: Tensor, y: Tensor, free: _Free) -> tuple[Tensor, Tensor]:
    """Return a shape's surface (N, 3, H, W) and how much of each pixel it covers (N, H, W)."""
    _, size, color, texture, shape = numbers.unbind(1)
    device = numbers.device
    radius = _table(tuple(SIZES.values()), device)[size] * free.uniform(0.92, 1.08)
    u, v = _turned(x - center[:, 0, None, None], y - center[:, 1, None, None], free.uniform(-0.3, 0.3))
    cover = (0.5 - distance(shape, u, v, radius)).clamp(0, 1)
    base = _shade(color, free)
    dark = base.sum(1, keepdim=True) < 0.5
    ink = torch.where(dark, base + _table(LIGHTER, device), INK * base)
    mark = _pattern(texture, x, y, free)[:, None]
    return torch.lerp(base[..., None, None], ink[..., None, None], mark), cover


def _ground(texture: Tensor, color: Tensor, x: Tensor, y: Tensor, free: _Free) -> Tensor:
    base, mark = _shade(color, free)[..., None, None], _pattern(texture, x, y, free)[:, None]
    dark = base.sum(1, keepdim=True) < 0.5
    ink = torch.where(dark, base + 0.12, GROUND_CONTRAST * base)
    return torch.lerp(base, ink, mark)


def _shade(color: Tensor, free: _Free) -> Tensor:
    """Return a shade of a colour, (N, 3)."""
    reference = _table(tuple(COLORS.values()), color.device)[color]
    return reference * free.uniform(0.92, 1.05, 1) + free.uniform(-0.025, 0.025, 3)


def distance(shape: Tensor, u: Tensor, v: Tensor, radius: Tensor) -> Tensor:
    """Return the signed distance in pixels to the outline of shapes (N,), negative inside: (N, H, W)."""
    radius = radius[:, None, None]
    rho, theta = torch.hypot(u, v), torch.atan2(u, -v)  # from the top, where a tip is
    a, b = torch.maximum(u.abs(), v.abs()), torch.minimum(u.abs(), v.abs())
    found = {
        "circle": rho - radius,
        "cross": torch.maximum(a - radius, b - CROSS_ARM * radius),  # two bars
    }
    for name, (corners, size) in CORNERS.items():
        half = math.pi / corners
        turn = half if name == "square" else 0.0  # which stands on a side
        folded = ((theta + half + turn) % (2 * half) - half).abs()  # from the nearest tip, 0 to half
        px, py = rho * folded.cos(), rho * folded.sin()
        tip = size * radius if name == "star" else size * radius / math.cos(half)
        inner = (STAR_INNER if name == "star" else size) * radius  # where the side ends, on the bisector of two tips
        dx, dy = inner * math.cos(half) - tip, inner * math.sin(half)
        found[name] = ((px - tip) * dy - py * dx) / torch.hypot(dx, dy)
    return _pick(found, SHAPES, shape)


def _pattern(texture: Tensor, x: Tensor, y: Tensor, free: _Free) -> Tensor:
    """Return where a texture's ink is, from 0 to 1 and antialiased: (N, H, W), at any angle and phase."""
    u, v = _turned(x, y, free.uniform(0, math.pi))
    phase = free.uniform(0, PERIOD, 2, 1, 1)
    p, q = u + phase[:, 0], v + phase[:, 1]
    wave_p, wave_q = _triangle(p), _triangle(q)  # pixels to the middle of the next ink, signed at its edge
    found = {
        "plain": torch.full_like(p, PERIOD),
        "striped": wave_p,
        "checked": -wave_p * wave_q / torch.maximum(wave_p.abs(), wave_q.abs()).clamp(min=1e-3),
        "dotted": torch.hypot(wave_p + PERIOD / 4, wave_q + PERIOD / 4) - DOT,
    }
    return (0.5 - _pick(found, TEXTURES, texture)).clamp(0, 1)


def _pick(found: dict[str, Tensor], names: Sequence[str], index: Tensor) -> Tensor:
    each = torch.arange(len(index), device=index.device)
    return torch.stack([found[name] for name in names])[index, each]


def _triangle(p: Tensor) -> Tensor:
    """Return the signed distance to stripes of half a period's width, negative inside."""
    return (p % PERIOD - PERIOD / 2).abs() - PERIOD / 4


def _turned(x: Tensor, y: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    cos, sin = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    return cos * x - sin * y, sin * x + cos * y
