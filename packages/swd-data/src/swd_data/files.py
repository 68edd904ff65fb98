"""Texts and JSON in files."""

import hashlib
import json
from pathlib import Path
from typing import Any

from swd_data.texts import read_text
from swd_data.whole import write_whole


def write_text(path: Path, text: str, mode: int | None = None) -> None:
    """Write a text in UTF-8, whole or not at all; a file that holds it already is left as it is."""
    data = text.encode()
    if not (path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data):
        write_whole(path, lambda temporary: temporary.write_bytes(data), mode)


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people to read."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, what: str = "JSON") -> Any:
    """Read a JSON file.

    Raises:
        ValueError: no such file, or no JSON; the line names it.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected {what} in {path}, got {text[:40]!r}: {error}") from error


def read_object(path: Path, what: str = "JSON") -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Raises:
        ValueError: as `read_json`, or it holds something else.
    """
    found = read_json(path, what)
    if not isinstance(found, dict):
        raise ValueError(f"expected {what} in {path}, got JSON that is no object")
    return found


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
