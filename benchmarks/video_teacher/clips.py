"""Captioned clips drawn by code: one shape that moves steadily across a ground, lit from a side.

The caption says everything that a checker could ask: colour, shape, direction of motion, background. The rest (path,
distance, radius, tilt, shade, light and its shadow, texture) varies freely.
"""

import zlib
from dataclasses import dataclass
from itertools import product

import numpy as np

from benchmarks.teacher.scenes import COLORS, HELD_OUT, SHAPES, Array, Split, distance, surface

PIXELS, NUM_FRAMES = 32, 17
SPLITS: tuple[Split, ...] = ("train", "captions", "combinations")
RADIUS, TRAVEL = 6.5, 14.0  # pixels; from the first frame to the last
MOTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


@dataclass(frozen=True)
class Clip:
    """One shape, where it moves, and the background's colour."""

    color: str
    shape: str
    motion: str
    background: str

    @property
    def caption(self) -> str:
        """Return the caption, 8 words and a comma."""
        return f"a {self.color} {self.shape} moving {self.motion}, {self.background} background"

    @property
    def split(self) -> Split:
        """Return where the clip belongs: an eighth of the captions is kept from training, and all `HELD_OUT`."""
        if (self.color, self.shape) in HELD_OUT:
            return "combinations"
        return "captions" if zlib.crc32(self.caption.encode()) % 8 == 0 else "train"


def all_clips(split: Split) -> list[Clip]:
    """Return all clips of a split that a caption can tell apart."""
    kinds = product(COLORS, SHAPES, MOTIONS, COLORS)
    clips = [Clip(*kind) for kind in kinds if kind[0] != kind[3]]
    return [clip for clip in clips if clip.split == split]


def unseen_captions() -> list[str]:
    """Return captions that no training sees, in an order without order; every second has a held-out combination."""
    rng = np.random.default_rng(2)
    new, unseen = (rng.permutation([clip.caption for clip in all_clips(split)]) for split in SPLITS[1:])
    return [str(caption) for pair in zip(new, unseen, strict=False) for caption in pair]


def draw(clip: Clip, rng: np.random.Generator) -> Array:
    """Render a clip to frames of shape (17, 32, 32, 3) in [0, 1]."""
    axis = np.arange(PIXELS) + 0.5 - PIXELS / 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    angle = rng.uniform(0, 2 * np.pi)
    to_light = np.cos(angle), np.sin(angle)
    light = (to_light[0] * x + to_light[1] * y) / PIXELS
    ground, ink = surface(clip.background, 0.25 * light, rng), surface(clip.color, 0.4 * light, rng)
    radius, tilt = RADIUS * rng.uniform(0.92, 1.08), rng.uniform(-0.35, 0.35)
    direction = np.asarray(MOTIONS[clip.motion])
    travel = TRAVEL * rng.uniform(0.9, 1.1) * direction
    start = rng.uniform(-3, 3, 2) * (1 - abs(direction)) + rng.uniform(-1, 1, 2) * abs(direction) - travel / 2
    frames = np.empty((NUM_FRAMES, PIXELS, PIXELS, 3), np.float32)
    for index, frame in enumerate(frames):
        u, v = (a - b for a, b in zip((x, y), start + travel * index / (NUM_FRAMES - 1), strict=True))
        shadow = distance(clip.shape, u + 1.3 * to_light[0], v + 1.3 * to_light[1], radius, tilt)
        shaded = ground * (1 - 0.3 / (1 + np.exp(np.clip(shadow, -30, 30)))[..., None])
        cover = np.clip(0.5 - distance(clip.shape, u, v, radius, tilt), 0, 1)[..., None]
        frame[:] = np.clip(shaded * (1 - cover) + ink * cover, 0, 1)
    return frames
