"""Images and captions into a cache: every size downscaled in pixel space, then encoded (section 4.1)."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor
from tqdm import tqdm

from swd_distill.cache import MANIFEST, UNCOND, checksum, latents_key, write_tensors
from swd_distill.config import Config
from swd_distill.devices import device_and_dtype, processes
from swd_distill.files import claim, write_text
from swd_distill.imagefolder import read_imagefolder
from swd_models.loading import load_latents, load_text
from swd_models.sd3 import SD3Latents
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
                write_tensors(folder / names[index], _encode_shard(chunks[index], config, latents, text, bar))
        if state.is_main_process:
            write_tensors(folder / UNCOND, _on_cpu(text([""])))
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
    chunk: list[tuple[Path, str]], config: Config, latents: SD3Latents, text: Any, bar: Any
) -> dict[str, Tensor]:
    sizes = sorted(set(config.scales.sizes))
    parts: dict[str, list[Tensor]] = {}
    for start in range(0, len(chunk), config.data.batch):
        few = chunk[start : start + config.data.batch]
        height, width = (side * latents.factor for side in sizes[-1])
        pixels = torch.stack([_load_image(path, height, width) for path, _ in few])
        found = {f"cond.{name}": value for name, value in text([caption for _, caption in few]).items()}
        for size in sizes:
            small = downscale(pixels, (size[0] * latents.factor, size[1] * latents.factor))
            found[latents_key(size)] = latents.encode(small)
        for key, value in _on_cpu(found).items():
            parts.setdefault(key, []).append(value.to(latents.vae.dtype))
        bar.update(len(few))
    return {key: torch.cat(values) for key, values in parts.items()}


def _load_image(path: Path, height: int, width: int) -> Tensor:
    """Read an image, scale and crop it to the size, as a tensor (3, height, width) in [-1, 1].

    Raises:
        ValueError: no image, or one that would have to be enlarged.
    """
    try:
        image = Image.open(path).convert("RGB")
    except OSError as error:
        raise ValueError(f"expected an image, got {path}: {error}") from error
    if image.height < height or image.width < width:
        raise ValueError(
            f"expected images of at least {width}x{height} pixels, got {image.width}x{image.height}: {path}"
        )
    ratio = max(height / image.height, width / image.width)
    if ratio < 1:
        image = image.resize((round(image.width * ratio), round(image.height * ratio)), Image.Resampling.LANCZOS)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    image = image.crop((left, top, left + width, top + height))
    pixels: Tensor = pil_to_tensor(image)
    return pixels.float() / 127.5 - 1


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.cpu() for key, value in tensors.items()}
