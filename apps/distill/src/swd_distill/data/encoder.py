"""The frozen parts that make of images and captions what training reads."""

from collections.abc import Iterable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from swd_distill.config import Config
from swd_distill.data.samples import Size
from swd_distill.devices import device_and_dtype
from swd_models.loading import load_latents, load_text
from swd_models.parts import Latents, Text
from swd_schedules import downscale
from swd_schedules.devices import has_pinned_memory


class Encoder:
    """A model's autoencoder and text encoders on the device, each loaded when it is first needed."""

    def __init__(self, config: Config) -> None:
        self.model, self.text_tokens = config.model, config.data.text_tokens
        self.device, self.dtype = device_and_dtype()

    @cached_property
    def latents(self) -> Latents:
        """Load the autoencoder, in float32: encoding is done once, and bfloat16 would cost half a percent."""
        latents = load_latents(self.model, dtype=torch.float32)
        latents.vae.to(self.device)
        return latents

    @cached_property
    def text(self) -> Text:
        """Load the text encoders."""
        return load_text(self.model, self.text_tokens, dtype=self.dtype).to(self.device)

    def stack(self, pixels: Sequence[Tensor]) -> Tensor:
        """Stack samples, in memory from which a device copies while it computes."""
        batch = torch.stack(list(pixels))
        return batch.pin_memory() if has_pinned_memory(self.device) else batch

    @torch.no_grad()
    def encode(self, pixels: Tensor, sizes: Iterable[Size]) -> dict[Size, Tensor]:
        """Move pixels (B, 3, ...) in 0..255 to the device, downscale them to every size, then encode (section 4.1)."""
        values = pixels.to(self.device, non_blocking=True).float().contiguous() / 127.5 - 1
        return {size: self.latents.encode(downscale(values, self.latents.pixels(size))) for size in sizes}
