"""Commands of `swd-eval` beside the study: their options, and what runs them."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Samples:
    """What images and videos are measured with."""

    folder: tyro.conf.Positional[Path]
    """Images or videos, subfolders included; or a run of swd-distill: what its student drew (`swd-sample --unseen`)."""
    out: Path
    """Folder for results.json, table.md and samples.jsonl. The same folder again: goes on, or adds metrics."""
    prompts: Path | None = None
    """Prompts: .txt, .csv, .tsv, .jsonl, .json or .parquet. Default: the folder's metadata, or a .txt a file."""
    ref: Path | None = None
    """Reference: a folder of the same kind, a run (its teacher's images), a folder of results, or for images statistics
    (.npz with mu and sigma)."""
    weights: Path = Path("weights")
    """Folder of weights; what is on the Hugging Face hub is put there."""
    offline: bool = False
    """Load nothing: list the weights that are missing, with id and size."""
    device: str | None = None
    """Default: the accelerator that torch finds, else the CPU."""
    max_bad: float = 0.01
    """Share of the files that may be broken: they are left out, and listed in skipped.jsonl. 0: all, or an error."""


@dataclass(frozen=True)
class Images(Samples):
    """Measure a folder of images: distances to a reference, learned scores, diagnostics."""

    metrics: tuple[str, ...] = ()
    """Of fd-lite0, kid-lite0, diagnostics, pickscore, hpsv3, image-reward, clip-score, and fid- or kid- with swd,
    torch-fidelity or clean. Default: the first three; diagnostics alone without --ref, or the extra lite0."""
    batch: int = 16
    """Images at a time."""


@dataclass(frozen=True)
class Videos(Samples):
    """Measure a folder of videos: learned scores, diagnostics."""

    metrics: tuple[str, ...] = ("diagnostics",)
    """Also visionreward, videoreward."""
    batch: int = 4
    """Videos at a time."""


@dataclass(frozen=True)
class PrepareGenEval:
    """Write a folder for each of GenEval's 553 prompts, and say which of its 4 images are there."""

    out: Path
    """Folder for 00000, 00001, ... with metadata.jsonl and samples, and prompts.jsonl, which lists all images."""


@dataclass(frozen=True)
class ScoreGenEval:
    """Check images for the objects, counts, colours and places that GenEval's prompts name."""

    folder: tyro.conf.Positional[Path]
    """Folders 00000, 00001, ... with metadata.jsonl and samples/0000.png, as GenEval's own script takes."""
    out: Path
    """Folder for results.json, table.md and the verdict on each image."""
    weights: Path = Path("weights")
    """Folder of weights; what is missing there is loaded from the Hugging Face hub."""
    offline: bool = False
    """Load nothing: list the weights that are missing, with id and size."""
    device: str | None = None
    """Default: the accelerator that torch finds, else the CPU."""


@dataclass(frozen=True)
class GenEval:
    """GenEval: its prompts, and whether a detector finds in images what they name."""

    action: (
        Annotated[PrepareGenEval, tyro.conf.subcommand("prepare")]
        | Annotated[ScoreGenEval, tyro.conf.subcommand("score")]
    )


@dataclass(frozen=True)
class Compare:
    """Compare two results: paired tests on the scores of each image."""

    a: tyro.conf.Positional[Path]
    """Folder of results."""
    b: tyro.conf.Positional[Path]
    """Folder of results of the same prompts."""


@dataclass(frozen=True)
class Prepare:
    """List the videos that VBench-2.0 looks for, and say which are there."""

    prompts: tyro.conf.Positional[Path]
    """VBench-2.0's folder prompts/prompt, or its VBench2_full_info.json."""
    out: Path
    """Folder of the videos; videos.jsonl is written there."""


@dataclass(frozen=True)
class Collect:
    """Make table 10 of VBench-2.0's results."""

    results: tyro.conf.Positional[Path]
    """A *_eval_results.json, or a folder of them."""
    out: Path
    """Folder for results.json and table.md."""


@dataclass(frozen=True)
class VBench:
    """VBench-2.0, which runs in an environment of its own: before it and after it."""

    action: Annotated[Prepare, tyro.conf.subcommand("prepare")] | Annotated[Collect, tyro.conf.subcommand("collect")]


def images(options: Images) -> str:
    """Measure a folder of images."""
    from swd_eval.runs.evaluate import evaluate

    metrics, lacking = (options.metrics, "") if options.metrics else _usual(options.ref)
    text = evaluate(**vars(options) | {"metrics": metrics}, kind="images")
    return f"{text}\nfd-lite0 and kid-lite0 need {lacking}" if text and lacking else text


def _usual(ref: Path | None) -> tuple[tuple[str, ...], str]:
    """Return the metrics of images that need no download and can be had, and what the others lack."""
    from swd_eval.distances.features import LITE0_MODULES

    if any(find_spec(module) is None for module in LITE0_MODULES):
        return ("diagnostics",), "the extra swd-eval[lite0]"
    if ref is None:
        return ("diagnostics",), "--ref FOLDER"
    return ("fd-lite0", "kid-lite0", "diagnostics"), ""


def videos(options: Videos) -> str:
    """Measure a folder of videos."""
    from swd_eval.runs.evaluate import evaluate

    return evaluate(**vars(options), kind="videos")


def geneval(options: GenEval) -> str:
    """Prepare, or score with transformers' Mask2Former."""
    if isinstance(options.action, PrepareGenEval):
        from swd_eval.geneval.prompts import prepare

        return prepare(options.action.out)
    from swd_eval.geneval.run import evaluate_folder

    score = options.action
    return evaluate_folder(score.folder, score.out, score.weights, offline=score.offline, device=score.device)


def report(options: Compare) -> str:
    """Compare two results."""
    from swd_eval.runs.compare import compare

    return compare(options.a, options.b)


def vbench(options: VBench) -> str:
    """Prepare or collect."""
    from swd_eval.vbench import collect, prepare

    if isinstance(options.action, Prepare):
        return prepare(options.action.prompts, options.action.out)
    return collect(options.action.results, options.action.out)
