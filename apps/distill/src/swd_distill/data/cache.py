"""What training reads: latents at every size and text embeddings, in memory-mapped safetensors shards."""

import json
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from swd_data import read_object, reading, whole
from swd_distill.data.buckets import Bucket
from swd_distill.data.fp8 import from_fp8, to_fp8
from swd_distill.data.samples import Size

FORMAT = 2  # 1 held the text of every sample beside its latents
MANIFEST, UNCOND, INDEX = "manifest.json", "uncond.safetensors", "index.safetensors"
NUM_CAPTIONS = 8


def latents_key(bucket: int, size: Size) -> str:
    """Return the name of the latents of one bucket and size, for example `latents.0.8x8`."""
    return f"latents.{bucket}." + "x".join(map(str, size))


def text_tensors(name: str, value: Tensor, dtype: str) -> dict[str, Tensor]:
    """Return what a shard of prompts holds of an embedding: itself, or its numbers in float8 with their scales."""
    if dtype == "model":
        return {f"cond.{name}": value}
    numbers, scale = to_fp8(value)
    return {f"cond.{name}": numbers, f"scale.{name}": scale}


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file that is whole or absent."""
    with whole(path) as temporary:
        save_file({key: value.contiguous() for key, value in tensors.items()}, temporary, metadata)


class Cache(ABC):
    """An encoded data set, sorted by bucket.

    Attributes:
        buckets: Each with its samples.
        captions: Those of the first samples, for pictures.
        uncond: The embedding of the empty prompt, each tensor (1, ...).
    """

    buckets: list[tuple[Bucket, range]]
    captions: list[str]
    uncond: dict[str, Tensor]

    @staticmethod
    def open(folder: Path, expected: dict[str, Any]) -> "Cache":
        """Open a finished cache that was made with the `expected` settings.

        Raises:
            ValueError: no manifest, other settings, or a shard that is missing or cut short.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise ValueError(
                f"expected a finished cache in {folder}, got no {MANIFEST}: run `swd-distill encode` first"
            )
        manifest = read_object(path, "the manifest of a cache")
        for name, value in expected.items():
            if manifest["settings"].get(name) != value:
                found = _brief(manifest["settings"].get(name))
                raise ValueError(
                    f"expected a cache made for {name} {_brief(value)}, got {found} in "
                    f"{folder}: run `swd-distill encode` with another --out, or delete that folder"
                )
        return _Stored(folder, manifest)

    def __len__(self) -> int:
        return sum(len(samples) for _, samples in self.buckets)

    @abstractmethod
    def latents(self, samples: Sequence[int], size: Size) -> Tensor:
        """Read latents (B, C, *size) in float32."""

    @abstractmethod
    def cond(self, samples: Sequence[int]) -> dict[str, Tensor]:
        """Read the text embeddings of samples."""


class _Stored(Cache):
    """Latents in shards of samples; text, each once, in shards of prompts; and which prompt a sample has."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        shards, settings = manifest["shards"], manifest["settings"]
        self.captions, self.uncond = manifest["captions"], _load(folder / UNCOND)
        self._shards = [_open(folder / shard["file"], shard["bytes"]) for shard in shards]
        self._texts = [_open(folder / text["file"], text["bytes"]) for text in manifest["texts"]]
        self._prompts: list[int] = _load(folder / INDEX)["prompts"].tolist()
        self._per_text, self._fp8 = manifest["prompts_per_text"], settings["text_dtype"] != "model"
        # A bucket is what the shards hold of it, one shard after the other.
        buckets = range(len(settings["buckets"]))
        self._runs = [(bucket, shard) for bucket in buckets for shard in range(len(shards))]
        self._starts = [0, *accumulate(shards[shard]["samples"][bucket] for bucket, shard in self._runs)]
        bounds = pairwise(self._starts[:: len(shards)])
        self.buckets = [(Bucket(*each), range(*bound)) for each, bound in zip(settings["buckets"], bounds, strict=True)]

    def latents(self, samples: Sequence[int], size: Size) -> Tensor:
        """Read latents (B, C, *size) in float32."""
        rows = []
        for sample in samples:
            run = bisect_right(self._starts, sample) - 1
            bucket, shard = self._runs[run]
            rows.append(_row(self._shards[shard], latents_key(bucket, size), sample - self._starts[run]))
        return torch.cat(rows).float()

    def cond(self, samples: Sequence[int]) -> dict[str, Tensor]:
        """Read the text embeddings of samples."""
        places = [divmod(self._prompts[sample], self._per_text) for sample in samples]

        def read(key: str) -> Tensor:
            return torch.cat([_row(self._texts[shard], key, row) for shard, row in places])

        found = {name: read(f"cond.{name}") for name in self.uncond}
        return {name: from_fp8(value, read(f"scale.{name}")) for name, value in found.items()} if self._fp8 else found


def _row(shard: Any, key: str, row: int) -> Tensor:
    found: Tensor = shard.get_slice(key)[row : row + 1]
    return found


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


def _load(path: Path) -> dict[str, Tensor]:
    with reading(path, "a file of the cache"):
        tensors: dict[str, Tensor] = load_file(path)
    return tensors


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:120] + "..."
