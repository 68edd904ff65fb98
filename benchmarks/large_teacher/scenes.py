"""Captioned scenes of 128 px: two groups of one to three equal shapes in a relation, on a textured ground.

The caption says everything that a checker could ask: counts, sizes, colours, textures, shapes, the relation and the
background. Everything else (exact positions, radii, tilts, shades, light, phases of textures) varies freely.
"""

import re
import zlib
from dataclasses import dataclass

import numpy as np

from benchmarks.teacher.scenes import Split

PIXELS = 128
COUNTS = {"one": 1, "two": 2, "three": 3}
MOST = 5
"""Shapes of a scene at most."""
SIZES = {"small": 11.0, "big": 15.5}  # radius in pixels
COLORS = {
    "red": (0.86, 0.15, 0.15),
    "orange": (0.95, 0.47, 0.08),
    "yellow": (0.93, 0.90, 0.20),
    "green": (0.15, 0.62, 0.25),
    "cyan": (0.20, 0.76, 0.80),
    "blue": (0.15, 0.32, 0.88),
    "purple": (0.58, 0.20, 0.74),
    "white": (0.94, 0.94, 0.94),
    "black": (0.08, 0.08, 0.09),
}
TEXTURES = ("plain", "striped", "dotted", "checked")
SHAPES = ("circle", "square", "triangle", "cross", "star")
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}

# Never drawn in training: what the model does with them shows that it composes.
HELD_OUT = frozenset(
    {("purple", "triangle"), ("yellow", "circle"), ("white", "cross"), ("dotted", "star"), ("striped", "square")}
)

_COUNT, _SIZE, _COLOR, _TEXTURE, _SHAPE, _WHERE = (
    f"({'|'.join(words)})" for words in (COUNTS, SIZES, COLORS, TEXTURES, SHAPES, RELATIONS)
)
_GROUP = f"{_COUNT} {_SIZE} {_COLOR} {_TEXTURE} {_SHAPE}(?:e?s)?"
_CAPTION = re.compile(f"{_GROUP} {_WHERE} {_GROUP} on a {_TEXTURE} {_COLOR} background")


@dataclass(frozen=True)
class Group:
    """One to three equal shapes in a row."""

    count: str
    size: str
    color: str
    texture: str
    shape: str

    def __str__(self) -> str:
        plural = "" if self.count == "one" else "es" if self.shape.endswith("s") else "s"
        return f"{self.count} {self.size} {self.color} {self.texture} {self.shape}{plural}"


@dataclass(frozen=True)
class Scene:
    """Two groups in a relation, before a textured background."""

    groups: tuple[Group, Group]
    where: str
    texture: str
    color: str

    @property
    def caption(self) -> str:
        """Return the caption, 16 or 17 words."""
        first, second = self.groups
        return f"{first} {self.where} {second} on a {self.texture} {self.color} background"

    @property
    def split(self) -> Split:
        """Return where the scene belongs: an eighth of the captions is kept from training, and all `HELD_OUT`."""
        if any({(group.color, group.shape), (group.texture, group.shape)} & HELD_OUT for group in self.groups):
            return "combinations"
        return "captions" if zlib.crc32(self.caption.encode()) % 8 == 0 else "train"

    @property
    def row(self) -> tuple[int, ...]:
        """Return the scene as numbers, for drawing: of each group and then of the ground."""
        numbers = [
            (
                COUNTS[group.count],
                list(SIZES).index(group.size),
                list(COLORS).index(group.color),
                TEXTURES.index(group.texture),
                SHAPES.index(group.shape),
            )
            for group in self.groups
        ]
        ground = (list(RELATIONS).index(self.where), TEXTURES.index(self.texture), list(COLORS).index(self.color))
        return (*numbers[0], *numbers[1], *ground)


def random_scene(rng: np.random.Generator, split: Split | None = "train") -> Scene:
    """Draw a scene of a split, or (None) of any: two to five shapes, else uniformly."""
    words = (tuple(COUNTS), tuple(SIZES), tuple(COLORS), TEXTURES, SHAPES)
    kinds = (*words, *words, tuple(RELATIONS), TEXTURES, tuple(COLORS))
    while True:
        chosen = [kind[i] for kind, i in zip(kinds, rng.integers([len(kind) for kind in kinds]), strict=True)]
        first, second = Group(*chosen[:5]), Group(*chosen[5:10])
        scene = Scene((first, second), *chosen[10:])
        drawable = scene.color not in (first.color, second.color)
        drawable &= COUNTS[first.count] + COUNTS[second.count] <= MOST
        if drawable and split in (None, scene.split):
            return scene


def parse(caption: str) -> Scene:
    """Turn a caption back into its scene.

    Raises:
        ValueError: it is no caption of a scene.
    """
    found = _CAPTION.fullmatch(caption)
    if not found:
        raise ValueError(f"expected a caption of a scene, got {caption!r}")
    words = found.groups()
    scene = Scene((Group(*words[:5]), Group(*words[6:11])), words[5], words[11], words[12])
    if scene.caption != caption:  # a plural
        raise ValueError(f"expected {scene.caption!r}, got {caption!r}")
    return scene
