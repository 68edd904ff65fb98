"""Prompts and metadata as people have them: .txt, .csv, .tsv, .jsonl, .json and .parquet, read by one reader.

Names of columns count without case and spaces around them. Lines end at newlines alone: U+2028 may stand in a prompt.
"""

import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from swd_data.errors import reading
from swd_data.files import read_json
from swd_data.folders import inside, is_clutter, stem
from swd_data.tables import read_table
from swd_data.texts import check_text, lines_of, read_text, require_file

SUFFIXES = (".txt", ".csv", ".tsv", ".jsonl", ".json", ".parquet")
TEXTS = ("text", "prompt", "caption", "captions")
NAMES = ("file_name", "image", "file", "name")
Row = dict[str, Any]


def read_prompts(path: Path) -> list[str]:
    """Read prompts: a line each of a .txt, else the column text, prompt or caption.

    Raises:
        ValueError: no such file, another kind, an encoding, a line that is broken or has no prompt; it is named.
    """
    prompts = [prompt_of(row, f"line {number} of {path}") for number, row in read_rows(path)]
    if not prompts:
        raise ValueError(f"expected at least one prompt in {path}, got none")
    return prompts


def read_rows(path: Path) -> list[tuple[int, Row]]:
    """Return the rows of a file with the numbers of their lines (in .json and .parquet: of the rows), from 1.

    A .txt has rows of `text`. A .csv has a header; it is split at , ; | or a tab, whichever finds a column of texts.
    A .json is a list of objects or texts, or objects by file name.

    Raises:
        ValueError: as `read_prompts`, but for missing prompts.
    """
    match path.suffix.lower():
        case ".txt":
            lines = enumerate(lines_of(read_text(path)), start=1)
            return [(number, {"text": line.strip()}) for number, line in lines if line.strip()]
        case ".csv" | ".tsv":
            return list(read_table(path, TEXTS))
        case ".jsonl":
            return list(_read_lines(path))
        case ".json":
            return _read_json(path)
        case ".parquet":
            return _read_parquet(path)
    raise ValueError(f"expected a file of {', '.join(SUFFIXES)}, got {path}")


def prompt_of(row: Row, where: str) -> str:
    """Return the prompt of a row: of a list the first.

    Raises:
        ValueError: it has none, or one that is no Unicode.
    """
    for name in TEXTS:
        value = row.get(name)
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, str) and value.strip():
            return check_text(value.strip(), where)
    if empty := next((name for name in TEXTS if name in row), None):
        raise ValueError(
            f"expected a prompt in the column {empty} in {where}, got {row[empty]!r:.40}: write it, or delete the line"
        )
    found = ", ".join(row) or "no such column"
    raise ValueError(f"expected a column named text, prompt, caption or captions in {where}, got {found}: rename yours")


def name_of(row: Row) -> str:
    """Return the file name of a row, or "" where it has none."""
    return next((row[name] for name in NAMES if isinstance(row.get(name), str)), "")


def output_names(path: Path) -> list[str] | None:
    """Return the file names that a file of prompts gives them, without suffix; None where it has none.

    Only suffixes of images and videos are cut: `cat_v1.5` stays.

    Raises:
        ValueError: a name is missing, leads out of the folder, is hidden, is another's where case does not count, or
            no name on some system.
    """
    rows = read_rows(path)
    if not any("file_name" in row for _, row in rows):
        return None
    lines: dict[str, int] = {}
    names = []
    for number, row in rows:
        given = row.get("file_name")
        where = f"line {number} of {path}"
        name = stem(inside(given, where)) if isinstance(given, str) and given else ""
        if not PurePosixPath(name).name:
            found = "no such value" if given is None else repr(given)
            raise ValueError(
                f"expected a file_name in {where}, as other lines have, got {found}: give each line one, or none of "
                "them"
            )
        if {"\\", ":"} & set(name):
            raise ValueError(
                f"expected a file_name that every system can write in {where}, got {given!r}: leave out \\ and :"
            )
        if is_clutter(PurePosixPath(name)):
            raise ValueError(f"expected a file_name that no command skips in {where}, got {given!r}: rename it")
        same = unicodedata.normalize("NFC", name).casefold()  # as Windows and macOS take names
        if same in lines:
            raise ValueError(
                f"expected another file_name in {where}, got {given!r}, which is that of line {lines[same]}"
            )
        lines[same] = number
        names.append(name)
    return names


def _read_lines(path: Path) -> Iterator[tuple[int, Row]]:
    # Split at newlines alone, as JSON lines are, whatever else may stand in a text.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"expected JSON in line {number} of {path}, got {line[:40]!r}: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"expected a JSON object in line {number} of {path}, got {line[:40]!r}")
        yield number, _named(row)


def _read_json(path: Path) -> list[tuple[int, Row]]:
    """Read a list of objects or texts, or objects or texts by file name, as MJHQ's meta_data.json."""
    found = read_json(path)
    if isinstance(found, dict):
        values: list[Row | None] = [{"file_name": name} | (_object(value) or {}) for name, value in found.items()]
    else:
        values = [_object(value) for value in found] if isinstance(found, list) else []
    rows = [(number, _named(row)) for number, row in enumerate(values, start=1) if row is not None]
    if not rows or len(rows) < len(values):
        raise ValueError(f"expected a list of JSON objects in {path}, or objects by file name, got something else")
    return rows


def _object(value: Any) -> Row | None:
    return {"text": value} if isinstance(value, str) else value if isinstance(value, dict) else None


def _read_parquet(path: Path) -> list[tuple[int, Row]]:
    try:
        from pyarrow import ArrowException, types
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ValueError(f"expected pyarrow to read {path}, got none: pip install 'swd-data[parquet]'") from error
    require_file(path)
    with reading(path, "a parquet file", ArrowException):
        file = ParquetFile(path)
        columns = [
            field.name
            for field in file.schema_arrow
            if field.name.strip().casefold() in (*TEXTS, *NAMES) and not types.is_struct(field.type)  # which are images
        ]
        rows: list[Row] = file.read(columns).to_pylist()
    return [(number, _named(row)) for number, row in enumerate(rows, start=1)]


def _named(row: Row) -> Row:
    """Return a row under names without case and spaces around; where two meet, the one that was so already counts."""
    return {name.strip().casefold(): value for name, value in row.items()} | {
        name: value for name, value in row.items() if name == name.strip().casefold()
    }
