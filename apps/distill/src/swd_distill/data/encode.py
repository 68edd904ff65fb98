"""Images or videos and captions into a cache: every size downscaled in pixel space, then encoded (section 4.1)."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from tqdm import tqdm

from swd_data import Skipped, checksum, claim, read_object, reading, write_json
from swd_data.skipped import FILE
from swd_distill.config import Config
from swd_distill.data.ahead import behind
from swd_distill.data.buckets import buckets_of, schedules_of
from swd_distill.data.cache import FORMAT, INDEX, MANIFEST, NUM_CAPTIONS, UNCOND, write_tensors
from swd_distill.data.encoder import Encoder
from swd_distill.data.samples import Source
from swd_distill.data.shards import Bar, Parts, encode_images, encode_prompts, join
from swd_distill.data.sources import open_source
from swd_distill.devices import processes

SHARD_SAMPLES = 1024
NOTES = "notes"

Captions = list[list[list[str]]]
"""By shard and by bucket."""
Made = tuple[Parts, dict[str, str]]
"""The tensors of a shard, and what it notes."""


def encode(config: Config) -> Path:
    """Encode the images into OUT/cache: shard by shard, skipping finished ones; return the folder.

    Images come first. Their shards note the captions, of which each different one is then encoded once.
    """
    state, folder, source = processes(), config.cache, open_source(config)
    claim(folder / "settings.json", _settings(config) | {"images": source.digest}, "a cache")
    manifest, encoder = _read_manifest(folder), Encoder(config.model)
    state.wait_for_everyone()  # all have read the manifest, which goes where anything is made again
    _encode_images(config, source, manifest, encoder)
    state.wait_for_everyone()
    captions = [notes["captions"] for notes in _read_notes(folder)]
    if not any(_in_order(captions)):
        raise ValueError(f"expected at least one image in {config.images}, got none")
    _encode_texts(config, captions, manifest, encoder)
    state.wait_for_everyone()
    if state.is_main_process and not all((folder / name).is_file() for name in (INDEX, MANIFEST)):
        _finish(config, captions)
    state.wait_for_everyone()
    return folder


def fitting(config: Config) -> dict[str, Any]:
    """Return the settings that a cache must have been made with to serve a run."""
    sizes = {size for schedule in schedules_of(config) for size in schedule.sizes}
    return {
        "format": FORMAT,
        "model": config.model,
        "sizes": [list(size) for size in sorted(sizes)],
        "buckets": [[bucket.aspect, bucket.multiple] for bucket in buckets_of(config)],
        "text_dtype": config.data.text_dtype,
    }


def _settings(config: Config) -> dict[str, Any]:
    """Return what else changes latents: the background where it is another than it always was."""
    return fitting(config) | ({} if config.data.background == "white" else {"background": config.data.background})


def _encode_images(config: Config, source: Source, manifest: dict[str, Any], encoder: Encoder) -> None:
    schedules, state = schedules_of(config), processes()
    total = manifest.get("read", manifest.get("samples", len(source)))
    own = FILE if state.num_processes == 1 else f"{state.process_index}-{FILE}"
    skipped = Skipped(config.cache / own, total, config.data.max_bad)

    def make(chunk: range, bar: Bar) -> Made:
        bad: dict[str, str] = {}

        def skip(name: str, error: Exception) -> None:
            bad[name] = str(error)
            skipped.add(name, error)
            tqdm.write(f"left out: {error}", file=sys.stderr)

        samples = source.read(chunk.start, chunk.stop)
        parts, captions = encode_images(samples, schedules, encoder, config.data.batch, bar, skip)
        # In one entry: safetensors writes several in any order, and a shard should be the same whoever makes it.
        return parts, {NOTES: json.dumps({"captions": captions, "skipped": bad})}

    _write_missing(config.cache, "shard", "image", total, manifest.get("shards", ()), make)


def _encode_texts(config: Config, captions: Captions, manifest: dict[str, Any], encoder: Encoder) -> None:
    prompts = list(dict.fromkeys(_in_order(captions)))

    def make(chunk: range, bar: Bar) -> Made:
        few = prompts[chunk.start : chunk.stop]
        return encode_prompts(few, encoder, config.data.batch, config.data.text_dtype, bar), {}

    _write_missing(config.cache, "text", "prompt", len(prompts), manifest.get("texts", ()), make)
    if processes().is_main_process and not (config.cache / UNCOND).is_file():
        write_tensors(config.cache / UNCOND, {name: value.cpu() for name, value in encoder.text.uncond().items()})


def _write_missing(
    folder: Path,
    kind: str,
    unit: str,
    total: int,
    noted: Sequence[dict[str, Any]],
    make: Callable[[range, Bar], Made],
) -> None:
    """Make those of this process's shards that are not there, or not as they were noted, until nothing is left.

    A shard is written while the next is made.
    """
    state, sums = processes(), {shard["file"]: shard["sha256"] for shard in noted}
    chunks = {
        folder / f"{kind}-{i:05d}.safetensors": range(start, min(start + SHARD_SAMPLES, total))
        for i, start in enumerate(range(0, total, SHARD_SAMPLES))
        if i % state.num_processes == state.process_index
    }
    missing = {path: chunk for path, chunk in chunks.items() if not _is_whole(path, sums)}
    num, quiet = sum(map(len, missing.values())), not state.is_local_main_process
    with tqdm(total=num, desc="encode", unit=unit, disable=quiet) as bar, behind(1, 1) as run:
        for path, chunk in missing.items():
            (folder / MANIFEST).unlink(missing_ok=True)
            parts, metadata = make(chunk, bar)
            if not parts and not json.loads(metadata[NOTES])["skipped"]:
                break  # a stream has ended before
            run(_write, path, parts, metadata)


def _write(path: Path, parts: Parts, metadata: dict[str, str]) -> None:
    write_tensors(path, join(parts), metadata)


def _is_whole(path: Path, sums: dict[str, str]) -> bool:
    """Tell whether a shard is there and, once its checksum is known, unchanged."""
    return path.is_file() and (path.name not in sums or checksum(path) == sums[path.name])


def _read_manifest(folder: Path) -> dict[str, Any]:
    """Return what a finished cache says of itself, else nothing."""
    path = folder / MANIFEST
    return read_object(path, "the manifest of a cache") if path.is_file() else {}


def _read_notes(folder: Path) -> list[dict[str, Any]]:
    """Read what the shards of images note: the captions of their samples, and which were bad."""
    found = []
    for path in sorted(folder.glob("shard-*.safetensors")):
        with reading(path, "a shard of the cache"), safe_open(path, framework="pt") as shard:
            noted = shard.metadata()
        before = {"captions": json.loads(noted["captions"]), "skipped": {}} if "captions" in noted else {}
        found.append(before or json.loads(noted[NOTES]))
    return found


def _list_skipped(config: Config, num: int) -> int:
    """List in one file what all shards have left out, whoever made them; return how many.

    Raises:
        ValueError: together they are too many.
    """
    folder = config.cache
    found = {name: reason for notes in _read_notes(folder) for name, reason in notes["skipped"].items()}
    (folder / FILE).unlink(missing_ok=True)
    skipped = Skipped(folder / FILE, num + len(found), config.data.max_bad)
    for name, reason in found.items():
        skipped.add(name, ValueError(reason))
    if found:
        tqdm.write(str(skipped), file=sys.stderr)
    return len(found)


def _in_order(captions: Captions) -> list[str]:
    """Return the captions as the cache counts its samples: bucket after bucket, shard after shard."""
    return [text for bucket in zip(*captions, strict=True) for shard in bucket for text in shard]


def _finish(config: Config, captions: Captions) -> None:
    """Write which prompt each sample has, then the manifest."""
    folder, in_order = config.cache, _in_order(captions)
    skipped = _list_skipped(config, len(in_order))
    places = {prompt: place for place, prompt in enumerate(dict.fromkeys(in_order))}
    write_tensors(folder / INDEX, {"prompts": torch.tensor([places[text] for text in in_order])})
    shards = [
        _note(path) | {"samples": [len(texts) for texts in each]}
        for path, each in zip(sorted(folder.glob("shard-*.safetensors")), captions, strict=True)
    ]
    texts = [_note(path) for path in sorted(folder.glob("text-*.safetensors"))]
    manifest = {
        "settings": fitting(config),
        "samples": len(in_order),
        "read": len(in_order) + skipped,
        "captions": in_order[:NUM_CAPTIONS],
        "shards": shards,
        "texts": texts,
        "prompts_per_text": SHARD_SAMPLES,
    }
    write_json(folder / MANIFEST, manifest)


def _note(path: Path) -> dict[str, Any]:
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": checksum(path)}
