"""Read a clip back out of its frames: each frame as the image checker does, then the path of what it found."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from benchmarks.teacher.checker import components, describe, nearest
from benchmarks.teacher.scenes import Array
from benchmarks.video_teacher.clips import MOTIONS, TRAVEL, Clip

_CAPTION = re.compile(rf"a (\w+) (\w+) moving ({'|'.join(MOTIONS)}), (\w+) background")
_JUMP = TRAVEL / 4  # pixels from a frame to the next; drawn: at most 1


@dataclass(frozen=True)
class Verdict:
    """What of a caption a clip shows."""

    background: bool
    count: bool
    color: bool
    shape: bool
    motion: bool

    @property
    def all_right(self) -> bool:
        """Tell whether everything is as the caption says."""
        return all(vars(self).values())


def parse(caption: str) -> Clip:
    """Turn a caption back into its clip."""
    found = _CAPTION.fullmatch(caption)
    if not found:
        raise ValueError(f"expected a caption of a clip, got {caption!r}")
    return Clip(*found.groups())


def check(frames: Array, caption: str) -> Verdict:
    """Compare frames (n, y, x, 3) in [0, 1] with their caption.

    Colour and shape are those of most frames; `count` asks for exactly one object in every frame, `motion` for a steady
    path in the direction that the caption names.
    """
    clip = parse(caption)
    border = np.concatenate(
        [frames[:, :2].reshape(-1, 3), frames[:, -2:].reshape(-1, 3), frames[:, :, :2].reshape(-1, 3)]
    )
    ground = np.median(border, axis=0)
    background = nearest(ground) == clip.background
    parts = [components(frame, ground) for frame in frames]
    if any(len(found) != 1 for found in parts):
        return Verdict(background, False, False, False, False)
    seen = [describe(frame, found[0]) for frame, found in zip(frames, parts, strict=True)]
    return Verdict(
        background,
        True,
        _most(found.item.color for found in seen) == clip.color,
        _most(found.item.shape for found in seen) == clip.shape,
        _moves(np.asarray([(found.x, found.y) for found in seen]), clip.motion),
    )


def _most(names: Iterable[str]) -> str:
    return Counter(names).most_common(1)[0][0]


def _moves(path: Array, motion: str) -> bool:
    """Tell whether a path (n, 2) goes steadily, mostly and far enough in a direction."""
    direction = np.asarray(MOTIONS[motion])
    way = path[-1] - path[0]
    along, across = way @ direction, abs(way @ direction[::-1])
    steady = np.linalg.norm(np.diff(path, axis=0), axis=1).max() < _JUMP
    return bool(along > TRAVEL / 2 and across < along / 2 and steady)
