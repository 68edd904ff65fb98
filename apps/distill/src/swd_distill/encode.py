"""Images or videos and captions into a cache: every size downscaled in pixel space, then encoded (section 4.1)."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from swd_distill.cache import MANIFEST, UNCOND, checksum, latents_key, write_tensors
from swd_distill.config import Config
from swd_distill.devices import device_and_dtype, processes
from swd_distill.files import claim, write_text
from swd_distill.imagefolder import load_image, load_video, read_imagefolder
from swd_models.loading import load_latents, load_text
from swd_models.parts import Latents, Text
from swd_schedules import downscale

SHARD_SAMPLES = 1024
NUM_CAPTIONS = 8


def encode(config: Config) -> Path:
    """Encode the image folder into OUT/cache: shard by shard, skipping finished ones; return the folder."""
    state = processes()
    folder, pairs = config.cache, read_imagefolder(config.images)
    names_and_texts = repr([(path.name, text) for path, text in pairs]).encode()
    images = hashlib.sha256(names_and_texts).hexdigest()
    claim(folder / "settings.json", fitting(config) | {"images": images}, "a cache")
    chunks = [pairs[start : start + SHARD_SAMPLES] for start in range(0, len(pairs), SHARD_SAMPLES)]
    names = [f"shard-{index:05d}.safetensors" for index in range(len(chunks))]
    mine = range(state.process_index, len(chunks), state.num_processes)
    noted = _noted(folder)
    missing = [index for index in mine if not _is_whole(folder / names[index], noted)]
    state.wait_for_everyone()  # all have read the manifest, which goes where anything is made again
    device, dtype = device_and_dtype()
    if missing or not (folder / UNCOND).is_file():
        (folder / MANIFEST).unlink(missing_ok=True)
        latents, text = load_latents(config.model, dtype=dtype), load_text(config.model, dtype=dtype)
        latents.vae.to(device)
        text.to(device)
        total = sum(len(chunks[index]) for index in missing)
        with tqdm(total=total, desc="encode", unit="image", disable=not state.is_local_main_process) as bar:
            for index in missing:
                write_tensors(folder / names[index], _encode_shard(chunks[index], config, latents, text, dtype, bar))
        if state.is_main_process:
            write_tensors(folder / UNCOND, _on_cpu(text.uncond()))
    state.wait_for_everyone()
    if state.is_main_process and not (folder / MANIFEST).is_file():
        shards = [
            {
                "file": name,
                "samples": len(chunk),
                "bytes": (folder / name).stat().st_size,
                "sha256": checksum(folder / name),
            }
            for name, chunk in zip(names, chunks, strict=True)
        ]
        manifest = {
            "settings": fitting(config),
            "samples": len(pairs),
            "captions": [text for _, text in pairs[:NUM_CAPTIONS]],
            "shards": shards,
        }
        write_text(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    state.wait_for_everyone()
    return folder


def fitting(config: Config) -> dict[str, Any]:
    """Return the settings that a cache must have been made with to serve a run."""
    sizes: Sequence[Sequence[int]] = sorted(set(config.scales.sizes))
    return {"model": config.model, "sizes": [list(size) for size in sizes]}


def _noted(folder: Path) -> dict[str, Any]:
    """Return what the manifest of a finished cache says of each shard."""
    path = folder / MANIFEST
    return {shard["file"]: shard for shard in json.loads(path.read_text())["shards"]} if path.is_file() else {}


def _is_whole(path: Path, noted: dict[str, Any]) -> bool:
    """Tell whether a shard is there and, once its checksum is known, unchanged."""
    return path.is_file() and (path.name not in noted or checksum(path) == noted[path.name]["sha256"])


@torch.no_grad()
def _encode_shard(
    chunk: list[tuple[Path, str]], config: Config, latents: Latents, text: Text, dtype: torch.dtype, bar: Any
) -> dict[str, Tensor]:
    sizes = sorted(set(config.scales.sizes))
    parts: dict[str, list[Tensor]] = {}
    for start in range(0, len(chunk), config.data.batch):
        few = chunk[start : start + config.data.batch]
        whole = latents.pixels(sizes[-1])
        load = load_image if len(whole) == 2 else load_video
        pixels = torch.stack([load(path, *whole) for path, _ in few])
        found = {f"cond.{name}": value for name, value in text([caption for _, caption in few]).items()}
        for size in sizes:
            small = downscale(pixels, latents.pixels(size))
            found[latents_key(size)] = latents.encode(small)
        for key, value in _on_cpu(found).items():
            parts.setdefault(key, []).append(value.to(dtype))
        bar.update(len(few))
    return {key: torch.cat(values) for key, values in parts.items()}


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.cpu() for key, value in tensors.items()}
