"""Files that are whole or absent, and folders that know what they were made with."""

import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name, then rename it."""
    temporary = temporary_of(path)
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def temporary_of(path: Path) -> Path:
    """Name the file that becomes `path`: beside it, and another for each process."""
    return path.with_name(f"{path.name}.{os.getpid()}.tmp")


def claim(
    path: Path, settings: dict[str, Any], what: str, ignore: Collection[str] = (), *, may_lack: bool = False
) -> None:
    """Note what a folder is made with, or check that it was made with just that, but for the names to `ignore`.

    With `may_lack`, settings that came with a later version are taken to have changed nothing.

    Raises:
        ValueError: the folder holds work of other settings; the first that differs is named.
    """
    settings = json.loads(json.dumps(settings, default=str))
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(settings, indent=1) + "\n")
        return
    found, wanted = _flat(json.loads(path.read_text(encoding="utf-8"))), _flat(settings)
    for name in wanted:
        if name not in ignore and found.get(name) != wanted[name] and not (may_lack and name not in found):
            raise ValueError(
                f"expected {what} in {path.parent} made with {_short(name, wanted[name])}, got "
                f"{_short(name, found.get(name))}: choose another --out, or delete that folder to make it again"
            )


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested settings into dotted names, as flags have them."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _short(name: str, value: Any) -> str:
    return f"{name} {value}" if len(str(value)) <= 80 else f"other {name}"


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Keep other processes of this kind out of a run folder; however this one ends, the lock goes with it.

    Raises:
        ValueError: another is at work there.
    """
    try:
        with FileLock(folder / ".lock", timeout=0, is_singleton=True):
            yield
    except Timeout as error:
        raise ValueError(
            f"expected no other run at work in {folder}, got one: wait, or choose another --out"
        ) from error
