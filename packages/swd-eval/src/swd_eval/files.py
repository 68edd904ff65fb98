"""Files that are whole or absent, and folders that know what they were made with."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under a temporary name of the same suffix, then rename it."""
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.tmp{path.suffix}")
    write(temporary)
    temporary.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a text, whole or not at all."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people to read."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def claim(path: Path, settings: dict[str, Any]) -> None:
    """Note what a file's neighbours are made with, or check that they were made with just that.

    Raises:
        ValueError: they were made with something else; the first that differs is named.
    """
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)
        return
    found, wanted = json.loads(path.read_text(encoding="utf-8")), json.loads(json.dumps(settings))
    for name in found.keys() | wanted.keys():
        if found.get(name) != wanted.get(name):
            values = f"{wanted.get(name)}, got {found.get(name)}"
            raise ValueError(f"expected {path.parent} made with {name} {values}: choose another --out")
