import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from swd_data.errors import is_expected


@pytest.fixture(scope="session")
def refused() -> Callable[..., str]:
    """Call what has to refuse its input: by one line that says what was expected and names the file."""

    def call(path: Path | str, read: Callable[..., object], *args: object, **options: object) -> str:
        with pytest.raises(ValueError, match="expected ") as caught:
            read(*args, **options)
        line = str(caught.value)
        assert is_expected(caught.value)
        assert "\n" not in line
        assert str(path) in line
        return line

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
