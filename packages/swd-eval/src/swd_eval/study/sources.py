"""Runs as people have them: folders of images or videos, matched by file name to prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from swd_data import IMAGES, VIDEOS, Kind, Sample, has_captions, list_files, natural, read_pairs, read_samples, stem

PLAYED = frozenset({".mp4", ".webm"})
"""Videos that every browser plays."""


@dataclass(frozen=True)
class Item:
    """What every run made of one prompt at one seed."""

    name: str
    prompt: str
    files: tuple[Path, ...]


def read_items(runs: Sequence[Path], prompts: Path | None = None) -> list[Item]:
    """Return the items of all runs in natural order of their names.

    Prompts are those of a file, as `swd_data.read_samples` gives them to files; without one each folder has metadata,
    or a caption beside each file.

    Raises:
        ValueError: the runs differ in names, texts or kind, or do not fit the prompts.
    """
    if len(runs) < 2:
        raise ValueError(f"expected two or more folders to compare, got {len(runs)}")
    found = [_by_name(run, _read_run(run, prompts)) for run in runs]
    for run, other in zip(runs[1:], found[1:], strict=True):
        _check_equal(runs[0], found[0], run, other)
    names = sorted(found[0], key=natural)
    items = [Item(name, found[0][name].prompt, tuple(run[name].path for run in found)) for name in names]
    kind_of(items)
    return items


def kind_of(items: Sequence[Item]) -> str:
    """Return "image" or "video", which all files must be."""
    suffixes = {file.suffix.lower() for item in items for file in item.files}
    if suffixes <= IMAGES:
        return "image"
    if suffixes <= PLAYED and len(suffixes) == 1:  # two kinds of video would tell the models apart
        return "video"
    raise ValueError(
        f"expected all images or all videos of one kind, .mp4 or .webm, got {', '.join(sorted(suffixes))}: convert them"
    )


def _read_run(run: Path, prompts: Path | None) -> list[Sample]:
    kinds: tuple[Kind, ...] = ("images", "videos")
    if prompts:
        files = list_files(run, IMAGES | VIDEOS)
        stills = [name for name, path in files.items() if path.suffix.lower() in IMAGES]
        if len(stills) not in (0, len(files)):
            raise ValueError(f"expected images or videos in {run}, got both: {len(stills)} of {len(files)} are images")
        return read_samples(run, prompts, "images" if stills or not files else "videos")
    samples = read_pairs(run, next((kind for kind in kinds if has_captions(run, kind)), "images"))
    for sample in samples:
        if not sample.path.is_file():
            raise ValueError(f"expected the file {sample.path} of {sample.where}, got no such file")
    return samples


def _by_name(run: Path, samples: Sequence[Sample]) -> dict[str, Sample]:
    """Key files by their path in the run without the suffix: one model may write PNG, another JPEG."""
    found = {stem(sample.path.relative_to(run).as_posix()): sample for sample in samples}
    if len(found) < len(samples):
        raise ValueError(f"expected one file a name in {run}, got several that differ in the suffix alone, or twice")
    return found


def _check_equal(first: Path, a: Mapping[str, Sample], second: Path, b: Mapping[str, Sample]) -> None:
    for run, other, names in ((first, second, a.keys() - b.keys()), (second, first, b.keys() - a.keys())):
        if names:
            few = ", ".join(sorted(names)[:3]) + (" ..." if len(names) > 3 else "")
            raise ValueError(f"expected the same file names in all runs, got {few} in {run} but not in {other}")
    for name in a:
        if a[name].prompt != b[name].prompt:
            raise ValueError(f"expected one prompt for {name}, got another in {second} than in {first}")
