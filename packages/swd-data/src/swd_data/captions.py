"""Images or videos with their captions: metadata.jsonl or .csv in their folder, a .txt beside each, or other files."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from swd_data.folders import Kind, files_of, find_files, inside, inside_of, list_files, natural, stem
from swd_data.prompts import name_of, prompt_of, read_rows
from swd_data.texts import check_text, lines_of, read_text

METADATA = ("metadata.jsonl", "metadata.csv")
SIDECARS = (".txt", ".caption")


@dataclass(frozen=True)
class Sample:
    """An image or video.

    Attributes:
        name: Its path in its folder.
        prompt: Empty where none was given.
        where: Where that was given, for messages.
    """

    name: str
    path: Path
    prompt: str
    where: str = ""


def metadata_of(folder: Path) -> Path | None:
    """Return the file that makes a folder an image folder, if it has one."""
    return next((folder / name for name in METADATA if (folder / name).is_file()), None)


def has_captions(folder: Path, kind: Kind) -> bool:
    """Tell whether `read_pairs` finds something in a folder."""
    return folder.is_dir() and (metadata_of(folder) is not None or bool(_sidecars(folder, kind)))


def read_pairs(folder: Path, kind: Kind) -> list[Sample]:
    """Return the samples of a data set: in the order of its metadata, else those with a caption beside them.

    Hugging Face's `imagefolder` has metadata.jsonl or .csv with file_name and text; in that of kohya and others 0.txt
    (or 0.caption) is the caption of 0.png. Captions may be empty. Files are not looked at.

    Raises:
        ValueError: neither, a broken line, or an image without a caption where others have one.
    """
    metadata = metadata_of(folder)
    samples = _of_metadata(folder, metadata) if metadata else _of_sidecars(folder, kind)
    if not samples:
        raise ValueError(
            f"expected at least one sample in {metadata}, got none"
            if metadata
            else f"expected {' or '.join(METADATA)} in {folder}, or a .txt beside each of its {kind}, got neither"
        )
    return samples


def read_samples(folder: Path, prompts: Path | None = None, kind: Kind = "images") -> list[Sample]:
    """Return all images or videos of a folder in natural order, each with its prompt if there is one.

    Prompts are rows of a file: by default the folder's own metadata, else what stands beside the files. Rows with a
    file name belong to that file, whatever its suffix. Without names rows go with files in order; with k times as many
    files as rows, the first k files belong to the first row, and so on.

    Raises:
        ValueError: there are no files of this kind, or they and the prompts do not fit.
    """
    files, source = find_files(folder, kind), prompts or metadata_of(folder)
    if source is None:
        beside = _sidecars(folder, kind)
        return [_beside(name, path, beside.get(name)) for name, path in files.items()]
    rows = [(name_of(row), prompt_of(row, f"line {number} of {source}")) for number, row in read_rows(source)]
    if not rows:
        raise ValueError(f"expected prompts in {source}, got none")
    nameless = next((place for place, (name, _) in enumerate(rows) if not name), None)
    if nameless is None:
        return _by_name(folder, files, source, rows)
    if any(name for name, _ in rows):  # by their order they might go to others' files
        raise ValueError(
            f"expected a file_name in row {nameless + 1} of {source}, as other rows have, got none: give each row one, "
            "or none of them"
        )
    if len(files) % len(rows):
        raise ValueError(
            f"expected {len(rows)} {kind} (one a prompt) or a multiple in {folder}, got {len(files)}: take the prompts "
            "of these files, or give them a column file_name"
        )
    each = len(files) // len(rows)
    return [Sample(name, path, rows[index // each][1]) for index, (name, path) in enumerate(files.items())]


def _of_metadata(folder: Path, metadata: Path) -> list[Sample]:
    samples = []
    for number, row in read_rows(metadata):
        where = f"line {number} of {metadata}"
        name, text = name_of(row), next((row[key] for key in ("text", "prompt", "caption") if key in row), None)
        if not name:
            raise ValueError(
                f"expected a file_name in {where}, got {str(row)[:60]}: write the image's, or delete the line"
            )
        if not isinstance(text, str):
            raise ValueError(
                f'expected a text, prompt or caption in {where}, got {str(row)[:60]}: write the caption, "" '
                "for none, or delete the line"
            )
        samples.append(Sample(inside(name, where), inside_of(folder, name, where), check_text(text, where), where))
    return samples


def _of_sidecars(folder: Path, kind: Kind) -> list[Sample]:
    captions, samples = _sidecars(folder, kind), []
    if not captions:
        return []
    for name, path in find_files(folder, kind).items():
        beside = captions.get(name)
        if beside is None:
            raise ValueError(
                f"expected {stem(name)}.txt beside {path}, as others have, got none: write it, or take the file away"
            )
        samples.append(_beside(name, path, beside))
    return samples


def _beside(name: str, path: Path, captions: Path | None) -> Sample:
    """Return a sample with the caption beside it, if it has one."""
    if captions is None:
        return Sample(name, path, "")
    lines = (line.strip() for line in lines_of(read_text(captions)))
    return Sample(name, path, check_text(" ".join(line for line in lines if line), str(captions)), str(captions))


def _sidecars(folder: Path, kind: Kind) -> dict[str, Path]:
    """Return the files of captions that stand beside images or videos, by the names of those."""
    files = list_files(folder, {*files_of(kind), *SIDECARS})
    texts = {
        name.removesuffix(path.suffix): path
        for suffix in reversed(SIDECARS)
        for name, path in files.items()
        if path.suffix.lower() == suffix
    }
    return {
        name: texts[stem(name)]
        for name, path in files.items()
        if path.suffix.lower() in files_of(kind) and stem(name) in texts
    }


def _by_name(folder: Path, files: dict[str, Path], source: Path, rows: Sequence[tuple[str, str]]) -> list[Sample]:
    texts = {stem(PurePosixPath(name).as_posix()): text for name, text in rows}
    stems = {stem(name): name for name in files}
    if len(texts) < len(rows) or len(stems) < len(files):
        both = [stem(PurePosixPath(name).as_posix()) for name, _ in rows], list(map(stem, files))
        twice = next(name for names in both for name, count in Counter(names).items() if count > 1)
        raise ValueError(
            f"expected each name once in {source} and {folder}, got {twice} twice or with two suffixes: keep one"
        )
    for here, there, names in (
        (source, folder, texts.keys() - stems.keys()),
        (folder, source, stems.keys() - texts.keys()),
    ):
        if names:
            few = ", ".join(sorted(names, key=natural)[:3]) + (" ..." if len(names) > 3 else "")
            raise ValueError(
                f"expected the same names in {here} and {there}, got {few} ({len(names)}) only in {here.name}: "
                "to match in order, leave the names out of the prompts"
            )
    return [Sample(name, path, texts[stem(name)]) for name, path in files.items()]
