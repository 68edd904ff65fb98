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
from swd_distill.data.sources import open_source


class Live(Cache):
    """The samples of a run in the order of its cache, encoded on the device.

    The loader's thread and the one that trains both ask: one at a time.
    """

    def __init__(self, config: Config) -> None:
        source = open_source(config)
        self._encoder, self._lock = Encoder(config.model), Lock()
        self._read: tuple[tuple[int, ...], Tensor] = (), torch.empty(0)
        schedules = schedules_of(config)
        self._pixels = [self._encoder.latents.pixels(schedule.sizes[-1]) for schedule in schedules]
        groups: list[list[Sample]] = [[] for _ in schedules]
        for sample in source.read(0, len(source)):
            groups[nearest(schedules, *sample.frames(1)[0].size) if len(groups) > 1 else 0].append(sample)
        self._samples = [(bucket, sample) for bucket, group in enumerate(groups) for sample in group]
        bounds = pairwise([0, *accumulate(map(len, groups))])
        self.buckets = [(bucket, range(*bound)) for bucket, bound in zip(buckets_of(config), bounds, strict=True)]
        self.captions = [sample.text for _, sample in self._samples[:NUM_CAPTIONS]]
        self.uncond = self._encoder.text.uncond()

    def latents(self, samples: Sequence[int], size: Size) -> Tensor:
        """Read images, downscale and encode them: latents (B, C, *size) in float32."""
        with self._lock:
            if self._read[0] != tuple(samples):  # a stage asks for the same samples in two sizes
                self._read = tuple(samples), self._load(samples)
            return self._encoder.encode(self._read[1], [size])[size].float()

    def cond(self, samples: Sequence[int]) -> dict[str, Tensor]:
        """Encode the captions of samples."""
        with self._lock:
            return self._encoder.text([self._samples[sample][1].text for sample in samples])

    def _load(self, samples: Sequence[int]) -> Tensor:
        def read(place: int) -> Tensor:
            bucket, sample = self._samples[place]
            size = self._pixels[bucket]
            return to_pixels(sample.frames(num_frames(size)), size, sample.name)

        return self._encoder.stack(list(ahead(samples, read, len(samples)))).to(self._encoder.device)
