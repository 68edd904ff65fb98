"""What training reads: latents at every size and text embeddings, in memory-mapped safetensors shards."""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from swd_distill.files import temporary_of

MANIFEST, UNCOND = "manifest.json", "uncond.safetensors"
Size = tuple[int, ...]


def latents_key(size: Sequence[int]) -> str:
    """Return the name of the latents of one size, for example `latents.8x8`."""
    return "latents." + "x".join(map(str, size))


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file that is whole or absent."""
    temporary = temporary_of(path)
    save_file({key: value.contiguous() for key, value in tensors.items()}, temporary)
    temporary.replace(path)


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Cache:
    """An encoded data set: a manifest, shards, and the embedding of the empty prompt."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest
        self._shards = [_open(folder / shard["file"], shard["bytes"]) for shard in manifest["shards"]]
        self._per_shard = manifest["shards"][0]["samples"]

    @classmethod
    def open(cls, folder: Path, expected: dict[str, Any]) -> Self:
        """Open a finished cache that was made with the `expected` settings.

        Raises:
            ValueError: no manifest, other settings, or a shard that is missing or cut short.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise ValueError(
                f"expected a finished cache in {folder}, got no {MANIFEST}: run `swd-distill encode` first"
            )
        manifest = json.loads(path.read_text(encoding="utf-8"))
        for name, value in expected.items():
            if manifest["settings"].get(name) != value:
                found = _brief(manifest["settings"].get(name))
                raise ValueError(
                    f"expected a cache made for {name} {_brief(value)}, got {found} in "
                    f"{folder}: run `swd-distill encode` with another --out, or delete that folder"
                )
        return cls(folder, manifest)

    def __len__(self) -> int:
        return int(self.manifest["samples"])

    @property
    def captions(self) -> list[str]:
        """Return the captions of the first samples, for pictures."""
        return list(self.manifest["captions"])

    def latents(self, samples: Sequence[int], size: Size) -> Tensor:
        """Read latents (B, C, *size) in float32."""
        return self._read(latents_key(size), samples).float()

    def cond(self, samples: Sequence[int]) -> dict[str, Tensor]:
        """Read the text embeddings of samples."""
        return {name: self._read(f"cond.{name}", samples) for name in self.uncond}

    @cached_property
    def uncond(self) -> dict[str, Tensor]:
        """Return the embedding of the empty prompt, each tensor (1, ...)."""
        tensors: dict[str, Tensor] = load_file(self.folder / UNCOND)
        return tensors

    def _read(self, key: str, samples: Sequence[int]) -> Tensor:
        rows = []
        for sample in samples:
            shard, row = divmod(sample, self._per_shard)
            rows.append(self._shards[shard].get_slice(key)[row : row + 1])
        return torch.cat(rows)


def _open(path: Path, size: int) -> Any:
    again = "delete it and run `swd-distill encode` again, which makes what is missing"
    if not path.is_file():
        raise ValueError(f"expected the shard {path}, got no such file: run `swd-distill encode` again")
    if path.stat().st_size != size:
        raise ValueError(f"expected {size} bytes in {path}, got {path.stat().st_size}: {again}")
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"expected a safetensors shard, got {path} ({error}): {again}") from error


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:120] + "..."
