"""Prompt files as people have them."""

import csv
import io
import json
from pathlib import Path, PurePosixPath
from typing import Any

SUFFIXES = (".txt", ".jsonl", ".csv")
COLUMNS = ("text", "prompt", "caption")


def read_prompts(path: Path) -> list[str]:
    """Read prompts from .txt (one a line), .jsonl or .csv (a column text, prompt or caption).

    Raises:
        ValueError: no such file, another kind, an empty file, or a broken line, which is named.
    """
    if not path.is_file():
        raise ValueError(f"expected a prompt file, got {path}, which does not exist")
    if path.suffix not in SUFFIXES:
        raise ValueError(f"expected prompts in a {', '.join(SUFFIXES)} file, got {path}")
    try:
        if path.suffix == ".txt":
            prompts = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        else:
            prompts = [_prompt_of(row, number, path) for number, row in read_rows(path)]
    except UnicodeDecodeError as error:
        raise ValueError(f"expected UTF-8 text in {path}, got byte {error.start} that is not: re-save it") from error
    if not prompts:
        raise ValueError(f"expected at least one prompt in {path}, got none")
    return prompts


def read_file_names(path: Path) -> list[str] | None:
    """Return the file names that a .jsonl or .csv gives to its prompts, without suffix; None where it has none.

    Raises:
        ValueError: a name is missing, is there twice, or leads out of the folder.
    """
    if path.suffix == ".txt":
        return None
    rows = read_rows(path)
    if not any("file_name" in row for _, row in rows):
        return None
    names: dict[str, int] = {}
    for number, row in rows:
        name = PurePosixPath(str(row.get("file_name") or "."))
        stem = str(name.with_suffix("")) if name.name else ""
        if not stem or name.is_absolute() or ".." in name.parts or stem in names:
            what = f"that of line {names[stem]} again" if stem in names else repr(row.get("file_name"))
            raise ValueError(f"expected a file_name within the folder in line {number} of {path}, got {what}")
        names[stem] = number
    return list(names)


def read_rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return the rows of a .csv, which has a header, or a .jsonl, with their line numbers.

    Raises:
        ValueError: a line is no JSON. What is JSON and no object comes back empty.
    """
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".csv":
        return list(enumerate(csv.DictReader(io.StringIO(text)), start=2))
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: U+2028 may stand in a string
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"expected JSON in line {number} of {path}, got {line[:40]!r}: {error.msg}") from error
        rows.append((number, row if isinstance(row, dict) else {}))
    return rows


def _prompt_of(row: dict[str, Any], number: int, path: Path) -> str:
    for column in COLUMNS:
        value = row.get(column)
        if isinstance(value, str) and value.strip():
            return value.strip()
    raise ValueError(f"expected a text in one of {', '.join(COLUMNS)} in line {number} of {path}, got none")
