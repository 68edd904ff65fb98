"""Records of what was measured: a file each, made once and kept, whatever machine asks again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.provenance import commit, machine, versions

Record = dict[str, Any]


def recorded(path: Path, of: Record, make: Callable[[], Record]) -> Record:
    """Return the record in a file if it is of the same thing, else make it and write it."""
    of = json.loads(json.dumps(of, default=str))
    if path.is_file():
        record: Record = json.loads(path.read_text())
        if _covers(of, record["of"]):
            return record
    record = {"of": of, **make(), "commit": commit(), "machine": machine(), "versions": versions()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".tmp").write_text(json.dumps(record, indent=1) + "\n")
    path.with_suffix(".tmp").replace(path)
    return record


def _covers(now: Any, then: Any) -> bool:
    """Tell whether all that was noted still holds; settings that came later are taken to have changed nothing."""
    if isinstance(then, dict):
        return isinstance(now, dict) and all(name in now and _covers(now[name], value) for name, value in then.items())
    return bool(now == then)


def slug(name: str) -> str:
    """Return a row's name as a file's."""
    return "-".join("".join(c if c.isalnum() else " " for c in name.replace("'", "")).split())
