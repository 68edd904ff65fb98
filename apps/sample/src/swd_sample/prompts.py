"""Prompt files as people have them."""

import csv
import io
import json
from pathlib import Path
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
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"expected UTF-8 text in {path}, got byte {error.start} that is not: re-save it") from error
    if path.suffix == ".txt":
        prompts = [line.strip() for line in text.splitlines() if line.strip()]
    else:
        rows = read_csv(text) if path.suffix == ".csv" else read_jsonl(text, path)
        prompts = [_prompt_of(row, number, path) for number, row in rows]
    if not prompts:
        raise ValueError(f"expected at least one prompt in {path}, got none")
    return prompts


def read_jsonl(text: str, path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return the objects of a JSON-lines text with their line numbers; whatever is no object comes back empty."""
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


def read_csv(text: str) -> list[tuple[int, dict[str, Any]]]:
    """Return the rows of a CSV text, which has a header, with their line numbers."""
    return list(enumerate(csv.DictReader(io.StringIO(text)), start=2))


def _prompt_of(row: dict[str, Any], number: int, path: Path) -> str:
    for column in COLUMNS:
        value = row.get(column)
        if isinstance(value, str) and value.strip():
            return value.strip()
    raise ValueError(f"expected a text in one of {', '.join(COLUMNS)} in line {number} of {path}, got none")
