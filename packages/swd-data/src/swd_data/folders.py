"""Which files of a folder are samples, in which order, and which caption each has."""

import re
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Literal

Kind = Literal["images", "videos"]
IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif"})
VIDEOS = frozenset({".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".gif"})
_CLUTTER = frozenset({"__macosx", "@eadir", "thumbs.db", "desktop.ini", "__pycache__", "thumbnails"})


def is_clutter(path: PurePosixPath) -> bool:
    """Tell what systems leave behind: dot files and folders, thumbnails, resource forks, checkpoints of notebooks."""
    return any(part.startswith(".") or part.casefold() in _CLUTTER for part in path.parts)


def natural(name: str) -> list[tuple[int, int | str]]:
    """Return a key that sorts 2.png before 10.png."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(0, int(part)) if part[0] in "0123456789" else (1, part) for part in parts]


def stem(name: str) -> str:
    """Drop the suffix of an image or video, and nothing else: names may have dots."""
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in IMAGES | VIDEOS else name


def inside(name: str, where: str) -> str:
    """Return a relative name; raise ValueError for one that leads out of its folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(f"expected a name within the folder in {where}, got {name!r}")
    return name


def files_of(kind: Kind) -> frozenset[str]:
    """Return the suffixes of a kind."""
    return IMAGES if kind == "images" else VIDEOS


def list_files(folder: Path, suffixes: Collection[str], *, deep: bool = True) -> dict[str, Path]:
    """Return the files of a folder (and its subfolders) with a suffix, by their paths in it, in natural order.

    Raises:
        ValueError: no folder.
    """
    if not folder.is_dir():
        raise ValueError(f"expected a folder, got {folder}" + ("" if folder.exists() else ", which does not exist"))
    found = folder.rglob("*") if deep else folder.iterdir()
    names = {path.relative_to(folder).as_posix(): path for path in found if path.suffix.lower() in suffixes}
    return {
        name: names[name]
        for name in sorted(names, key=natural)
        if not is_clutter(PurePosixPath(name)) and names[name].is_file()
    }


def find_files(folder: Path, kind: Kind, *, deep: bool = True) -> dict[str, Path]:
    """Return the images or videos of a folder, as `list_files`.

    Raises:
        ValueError: no folder, or none of them in it.
    """
    found = list_files(folder, files_of(kind), deep=deep)
    if not found:
        raise ValueError(f"expected {kind} in {folder}, got none")
    return found
