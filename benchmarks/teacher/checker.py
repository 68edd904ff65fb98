"""Read a scene back out of an image by classical vision: colours, connected components, areas, outlines."""

import math
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from benchmarks.teacher.scenes import (
    COLORS,
    CROSS_ARM,
    PLACES,
    RELATIONS,
    SIZES,
    TRIANGLE_EDGE,
    Array,
    Item,
    Scene,
)

_ITEM = r"a (\w+) (\w+) (\w+)"
_ONE = re.compile(rf"{_ITEM} at the (\w+), (\w+) background")
_TWO = re.compile(rf"{_ITEM} ({'|'.join(RELATIONS)}) {_ITEM}, (\w+) background")
_MIN_AREA = 25  # pixels; the smallest drawn item, a small triangle, has about 60
# Areas of the shapes at radius 1.
AREAS = {
    "circle": np.pi,
    "cross": 4 * CROSS_ARM * (2 - CROSS_ARM),
    "triangle": 3 * np.sqrt(3) * TRIANGLE_EDGE**2,
}
FOLDS = {"cross": 4, "triangle": 3}
"""How often a shape meets itself in a turn."""
_BORDER = sum(SIZES.values()) / 2  # the radius between small and big
_CHROMA = 2.0  # weight of hue against brightness, which light and shadow change


@dataclass(frozen=True)
class Verdict:
    """What of a caption an image shows."""

    background: bool
    count: bool
    color: bool
    size: bool
    shape: bool
    place: bool

    @property
    def all_right(self) -> bool:
        """Tell whether everything is as the caption says."""
        return all(vars(self).values())


@dataclass(frozen=True)
class Free:
    """What a caption leaves open of a shape.

    Attributes:
        x: Of its centre, in pixels from that of the image; so is y.
        radius: In pixels.
        tilt: In radians from an upright one; a circle has none.
        shade: Brightness in [0, 1].
    """

    x: float
    y: float
    radius: float
    tilt: float | None
    shade: float


@dataclass(frozen=True)
class Found(Free):
    """A shape in an image."""

    item: Item


def parse(caption: str) -> Scene:
    """Turn a caption back into its scene."""
    if one := _ONE.fullmatch(caption):
        return Scene((Item(one[1], one[2], one[3]),), one[4], one[5])
    if two := _TWO.fullmatch(caption):
        return Scene((Item(two[1], two[2], two[3]), Item(two[5], two[6], two[7])), two[4], two[8])
    raise ValueError(f"expected a caption of a scene, got {caption!r}")


def check(image: Array, caption: str) -> Verdict:
    """Compare an image (64, 64, 3) in [0, 1] with its caption."""
    scene, ground = parse(caption), _ground(image)
    background = nearest(ground) == scene.background
    seen = _ordered([describe(image, part) for part in components(image, ground)], scene)
    if seen is None:
        return Verdict(background, False, False, False, False, False)
    pairs = list(zip((found.item for found in seen), scene.items, strict=True))
    return Verdict(
        background,
        True,
        all(found.color == item.color for found, item in pairs),
        all(found.size == item.size for found, item in pairs),
        all(found.shape == item.shape for found, item in pairs),
        _placed([(found.x, found.y) for found in seen], scene),
    )


def find(image: Array, caption: str) -> list[Found] | None:
    """Return what an image shows, in the order of its caption; None if it shows more or fewer."""
    return _ordered([describe(image, part) for part in components(image, _ground(image))], parse(caption))


def _ordered(seen: list[Found], scene: Scene) -> list[Found] | None:
    if len(seen) != len(scene.items):
        return None
    if len(seen) == 2:
        dx, dy = RELATIONS[scene.where]
        seen.sort(key=lambda found: -(found.x * dx + found.y * dy))
    return seen


def _ground(image: Array) -> Array:
    frame = np.concatenate([image[:3].reshape(-1, 3), image[-3:].reshape(-1, 3), image[:, :2].reshape(-1, 3)])
    return np.median(frame, axis=0)


def components(image: Array, ground: Array) -> list[npt.NDArray[np.bool_]]:
    """Return the masks of what is neither ground nor its shadow or lit side."""
    # A pixel c = k * ground is ground under other light: keep what no factor k in [.6, 1.3] explains.
    k = np.clip((image @ ground) / (ground @ ground), 0.6, 1.3)[..., None]
    labels, count = ndimage.label(np.linalg.norm(image - k * ground, axis=-1) > 0.17)
    masks = [labels == index for index in range(1, count + 1)]
    return [mask for mask in masks if mask.sum() >= _MIN_AREA]


def describe(image: Array, mask: npt.NDArray[np.bool_]) -> Found:
    """Return what a component shows."""
    filled = ndimage.binary_fill_holes(mask)
    core = ndimage.binary_erosion(filled, iterations=2)
    surface = np.median(image[core if core.any() else filled], axis=0)
    area = float(filled.sum())
    y, x = ndimage.center_of_mass(filled)
    ys, xs = np.nonzero(filled)
    points = (xs - x) + 1j * (ys - y)
    shape = _shape(points)
    radius = math.sqrt(area / AREAS[shape])
    fold = FOLDS.get(shape)
    return Found(
        x + 0.5 - image.shape[1] / 2,
        y + 0.5 - image.shape[0] / 2,
        radius,
        float(np.angle((points**fold).sum()) / fold) if fold else None,
        float(surface.mean()),
        Item("big" if radius > _BORDER else "small", nearest(surface), shape),
    )


def _shape(points: npt.NDArray[np.complex128]) -> str:
    """Tell shapes apart by their symmetry, whatever their size and tilt: |sum z^n| / sum |z|^n for n = 3 and 4.

    A circle has neither; the cross has about .8 at n = 4, an equilateral triangle about .5 at n = 3.
    """
    threefold, fourfold = (abs((points**n).sum()) / (abs(points) ** n).sum() for n in (3, 4))
    return "triangle" if threefold > 0.25 else "cross" if fourfold > 0.35 else "circle"


def _placed(centers: list[tuple[float, float]], scene: Scene) -> bool:
    if len(centers) == 2:
        dx, dy = RELATIONS[scene.where]
        gap = np.subtract(centers[0], centers[1])
        along, across = (gap @ (dx, dy)) / 16, abs(gap @ (dy, dx)) / 16
        return bool(along > 14 and across < along)
    nearest = min(PLACES, key=lambda place: float(np.hypot(*np.subtract(PLACES[place], centers[0]))))
    return nearest == scene.where


def nearest(color: Array) -> str:
    """Return the named colour that this is under some light."""

    def distance(name: str) -> float:
        reference = np.asarray(COLORS[name])
        chroma = (color - color.mean()) - (reference - reference.mean())
        return float(_CHROMA * np.linalg.norm(chroma) + abs(color.mean() - reference.mean()))

    return min(COLORS, key=distance)
