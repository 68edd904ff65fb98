"""Commands of `swd-eval` beside the study: their options, and what runs them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Images:
    """Measure a folder of images: distances to a reference, learned scores, diagnostics."""

    folder: tyro.conf.Positional[Path]
    """Images, subfolders included."""
    out: Path
    """Folder for results.json, table.md and samples.jsonl. The same folder again: goes on, or adds metrics."""
    metrics: tuple[str, ...] = ("fd-lite0", "kid-lite0", "diagnostics")
    """Also pickscore, hpsv3, image-reward, clip-score, and fid- or kid- with swd, torch-fidelity or clean."""
    prompts: Path | None = None
    """Prompts: .csv, .jsonl, .json, .parquet or .txt. Default: metadata.jsonl or .csv in the folder."""
    ref: Path | None = None
    """Reference: statistics (.npz with mu and sigma), a folder of images, or a folder of results."""
    weights: Path = Path("weights")
    """Folder of weights; what is on the Hugging Face hub is put there."""
    offline: bool = False
    """Load nothing: list the weights that are missing, with id and size."""
    device: str | None = None
    """Default: cuda if there is a GPU, else cpu."""
    batch: int = 16
    """Images at a time."""


@dataclass(frozen=True)
class GenEval:
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
    """Default: cuda if there is a GPU, else cpu."""


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
    from swd_eval.images import evaluate_images

    return evaluate_images(
        options.folder,
        options.out,
        options.metrics,
        prompts=options.prompts,
        ref=options.ref,
        weights=options.weights,
        offline=options.offline,
        device=options.device,
        batch=options.batch,
    )


def geneval(options: GenEval) -> str:
    """Run GenEval with transformers' Mask2Former."""
    from swd_eval.geneval_run import evaluate_folder

    return evaluate_folder(options.folder, options.out, options.weights, offline=options.offline, device=options.device)


def report(options: Compare) -> str:
    """Compare two results."""
    from swd_eval.compare import compare

    return compare(options.a, options.b)


def vbench(options: VBench) -> str:
    """Prepare or collect."""
    from swd_eval.vbench import collect, prepare

    if isinstance(options.action, Prepare):
        return prepare(options.action.prompts, options.action.out)
    return collect(options.action.results, options.action.out)
