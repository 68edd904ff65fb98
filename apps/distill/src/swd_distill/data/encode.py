"""Images or videos and captions into a cache: every size downscaled in pixel space, then encoded (section 4.1)."""

import hashlib
import json
import sys
from collections.abc import Callable
from contextlib import suppress
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
from swd_distill.data.cache import FORMAT, INDEX, MANIFEST, NUM_CAPTIONS, UNCOND, files_of, write_tensors
from swd_distill.data.encoder import Encoder
from swd_distill.data.samples import Sample, Source
from swd_distill.data.shards import Bar, Parts, encode_images, encode_prompts, join
from swd_distill.data.sources import open_source, skipped_in
from swd_distill.devices import processes

SHARD_SAMPLES = 1024
NOTES = "notes"

Captions = list[list[list[str]]]
"""By shard and by bucket."""
Bad = tuple[int, str, str]
"""Place, name and reason of a bad sample."""
Made = tuple[Parts, dict[str, str]]
"""The tensors of a shard, and what it notes."""


def encode(config: Config) -> Path:
    """Encode the images into OUT/cache: shard by shard, skipping finished ones; return the folder.

    Images come first. Their shards note the captions, of which each different one is then encoded once.
    """
    state, folder, source = processes(), config.cache, claim_cache(config)
    manifest, encoder = _read_manifest(folder), Encoder(config)
    state.wait_for_everyone()  # all have read the manifest, which goes where anything is made again
    if not manifest and state.is_main_process:
        (folder / MANIFEST).unlink(missing_ok=True)
    _encode_images(config, source, manifest, encoder)
    state.wait_for_everyone()
    captions = [notes["captions"] for notes in _read_notes(folder)]
    if not _in_order(captions):
        raise ValueError(f"expected at least one image in {config.images}, got none")
    if state.is_main_process:
        _list_skipped(config, len(_in_order(captions)))
    _encode_texts(config, captions, manifest, encoder)
    state.wait_for_everyone()
    whole = (folder / MANIFEST).is_file() and _is_unchanged(folder / INDEX, _sums(manifest))
    if state.is_main_process and not whole:
        _finish(config, captions)
    state.wait_for_everyone()
    return folder


def claim_cache(config: Config) -> Source:
    """Claim OUT/cache for the images and settings of a run; return the images.

    Raises:
        ValueError: it was made of others: a file more or less, or another caption, counts too.
    """
    source = open_source(config)
    claim(config.cache / "settings.json", _settings(config) | {"images": source.digest}, "a cache")
    return source


def fitting(config: Config) -> dict[str, Any]:
    """Return the settings that a cache must have been made with to serve a run."""
    sizes = {size for schedule in schedules_of(config) for size in schedule.sizes}
    return {
        "format": FORMAT,
        "model": config.model,
        "sizes": [list(size) for size in sorted(sizes)],
        "buckets": [[bucket.aspect, bucket.multiple] for bucket in buckets_of(config)],
        "text_dtype": config.data.text_dtype,
        "text_tokens": config.data.text_tokens,
    }


def _settings(config: Config) -> dict[str, Any]:
    """Return what else changes latents: the background where it is another than it always was."""
    return fitting(config) | ({} if config.data.background == "white" else {"background": config.data.background})


def _encode_images(config: Config, source: Source, manifest: dict[str, Any], encoder: Encoder) -> None:
    schedules = schedules_of(config)
    total = manifest.get("read", manifest.get("samples", len(source)))
    skipped = skipped_in(config.cache, config, total)

    def make(chunk: range, bar: Bar) -> Made:
        bad: list[Bad] = []

        def skip(sample: Sample, error: Exception) -> None:
            bad.append((sample.place, sample.name, str(error)))
            _add(skipped, bad[-1])
            tqdm.write(f"left out: {error}", file=sys.stderr)

        samples = source.read(chunk.start, chunk.stop)
        parts, captions = encode_images(samples, schedules, encoder, config.data.batch, bar, skip)
        # In one entry: safetensors writes several in any order, and a shard should be the same whoever makes it.
        notes = {"captions": captions, "skipped": sorted(bad), "files": source.files(chunk.start, chunk.stop)}
        return parts, {NOTES: json.dumps(notes)}

    def is_whole(path: Path, chunk: range) -> bool:
        notes = _notes_of(path)
        if not _is_of(notes, source, chunk):
            return False
        for each in notes["skipped"]:
            _add(skipped, each)
        return True

    _write_missing(config.cache, "shard", "image", total, _sums(manifest), make, is_whole)


def _add(skipped: Skipped, bad: Bad) -> None:
    """Count a bad sample: a file that is listed twice counts twice."""
    place, name, reason = bad
    skipped.add(name if name not in skipped.reasons else f"{name}, sample {place}", ValueError(reason))


def _is_of(notes: dict[str, Any], source: Source, chunk: range) -> bool:
    """Tell whether a shard is of the files as they are now: others under the same names, or mended ones, it is not."""
    noted = notes.get("files")  # of earlier versions none
    return noted is None or noted == source.files(chunk.start, chunk.stop)


def check_files(config: Config, source: Source) -> None:
    """Raise ValueError if files have changed since OUT/cache was made of them."""
    for number, path in enumerate(sorted(config.cache.glob("shard-*.safetensors"))):
        chunk = range(number * SHARD_SAMPLES, min((number + 1) * SHARD_SAMPLES, len(source)))
        if not _is_of(_notes_of(path), source, chunk):
            raise ValueError(
                f"expected the images that {config.out} was made of, got others among samples {chunk.start} to "
                f"{chunk.stop - 1} of {config.images}: put them back, or choose another --out"
            )


def _encode_texts(config: Config, captions: Captions, manifest: dict[str, Any], encoder: Encoder) -> None:
    prompts = list(dict.fromkeys(_in_order(captions)))

    def notes(chunk: range) -> dict[str, str]:
        few = json.dumps(prompts[chunk.start : chunk.stop])
        return {NOTES: json.dumps({"prompts": hashlib.sha256(few.encode()).hexdigest()})}

    def make(chunk: range, bar: Bar) -> Made:
        few = prompts[chunk.start : chunk.stop]
        return encode_prompts(few, encoder, config.data.batch, config.data.text_dtype, bar), notes(chunk)

    def is_whole(path: Path, chunk: range) -> bool:  # samples left out, or mended, have changed the prompts
        with reading(path, "a shard of the cache"), safe_open(path, framework="pt") as shard:
            noted = (shard.metadata() or {}).get(NOTES)
        return noted is None or noted == notes(chunk)[NOTES]

    _write_missing(config.cache, "text", "prompt", len(prompts), _sums(manifest), make, is_whole)
    num = -(-len(prompts) // SHARD_SAMPLES)
    for stale in sorted(config.cache.glob("text-*.safetensors"))[num:] if processes().is_main_process else ():
        stale.unlink()
    if processes().is_main_process and not _is_unchanged(config.cache / UNCOND, _sums(manifest)):
        (config.cache / MANIFEST).unlink(missing_ok=True)
        write_tensors(config.cache / UNCOND, {name: value.cpu() for name, value in encoder.text.uncond().items()})


def _write_missing(
    folder: Path,
    kind: str,
    unit: str,
    total: int,
    sums: dict[str, str],
    make: Callable[[range, Bar], Made],
    is_whole: Callable[[Path, range], bool],
) -> None:
    """Make those of this process's shards that are not there, or not as they were noted, until nothing is left.

    A shard is written while the next is made.
    """
    state = processes()
    chunks = {
        folder / f"{kind}-{i:05d}.safetensors": range(start, min(start + SHARD_SAMPLES, total))
        for i, start in enumerate(range(0, total, SHARD_SAMPLES))
        if i % state.num_processes == state.process_index
    }
    missing = {
        path: chunk for path, chunk in chunks.items() if not (_is_unchanged(path, sums) and is_whole(path, chunk))
    }
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


def _is_unchanged(path: Path, sums: dict[str, str]) -> bool:
    """Tell whether a shard is there and, once its checksum is known, unchanged."""
    return path.is_file() and (path.name not in sums or checksum(path) == sums[path.name])


def _read_manifest(folder: Path) -> dict[str, Any]:
    """Return what a finished cache says of itself, else nothing; also where it says it in no way that can be read."""
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        manifest = read_object(path, "the manifest of a cache")
        _sums(manifest)
        return manifest
    return {}


def _read_notes(folder: Path) -> list[dict[str, Any]]:
    return [_notes_of(path) for path in sorted(folder.glob("shard-*.safetensors"))]


def _notes_of(path: Path) -> dict[str, Any]:
    """Read what a shard of images notes: the captions of its samples, and which were bad."""
    with reading(path, "a shard of the cache"), safe_open(path, framework="pt") as shard:
        noted = shard.metadata()
    if "captions" in noted:  # of a version that left none out
        return {"captions": json.loads(noted["captions"]), "skipped": []}
    notes: dict[str, Any] = json.loads(noted[NOTES])
    return notes


def _list_skipped(config: Config, num: int) -> None:
    """List in one file what all shards have left out, whoever made them.

    Raises:
        ValueError: together they are too many.
    """
    folder, found = config.cache, _skipped_of(config.cache)
    for path in folder.glob(f"*{FILE}"):
        path.unlink()
    skipped = skipped_in(folder, config, num + len(found))
    for each in found:
        _add(skipped, each)
    if found:
        tqdm.write(str(skipped), file=sys.stderr)


def _skipped_of(folder: Path) -> list[Bad]:
    return [(place, name, reason) for notes in _read_notes(folder) for place, name, reason in notes["skipped"]]


def _in_order(captions: Captions) -> list[str]:
    """Return the captions as the cache counts its samples: bucket after bucket, shard after shard."""
    return [text for bucket in zip(*captions, strict=True) for shard in bucket for text in shard]


def _finish(config: Config, captions: Captions) -> None:
    """Write which prompt each sample has, then the manifest."""
    folder, in_order = config.cache, _in_order(captions)
    places = {prompt: place for place, prompt in enumerate(dict.fromkeys(in_order))}
    (folder / MANIFEST).unlink(missing_ok=True)
    write_tensors(folder / INDEX, {"prompts": torch.tensor([places[text] for text in in_order])})
    shards = [
        _note(path) | {"samples": [len(texts) for texts in each]}
        for path, each in zip(sorted(folder.glob("shard-*.safetensors")), captions, strict=True)
    ]
    texts = [_note(path) for path in sorted(folder.glob("text-*.safetensors"))]
    manifest = {
        "settings": fitting(config),
        "samples": len(in_order),
        "read": len(in_order) + len(_skipped_of(folder)),
        "captions": in_order[:NUM_CAPTIONS],
        "shards": shards,
        "texts": texts,
        "prompts_per_text": SHARD_SAMPLES,
        "files": [_note(folder / name) for name in (INDEX, UNCOND)],
    }
    write_json(folder / MANIFEST, manifest)


def _sums(manifest: dict[str, Any]) -> dict[str, str]:
    """Return the checksums that a manifest knows, by name."""
    return {file["file"]: file["sha256"] for file in files_of(manifest)} if manifest else {}


def _note(path: Path) -> dict[str, Any]:
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": checksum(path)}
