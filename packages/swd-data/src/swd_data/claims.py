"""What a command may write in a folder: nothing in the place of a file that is not its own, nothing of two settings."""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from swd_data.files import read_json, read_object, write_json
from swd_data.whole import make_folder, sweep

LIST = ".swd-files.json"
"""In a folder: the names of what commands wrote there."""


def own(folder: Path, names: Collection[str]) -> None:
    """Make a folder for files of these names, which may then be written, and written again.

    Raises:
        ValueError: as `check_own`.
    """
    ours = check_own(folder, names)
    make_folder(folder)
    write_json(folder / LIST, sorted(ours | set(names)))


def check_own(folder: Path, names: Collection[str]) -> set[str]:
    """Return the names that are ours in a folder.

    Raises:
        ValueError: one of `names` is there already, and is not ours; or the folder is none.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"expected a folder as --out, got {folder}, which is a file")
    listed = folder / LIST
    known = read_json(listed, "a list of names") if listed.is_file() else []
    ours = {name for name in known if isinstance(name, str)} if isinstance(known, list) else set()
    _check_free(folder, sorted(set(names) - ours))
    return ours


def claim(
    path: Path,
    settings: dict[str, Any],
    what: str,
    ignore: Collection[str] = (),
    *,
    before: Mapping[str, Any] | None = None,
    writes: Iterable[str] | None = None,
) -> None:
    """Note what a folder is made with, or check that it was made with just that, but for the names to `ignore`.

    With `before`, a folder may lack settings that came with a later version: what is in `before`, nested as settings
    are, it was made with, and the others changed nothing. `writes` are the names that the work will write; by default
    any.

    Raises:
        ValueError: the folder holds work of other settings, of which the first that differs is named, or files that it
            would write and has not.
    """
    below = (each for pattern in ("[!.]*/", "[!.]*/[!.]*/") for each in path.parent.glob(pattern))
    for each in (path.parent, *below):  # a kill may have come after the last write to one
        sweep(each)
    if not path.is_file() and _is_free(path, writes):
        make_folder(path.parent)
        write_json(path, json.loads(json.dumps(settings, default=str)))
        return
    check_claim(path, settings, what, ignore, before=before)


def check_claim(
    path: Path,
    settings: dict[str, Any],
    what: str,
    ignore: Collection[str] = (),
    *,
    before: Mapping[str, Any] | None = None,
) -> None:
    """Check that a folder was made with just these settings, as `claim` does.

    Raises:
        ValueError: it was made with others, of which the first that differs is named.
    """
    settings = json.loads(json.dumps(settings, default=str))
    found, wanted = _flat(read_object(path, f"settings of {what}")), _flat(settings)
    names = wanted if before is not None else {**wanted, **found}
    if before is not None:
        found = wanted | _flat(json.loads(json.dumps(before, default=str))) | found
    for name in names:
        if name in ignore or found.get(name) == wanted.get(name):
            continue
        raise ValueError(
            f"expected {what} in {path.parent} made {_with(name, wanted.get(name))}, got "
            f"{_with(name, found.get(name), other=True)}: give what it was made with, or another --out"
        )


def _is_free(path: Path, names: Iterable[str] | None) -> bool:
    """Tell whether a folder may be claimed; if not, another process of this launch has done it just now."""
    try:
        _check_free(path.parent, names)
    except ValueError:
        if not path.is_file():
            raise
        return False
    return True


def _check_free(folder: Path, names: Iterable[str] | None) -> None:
    if names is None:
        names = (path.name for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else ()
    taken = next((name for name in names if _is_taken(folder / name)), None)
    if taken is not None:
        raise ValueError(
            f"expected a folder without {taken}, got {folder}, whose {taken} this command did not "
            "write: choose another --out"
        )


def _is_taken(path: Path) -> bool:
    """Tell whether something is there that could be lost; an empty folder could not, nor a link to one."""
    return (path.exists() or path.is_symlink()) and not (path.is_dir() and not any(path.iterdir()))


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested settings into dotted names, as flags have them."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _with(name: str, value: Any, *, other: bool = False) -> str:
    """Say with which setting a folder was made, or without which; of a long one or a checksum, that it is another."""
    if value is None:
        return f"{'one ' * other}without {name}"
    says = len(str(value)) <= 80 and not re.fullmatch(r"[0-9a-f]{64}", str(value))
    text = f"{name} {value}" if says else f"{'other' if other else 'the given'} {name}"
    return text if other else f"with {text}"
