"""Files of latents: which tensor is meant is asked of the headers, before anything is read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm

from swd_data import Skipped, reading
from swd_spectral.steps import size_text


@dataclass(frozen=True)
class Shard:
    """A file with latents under a name: (B, C, H, W) or (B, C, T, H, W)."""

    path: Path
    name: str
    shape: tuple[int, ...]


def open_shards(paths: Sequence[Path]) -> list[Shard]:
    """Find the latents of each file.

    Raises:
        ValueError: a file that is broken or has none, no sample at all, or samples of several sizes.
    """
    shards = [_open(path) for path in paths]
    first = shards[0]
    for shard in shards:
        if shard.shape[1:] != first.shape[1:]:
            raise ValueError(
                f"expected latents of one size, got {size_text(first.shape[1:])} in {first.path} and "
                f"{size_text(shard.shape[1:])} in {shard.path}: measure each size alone"
            )
    if not sum(shard.shape[0] for shard in shards):
        raise ValueError(f"expected at least one sample of latents, got none in {first.path}")
    return shards


def read_shards(shards: Sequence[Shard], skipped: Skipped, batch: int) -> Iterator[Tensor]:
    """Yield the samples in batches, without those that hold NaN or infinity."""
    for shard in tqdm(shards, desc="latents", disable=len(shards) < 2):
        with reading(shard.path, "latents"), safe_open(shard.path, framework="pt") as file:
            latents = file.get_slice(shard.name)
            for start in range(0, shard.shape[0], batch):
                kept = _finite(latents[start : start + batch], shard.path, start, skipped)
                if len(kept):
                    yield kept


def _open(path: Path) -> Shard:
    with reading(path, "a safetensors file"), safe_open(path, framework="pt") as file:
        name = _largest(file, path)
        found = file.get_slice(name)
        shape, dtype = tuple(found.get_shape()), found.get_dtype()
    if not dtype.startswith(("F", "BF")):
        raise ValueError(f"expected latents of floats, got {dtype} in {name} of {path}: save what the encoder gives")
    if len(shape) not in (4, 5) or 0 in shape[1:]:
        raise ValueError(
            f"expected latents (B, C, H, W) or (B, C, T, H, W), got {shape} in {name} of {path}: save a batch of them"
        )
    if min(shape[-2:]) < 2:
        raise ValueError(
            f"expected latents of 2x2 or more, got {size_text(shape[-2:])} in {path}: they have no spectrum"
        )
    return Shard(path, name, shape)


def _largest(file: Any, path: Path) -> str:
    """Return the tensor that holds latents: the only one, `latents`, or the largest `latents.HxW` of a cache."""
    names: list[str] = list(file.keys())
    candidates = [name for name in names if name.split(".")[0] == "latents"] or (names if len(names) == 1 else [])
    if not candidates:
        found = ", ".join(sorted(names)[:5]) or "none"
        raise ValueError(f"expected a tensor named latents in {path}, got {found}: rename yours")
    cells = {name: prod(file.get_slice(name).get_shape()[1:]) for name in candidates}
    return max(candidates, key=cells.__getitem__)


def _finite(latents: Tensor, path: Path, start: int, skipped: Skipped) -> Tensor:
    """Return the good samples, in float32 or wider; note the others."""
    wide = latents if latents.dtype == torch.float64 else latents.float()
    good = wide.flatten(1).isfinite().all(1)
    for index in (~good).nonzero().flatten().tolist():
        name = f"{path}[{start + index}]"
        skipped.add(name, ValueError(f"expected finite latents, got NaN or infinity in {name}: leave that sample out"))
    return wide[good]
