"""How far samples are, as a set, from what code draws for the same captions: by features, and by power spectra."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.teacher.worlds import world_of
from swd_eval.distances.features import Lite0, load_lite0, prepare_lite0
from swd_eval.distances.fid import Statistics, frechet_distance
from swd_eval.distances.kid import squared_mmd
from swd_models.parts import Media
from swd_spectral import rapsd

BATCH = 32


def distances(samples: Sequence[Media], captions: Sequence[str], model: str) -> dict[str, float]:
    """Return how far samples are from drawings of their captions; of a video its middle frame.

    `kid x 1000` (unbiased) and `fd` are distances in the features of EfficientNet-Lite0: fd-lite0 of swd-eval, no FID.
    `spectrum` is in dB. Drawings of other seeds are the floor.
    """
    real, drawn = _reference(tuple(captions), model)
    fake = stills(samples)
    found = features(fake)
    return {
        "kid x 1000": 1000 * float(squared_mmd(found, real)),
        "fd": frechet_distance(Statistics.of(found), Statistics.of(real)),
        "spectrum": spectral_distance(_pixels(fake), drawn),
    }


def stills(samples: Sequence[Media]) -> list[Image.Image]:
    """Return images as they are, and of videos the middle frame."""
    return [item[len(item) // 2] if isinstance(item, list) else item for item in samples]


def features(images: Sequence[Image.Image]) -> Tensor:
    """Return features (N, 1280)."""
    network, parts = _network(), [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    with torch.inference_mode():
        return torch.cat([network(torch.stack([prepare_lite0(image) for image in part])) for part in parts])


def spectral_distance(x: Tensor, y: Tensor) -> float:
    """Return the mean distance of two densities in decibels."""
    a, b = rapsd(x), rapsd(y)
    weight = a.count / a.count.sum()
    return float((weight * (10 * (a.power / b.power).log10()).abs()).sum())


def power_by_cycles(samples: Sequence[Media], captions: Sequence[str], model: str) -> dict[str, list[float]]:
    """Return the power of samples over that of drawings of their captions, in dB, by cycles an image; 0 is as drawn."""
    a, b = (rapsd(pixels) for pixels in (_pixels(stills(samples)), _reference(tuple(captions), model)[1]))
    return {"cycles": a.cycles.tolist(), "dB": (10 * (a.power / b.power).log10()).tolist()}


def _pixels(images: Sequence[Image.Image]) -> Tensor:
    return torch.from_numpy(np.stack([np.asarray(image, np.float32) for image in images])).movedim(-1, 1) / 127.5 - 1


@cache
def _reference(captions: tuple[str, ...], model: str) -> tuple[Tensor, Tensor]:
    images = world_of(model).draw(captions, 0)
    return features(images), _pixels(images)


@cache
def _network() -> Lite0:
    return load_lite0()
