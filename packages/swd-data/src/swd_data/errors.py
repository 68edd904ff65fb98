"""What a user is told of an error: one line, with the file; the rest is a fault of ours, and shows where it is.

Functions of the workspace raise `ValueError("expected ..., got ...: what to do")` for what a user can mend.
"""

import csv
import errno
import os
import select
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

REPORT = "this is a fault of the program: please report it with the lines above and the command"
_LIBRARIES = {
    ("safetensors", "SafetensorError"),
    ("safetensors_rust", "SafetensorError"),
    ("av", "FFmpegError"),
    ("PIL", "DecompressionBombError"),
    ("sqlite3", "OperationalError"),
}
_OF_THE_MACHINE = {errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE, errno.ETIMEDOUT}
"""Faults that say nothing about a file: it may be sound, and is not to be left out for them."""


@contextmanager
def reading(path: Path | str, what: str, *also: type[Exception]) -> Iterator[None]:
    """Turn what libraries raise for a broken file into one line that names it.

    `also` are further kinds that the library at work raises. A line that says already what was expected stays.

    Raises:
        ValueError: the file could not be read as `what`.
        OSError: the machine could not read it: too many open files, a disk or a network that fails.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and type(error).__module__ == "builtins" and error.errno in _OF_THE_MACHINE:
            raise type(error)(error.errno, error.strerror, str(path)) from error
        if is_expected(error) or not (isinstance(error, also) or is_of_a_library(error)):
            raise
        raise ValueError(f"expected {what}, got {path}, which cannot be read: {reason_of(error)}") from error


def is_expected(error: BaseException) -> bool:
    """Tell whether an error is one of the workspace's own lines for users."""
    return isinstance(error, ValueError) and str(error).startswith("expected ")


def out_of_memory(advice: str) -> Callable[[Exception], str | None]:
    """Return an `explain` for `shell` that says what to do where a device is full."""

    def explain(error: Exception) -> str | None:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which is not imported here
            return None
        return f"expected what fits the device, got {error}: {advice}"

    return explain


def shell(
    name: str, command: Callable[[], str | None], explain: Callable[[Exception], str | None] = lambda _: None
) -> None:
    """Run a command and print what it returns; end with exit code 2 and one line on stderr where the user can help.

    `explain` may return the line for an error that is known to this command alone. Any other error shows its traceback
    and asks to report it. With SWD_TRACEBACK=1 every error shows its traceback.
    """
    try:
        text = command()
        if text is not None:
            print(text)
        sys.stdout.flush()
    except KeyboardInterrupt:
        if os.environ.get("SWD_TRACEBACK"):
            raise
        print(f"{name}: interrupted; what is done is kept", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_left():
            return
        line = explain(error) or _line(error)
        if os.environ.get("SWD_TRACEBACK"):
            raise
        if line is None:
            sys.excepthook(type(error), error, error.__traceback__)
            print(f"{name}: {REPORT}", file=sys.stderr)
            raise SystemExit(1) from None
        print(f"{name}: error: {plain(line)}", file=sys.stderr)
        raise SystemExit(2) from None


def plain(text: str) -> str:
    """Return a text on one line, without what a terminal would obey: files say parts of it."""
    line = " ".join(text.split())
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in line)


def _is_left() -> bool:
    """Tell whether stdout has lost its reader: `swd-... | head` has seen enough. A pipe to a worker is another's."""
    try:
        number = sys.stdout.fileno()
    except OSError:  # no file at all
        return False
    if sys.platform != "win32":
        watch = select.poll()
        watch.register(number, select.POLLOUT)
        if not any(event & (select.POLLERR | select.POLLHUP) for _, event in watch.poll(0)):
            return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)  # else Python complains as it ends
    return True


def _line(error: Exception) -> str | None:
    if is_expected(error):
        return str(error)
    return reason_of(error) if is_of_a_library(error) else None


def is_of_a_library(error: Exception) -> bool:
    """Tell whether an error is about a file, and not about the program."""
    if isinstance(error, OSError | UnicodeError | csv.Error | zlib.error | EOFError):
        return True
    kinds = {(kind.__module__.split(".")[0], kind.__name__) for kind in type(error).__mro__}
    return bool(kinds & _LIBRARIES)


def reason_of(error: Exception) -> str:
    """Return the text of an error on one line, or its name where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
