"""Images or videos and their prompts: a folder, and the files of prompts that people have."""

import csv
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Kind = Literal["images", "videos"]
IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
VIDEOS = {".mp4", ".webm"}
METADATA = ("metadata.jsonl", "metadata.csv")
TEXTS = ("text", "prompt", "caption", "captions")
NAMES = ("file_name", "image", "file", "name")


@dataclass(frozen=True)
class Sample:
    """An image or video, its path in its folder, and its prompt, which is empty where none was given."""

    name: str
    path: Path
    prompt: str


def read_samples(folder: Path, prompts: Path | None = None, kind: Kind = "images") -> list[Sample]:
    """Return the images or videos of a folder in natural order, each with its prompt.

    Prompts are rows of a .csv, .jsonl, .json, .parquet or .txt: by default the folder's own metadata. Rows with a file
    name belong to that file, whatever its suffix. Without names rows go with files in order; with k times as many
    files as rows, the first k files belong to the first row, and so on. Of a list of captions the first counts.

    Raises:
        ValueError: there are no files of this kind, or they and the prompts do not fit.
    """
    files = find_files(folder, kind)
    source = prompts or next((folder / name for name in METADATA if (folder / name).is_file()), None)
    if source is None:
        return [Sample(name, path, "") for name, path in files.items()]
    rows = [_name_and_text(row, source, number) for number, row in enumerate(_read_rows(source), start=1)]
    if not rows:
        raise ValueError(f"expected prompts in {source}, got none")
    if all(name for name, _ in rows):
        return _by_name(folder, files, source, rows)
    if len(files) % len(rows):
        raise ValueError(f"expected {len(rows)} {kind} (one a prompt) or a multiple in {folder}, got {len(files)}")
    each = len(files) // len(rows)
    return [Sample(name, path, rows[index // each][1]) for index, (name, path) in enumerate(files.items())]


def digests(samples: Sequence[Sample], kind: Kind = "images") -> dict[str, str]:
    """Return digests of files and prompts, the former by names and sizes: reading all twice would double the time."""
    rows = {
        f"{kind}_sha256": [(sample.name, sample.path.stat().st_size) for sample in samples],
        "prompts_sha256": [sample.prompt for sample in samples],
    }
    return {name: hashlib.sha256(json.dumps(row).encode()).hexdigest() for name, row in rows.items()}


def find_files(folder: Path, kind: Kind) -> dict[str, Path]:
    """Return the images or videos of a folder and its subfolders in natural order, by their paths in it."""
    if not folder.is_dir():
        raise ValueError(f"expected a folder of {kind}, got {folder}")
    suffixes = IMAGES if kind == "images" else VIDEOS
    found = [path for path in folder.rglob("*") if path.suffix.lower() in suffixes]
    if not found:
        raise ValueError(f"expected {kind} in {folder}, got none")
    names = {path.relative_to(folder).as_posix(): path for path in found}
    return {name: names[name] for name in sorted(names, key=natural)}


def _by_name(folder: Path, files: dict[str, Path], source: Path, rows: Sequence[tuple[str, str]]) -> list[Sample]:
    texts = {_stem(name): text for name, text in rows}
    stems = {_stem(name): name for name in files}
    if len(texts) < len(rows) or len(stems) < len(files):
        raise ValueError(f"expected each name once in {source} and {folder}, got some twice or with two suffixes")
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
    return [Sample(name, path, texts[_stem(name)]) for name, path in files.items()]


def _name_and_text(row: dict[str, Any], source: Path, number: int) -> tuple[str, str]:
    text = next((row[key] for key in TEXTS if row.get(key) is not None), None)
    text = text[0] if isinstance(text, list) and text else text
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"expected one of {', '.join(TEXTS)} in row {number} of {source}, got {sorted(map(str, row))}")
    name = next((row[key] for key in NAMES if isinstance(row.get(key), str)), "")
    return name, text.strip()


def _read_rows(source: Path) -> list[dict[str, Any]]:
    match source.suffix.lower():
        case ".parquet":
            return _read_parquet(source)
        case ".csv":
            with source.open(encoding="utf-8-sig", newline="") as file:
                return list(csv.DictReader(file))
        case ".txt":
            return [{"text": line} for line in source.read_text(encoding="utf-8-sig").rstrip().split("\n")]
        case ".jsonl" | ".json":
            return _read_json(source)
    raise ValueError(f"expected prompts as .csv, .jsonl, .json, .parquet or .txt, got {source}")


def _read_json(source: Path) -> list[dict[str, Any]]:
    """Read lines of objects, a list of them, or objects by name as MJHQ's meta_data.json."""
    if source.suffix.lower() == ".jsonl":
        return [row for _, row in read_jsonl(source)]
    try:
        whole: Any = json.loads(source.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"expected JSON in {source}, got {error}") from None
    by_name = isinstance(whole, dict)
    values = [{"file_name": name} | row for name, row in whole.items()] if by_name else list(whole)
    if not all(isinstance(row, dict) for row in values):
        raise ValueError(f"expected JSON objects in {source}, got something else")
    return values


def read_jsonl(source: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return the objects of JSON lines, with the numbers of their lines."""
    rows = []
    for number, line in enumerate(source.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"expected JSON in line {number} of {source}, got {line[:40]!r}") from error
        if not isinstance(row, dict):
            raise ValueError(f"expected JSON objects in {source}, got {line[:40]!r} in line {number}")
        rows.append((number, row))
    return rows


def _read_parquet(source: Path) -> list[dict[str, Any]]:
    try:
        from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]
    except ImportError:
        raise ValueError(f"expected pyarrow to read {source}, got none: install it, or give a .csv") from None
    file = ParquetFile(source)
    columns = [name for name in file.schema_arrow.names if name in (*TEXTS, *NAMES)]
    rows: list[dict[str, Any]] = file.read(columns).to_pylist()
    return rows


def _stem(name: str) -> str:
    """Drop the suffix of an image or video, and nothing else: names may have dots."""
    suffix = Path(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in IMAGES | VIDEOS else name


def natural(name: str) -> list[tuple[int, int | str]]:
    """Return a key that sorts 2.png before 10.png."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]
