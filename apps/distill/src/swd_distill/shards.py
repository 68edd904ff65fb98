"""What one shard of the cache holds: latents of samples, or embeddings of prompts."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from tqdm import tqdm

from swd_distill.buckets import nearest
from swd_distill.cache import latents_key, text_tensors
from swd_distill.config import TextDtype
from swd_distill.encoder import Encoder
from swd_distill.samples import Sample, num_frames, to_pixels
from swd_schedules import ScaleSchedule

Tensors = dict[str, Tensor]
Bar: TypeAlias = "tqdm[Any]"


def encode_images(
    samples: Iterable[Sample], schedules: Sequence[ScaleSchedule], encoder: Encoder, batch: int, bar: Bar
) -> tuple[Tensors, list[list[str]]]:
    """Encode samples, each in the bucket of its shape, at all sizes of that bucket; return latents, and captions.

    Captions are by bucket, in the order of its latents.
    """
    parts: dict[str, list[Tensor]] = {}
    captions: list[list[str]] = [[] for _ in schedules]
    for bucket, few in _batches(samples, schedules, encoder, batch):
        captions[bucket] += [text for text, _ in few]
        pixels = torch.stack([pixels for _, pixels in few])
        for size, latents in encoder.encode(pixels, sorted(set(schedules[bucket].sizes))).items():
            parts.setdefault(latents_key(bucket, size), []).append(latents.to(encoder.dtype).cpu())
        bar.update(len(few))
    return _joined(parts), captions


def encode_prompts(prompts: Sequence[str], encoder: Encoder, batch: int, dtype: TextDtype, bar: Bar) -> Tensors:
    """Encode prompts, in the model's dtype or in float8."""
    parts: dict[str, list[Tensor]] = {}
    for start in range(0, len(prompts), batch):
        few = prompts[start : start + batch]
        for name, value in encoder.text(few).items():
            for key, tensor in text_tensors(name, value.to(encoder.dtype), dtype).items():
                parts.setdefault(key, []).append(tensor.cpu())
        bar.update(len(few))
    return _joined(parts)


def _batches(
    samples: Iterable[Sample], schedules: Sequence[ScaleSchedule], encoder: Encoder, batch: int
) -> Iterator[tuple[int, list[tuple[str, Tensor]]]]:
    """Read samples into batches of one bucket: its index, and text and pixels of each."""
    sizes = [encoder.latents.pixels(schedule.sizes[-1]) for schedule in schedules]
    waiting: list[list[tuple[str, Tensor]]] = [[] for _ in schedules]
    for sample in samples:
        frames = sample.frames(num_frames(sizes[0]))
        bucket = nearest(schedules, *frames[0].size)
        waiting[bucket].append((sample.text, to_pixels(frames, sizes[bucket], sample.name)))
        if len(waiting[bucket]) == batch:
            yield bucket, waiting[bucket]
            waiting[bucket] = []
    yield from ((bucket, left) for bucket, left in enumerate(waiting) if left)


def _joined(parts: dict[str, list[Tensor]]) -> Tensors:
    return {key: torch.cat(values) for key, values in parts.items()}
