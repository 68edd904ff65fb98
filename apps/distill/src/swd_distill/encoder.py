"""The frozen parts that make of images and captions what training reads."""

from collections.abc import Iterable
from functools import cached_property

import torch
from torch import Tensor

from swd_distill.devices import device_and_dtype
from swd_distill.samples import Size
from swd_models.loading import load_latents, load_text
from swd_models.parts import Latents, Text
from swd_schedules import downscale


class Encoder:
    """A model's autoencoder and text encoders on the device, each loaded when it is first needed."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.device, self.dtype = device_and_dtype()

    @cached_property
    def latents(self) -> Latents:
        """Load the autoencoder."""
        latents = load_latents(self.model, dtype=self.dtype)
        latents.vae.to(self.device)
        return latents

    @cached_property
    def text(self) -> Text:
        """Load the text encoders."""
        return load_text(self.model, dtype=self.dtype).to(self.device)

    @torch.no_grad()
    def encode(self, pixels: Tensor, sizes: Iterable[Size]) -> dict[Size, Tensor]:
        """Downscale pixels (B, 3, ...) to the pixels of every size, then encode them (section 4.1)."""
        return {size: self.latents.encode(downscale(pixels, self.latents.pixels(size))) for size in sizes}
