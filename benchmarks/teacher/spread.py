"""How much samples of one prompt differ: by features, and by what captions leave open."""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
from PIL import Image

from benchmarks.teacher.checker import Free
from benchmarks.teacher.distances import features
from benchmarks.teacher.worlds import world_of
from swd_eval.diagnostics import diversity

PROMPTS, SEEDS = 8, 16
FREE = tuple(each.name for each in fields(Free))


def spread(images: Sequence[Image.Image], captions: Sequence[str], model: str) -> dict[str, float]:
    """Return how far apart the images of a caption are, in the mean over captions.

    `features` is the mean cosine distance of a pair, swd-eval's measure. The others are standard deviations of what the
    checker finds, over those images whose count is right: pixels, radians, and brightness in [0, 1]. Circles have no
    tilt. An attribute that nothing has is NaN.
    """
    find = world_of(model).find
    assert find is not None, f"{model} has clips"
    found: dict[str, list[float]] = {name: [] for name in FREE}
    for caption in dict.fromkeys(captions):
        of_it = [image for image, other in zip(images, captions, strict=True) if other == caption]
        items = [find(np.asarray(image, np.float32) / 255, caption) for image in of_it]
        for places in zip(*(each for each in items if each is not None), strict=True):  # one item of the caption
            for name in FREE:
                values = [value for place in places if (value := getattr(place, name)) is not None]
                if len(values) > 1:
                    found[name].append(float(np.std(values, ddof=1)))
    measured = {name: float(np.mean(values)) if values else float("nan") for name, values in found.items()}
    return {"features": float(diversity(features(images), list(captions)).mean())} | measured


def spread_of_drawings(captions: Sequence[str], model: str) -> dict[str, float]:
    """Return the spread of what code draws for the same captions."""
    return spread(world_of(model).draw(captions, 0), captions, model)


def repeated(captions: Sequence[str]) -> list[str]:
    """Return the first captions, each as often as it is sampled."""
    return [caption for caption in captions[:PROMPTS] for _ in range(SEEDS)]
