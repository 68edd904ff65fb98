"""Runs as people have them: folders of images or videos, matched by file name to prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swd_eval.prompts import IMAGES, VIDEOS, natural, read_jsonl

METADATA = "metadata.jsonl"


@dataclass(frozen=True)
class Item:
    """What every run made of one prompt at one seed."""

    name: str
    prompt: str
    files: tuple[Path, ...]


def read_items(runs: Sequence[Path], prompts: Path | None = None) -> list[Item]:
    """Return the items of all runs in natural order of their names.

    With a prompts file of N lines, N, 2 N, ... files in a folder belong to its lines in order: line 1 has the first
    one, two, ... files. Without one each folder has a metadata.jsonl with file_name and text.

    Raises:
        ValueError: the runs differ in names, texts or kind, or do not fit the prompts.
    """
    if len(runs) < 2:
        raise ValueError(f"expected two or more folders to compare, got {len(runs)}")
    texts = _read_prompts(prompts) if prompts else None
    found = [_from_prompts(run, texts) if texts else _from_metadata(run) for run in runs]
    for run, other in zip(runs[1:], found[1:], strict=True):
        _check_equal(runs[0], found[0], run, other)
    names = sorted(found[0], key=natural)
    items = [Item(name, found[0][name][1], tuple(run[name][0] for run in found)) for name in names]
    kind_of(items)
    return items


def kind_of(items: Sequence[Item]) -> str:
    """Return "image" or "video", which all files must be."""
    suffixes = {file.suffix.lower() for item in items for file in item.files}
    if suffixes <= IMAGES:
        return "image"
    if suffixes <= VIDEOS and len(suffixes) == 1:  # two kinds of video would tell the models apart
        return "video"
    raise ValueError(f"expected all images or all videos of one kind, got {', '.join(sorted(suffixes))}: convert them")


def _from_prompts(run: Path, prompts: Sequence[str]) -> dict[str, tuple[Path, str]]:
    files = sorted(_media(run), key=lambda path: natural(path.name))
    if not files or len(files) % len(prompts):
        raise ValueError(f"expected {len(prompts)} files (one a prompt) or a multiple in {run}, got {len(files)}")
    repeats = len(files) // len(prompts)
    return _by_name(run, [(file, prompts[index // repeats]) for index, file in enumerate(files)])


def _from_metadata(run: Path) -> dict[str, tuple[Path, str]]:
    path = run / METADATA
    if not path.is_file():
        raise ValueError(f"expected {METADATA} in {run}, got none: write it, or give --prompts FILE")
    pairs = []
    for number, row in read_jsonl(path):
        name, text = row.get("file_name"), row.get("text")
        if not isinstance(name, str) or not isinstance(text, str):
            raise ValueError(f"expected file_name and text in line {number} of {path}, got {sorted(row)}")
        if not (run / name).is_file():
            raise ValueError(f"expected the file {run / name} of line {number} of {path}, got no such file")
        pairs.append((run / name, text))
    if not pairs:
        raise ValueError(f"expected at least one line in {path}, got none")
    return _by_name(run, pairs)


def _media(run: Path) -> list[Path]:
    if not run.is_dir():
        raise ValueError(f"expected a folder of images or videos, got {run}")
    return [path for path in run.iterdir() if path.suffix.lower() in IMAGES | VIDEOS]


def _by_name(run: Path, pairs: Sequence[tuple[Path, str]]) -> dict[str, tuple[Path, str]]:
    """Key files by their path in the run without the suffix: one model may write PNG, another JPEG."""
    found = {file.relative_to(run).with_suffix("").as_posix(): (file, text) for file, text in pairs}
    if len(found) < len(pairs):
        raise ValueError(f"expected one file a name in {run}, got several that differ in the suffix alone, or twice")
    return found


def _check_equal(first: Path, a: dict[str, tuple[Path, str]], second: Path, b: dict[str, tuple[Path, str]]) -> None:
    for run, other, names in ((first, second, a.keys() - b.keys()), (second, first, b.keys() - a.keys())):
        if names:
            few = ", ".join(sorted(names)[:3]) + (" ..." if len(names) > 3 else "")
            raise ValueError(f"expected the same file names in all runs, got {few} in {run} but not in {other}")
    for name in a:
        if a[name][1] != b[name][1]:
            raise ValueError(f"expected one prompt for {name}, got another in {second} than in {first}")


def _read_prompts(path: Path) -> list[str]:
    if path.suffix == ".jsonl":
        rows = [row.get("text", row.get("prompt")) for _, row in read_jsonl(path)]
    else:
        rows = [line.strip() or None for line in path.read_text(encoding="utf-8-sig").rstrip().split("\n")]
    texts = [row for row in rows if isinstance(row, str)]
    if not texts or len(texts) < len(rows):
        raise ValueError(f"expected a prompt in each line of {path}, got {len(rows) - len(texts)} lines without")
    return texts
