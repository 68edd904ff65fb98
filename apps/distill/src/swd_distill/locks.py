"""One run at a time in a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


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
