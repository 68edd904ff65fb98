"""Prompt files as people have them."""

import csv
import io
import json
from pathlib import Path

COLUMNS = ("text", "prompt", "caption")


def read_prompts(path: Path) -> list[str]:
    """Read prompts from .txt (one a line), .jsonl or .csv (a column text, prompt or caption).

    Raises:
        ValueError: no such file, another kind, an empty file, or a broken line, which is named.
    """
    if not path.is_file():
        raise ValueError(f"expected a prompt file, got {path}, which does not exist")
    readers = {".txt": _read_txt, ".jsonl": _read_jsonl, ".csv": _read_csv}
    if path.suffix not in readers:
        raise ValueError(f"expected prompts in a {', '.join(readers)} file, got {path}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"expected UTF-8 text in {path}, got byte {error.start} that is not: re-save it") from error
    prompts = readers[path.suffix](text, path)
    if not prompts:
        raise ValueError(f"expected at least one prompt in {path}, got none")
    return prompts


def _read_txt(text: str, path: Path) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _read_jsonl(text: str, path: Path) -> list[str]:
    prompts = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"expected JSON in line {number} of {path}, got {line[:40]!r}: {error.msg}") from error
        prompts.append(_prompt_of(row if isinstance(row, dict) else {}, number, path))
    return prompts


def _read_csv(text: str, path: Path) -> list[str]:
    return [_prompt_of(row, number, path) for number, row in enumerate(csv.DictReader(io.StringIO(text)), start=2)]


def _prompt_of(row: dict[str, object], number: int, path: Path) -> str:
    for column in COLUMNS:
        value = row.get(column)
        if isinstance(value, str) and value.strip():
            return value.strip()
    raise ValueError(f"expected a text in one of {', '.join(COLUMNS)} in line {number} of {path}, got none")
