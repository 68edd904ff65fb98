"""A cache that is none: images and captions are read and encoded when training asks for them."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from threading import Lock

import torch
from torch import Tensor

from swd_distill.config import Config
from swd_distill.data.ahead import ahead
from swd_distill.data.buckets import buckets_of, nearest, schedules_of
from swd_distill.data.cache import NUM_CAPTIONS, Cache
from swd_distill.data.encoder import Encoder
from swd_distill.data.samples import Sample, Size, num_frames, to_pixels
from swd_distill.data.sources import open_source, skipped_in
from swd_schedules import ScaleSchedule


class Live(Cache):
    """The samples of a run in the order of its cache, encoded on the device.

    The loader's thread and the one that trains both ask: one at a time.
    """

    def __init__(self, config: Config) -> None:
        source = self.source = open_source(config)
        self._encoder, self._lock = Encoder(config), Lock()
        self._read: tuple[tuple[int, ...], Tensor] = (), torch.empty(0)
        schedules = schedules_of(config)
        self._pixels = [self._encoder.latents.pixels(schedule.sizes[-1]) for schedule in schedules]
        self._skipped = skipped_in(config.out, config, len(source))
        self._instead: dict[int, int] = {}
        groups: list[list[Sample]] = [[] for _ in schedules]
        for sample in source.read(0, len(source)):
            bucket = self._bucket(sample, schedules)
            if bucket is not None:
                groups[bucket].append(sample)
        self._samples = [(bucket, sample) for bucket, group in enumerate(groups) for sample in group]
        bounds = pairwise([0, *accumulate(map(len, groups))])
        self.buckets = [(bucket, range(*bound)) for bucket, bound in zip(buckets_of(config), bounds, strict=True)]
        self.captions = [sample.text for _, sample in self._samples[:NUM_CAPTIONS]]
        self.uncond = self._encoder.text.uncond()

    def latents(self, samples: Sequence[int], size: Size) -> Tensor:
        """Read images, downscale and encode them: latents (B, C, *size) in float32."""
        with self._lock:
            return self._encoder.encode(self._kept(samples), [size])[size].float()

    def cond(self, samples: Sequence[int]) -> dict[str, Tensor]:
        """Encode the captions of samples."""
        with self._lock:
            self._kept(samples)  # which finds out whose place another takes
            return self._encoder.text([self._samples[self._instead.get(place, place)][1].text for place in samples])

    def _bucket(self, sample: Sample, schedules: Sequence[ScaleSchedule]) -> int | None:
        """Return the bucket of a sample; None for a bad one."""
        if len(schedules) == 1:
            return 0
        try:
            return nearest(schedules, *sample.shape())
        except ValueError as error:
            self._skipped.add(sample.name, error)
            return None

    def _kept(self, samples: Sequence[int]) -> Tensor:
        """Read samples, once for the sizes and the text that are asked for in turn."""
        if self._read[0] != tuple(samples):
            self._read = tuple(samples), self._load(samples)
        return self._read[1]

    def _load(self, samples: Sequence[int]) -> Tensor:
        return self._encoder.stack(list(ahead(samples, self._pixels_of, len(samples)))).to(self._encoder.device)

    def _pixels_of(self, place: int) -> Tensor:
        """Read a sample, or for a bad one the next good one of its bucket: in each process and after a stop alike."""
        bucket, group = next((bucket, group) for bucket, (_, group) in enumerate(self.buckets) if place in group)
        for step in range(len(group)):
            other = group[(place - group.start + step) % len(group)]
            sample, size = self._samples[other][1], self._pixels[bucket]
            try:
                pixels = to_pixels(sample.frames(num_frames(size)), size, sample.name)
            except ValueError as error:
                self._skipped.add(sample.name, error)
                continue
            self._instead[place] = other
            return pixels
        raise ValueError(f"expected a good sample, got {len(group)} bad ones, listed in {self._skipped.path}")
