import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from swd_data.errors import is_expected


def check_line(error: Exception, path: Path | str) -> str:
    """Check that an error is one line that says what was expected and names the file."""
    line = str(error)
    assert is_expected(error), repr(error)
    assert "\n" not in line
    assert str(path) in line
    return line


@pytest.fixture(scope="session")
def refused() -> Callable[..., str]:
    """Call what has to refuse its input; return the line."""

    def call(path: Path | str, read: Callable[..., object], *args: object, **options: object) -> str:
        with pytest.raises(ValueError, match="expected ") as caught:
            read(*args, **options)
        return check_line(caught.value, path)

    return call


@pytest.fixture(scope="session")
def attempt() -> Callable[..., Any]:
    """Call what reads its input, or refuses it by a line; return what it read, or None."""

    def call(path: Path | str, read: Callable[..., object], *args: object) -> object:
        try:
            return read(*args)
        except ValueError as error:
            check_line(error, path)
            return None

    return call


@pytest.fixture(scope="session")
def make_png() -> Callable[..., bytes]:
    """Write a PNG by hand: forms that Pillow reads and does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def write(
        size: tuple[int, int],
        depth: int,
        colour: int,
        rows: bytes,
        before: Sequence[tuple[bytes, bytes]] = (),
        behind: Sequence[tuple[bytes, bytes]] = (),
    ) -> bytes:
        chunks = [(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)), *before]
        chunks += [(b"IDAT", zlib.compress(rows, 1)), *behind, (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)

    return write
