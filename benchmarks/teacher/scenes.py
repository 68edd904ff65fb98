"""Captioned scenes drawn by code: one or two shapes on a ground, antialiased, lit from a side, with 1/f texture.

The caption says everything that a checker could ask: size, colour, shape, place or relation, background.
Everything else (exact position, radius, tilt, shade, light and its shadow, textures) varies freely.
"""

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

PIXELS = 64
SHAPES = ("circle", "cross", "triangle")
SIZES = {"small": 8.5, "big": 12.5}  # radius in pixels
CROSS_ARM, TRIANGLE_EDGE = 0.36, 0.62  # half an arm's width, centre to edge; in radii
COLORS = {
    "red": (0.86, 0.15, 0.15),
    "green": (0.15, 0.62, 0.25),
    "blue": (0.15, 0.32, 0.88),
    "yellow": (0.95, 0.84, 0.18),
    "purple": (0.58, 0.20, 0.74),
    "white": (0.94, 0.94, 0.94),
    "black": (0.08, 0.08, 0.09),
}
PLACES = {"left": (-15, 0), "right": (15, 0), "top": (0, -15), "bottom": (0, 15), "middle": (0, 0)}
RELATIONS = {"left of": (-16, 0), "right of": (16, 0), "above": (0, -16), "below": (0, 16)}

Split = Literal["train", "captions", "combinations"]  # what training sees, new sentences, new combinations
# Never drawn in training: what the model does with them shows that it composes.
HELD_OUT = frozenset({("purple", "triangle"), ("yellow", "circle"), ("white", "cross")})


@dataclass(frozen=True)
class Item:
    """One shape: what the caption says of it."""

    size: str
    color: str
    shape: str

    def __str__(self) -> str:
        return f"{self.size} {self.color} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """One item at a place, or two items in a relation, on a background colour."""

    items: tuple[Item, ...]
    where: str
    background: str

    @property
    def caption(self) -> str:
        """Return the caption, at most 14 words and a comma."""
        if len(self.items) == 1:
            return f"a {self.items[0]} at the {self.where}, {self.background} background"
        return f"a {self.items[0]} {self.where} a {self.items[1]}, {self.background} background"

    @property
    def split(self) -> Split:
        """Return where the scene belongs: an eighth of the captions is kept from training, and all `HELD_OUT`."""
        if any((item.color, item.shape) in HELD_OUT for item in self.items):
            return "combinations"
        return "captions" if zlib.crc32(self.caption.encode()) % 8 == 0 else "train"


def random_scene(rng: np.random.Generator, split: Split | None = "train") -> Scene:
    """Draw a scene of a split, or (None) of any: one item or two, else uniformly."""
    while True:
        background = str(rng.choice(list(COLORS)))
        inks = [color for color in COLORS if color != background]
        num_items = int(rng.integers(1, 3))
        items = tuple(
            Item(str(rng.choice(list(SIZES))), str(rng.choice(inks)), str(rng.choice(SHAPES))) for _ in range(num_items)
        )
        where = str(rng.choice(list(PLACES if num_items == 1 else RELATIONS)))
        scene = Scene(items, where, background)
        if split in (None, scene.split):
            return scene


def draw(scene: Scene, rng: np.random.Generator) -> Array:
    """Render a scene to an image of shape (64, 64, 3) in [0, 1]."""
    y, x = np.meshgrid(np.arange(PIXELS) + 0.5 - PIXELS / 2, np.arange(PIXELS) + 0.5 - PIXELS / 2, indexing="ij")
    angle = rng.uniform(0, 2 * np.pi)
    to_light = np.cos(angle), np.sin(angle)
    light = (to_light[0] * x + to_light[1] * y) / PIXELS  # about -0.7..0.7 from the dark to the lit side
    image = surface(scene.background, 0.25 * light, rng)
    for item, center in zip(scene.items, _centers(scene, rng), strict=True):
        radius, tilt = SIZES[item.size] * rng.uniform(0.92, 1.08), rng.uniform(-0.35, 0.35)
        u, v = x - center[0], y - center[1]
        shadow = distance(item.shape, u + 2.5 * to_light[0], v + 2.5 * to_light[1], radius, tilt)
        image = image * (1 - 0.3 / (1 + np.exp(np.clip(shadow / 1.5, -30, 30)))[..., None])
        cover = np.clip(0.5 - distance(item.shape, u, v, radius, tilt), 0, 1)[..., None]
        image = image * (1 - cover) + surface(item.color, 0.4 * light, rng) * cover
    return np.clip(image, 0, 1).astype(np.float32)


def _centers(scene: Scene, rng: np.random.Generator) -> list[tuple[float, float]]:
    dx, dy = PLACES[scene.where] if len(scene.items) == 1 else RELATIONS[scene.where]
    signs = (1,) if len(scene.items) == 1 else (1, -1)
    # Along the axis of the relation little room is left; across it there is more.
    jitter_x, jitter_y = (1.5 if dx else 4.0), (1.5 if dy else 4.0)
    return [(s * dx + rng.uniform(-jitter_x, jitter_x), s * dy + rng.uniform(-jitter_y, jitter_y)) for s in signs]


def distance(shape: str, x: Array, y: Array, radius: float, tilt: float) -> Array:
    """Return the signed distance in pixels to the outline, negative inside."""
    u, v = np.cos(tilt) * x - np.sin(tilt) * y, np.sin(tilt) * x + np.cos(tilt) * y
    if shape == "circle":
        return np.hypot(u, v) - radius
    if shape == "cross":  # two bars
        u, v = np.abs(u), np.abs(v)
        return np.maximum(np.maximum(u, v) - radius, np.minimum(u, v) - CROSS_ARM * radius)
    edge = TRIANGLE_EDGE * radius  # triangle: three half planes, the tip up; its centroid is the centre
    return np.maximum(v - edge, 0.5 * np.sqrt(3) * np.abs(u) - 0.5 * v - edge)


def surface(color: str, light: Array, rng: np.random.Generator) -> Array:
    """Return a colour's shade under light (h, w) with a texture of its own, (h, w, 3): all but hue is multiplied in."""
    shade = np.asarray(COLORS[color], np.float32) * np.float32(rng.uniform(0.88, 1.08)) + rng.normal(0, 0.015, 3)
    return shade * (1 + light + rng.uniform(0.03, 0.08) * _texture(light.shape[0], rng))[..., None]


def _texture(side: int, rng: np.random.Generator) -> Array:
    """Return 1/f noise of unit variance, (side, side)."""
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]
    spectrum = np.fft.rfft2(rng.normal(size=(side, side))) / np.maximum(np.hypot(fy, fx), 1 / side)
    noise = np.fft.irfft2(spectrum, s=(side, side))
    return (noise - noise.mean()) / noise.std()
