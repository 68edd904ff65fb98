"""The metrics of images and videos by name: which weights each needs, what it measures, and its numbers."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import Tensor

from swd_data import Kind
from swd_eval import diagnostics
from swd_eval.devices import float64_device
from swd_eval.distances.features import SPACES, open_space
from swd_eval.distances.fid import Statistics, bootstrap_interval, frechet_distance
from swd_eval.distances.kid import kernel_distance
from swd_eval.measure import Measure
from swd_eval.runs.reference import Reference, read_statistics, stated_mode
from swd_eval.runs.results import Number, group_means, mean_of
from swd_eval.weights import (
    BERT,
    CLIP_H,
    CLIP_L,
    HPSV3,
    IMAGE_REWARD,
    INCEPTION,
    PICKSCORE,
    QWEN,
    QWEN_2B,
    VIDEO_REWARD,
    VISION_REWARD,
    Weights,
)

Rows = Callable[[Measure], Tensor]
"""Computes a measure for the samples, or takes it from the disk."""
IMAGE_SCORES: dict[str, tuple[Weights, ...]] = {
    "pickscore": (PICKSCORE, CLIP_H),
    "clip-score": (CLIP_L,),
    "image-reward": (IMAGE_REWARD, BERT),
    "hpsv3": (HPSV3, QWEN),
}
VIDEO_SCORES: dict[str, tuple[Weights, ...]] = {
    "visionreward": (VISION_REWARD,),
    "videoreward": (VIDEO_REWARD, QWEN_2B),
}
SCORES = IMAGE_SCORES | VIDEO_SCORES
PARTS = ("", "-vq", "-mq", "-ta")
"""Of a score's fields those that are numbers; the others are for samples.jsonl alone."""
DISTANCES = {f"{'fd' if mode == 'lite0' else 'fid'}-{mode}": mode for mode in SPACES} | {
    f"kid-{mode}": mode for mode in SPACES
}
METRICS: dict[Kind, tuple[str, ...]] = {
    "images": (*IMAGE_SCORES, *DISTANCES, "diagnostics"),
    "videos": (*VIDEO_SCORES, "diagnostics"),
}


def check_names(metrics: Sequence[str], kind: Kind) -> None:
    """Raise ValueError for names that are no metrics of images or of videos, and for none."""
    wrong = [name for name in metrics if name not in METRICS[kind]]
    if wrong or not metrics:
        near = get_close_matches(wrong[0], METRICS[kind], cutoff=0.5) if wrong else []
        hint = f": perhaps {' or '.join(near)}" if near else f": there are {', '.join(METRICS[kind])}"
        raise ValueError(f"expected --metrics of {kind}, got {', '.join(wrong) or 'none'}{hint}")


def weights_of(metrics: Sequence[str]) -> list[Weights]:
    """Return the weights that the user must have; those of lite0 come with its extra."""
    inception = any(DISTANCES.get(name, "lite0") != "lite0" for name in metrics)
    found = [INCEPTION] if inception else []
    return found + [weights for name in metrics for weights in SCORES.get(name, ())]


def open_score(metric: str, folder: Path, device: str) -> Measure:
    """Return the measure of a learned score."""
    from swd_eval.scores.clip_scores import clip_score, pickscore
    from swd_eval.scores.hpsv3 import hpsv3
    from swd_eval.scores.image_reward import image_reward
    from swd_eval.scores.video_reward import video_reward
    from swd_eval.scores.vision_reward import vision_reward

    builders: dict[str, Callable[[Path, str], Measure]] = {
        "pickscore": pickscore,
        "clip-score": clip_score,
        "image-reward": image_reward,
        "hpsv3": hpsv3,
        "visionreward": vision_reward,
        "videoreward": video_reward,
    }
    return builders[metric](folder, device)


def score_numbers(metric: str, rows: Tensor, prompts: Sequence[str], measure: Measure) -> list[Number]:
    """Return the mean of a learned score, and of its parts if it has some."""
    names = [name for part in PARTS if (name := f"{metric}{part}") in measure.fields]
    columns = [rows[:, measure.fields.index(name)] for name in names]
    return [
        mean_of(name, column, prompts, better="higher", notes=measure.about)
        for name, column in zip(names, columns, strict=True)
    ]


def check_reference(metric: str, space: Measure, reference: Reference) -> None:
    """Raise ValueError for a file of statistics that does not serve a distance, before anything is computed."""
    if reference.path.is_file():
        read_statistics(reference.path, space)
        if metric.startswith("kid"):
            raise ValueError(
                f"expected a folder as --ref for {metric}, got {reference.path}, which holds statistics alone: give "
                f"the folder of its images, or leave {metric} out"
            )


def distance_number(metric: str, rows: Tensor, space: Measure, reference: Reference, device: str) -> Number:
    """Return a Frechet or kernel distance of features to the reference."""
    compute, device = _kernel if metric.startswith("kid") else _frechet, float64_device(device)
    rows = rows.to(device)
    value, again, notes = compute(rows, space, reference, device)
    about = {"reference": reference.note(), "reference mode": stated_mode(reference.path), **space.about}
    return Number(metric, value, bootstrap_interval(again, rows, value), len(rows), "lower", about | notes)


def open_diagnostics(kind: Kind) -> tuple[Measure, Measure]:
    """Return the measures of tone and of spectra."""
    if kind == "videos":
        return diagnostics.video_tone(), diagnostics.video_spectrum()
    return diagnostics.tone(), diagnostics.spectrum()


def diagnostic_numbers(
    tone: Measure, spectrum: Measure, rows: Rows, prompts: Sequence[str], reference: Reference | None
) -> list[Number]:
    """Return tone, its drift, and the distance of spectra, to a reference that is no file of statistics."""
    tones, power = rows(tone), rows(spectrum)
    numbers = [mean_of(name, tones[:, place], prompts) for place, name in enumerate(tone.fields)]
    others = reference.rows(tone) if reference else None
    if reference is None or others is None:
        return numbers
    about = {"reference": reference.note(), "reference n": len(others)}
    for place, name in enumerate(tone.fields):
        numbers.append(_drift(f"{name}-drift", tones[:, place], others[:, place], prompts, about))
    real = reference.rows(spectrum)
    assert real is not None
    distance = diagnostics.spectrum_distance(power, real)
    return [*numbers, Number("spectrum-distance", distance, None, len(power), "lower", {"unit": "dB"} | about)]


def diversity_number(rows: Tensor, prompts: Sequence[str], space: Measure) -> Number | None:
    """Return how far apart the images of a prompt are; None if every prompt has one."""
    given = [prompt for prompt in prompts if prompt]
    if len(given) < len(prompts) or len(set(given)) == len(given):
        return None
    values = diagnostics.diversity(rows, prompts)
    unique = [str(index) for index in range(len(values))]
    return mean_of(f"diversity-{space.about['mode']}", values, unique, better="higher", notes={"of": "prompts"})


def space_of(metric: str, folder: Path, device: str) -> Measure:
    """Return the space of a distance."""
    return open_space(DISTANCES[metric], folder, device)


def _frechet(
    rows: Tensor, space: Measure, reference: Reference, device: str
) -> tuple[float, Callable[[Tensor], float], dict[str, Any]]:
    """Return a distance, what computes it for resampled rows, and notes."""
    target = _to(reference.statistics(space), device).rooted()

    def distance(features: Tensor) -> float:
        return frechet_distance(Statistics.of(features), target)

    return distance(rows), distance, {"reference n": target.num}


def _kernel(
    rows: Tensor, space: Measure, reference: Reference, device: str
) -> tuple[float, Callable[[Tensor], float], dict[str, Any]]:
    """Return a distance, what computes it for resampled rows from fewer subsets, and notes."""
    other = reference.rows(space)
    assert other is not None
    other = other.to(device)
    value, std = kernel_distance(rows, other)

    def distance(features: Tensor) -> float:
        return kernel_distance(features, other, subsets=10)[0]

    return value, distance, {"reference n": len(other), "deviation of a subset": std}


def _drift(name: str, values: Tensor, others: Tensor, prompts: Sequence[str], about: dict[str, Any]) -> Number:
    """Return the difference of two means, with Welch's standard error: of the samples' over prompts."""
    drift, groups = float(values.double().mean() - others.double().mean()), group_means(values, prompts)
    if min(len(groups), len(others)) < 2:
        return Number(name, drift, None, len(values), notes=about)
    error = float((groups.var() / len(groups) + others.double().var() / len(others)).sqrt())
    return Number(name, drift, (drift - 1.96 * error, drift + 1.96 * error), len(values), notes=about)


def _to(statistics: Statistics, device: str) -> Statistics:
    mu, cov, root = (
        None if each is None else each.to(device) for each in (statistics.mu, statistics.cov, statistics.root)
    )
    assert mu is not None
    return Statistics(mu, cov, root, statistics.num)
