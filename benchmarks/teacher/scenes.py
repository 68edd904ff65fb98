"""Captioned scenes drawn by code: one or two shapes on a plain ground, antialiased, lit and textured.

The caption says everything that a checker could ask: size, colour, shape, place or relation, background.
Everything else (exact position, radius, tilt, shade, light, shadow, texture) varies freely.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

PIXELS = 64
SHAPES = ("circle", "square", "triangle")
SIZES = {"small": 7.0, "big": 12.0}  # radius in pixels
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
RELATIONS = {"left of": (-15, 0), "right of": (15, 0), "above": (0, -15), "below": (0, 15)}

# Never drawn in training: what the model does with them shows that it composes.
HELD_OUT = frozenset({("purple", "triangle"), ("yellow", "circle"), ("white", "square")})


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
    def is_held_out(self) -> bool:
        """Tell whether an item is a combination that training never shows."""
        return any((item.color, item.shape) in HELD_OUT for item in self.items)


def random_scene(rng: np.random.Generator, *, held_out: bool | None = False) -> Scene:
    """Draw a scene uniformly; `held_out` asks for one with, without, or (None) regardless of unseen combinations."""
    while True:
        background = str(rng.choice(list(COLORS)))
        inks = [color for color in COLORS if color != background]
        num_items = int(rng.integers(1, 3))
        items = tuple(
            Item(str(rng.choice(list(SIZES))), str(rng.choice(inks)), str(rng.choice(SHAPES))) for _ in range(num_items)
        )
        where = str(rng.choice(list(PLACES if num_items == 1 else RELATIONS)))
        scene = Scene(items, where, background)
        if held_out is None or scene.is_held_out == held_out:
            return scene


def draw(scene: Scene, rng: np.random.Generator) -> Array:
    """Render a scene to an image of shape (64, 64, 3) in [0, 1]."""
    y, x = np.meshgrid(np.arange(PIXELS) + 0.5 - PIXELS / 2, np.arange(PIXELS) + 0.5 - PIXELS / 2, indexing="ij")
    angle = rng.uniform(0, 2 * np.pi)
    light = (np.cos(angle) * x + np.sin(angle) * y) / PIXELS  # about -0.7..0.7 from the dark to the lit side
    image = _shade(scene.background, rng) * (1 + 0.18 * light[..., None])
    for item, center in zip(scene.items, _centers(scene, rng), strict=True):
        radius = SIZES[item.size] * rng.uniform(0.9, 1.1)
        distance = _distance(item.shape, x - center[0], y - center[1], radius, rng.uniform(-0.2, 0.2))
        shadow = _distance(item.shape, x - center[0] - 1.5, y - center[1] - 2, radius, 0.0)
        image = image * (1 - 0.3 / (1 + np.exp(np.clip(shadow / 1.5, -30, 30)))[..., None])
        ink = _shade(item.color, rng) * (1 + 0.35 * light[..., None])
        cover = np.clip(0.5 - distance, 0, 1)[..., None]
        image = image * (1 - cover) + ink * cover
    return np.clip(image + 0.02 * _texture(rng)[..., None], 0, 1).astype(np.float32)


def _centers(scene: Scene, rng: np.random.Generator) -> list[tuple[float, float]]:
    dx, dy = PLACES[scene.where] if len(scene.items) == 1 else RELATIONS[scene.where]
    signs = (1,) if len(scene.items) == 1 else (1, -1)
    # Along the axis of the relation little room is left; across it there is more.
    jitter_x, jitter_y = (2.0 if dx else 4.0), (2.0 if dy else 4.0)
    return [(s * dx + rng.uniform(-jitter_x, jitter_x), s * dy + rng.uniform(-jitter_y, jitter_y)) for s in signs]


def _distance(shape: str, x: Array, y: Array, radius: float, tilt: float) -> Array:
    """Return the signed distance in pixels to the outline, negative inside."""
    u, v = np.cos(tilt) * x - np.sin(tilt) * y, np.sin(tilt) * x + np.cos(tilt) * y
    if shape == "circle":
        return np.hypot(u, v) - radius
    if shape == "square":
        return np.maximum(np.abs(u), np.abs(v)) - 0.88 * radius
    edge = 0.62 * radius  # triangle: three half planes, the tip up; its centroid is the centre
    return np.maximum(v - edge, 0.5 * np.sqrt(3) * np.abs(u) - 0.5 * v - edge)


def _shade(color: str, rng: np.random.Generator) -> Array:
    return np.asarray(COLORS[color], np.float32) * np.float32(rng.uniform(0.88, 1.08)) + rng.normal(0, 0.015, 3)


def _texture(rng: np.random.Generator) -> Array:
    """Return 1/f noise of unit variance, (64, 64)."""
    fy, fx = np.fft.fftfreq(PIXELS)[:, None], np.fft.rfftfreq(PIXELS)[None, :]
    spectrum = np.fft.rfft2(rng.normal(size=(PIXELS, PIXELS))) / np.maximum(np.hypot(fy, fx), 1 / PIXELS)
    noise = np.fft.irfft2(spectrum, s=(PIXELS, PIXELS))
    return (noise - noise.mean()) / noise.std()
