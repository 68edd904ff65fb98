"""What a number was measured with: machine, versions, weights."""

import hashlib
import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch


def machine() -> str:
    """Name the machine: its GPU, or else its cores."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} cores ({platform.machine()})"


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
