"""Files and folders that are whole or absent: after an error, a kill or a power cut."""

import errno
import os
import re
import secrets
import shutil
import socket
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from swd_data.errors import is_expected, is_of_a_library

_NEW, _OLD = "swd-tmp", "swd-old"
_NAME = re.compile(rf"\.(?P<of>.*)\.(?P<host>[0-9a-f]{{8}})-(?P<pid>\d+)-[0-9a-f]{{8}}\.({_NEW}|(?P<old>{_OLD}))")
_NO_FLUSH = {errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EACCES, errno.EPERM}
_STALE = 24 * 3600.0
"""Seconds after which what a process on another machine left is taken for dead."""
_swept: set[tuple[int, Path]] = set()


@contextmanager
def whole(path: Path, mode: int | None = None) -> Iterator[Path]:
    """Give a name to write to, in a hidden folder beside `path`; what was written then takes the place of `path`.

    It is on the disk when it does. Nothing is left of it after an error; what a killed process left, libraries' own
    temporaries too, is removed by the next one that writes to the folder. `mode` are its permissions, by
    default those of any new file.

    Raises:
        OSError: it could not be written, for example as the disk is full; the line names `path`.
    """
    room = _temporary(path)
    temporary = room / path.name
    try:
        with _writing(path):
            sweep(path.parent)
            room.mkdir(0o700)  # which takes no link that others put there
            yield temporary
            if mode is None:  # what a new file has: safetensors writes for the owner alone
                (room / ".new").touch()
                mode = (room / ".new").stat().st_mode & 0o777
            temporary.chmod(mode)
            flush(temporary)
            temporary.replace(path)
            flush(path.parent)
    finally:
        shutil.rmtree(room, ignore_errors=True)


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

    What is there goes only once the new one is on the disk, and only if it is of the same kind: see
    `check_replaceable`. The new one gets an empty file named `mark`, if none was written. Nothing is left of it after
    an error, and `path` is the old folder or the new one, also after a kill: the next call puts the old one back.

    Raises:
        ValueError: others' files are there.
        OSError: as `whole`.
    """
    check_replaceable(path, mark)
    path = path.resolve()  # `.` has no name to stand beside
    temporary, before = _temporary(path), _temporary(path, _OLD)
    try:
        with _writing(path):
            make_folder(path.parent)
            sweep(path.parent)
            temporary.mkdir()
            yield temporary
            (temporary / mark).touch()
            for each in (*temporary.rglob("*"), temporary):
                flush(each)
            check_replaceable(path, mark)
            if path.is_dir():
                path.replace(before)
            temporary.replace(path)
            flush(path.parent)
    finally:
        if before.is_dir() and not path.exists():
            before.replace(path)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(before, ignore_errors=True)


def write_whole(path: Path, write: Callable[[Path], object], mode: int | None = None) -> None:
    """Let `write` fill a file, which then is whole or absent."""
    with whole(path, mode) as temporary:
        write(temporary)


def make_folder(path: Path) -> None:
    """Make a folder, with those above it, on the disk.

    Raises:
        OSError: as `whole`.
    """
    missing = [each for each in (path, *path.parents) if not each.exists()]
    with _writing(path):
        path.mkdir(parents=True, exist_ok=True)
        for each in missing:
            flush(each.parent)


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if sys.platform == "win32" and path.is_dir():  # which opens no folders
        return
    try:
        handle = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:  # some file systems flush no folders, and some folders may not be read
        if error.errno not in _NO_FLUSH or not path.is_dir():
            raise


def _temporary(path: Path, kind: str = _NEW) -> Path:
    """Name a folder beside what becomes `path`: hidden, for whatever a kill leaves in it is no sample."""
    name, unique = path.name, f"{_host()}-{os.getpid()}-{secrets.token_hex(4)}"
    if len(os.fsencode(name)) > 180:  # of at most 255 bytes
        name = f"{name[:20]}.{zlib.crc32(os.fsencode(name)):08x}"
    return path.with_name(f".{name}.{unique}.{kind}")


def sweep(folder: Path) -> None:
    """Remove what dead processes left in a folder, once a process; put back an old folder that was to be replaced."""
    if (os.getpid(), folder) in _swept:
        return
    _swept.add((os.getpid(), folder))
    with suppress(OSError):  # no folder, or one that may be written to and not read
        for path in list(folder.iterdir()):
            _sweep_one(path)


def _sweep_one(path: Path) -> None:
    found = _NAME.fullmatch(path.name) if path.name.startswith(".") else None
    if not (found and _is_dead(path, found["host"], int(found["pid"]))):
        return
    final = path.with_name(found["of"])
    with suppress(OSError):  # another process may be at it
        if found["old"] and not final.exists():
            path.replace(final)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _is_dead(path: Path, host: str, pid: int) -> bool:
    if host != _host() or sys.platform == "win32":  # where to ask for a process may end it
        with suppress(OSError):
            return time.time() - path.lstat().st_mtime > _STALE
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


@cache
def _host() -> str:
    """Name the machine, and the container in it: process numbers mean nothing outside."""
    name = socket.gethostname()
    for told in ("/etc/machine-id", "/proc/self/ns/pid"):
        with suppress(OSError):
            name += str(Path(told).readlink()) if "ns" in told else Path(told).read_text(encoding="utf-8")
    return f"{zlib.crc32(name.encode()):08x}"


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Name the file in what is raised where it cannot be written; torch raises RuntimeError then."""
    try:
        yield
    except Exception as error:
        if is_expected(error) or not (isinstance(error, RuntimeError) or is_of_a_library(error)):
            raise
        raise OSError(f"expected to write {path}, got: {error}") from error
