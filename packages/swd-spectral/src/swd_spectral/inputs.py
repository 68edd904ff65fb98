"""Latents from what people have: images, videos, latent files, a training cache."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from swd_data import IMAGES, VIDEOS, Skipped, list_files
from swd_data.layout import is_cache, latents_of
from swd_data.skipped import FILE
from swd_spectral.encode import encode
from swd_spectral.options import Source
from swd_spectral.shards import open_shards, read_shards

LATENTS = frozenset({".safetensors"})


def read_latents(inputs: Sequence[str], source: Source, out: Path, *, batch: int = 4) -> Iterator[Tensor]:
    """Yield batches of latents of one size, from files and folders of one kind: images, videos or latents.

    Images and frames are shrunk, cut square to `source.pixels` and encoded by the autoencoder of `source.model`; videos
    frame by frame. Of latent files (the shards of a training cache among them) the largest size is read. Bad samples
    are left out, and listed in skipped.jsonl of `out`.

    Raises:
        ValueError: nothing to read, kinds mixed, latents of several sizes, or more bad samples than `source.max_bad`.
    """
    if batch < 1:
        raise ValueError(f"expected a batch of 1 or more, got {batch}: samples encoded at a time")
    files = list(dict.fromkeys(path for text in inputs for path in _files(latents_of(Path(text)))))
    kinds = {_kind(path) for path in files}
    where = ", ".join(inputs)
    if len(kinds) != 1 or not kinds <= {"images", "videos", "latents"}:
        found = ", ".join(sorted(kinds)) or "none"
        raise ValueError(f"expected images, videos or latents (.safetensors), one of them, got {found} in {where}")
    (out / FILE).unlink(missing_ok=True)  # of an earlier run
    kind = kinds.pop()
    if kind != "latents":
        skipped = Skipped(out / FILE, len(files), source.max_bad)
        return _say(encode(files, kind, source, skipped, batch), skipped)
    shards = open_shards(files)
    skipped = Skipped(out / FILE, sum(shard.shape[0] for shard in shards), source.max_bad)
    return _say(read_shards(shards, skipped, 16 * batch), skipped)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"expected a file or folder, got {path}, which does not exist")
    found = list_files(path, IMAGES | VIDEOS | LATENTS).values()
    return [file for file in found if file.suffix.lower() not in LATENTS or _is_latents(file)]


def _is_latents(path: Path) -> bool:
    """Tell latents from what a training cache holds beside them: text, and an index."""
    return path.stem.startswith("shard-") or not (path.stem == "uncond" or is_cache(path.parent))


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    kinds = {"images": IMAGES, "videos": VIDEOS, "latents": LATENTS}
    return next((name for name, suffixes in kinds.items() if suffix in suffixes), f"{path.suffix or path.name} files")


def _say(batches: Iterator[Tensor], skipped: Skipped) -> Iterator[Tensor]:
    """Yield all batches, then say what was left out.

    Raises:
        ValueError: that was everything.
    """
    num = 0
    for batch in batches:
        num += len(batch)
        yield batch
    if not num:
        raise ValueError(f"expected at least one good sample, got none of {skipped.total}: see {skipped.path}")
    if len(skipped):
        print(f"swd-spectral: {skipped}", file=sys.stderr)
