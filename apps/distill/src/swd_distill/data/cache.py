"""What training reads: latents at every size and text embeddings, in memory-mapped safetensors shards."""

import json
import os
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from swd_data import checksum, read_object, reading, whole
from swd_data.folders import inside
from swd_distill.data.buckets import Bucket
from swd_distill.data.fp8 import from_fp8, to_fp8
from swd_distill.data.samples import Size
from swd_distill.devices import in_all, processes

FORMAT = 2  # 1 held the text of every sample beside its latents
MANIFEST, UNCOND, INDEX = "manifest.json", "uncond.safetensors", "index.safetensors"
NUM_CAPTIONS = 8
AGAIN = "run `swd-distill encode` again, which makes what is missing or changed"
_SHOWN = 2**30
"""Bytes whose checksums take long enough for a bar."""


def latents_key(bucket: int, size: Size) -> str:
    """Return the name of the latents of one bucket and size, for example `latents.0.8x8`."""
    return f"latents.{bucket}." + "x".join(map(str, size))


def text_tensors(name: str, value: Tensor, dtype: str) -> dict[str, Tensor]:
    """Return what a shard of prompts holds of an embedding: itself, or its numbers in float8 with their scales."""
    if dtype == "model" or value.dtype == torch.bool:
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
    def open(folder: Path, expected: dict[str, Any], *, verify: bool = True) -> "Cache":
        """Open a finished cache that was made with the `expected` settings.

        `verify`: compare each file with its checksum, this process its share of them.

        Raises:
            ValueError: no manifest, other settings, or a file that is missing, cut short or changed.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise ValueError(
                f"expected a finished cache in {folder}, got no {MANIFEST}: run `swd-distill encode` first"
            )
        manifest = read_object(path, "the manifest of a cache")
        settings = manifest.get("settings")
        settings = settings if isinstance(settings, dict) else {}
        for name, value in expected.items():
            if settings.get(name) != value:
                raise ValueError(
                    f"expected a cache in {folder} made for {name} {_brief(value)}, got one made for "
                    f"{_brief(settings.get(name))}: give the flags that it was made with, or delete that folder and "
                    "run `swd-distill encode` again"
                )
        try:
            if verify:
                in_all(lambda: verify_files(folder, files_of(manifest)))
            return _Stored(folder, manifest)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"expected the manifest of a cache in {path}, got another: {error!r}: {AGAIN}") from error

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
        self._shards = [
            _open(folder / inside(shard["file"], str(folder / MANIFEST)), shard["bytes"]) for shard in shards
        ]
        self._texts = [
            _open(folder / inside(text["file"], str(folder / MANIFEST)), text["bytes"]) for text in manifest["texts"]
        ]
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
        small = {name for name, value in found.items() if self._fp8 and value.dtype != torch.bool}
        return found | {name: from_fp8(found[name], read(f"scale.{name}")) for name in small}


def files_of(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Return name, bytes and sha256 of each file that a manifest knows."""
    return [*manifest["shards"], *manifest["texts"], *manifest.get("files", ())]


def verify_files(folder: Path, files: Sequence[dict[str, Any]]) -> None:
    """Compare files with their checksums, several at a time; of several processes each takes a share.

    Raises:
        ValueError: one is missing or has changed.
    """
    state = processes()
    mine = files[state.process_index :: state.num_processes]
    total, quiet = sum(file["bytes"] for file in mine), not state.is_local_main_process
    bar = tqdm(total=total, desc="verify", unit="B", unit_scale=True, disable=quiet or total < _SHOWN)
    with bar, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for file in pool.map(lambda file: _verified(folder, file), mine):
            bar.update(file["bytes"])


def _verified(folder: Path, file: dict[str, Any]) -> dict[str, Any]:
    path = folder / inside(file["file"], str(folder / MANIFEST))
    if not path.is_file():
        raise ValueError(f"expected the file {path} of the cache, got no such file: {AGAIN}")
    if path.stat().st_size != file["bytes"] or checksum(path) != file["sha256"]:
        raise ValueError(f"expected {path} as it was written, got other bytes: {AGAIN}")
    return file


def _row(shard: Any, key: str, row: int) -> Tensor:
    found: Tensor = shard.get_slice(key)[row : row + 1]
    return found


def _open(path: Path, size: int) -> Any:
    if not path.is_file():
        raise ValueError(f"expected the shard {path}, got no such file: {AGAIN}")
    if path.stat().st_size != size:
        raise ValueError(f"expected {size} bytes in {path}, got {path.stat().st_size}: {AGAIN}")
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"expected a safetensors shard, got {path} ({error}): {AGAIN}") from error


def _load(path: Path) -> dict[str, Tensor]:
    with reading(path, "a file of the cache"):
        tensors: dict[str, Tensor] = load_file(path)
    return tensors


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:120] + "..."
