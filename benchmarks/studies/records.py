"""Records of what was measured: a file each, made once and kept, whatever machine asks again."""

import json
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from benchmarks.provenance import commit, machine, versions
from benchmarks.studies.study import STUDENT, Study
from swd_distill.folder import BEFORE

Record = dict[str, Any]
GONE = {"gradient_checkpointing"}
"""Settings of before that are no more, and changed no number."""
LATEST = {"kid x 1000"}
"""Scores that came last: without them another study's record is measured again."""
LOOKS = ("power", "spread")
"""What records of a study of looks have beside scores."""
BALANCING = ("balance", "balance_over", "gan_rise", "gan_sample")


def recorded(path: Path, of: Record, make: Callable[[], Record], needs: Collection[str] = ()) -> Record:
    """Return the record in a file if it is of the same thing, else make it and write it.

    It is made again where it lacks what is needed. What another study has measured on such a machine is copied, with
    its sheet: no two train the same student. A GPU's students, over a base in bf16, are not a CPU's.
    """
    of = json.loads(json.dumps(of, default=str))
    others = sorted(path.parents[1].glob("*/*.json")) if "config" in of else []
    for there in (path, *others):
        if there.is_file():
            record: Record = json.loads(there.read_text())
            alike = there == path or (
                record.get("of", {}).keys() == of.keys()
                and record["scores"].keys() >= LATEST
                and record["machine"] == machine()
            )
            if alike and record.keys() >= set(needs) and _covers(_as_noted_now(of), _as_noted_now(record["of"])):
                _take(there, path)
                return record
    record = {"of": of, **make(), "commit": commit(), "machine": machine(), "versions": versions()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".tmp").write_text(json.dumps(record, indent=1) + "\n")
    path.with_suffix(".tmp").replace(path)
    return record


def _take(there: Path, path: Path) -> None:
    """Copy a record, and before it the sheet beside it: with the record it counts as done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".png", ".json"):
        source = there.with_suffix(suffix)
        if source.is_file() and source != path.with_suffix(suffix):
            shutil.copy(source, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path.with_suffix(suffix))


def _as_noted_now(of: Record) -> Record:
    """Return what a record is of, with what runs had before a config could say it, without what they do not use."""
    if "config" not in of:
        return of
    config = _filled(BEFORE, of["config"])
    config["schedule"] = {"upscaler": "bicubic"} | config["schedule"]  # which a schedule does not note
    recipe = config["recipe"]
    if not recipe["dmd_weight"] and not recipe["gan_weight"]:  # then nothing is balanced
        config["recipe"] = {name: value for name, value in recipe.items() if name not in BALANCING}
    elif not recipe["balance"]:
        config["recipe"] = {name: value for name, value in recipe.items() if name != "balance_over"}
    return of | {"config": config}


def _filled(before: Record, found: Record) -> Record:
    """Return nested settings, with others' where there are none."""
    nested = {name: _filled(value, found.get(name, {})) for name, value in before.items() if isinstance(value, dict)}
    return before | found | nested


def _covers(now: Any, then: Any) -> bool:
    """Tell whether all that was noted still holds; other settings that came later are taken to have changed nothing."""
    if isinstance(then, dict):
        return isinstance(now, dict) and all(
            name in now and _covers(now[name], value) for name, value in then.items() if name not in GONE
        )
    return bool(now == then)


def slug(name: str) -> str:
    """Return a row's name as a file's."""
    return "-".join("".join(c if c.isalnum() else " " for c in name.replace("'", "")).split())


def path_of(study: Study, out: Path, row: str, seed: int) -> Path:
    """Name the record of a row: what students are compared with is the same in all studies of a teacher."""
    references = f"{slug(study.base.model)}-references" + (f"-{study.repeats}-each" if study.repeats > 1 else "")
    folder = study.page if row.startswith(STUDENT) else references
    return out / folder / f"{slug(row.removeprefix(STUDENT))}-{seed}.json"
