"""What one shard of the cache holds: latents of samples, or embeddings of prompts."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain, pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor
from tqdm import tqdm

from swd_distill.config import TextDtype
from swd_distill.data.ahead import ahead
from swd_distill.data.buckets import nearest
from swd_distill.data.cache import latents_key, text_tensors
from swd_distill.data.encoder import Encoder
from swd_distill.data.samples import Sample, num_frames, to_pixels
from swd_schedules import ScaleSchedule

Tensors = dict[str, Tensor]
Parts = dict[str, list[Tensor]]
"""The tensors of a shard, batch by batch."""
Bar: TypeAlias = "tqdm[Any]"
Read = tuple[int, str, Tensor]
"""Bucket, text and pixels of a sample."""


def encode_images(
    samples: Iterable[Sample],
    schedules: Sequence[ScaleSchedule],
    encoder: Encoder,
    batch: int,
    bar: Bar,
    skip: Callable[[Sample, Exception], None],
) -> tuple[Parts, list[list[str]]]:
    """Encode samples, each in the bucket of its shape, at all sizes of that bucket; return latents, and captions.

    Captions are by bucket, in the order of its latents. The next batch is read while one is encoded. `skip` is told of
    a bad sample, and raises where there are too many.
    """
    captions: list[list[str]] = [[] for _ in schedules]

    def encoded() -> Iterator[Tensors]:
        with closing(_batches(samples, schedules, encoder, batch, skip)) as batches:
            for bucket, texts, pixels in batches:
                captions[bucket] += texts
                found = encoder.encode(pixels, sorted(set(schedules[bucket].sizes)))
                yield {latents_key(bucket, size): value.to(encoder.dtype) for size, value in found.items()}

    return _collect(encoded(), bar), captions


def encode_prompts(prompts: Sequence[str], encoder: Encoder, batch: int, dtype: TextDtype, bar: Bar) -> Parts:
    """Encode prompts, in the model's dtype or in float8."""

    def encoded() -> Iterator[Tensors]:
        for start in range(0, len(prompts), batch):
            found: Tensors = {}
            for name, value in encoder.text(prompts[start : start + batch]).items():
                mask = value.dtype == torch.bool
                found |= text_tensors(name, value if mask else value.to(encoder.dtype), dtype)
            yield found

    return _collect(encoded(), bar)


def join(parts: Parts) -> Tensors:
    """Join the batches, which are let go."""
    return {key: torch.cat(parts.pop(key)) for key in list(parts)}


def _batches(
    samples: Iterable[Sample],
    schedules: Sequence[ScaleSchedule],
    encoder: Encoder,
    batch: int,
    skip: Callable[[Sample, Exception], None],
) -> Generator[tuple[int, list[str], Tensor], None, None]:
    """Read samples ahead, into batches of one bucket: its index, texts and pixels."""
    sizes = [encoder.latents.pixels(schedule.sizes[-1]) for schedule in schedules]

    def read(sample: Sample) -> Read | None:
        try:
            frames = sample.frames(num_frames(sizes[0]))
            bucket = nearest(schedules, *frames[0].size)
            return bucket, sample.text, to_pixels(frames, sizes[bucket], sample.name)
        except ValueError as error:
            skip(sample, error)
            return None

    def stack(few: list[Read]) -> tuple[int, list[str], Tensor]:
        buckets, texts, pixels = zip(*few, strict=True)
        return buckets[0], list(texts), encoder.stack(pixels)

    return ahead(_of_one_bucket(ahead(samples, read, batch), batch), stack, 1)


def _of_one_bucket(samples: Generator[Read | None, None, None], batch: int) -> Iterator[list[Read]]:
    waiting: dict[int, list[Read]] = {}
    with closing(samples):
        for sample in samples:
            if sample is None:
                continue
            few = waiting.setdefault(sample[0], [])
            few.append(sample)
            if len(few) == batch:
                yield waiting.pop(sample[0])
    yield from (waiting[bucket] for bucket in sorted(waiting))


def _collect(batches: Iterator[Tensors], bar: Bar) -> Parts:
    """Gather batches on the host, each when the next is under way: the device does not wait for a copy."""
    parts: Parts = {}
    for copied, _ in pairwise(chain(map(_start_copy, batches), [dict])):  # the last of these has nothing behind it
        tensors = copied()
        for key, value in tensors.items():
            parts.setdefault(key, []).append(value)
        bar.update(len(next(iter(tensors.values()))))
    return parts


def _start_copy(tensors: Tensors) -> Callable[[], Tensors]:
    """Start a copy to the host; return what waits for it, and for nothing that the device is given later."""
    copies = {key: value.to("cpu", non_blocking=True) for key, value in tensors.items()}
    device = next(iter(tensors.values())).device
    if device.type == "cpu":
        return lambda: copies
    done = torch.Event(device)
    done.record()

    def copied() -> Tensors:
        done.synchronize()
        return {key: value.clone() for key, value in copies.items()}  # later copies use the pinned memory again

    return copied
