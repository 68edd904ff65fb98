"""Which files of a folder are samples, in which order, and which caption each has."""

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

from swd_data.texts import check_text

Kind = Literal["images", "videos"]
IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif"})
VIDEOS = frozenset({".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".gif"})
_LETTERS = 1 << 62
_CLUTTER = frozenset({"__macosx", "@eadir", "thumbs.db", "desktop.ini", "__pycache__", "thumbnails"})


def is_clutter(path: PurePosixPath) -> bool:
    """Tell what systems leave behind: dot files and folders, thumbnails, resource forks, checkpoints of notebooks."""
    return any(part.startswith(".") or part.casefold() in _CLUTTER for part in path.parts)


def natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts 2.png before 10.png, and no two names alike."""
    parts = re.findall(r"0*([0-9]+)|([^0-9]+)", name)
    # Digits by their number, then their order; the name itself tells 1.png from 01.png, and ends before all else.
    return [(len(digits), digits) if digits else (_LETTERS, text) for digits, text in parts] + [(0, name)]


def stem(name: str) -> str:
    """Drop the suffix of an image or video, and nothing else: names may have dots."""
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in IMAGES | VIDEOS else name


def inside(name: str, where: str) -> str:
    """Return a relative name in its shortest form; raise ValueError for one that leads out of its folder."""
    path = PurePosixPath(check_text(name, where))
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(f"expected a name within the folder in {where}, got {name!r}")
    return path.as_posix()


def inside_of(folder: Path, name: str, where: str) -> Path:
    """Return the file of a relative name; raise ValueError for one that leads out, also through a link."""
    path = folder / inside(name, where)
    check_inside(folder, path)
    return path


def check_inside(folder: Path, path: Path) -> None:
    """Raise ValueError for a file of a folder that is a link to a place outside: it may be anybody's.

    A folder of the hub's cache may hold links to that cache. With SWD_FOLLOW_LINKS=1 all links are taken.
    """
    root = folder.resolve()
    root = next((each for each in root.parents if each.name.startswith(("datasets--", "models--"))), root)
    if not path.resolve().is_relative_to(root) and not os.environ.get("SWD_FOLLOW_LINKS"):
        raise ValueError(
            f"expected files within {folder}, got {path}, which leads to {path.resolve()}: copy it, or set "
            "SWD_FOLLOW_LINKS=1 if all links there are yours"
        )


def files_of(kind: Kind) -> frozenset[str]:
    """Return the suffixes of a kind."""
    return IMAGES if kind == "images" else VIDEOS


def list_files(folder: Path, suffixes: Collection[str], *, deep: bool = True) -> dict[str, Path]:
    """Return the files of a folder (and its subfolders) with a suffix, by their paths in it, in natural order.

    Raises:
        ValueError: no folder, a link to a place outside, or a name that is no Unicode: no list could hold it.
    """
    if not folder.is_dir():
        hint = "" if folder.exists() else ", which does not exist"
        hint = ": draw with it first (swd-sample --out FOLDER)" if folder.suffix == ".safetensors" else hint
        raise ValueError(f"expected a folder, got {folder}{hint}")
    found = _below(folder) if deep else folder.iterdir()
    names = {path.relative_to(folder).as_posix(): path for path in found if path.suffix.lower() in suffixes}
    listed = {
        check_text(name, f"the file names of {folder}"): names[name]
        for name in sorted(names, key=natural)
        if not is_clutter(PurePosixPath(name)) and names[name].is_file()
    }
    for path in listed.values():
        if path.is_symlink():
            check_inside(folder, path)
    return listed


def _below(folder: Path) -> Iterator[Path]:
    """Yield all files; hidden folders are not entered, and may come and go meanwhile: something is written in them."""
    for root, folders, files in os.walk(folder):
        folders[:] = (name for name in folders if not name.startswith("."))
        yield from (Path(root) / name for name in files)


def find_files(folder: Path, kind: Kind, *, deep: bool = True) -> dict[str, Path]:
    """Return the images or videos of a folder, as `list_files`.

    Raises:
        ValueError: no folder, or none of them in it.
    """
    found = list_files(folder, files_of(kind), deep=deep)
    if not found:
        raise ValueError(f"expected {kind} in {folder}, got none")
    return found
