"""Files that are whole or absent, and folders that know what they were made with."""

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from swd_data.errors import is_expected, is_of_a_library
from swd_data.texts import read_text


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`, of the same suffix; what was written there then takes its place.

    Nothing is left of it after an error.

    Raises:
        OSError: it could not be written, for example as the disk is full; the line names `path`.
    """
    temporary = _temporary(path)
    try:
        with _writing(path):
            yield temporary
            temporary.replace(path)
    finally:
        with suppress(OSError):  # the folder itself may be none: what was raised says so
            temporary.unlink()


def check_replaceable(path: Path, mark: str) -> None:
    """Raise ValueError for a path whose place `whole_folder` may not take, for others' files would be lost.

    It may be new, an empty folder, or a folder of the same kind, which holds a file named `mark`; no link, and nothing
    that the working directory is in.
    """
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise ValueError(f"expected a new folder, got {path}, which is a {'link' if path.is_symlink() else 'file'}")
    if path.is_dir() and (Path.cwd().is_relative_to(path.resolve()) or _is_of_others(path, mark)):
        raise ValueError(f"expected a new or an empty folder, got {path}, which holds other files: choose another")


def _is_of_others(path: Path, mark: str) -> bool:
    return any(path.iterdir()) and not (path / mark).is_file()


@contextmanager
def whole_folder(path: Path, mark: str) -> Iterator[Path]:
    """Give a new folder under a temporary name beside `path`, whose place it then takes.

    What is there goes only once the new one is whole, and only if it is of the same kind: see `check_replaceable`. The
    new one gets an empty file named `mark`, if none was written. Nothing is left of it after an error.

    Raises:
        ValueError: others' files are there.
        OSError: as `whole`.
    """
    check_replaceable(path, mark)
    path = path.resolve()  # `.` has no name to stand beside
    temporary, before = _temporary(path), _temporary(path.with_name(f"{path.name}.old"))
    try:
        with _writing(path):
            temporary.mkdir(parents=True)
            yield temporary
            (temporary / mark).touch()
            check_replaceable(path, mark)
            if path.is_dir():
                path.replace(before)
            temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(before, ignore_errors=True)


def _temporary(path: Path) -> Path:
    """Name what becomes `path`: a dot file, for whatever a kill leaves of it is no sample."""
    unique = f"{zlib.crc32(path.name.encode(errors='surrogateescape')):08x}.{os.getpid()}"  # of long names too
    return path.with_name(f".{path.stem[:40]}.{unique}.tmp{path.suffix}")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Name the file in what is raised where it cannot be written; torch raises RuntimeError then."""
    try:
        yield
    except Exception as error:
        if is_expected(error) or not (isinstance(error, RuntimeError) or is_of_a_library(error)):
            raise
        raise OSError(f"expected to write {path}, got: {error}") from error


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file, which then is whole or absent."""
    with whole(path) as temporary:
        write(temporary)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline=""))


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
        write_json(path, settings)
        return
    found, wanted = _flat(read_object(path, f"settings of {what}")), _flat(settings)
    names = wanted if may_lack else {**wanted, **found}
    for name in names:
        if name in ignore or found.get(name) == wanted.get(name) or (may_lack and name not in found):
            continue
        raise ValueError(
            f"expected {what} in {path.parent} made with {_short(name, wanted.get(name))}, got "
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
