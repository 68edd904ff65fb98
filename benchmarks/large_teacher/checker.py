"""Read a scene of 128 px back out of an image by classical vision: colours, components, outlines, textures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from benchmarks.large_teacher.drawing import PERIOD, distance
from benchmarks.large_teacher.scenes import COLORS, COUNTS, PIXELS, RELATIONS, SHAPES, SIZES, Scene, parse
from benchmarks.teacher.checker import Free

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

MIN_AREA = 70  # pixels; the smallest drawn shape, a small star, has about 150
FOREIGN = 0.17
"""How far a pixel is from what light and pattern make of the ground's colour, to be a shape's."""
OTHER_HUE = 0.25
"""So of its hue alone: the sine of the angle between both colours."""
CONTRAST, GROUND_CONTRAST = 0.13, 0.075
"""Of textures against plain surfaces: (light - dark) / (light + dark)."""
DIRECTED = 0.55
"""Stripes have one direction."""
FEW, ENOUGH = 30, 4000
"""Pixels to tell a pattern by: of fewer nothing is told, and more are not needed."""
GRAY, BRIGHT = 0.12, 0.62
"""Below it nothing has a hue; above it that is white, below black."""
FOLDS = {"square": 4, "cross": 4, "triangle": 3, "star": 5}
"""How often a shape meets itself in a turn."""
GAP = 12.0
"""Pixels between the groups' nearest centres, along the axis of their relation."""


@dataclass(frozen=True)
class Verdict:
    """What of a caption an image shows."""

    background: bool
    ground_texture: bool
    count: bool
    place: bool
    color: bool
    size: bool
    texture: bool
    shape: bool

    @property
    def all_right(self) -> bool:
        """Tell whether everything is as the caption says."""
        return all(vars(self).values())


@dataclass(frozen=True)
class Found(Free):
    """A shape in an image."""

    size: str
    color: str
    texture: str
    shape: str


def check(image: Array, caption: str) -> Verdict:
    """Compare an image (128, 128, 3) in [0, 1] with its caption."""
    scene = parse(caption)
    color, texture, found = read(image)
    here = color == scene.color, texture == scene.texture
    ordered = _ordered(found, scene)
    if ordered is None:
        return Verdict(*here, *[False] * 6)
    groups = [group for group in scene.groups for _ in range(COUNTS[group.count])]
    pairs = list(zip(ordered, groups, strict=True))
    alike = [all(getattr(item, key) == getattr(group, key) for item, group in pairs) for key in _SAID]
    dx, dy = RELATIONS[scene.where]
    along, first = [item.x * dx + item.y * dy for item in ordered], COUNTS[scene.groups[0].count]
    return Verdict(*here, True, min(along[:first]) - max(along[first:]) > GAP, *alike)


_SAID = ("color", "size", "texture", "shape")


def find(image: Array, caption: str) -> list[Found] | None:
    """Return what an image shows, in the order of its caption, of a group from left or top; None if more or fewer."""
    return _ordered(read(image)[2], parse(caption))


def _ordered(found: Sequence[Found], scene: Scene) -> list[Found] | None:
    counts = [COUNTS[group.count] for group in scene.groups]
    if len(found) != sum(counts):
        return None
    dx, dy = RELATIONS[scene.where]
    along = sorted(found, key=lambda item: -(item.x * dx + item.y * dy))
    groups = along[: counts[0]], along[counts[0] :]
    return [item for group in groups for item in sorted(group, key=lambda item: item.x * abs(dy) + item.y * abs(dx))]


def read(image: Array) -> tuple[str, str, list[Found]]:
    """Return the ground's colour and texture, and the shapes on it."""
    edge = np.concatenate([image[:4].reshape(-1, 3), image[-4:].reshape(-1, 3), image[:, :4].reshape(-1, 3)])
    ground, _ = _base(edge)
    masks = components(image, ground)
    free = ~ndimage.binary_dilation(np.any(masks, axis=0), iterations=3) if masks else np.ones(image.shape[:2], bool)
    return nearest(ground), texture_of(image, free, GROUND_CONTRAST), [describe(image, mask) for mask in masks]


def components(image: Array, ground: Array) -> list[Mask]:
    """Return the filled masks of what is no ground under any light or pattern."""
    k = (image @ ground) / max(float(ground @ ground), 1e-6)
    bright = np.linalg.norm(image, axis=-1)
    hue = np.linalg.norm(image - k[..., None] * ground, axis=-1) / np.maximum(bright, 0.25)
    lit = np.clip(k, 0.6, 1.4 if ground.mean() > 0.2 else 2.6)
    foreign = (np.linalg.norm(image - lit[..., None] * ground, axis=-1) > FOREIGN) | (hue > OTHER_HUE)
    labels, count = ndimage.label(ndimage.binary_closing(foreign, iterations=1))
    masks = [ndimage.binary_fill_holes(labels == index) for index in range(1, count + 1)]
    return [mask for mask in masks if mask.sum() >= MIN_AREA]


def describe(image: Array, mask: Mask) -> Found:
    """Return what a component shows."""
    core = ndimage.binary_erosion(mask, iterations=2)
    base, shade = _base(image[core if core.any() else mask])
    ys, xs = np.nonzero(mask)
    x, y, area = xs.mean(), ys.mean(), float(mask.sum())
    shape = _shape(xs - x, ys - y)
    radius = math.sqrt(area / _template(shape)[1])
    size = "big" if radius > sum(SIZES.values()) / 2 else "small"
    fold = FOLDS.get(shape)
    turned = (((xs - x) + 1j * (ys - y)) ** fold).sum() * _template(shape)[2].conjugate() if fold else 0
    tilt = float(np.angle(turned) / fold) if fold else None
    texture = texture_of(image, core if core.sum() >= FEW else mask, CONTRAST)
    middle = (PIXELS - 1) / 2
    free = float(x - middle), float(y - middle), radius, tilt, shade
    return Found(*free, size, nearest(base), texture, shape)


def _base(pixels: Array) -> tuple[Array, float]:
    """Return a surface's colour without its ink, and its brightness: those of the lighter half, of black the darker."""
    light = pixels.mean(1)
    upper, lower = (np.median(pixels[half], axis=0) for half in (light >= np.median(light), light <= np.median(light)))
    dark = np.ptp(upper) < GRAY and upper.mean() < BRIGHT
    base = lower if dark else upper
    return base, float(base.mean())


def nearest(color: Array) -> str:
    """Return the named colour that this is under some light."""
    if np.ptp(color) < GRAY:
        return "white" if color.mean() > BRIGHT else "black"

    def apart(name: str) -> float:
        return float(np.linalg.norm(color / np.linalg.norm(color) - COLORS[name] / np.linalg.norm(COLORS[name])))

    return min(set(COLORS) - {"white", "black"}, key=apart)


def texture_of(image: Array, mask: Mask, contrast: float) -> str:
    """Tell textures apart by contrast, by the direction of their edges, and by their frequency."""
    if mask.sum() < FEW:
        return "plain"
    light = image.mean(-1)
    weight = ndimage.gaussian_filter(mask.astype(np.float32), 6)
    smooth = ndimage.gaussian_filter(light * mask, 6) / np.maximum(weight, 1e-3)
    relative = light / np.maximum(smooth, 0.03)
    low, high = np.percentile(relative[mask], (8, 92))
    if high - low <= contrast * (high + low):
        return "plain"
    inner = ndimage.binary_erosion(mask)
    inside = inner if inner.sum() >= FEW else mask
    gx, gy = (ndimage.gaussian_filter(relative, 0.8, order=order)[inside] for order in ((0, 1), (1, 0)))
    directed = np.hypot((gx * gx - gy * gy).mean(), 2 * (gx * gy).mean()) / (gx * gx + gy * gy).mean()
    if directed > DIRECTED:
        return "striped"
    dots, checks = (_power(relative, mask, frequency) for frequency in (1 / PERIOD, math.sqrt(2) / PERIOD))
    return "dotted" if dots > checks else "checked"


def _power(light: Array, mask: Mask, frequency: float) -> float:
    """Return the most power that two directions at a right angle have at a frequency, in cycles per pixel."""
    ys, xs = (places[:ENOUGH] for places in np.nonzero(mask))
    angles = np.linspace(0, np.pi, 36, endpoint=False)
    phase = 2 * np.pi * frequency * (np.outer(np.cos(angles), xs) + np.outer(np.sin(angles), ys))
    values = light[ys, xs] - light[ys, xs].mean()
    power = np.hypot(np.cos(phase) @ values, np.sin(phase) @ values) ** 2
    return float((power + np.roll(power, 18)).max())


def _shape(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> str:
    seen = _moments(x, y)
    return min(SHAPES, key=lambda shape: float(np.abs(_template(shape)[0] - seen).sum()))


def _moments(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return what a shape's size and tilt do not change: |sum z^n| / sum |z|^n for n = 3, 4, 5, and its spread."""
    z = x + 1j * y
    symmetry = [abs((z**n).sum()) / (abs(z) ** n).sum() for n in (3, 4, 5)]
    return np.array([*symmetry, 2 * np.pi * (abs(z) ** 2).mean() / len(z) - 1])


@cache
def _template(shape: str) -> tuple[npt.NDArray[np.float64], float, complex]:
    """Return the moments of an upright shape, its area at radius 1, and the moment that turns with it."""
    grid = torch.arange(PIXELS) + 0.5 - PIXELS / 2
    radius = 13.0
    outside = distance(
        torch.tensor([SHAPES.index(shape)]), grid.expand(1, PIXELS, PIXELS),
        grid[:, None].expand(1, PIXELS, PIXELS), torch.tensor([radius]),
    )[0]  # fmt: skip
    ys, xs = np.nonzero(outside.numpy() < 0)
    x, y = xs - xs.mean(), ys - ys.mean()
    return _moments(x, y), len(xs) / radius**2, complex(((x + 1j * y) ** FOLDS.get(shape, 1)).sum())
