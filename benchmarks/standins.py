"""A device without arithmetic and networks without data, which take as long as an H100 and SD3.5 Medium would."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.photographs import PHOTOGRAPHS
from benchmarks.training.encoding import empty_vae
from swd_distill.data.encoder import Encoder
from swd_distill.presets import PRESETS
from swd_models.loading import empty_denoiser
from swd_models.parts import ImageLatents, Size

PRESET = PRESETS["sd35-medium"]
SIDE, BATCH = 1024, 8
RATE = 494e12 / 2
"""FLOP/s of the autoencoder: half of what an H100 can in TF32."""
FORWARD = 0.188
"""Seconds of the transformer for a batch at full scale, by FLOPs and bytes; guidance takes two."""


class Device:
    """What computes nothing, but as long as it should, one thing after the other while its caller goes on."""

    def __init__(self) -> None:
        self.waited = self.busy = self.free = 0.0
        self._began: float | None = None

    def compute(self, seconds: float) -> None:
        """Take work."""
        now = time.perf_counter()
        if self._began is None:
            self._began = self.free = now
        self.waited += max(0.0, now - self.free)
        self.free = max(now, self.free) + seconds
        self.busy += seconds

    def wait(self, until: float) -> None:
        """Let the caller sleep until work is done."""
        time.sleep(max(0.0, until - time.perf_counter()))

    def row(self, batches: int) -> dict[str, float]:
        """Return the share of waiting up to the last batch, and seconds: of a batch, and after the last."""
        each, now = self.busy / batches, time.perf_counter()
        return {
            "batches": batches,
            "busy": each,
            "waited": self.waited / (self.waited + self.busy - each),
            "after": now - self.free,
        }

    @contextmanager
    def holds_meta(self) -> Iterator[None]:
        """Let tensors without data be those of this device: a copy of one comes when it is computed."""
        cpu, to, device = Tensor.cpu, Tensor.to, self

        class Event:
            def __init__(self, _: torch.device) -> None:
                pass

            def record(self) -> None:
                self._time = device.free

            def synchronize(self) -> None:
                device.wait(self._time)

        def copy(tensor: Tensor) -> Tensor:
            if not tensor.is_meta:
                return cpu(tensor)
            device.wait(device.free)
            return torch.zeros(tensor.shape, dtype=tensor.dtype)

        def start_copy(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if not tensor.is_meta or args != ("cpu",):
                return to(tensor, *args, **kwargs)
            return torch.zeros(tensor.shape, dtype=tensor.dtype)

        with patch.multiple(Tensor, cpu=copy, to=start_copy), patch("torch.Event", Event):
            yield


class StandInLatents(ImageLatents):
    """An autoencoder without data, on a device that takes its time."""

    def __init__(self, device: Device) -> None:
        with torch.device("meta"):
            super().__init__(empty_vae(empty_denoiser(PRESET.model)))
        self._device = device
        self._flops = {size: self._count(size) for size in map(self.pixels, PRESET.scales.sizes)}

    def encode(self, pixels: Tensor) -> Tensor:
        """Take as long as the FLOPs of this size."""
        self._device.compute(len(pixels) * self._flops[tuple(pixels.shape[2:])] / RATE)
        shape = (len(pixels), self.vae.config.latent_channels, *(side // self.factor for side in pixels.shape[2:]))
        return torch.empty(shape, device="meta")

    def _count(self, size: Size) -> int:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self.vae.encode(torch.empty(1, 3, *size, device="meta"))
        return int(counter.get_total_flops())


class StandInEncoder(Encoder):
    """An encoder whose device computes without data."""

    def __init__(self, device: Device) -> None:
        self.device, self.dtype = torch.device("meta"), torch.bfloat16
        self.latents = StandInLatents(device)
        self.text: Any = StandInText()

    def stack(self, pixels: Sequence[Tensor]) -> Tensor:
        """Stack samples, in memory of any kind."""
        return torch.stack(list(pixels))


class StandInText:
    """Embeddings of no size to speak of."""

    def __call__(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Encode prompts."""
        return {"prompt_embeds": torch.zeros(len(prompts), 1, 1)}

    def uncond(self) -> dict[str, Tensor]:
        """Encode none."""
        return self([""])


class StandInPipeline:
    """A pipeline that samples photographs in [0, 1], on a device that takes its time."""

    def __init__(self, device: Device) -> None:
        self._device, self.components = device, dict[str, Any]()
        pixels = [torch.from_numpy(np.array(each)) for each in islice(cycle(photographs()), BATCH)]
        self._images = torch.stack(pixels).movedim(-1, 1).float() / 255

    def __call__(self, prompt: list[str], num_inference_steps: int, output_type: str, **_: Any) -> SimpleNamespace:
        """Sample."""
        self._device.compute(2 * FORWARD * num_inference_steps * len(prompt) / BATCH)
        self._device.wait(self._device.free)
        images, to = self._images[: len(prompt)], VaeImageProcessor
        return SimpleNamespace(images=images if output_type == "pt" else to.numpy_to_pil(to.pt_to_numpy(images)))

    def to(self, device: torch.device) -> None:
        """Stay."""

    def set_progress_bar_config(self, **_: Any) -> None:
        """Show none."""


def photographs() -> Iterator[Image.Image]:
    """Give photographs, each the middle enlarged to SIDE."""
    for load in PHOTOGRAPHS.values():
        image = Image.fromarray(load())
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        yield image.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
