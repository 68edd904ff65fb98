"""What a teacher's samples are judged by: what draws its captions, and what reads an image or a clip back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.large_teacher import checker as large_checker, drawing, scenes as large_scenes
from benchmarks.large_teacher.pipeline import TRAINED
from benchmarks.teacher import checker, scenes
from benchmarks.video_teacher import checker as clip_checker, clips


@dataclass(frozen=True)
class World:
    """The captions of one teacher.

    Attributes:
        pixels: Along a side of an image.
        parse: A caption to its scene, which has a `split`.
        check: An image or a clip, in [0, 1], and its caption to a verdict.
        draw: Captions and a seed to pictures; of clips the middle frame.
        find: An image and its caption to the shapes in it, in the caption's order, or None if there are more or fewer.
    """

    pixels: int
    parse: Callable[[str], Any]
    check: Callable[[Any, str], Any]
    draw: Callable[[Sequence[str], int], list[Image.Image]]
    find: Callable[[Any, str], Sequence[Any] | None] | None = None


def world_of(model: str) -> World:
    """Return the world of a teacher."""
    return _WORLDS[model]


def _draw_scenes(captions: Sequence[str], seed: int) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [_picture(scenes.draw(checker.parse(caption), rng)) for caption in captions]


def _draw_clips(captions: Sequence[str], seed: int) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    frames = (clips.draw(clip_checker.parse(caption), rng) for caption in captions)
    return [_picture(clip[len(clip) // 2]) for clip in frames]


def _draw_large(captions: Sequence[str], seed: int) -> list[Image.Image]:
    rows = torch.tensor([large_scenes.parse(caption).row for caption in captions])
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.cat([drawing.draw(few, generator) for few in rows.split(64)])
    return [_picture(image) for image in drawn.permute(0, 2, 3, 1).numpy()]


def _picture(pixels: Any) -> Image.Image:
    return Image.fromarray((pixels * 255).round().astype(np.uint8))


_WORLDS = {
    "embedded": World(scenes.PIXELS, checker.parse, checker.check, _draw_scenes, checker.find),
    "embedded-video": World(clips.PIXELS, clip_checker.parse, clip_checker.check, _draw_clips),
    str(TRAINED): World(large_scenes.PIXELS, large_scenes.parse, large_checker.check, _draw_large, large_checker.find),
}
