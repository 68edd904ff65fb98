"""Files that are whole or absent, and folders that know what they were made with."""

import json
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name, then rename it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def claim(path: Path, settings: dict[str, Any], what: str) -> None:
    """Note what a folder is made with, or check that it was made with just that.

    Raises:
        ValueError: the folder holds work of other settings; the first that differs is named.
    """
    settings = json.loads(json.dumps(settings, default=str))
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(settings, indent=1) + "\n")
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    for name in settings:
        if found.get(name) != settings[name]:
            raise ValueError(
                f"expected {what} in {path.parent} made with {_short(name, settings[name])}, got "
                f"{_short(name, found.get(name))}: choose another --out, or delete that folder to make them again"
            )


def _short(name: str, value: Any) -> str:
    if isinstance(value, list | dict) and len(str(value)) > 80:
        return f"other {name}" if isinstance(value, list) else f"{name} {str(value)[:80]}..."
    return f"{name} {value}"
