"""What a number was measured with: machine, versions, weights, commit, seed; and the record and page of it."""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from swd_distill.planning.roofline import GPUS, Gpu, sheet_of
from swd_schedules.devices import find_device

SEED = 0
ROOT = Path(__file__).parents[1]
COMMIT = "SWD_COMMIT"
"""The variable that names the commit of sources that were carried to a machine without their history."""


def machine(device: torch.device | None = None) -> str:
    """Name the machine by what computes: its accelerator, by default if it has one, or else its cores."""
    device = device or find_device()
    if device.type == "cpu":
        return f"{os.cpu_count()} cores ({platform.machine()})"
    name = getattr(torch.get_device_module(device), "get_device_name", None)
    return str(name()) if name else device.type


def data_sheet(name: str) -> Gpu | None:
    """Return the data sheet of a device by its name, if it is known."""
    return GPUS.get(sheet_of(name) or "")


def versions() -> dict[str, str]:
    """Return the versions that decide about numbers."""
    return {"python": platform.python_version()} | {
        name: version(name) for name in ("torch", "diffusers", "transformers", "peft")
    }


def fingerprint(folder: Path) -> str:
    """Return a hash of all weights in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def provenance(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what numbers measured here and now are of."""
    return {
        "config": dict(config),
        "seed": SEED,
        "commit": commit(),
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def commit() -> str:
    """Return the commit of the sources, with "-dirty" where they differ from it; "unknown" outside of a checkout."""
    if COMMIT in os.environ:
        return os.environ[COMMIT]
    head = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--", "packages", "apps", "benchmarks", ":!benchmarks/results")
    return f"{head}-dirty" if head and changed else head or "unknown"


def _git(*command: str) -> str:
    found = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def of(record: Mapping[str, Any]) -> str:
    """Say what a record is of, in a line."""
    which = ", ".join(" ".join(item) for item in record["versions"].items())
    head, _, changed = record["commit"].partition("-")
    source = f"commit {head[:12]}" + (" with changes" if changed else "")
    return f"{record['machine']}, {record['threads']} thread(s); {source}; {which}."


@contextmanager
def written(
    record: Mapping[str, Any], count: int, page: Callable[[Mapping[str, Any]], str], path: Path
) -> Iterator[None]:
    """Write a record and its page after so many of its "models", or as PATH-partial what is there after an error."""
    try:
        yield
    finally:
        if models := len(record["models"]):
            write(record, page(record), path if models == count else path.with_name(f"{path.name}-partial"))


def write(record: Mapping[str, Any], page: str, path: Path) -> None:
    """Write PATH.json and PATH.md, whole or not at all; print the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix, text in {".json": json.dumps(record, indent=1) + "\n", ".md": page + "\n"}.items():
        temporary = path.with_suffix(".tmp")
        temporary.write_text(text)
        temporary.replace(path.with_suffix(suffix))
    print(page)
