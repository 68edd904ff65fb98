"""Text files in the encodings that people have, and texts that files can hold."""

import codecs
import html
import os
import re
import shlex
from pathlib import Path

_MARKS = (  # that of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)


def read_text(path: Path) -> str:
    """Read a text: UTF-8, or UTF-16 or UTF-32 with their mark. Line ends stay as they are.

    Raises:
        ValueError: no such file, or another encoding; the line with the first strange byte is named.
    """
    require_file(path)
    data = path.read_bytes()
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        strange, before = error.object[error.start], error.object[: error.start]  # Python cuts the mark of UTF-8
        raise _strange(strange, before.decode(encoding, "replace"), path) from error
    if "\0" in text:  # UTF-16 without a mark reads as UTF-8, with a zero beside each letter
        raise _strange(0, text[: text.index("\0")], path)
    return text


def missing(path: Path) -> str:
    """Say what is where a file should be, and what to do."""
    return "is a folder: give a file in it" if path.exists() else "does not exist: check the path"


def require_file(path: Path) -> None:
    """Raise ValueError where there is no file.

    Raises:
        ValueError: there is nothing, or a folder.
    """
    if not path.is_file():
        raise ValueError(f"expected a file, got {path}, which {missing(path)}")


def _strange(byte: int, before: str, path: Path) -> ValueError:
    return ValueError(
        f"expected text in UTF-8, or in UTF-16 with a mark, got byte 0x{byte:02x} in line {len(lines_of(before))} of "
        f"{path}: save it as UTF-8"
    )


def lines_of(text: str) -> list[str]:
    r"""Split a text at \n, \r\n and \r alone; the last line ends with the text."""
    return re.split(r"\r\n|\n|\r", text)


def cell(text: str) -> str:
    """Return a name of the user's for a Markdown table, where it shows as it is, and is no HTML and no link."""
    return re.sub(r"[\\`\[\]|]", r"\\\g<0>", html.escape(" ".join(text.split()), quote=False))


def check_text(text: str, where: str) -> str:
    """Return a text; raise ValueError for one that is no Unicode, such as half an emoji: no file could hold it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"expected Unicode text in {where}, got half a character, {text[error.start]!r}, at place {error.start}"
        ) from error
    return text


def is_hub_id(text: Path | str, suffix: str = "") -> bool:
    """Tell whether a text that is no path here may be OWNER/NAME of the Hugging Face hub.

    With the suffix of files it may also be OWNER/NAME/FILE, and OWNER/NAME does not end so: that was meant for a path.
    """
    owner, *rest = str(text).split("/")
    if not rest or not all(re.fullmatch(r"\w[\w.-]*", part) for part in (owner, *rest)) or Path(text).exists():
        return False
    if len(rest) > 1 and Path(owner).is_dir():  # the rest of a path here was mistyped
        return False
    is_file = bool(suffix) and rest[-1].endswith(suffix)
    return is_file == (len(rest) > 1)


def typed(*words: str) -> str:
    """Return a command as its user types it: by `uv run` where this one was run so."""
    return shlex.join([*(["uv", "run"] if "UV_RUN_RECURSION_DEPTH" in os.environ else []), *words])
