"""`swd-eval geneval score`: GenEval's folders, judged image by image."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from swd_data import Sample, claim, find_files, read_object, write_whole
from swd_eval.devices import find_device
from swd_eval.fetch import fetch
from swd_eval.geneval.detectors import load_colours, load_detector
from swd_eval.geneval.score import TASKS, Detector, NameColours, judge, overall
from swd_eval.measure import Measure, Prepare, Run, require
from swd_eval.runs.collect import collect
from swd_eval.runs.results import WRITES, Number, group_means, write_results
from swd_eval.runs.rows import digests
from swd_eval.weights import CLIP_L, MASK2FORMER


def evaluate_folder(folder: Path, out: Path, weights: Path, *, offline: bool = False, device: str | None = None) -> str:
    """Judge all images of a folder with transformers' models; return the table."""
    require("clip", "transformers")
    samples = read_folder(folder)
    fetch((MASK2FORMER, CLIP_L), weights, offline=offline)
    found = {each.id: each.find(weights) for each in (MASK2FORMER, CLIP_L)}
    about = {"detector": MASK2FORMER.note(found[MASK2FORMER.id]), "colours": CLIP_L.note(found[CLIP_L.id])}
    where = find_device(device)

    def load() -> tuple[Detector, NameColours]:
        return load_detector(found[MASK2FORMER.id], where), load_colours(found[CLIP_L.id], where)

    return score_samples(samples, out, load, about, folder.resolve().name)


def read_folder(folder: Path) -> list[Sample]:
    """Return the images of folders 00000, 00001, ...; the prompt of each is its folder's metadata, as JSON."""
    samples = []
    for path in sorted(each for each in folder.glob("*") if each.name.isdigit() and each.is_dir()):
        metadata = read_object(path / "metadata.jsonl", "GenEval's metadata")
        if metadata.get("tag") not in TASKS:
            raise ValueError(f"expected a tag of GenEval's in {path / 'metadata.jsonl'}, got {metadata.get('tag')}")
        images = find_files(path / "samples", "images", deep=False).values()
        text = json.dumps(metadata, sort_keys=True)
        samples += [Sample(image.relative_to(folder).as_posix(), image, text) for image in images]
    if not samples:
        raise ValueError(f"expected folders 00000, 00001, ... in {folder}, got none")
    return samples


def score_samples(
    samples: Sequence[Sample],
    out: Path,
    load: Callable[[], tuple[Detector, NameColours]],
    about: dict[str, Any],
    name: str,
) -> str:
    """Judge samples with any detector, write the results, and return the table."""

    def open_models() -> tuple[Prepare, Run]:
        detect, name_colours = load()

        def run(images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
            pairs = zip(images, map(json.loads, prompts), strict=True)
            return torch.tensor([[float(not judge(image, detect(image), each, name_colours))] for image, each in pairs])

        return (lambda image: image), run

    claim(out / "settings.json", digests(samples), "results", writes=WRITES)
    rows = collect(Measure("geneval", about, open_models, 1, ("correct",)), samples, out, batch=1)
    write_whole(out / "samples.jsonl", lambda path: shutil.copyfile(out / "geneval.jsonl", path))
    settings = {"images": name, "num_images": len(samples), "num_prompts": len({each.prompt for each in samples})}
    return f"{write_results(out, name, numbers_of(samples, rows[:, 0], about), settings)}\nwrote {out}"


def numbers_of(samples: Sequence[Sample], correct: Tensor, about: dict[str, Any]) -> list[Number]:
    """Return the overall score and each task's, with intervals over prompts."""
    places = {task: [i for i, each in enumerate(samples) if json.loads(each.prompt)["tag"] == task] for task in TASKS}
    shares = overall({task: (correct[places[task]] > 0).tolist() for task in TASKS})
    means = {task: group_means(correct[places[task]], [samples[i].prompt for i in places[task]]) for task in TASKS}
    errors = {task: float(each.std(correction=0)) / len(each) ** 0.5 for task, each in means.items()}
    errors["geneval"] = sum(error**2 for error in errors.values()) ** 0.5 / len(TASKS)
    counts = {task: len(places[task]) for task in TASKS} | {"geneval": len(samples)}
    return [
        Number(
            task if task == "geneval" else f"geneval-{task}",
            share,
            (share - 1.96 * errors[task], share + 1.96 * errors[task]),
            counts[task],
            "higher",
            about if task == "geneval" else {},
        )
        for task, share in sorted(shares.items(), key=lambda item: item[0] != "geneval")
    ]
