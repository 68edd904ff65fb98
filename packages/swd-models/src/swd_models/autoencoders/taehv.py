"""Tiny autoencoders of videos (TAEHV, as TAEW2.1 and TAEW2.2 for Wan) from the files of their author."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isqrt

import torch
from diffusers.configuration_utils import FrozenDict
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTinyOutput
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

WIDTH, WIDTHS = 64, (256, 128, 64, 64)
"""Channels of the encoder, and of the decoder's levels, coarse to fine."""
MOST_CHANNELS, MOST_PATCH = 256, 8
"""Of latents, and pixels of a patch's side: a file that claims more is none of these."""


def _conv(inside: int, outside: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=bias)


class _Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class _Memory(nn.Module):
    """A block that sees the frame before, which is nothing at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(2 * width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width)
        )

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        found: Tensor = self.conv(torch.cat([x, before], 1)) + x
        return found.relu()


class _Pool(nn.Module):
    """Frames that follow each other become one."""

    def __init__(self, width: int, frames: int) -> None:
        super().__init__()
        self.frames, self.conv = frames, nn.Conv2d(width * frames, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.conv(x.reshape(-1, self.frames * x.shape[1], *x.shape[2:]))
        return found


class _Grow(nn.Module):
    """Each frame becomes several."""

    def __init__(self, width: int, frames: int) -> None:
        super().__init__()
        self.frames, self.conv = frames, nn.Conv2d(width, width * frames, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.conv(x)
        return found.reshape(-1, *x.shape[1:])


class TinyVideoAutoencoder(nn.Module):
    """Videos in [-1, 1] to the latents that Wan's denoiser sees, which are normalised, and back.

    A latent stands for four frames, the first one for one. It works through a video latent by latent, so that what it
    holds does not grow with the length.
    """

    def __init__(self, channels: int, patch: int = 1, pools: Sequence[int] = (2, 2, 1)) -> None:
        """Take the channels of latents, the side of a patch of pixels, and how many frames each level pools."""
        super().__init__()
        self.frames = 4
        self.config = FrozenDict(
            latent_channels=channels,
            z_dim=channels,
            patch_size=patch,
            scale_factor_temporal=self.frames,
            scale_factor_spatial=8 * patch,
            latents_mean=[0.0] * channels,
            latents_std=[1.0] * channels,
        )
        encoder: list[nn.Module] = [_conv(3 * patch**2, WIDTH), nn.ReLU()]
        for frames in pools:
            encoder += [_Pool(WIDTH, frames), _conv(WIDTH, WIDTH, stride=2, bias=False)]
            encoder += [_Memory(WIDTH) for _ in range(3)]
        self.encoder = nn.Sequential(*encoder, _conv(WIDTH, channels))
        decoder: list[nn.Module] = [_Clamp(), _conv(channels, WIDTHS[0]), nn.ReLU()]
        for width, narrower, frames in zip(WIDTHS[:-1], WIDTHS[1:], (1, 2, 2), strict=True):
            decoder += [_Memory(width) for _ in range(3)]
            decoder += [nn.Upsample(scale_factor=2), _Grow(width, frames), _conv(width, narrower, bias=False)]
        self.decoder = nn.Sequential(*decoder, nn.ReLU(), _conv(WIDTHS[-1], 3 * patch**2))

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of the weights."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Return where the weights are."""
        return next(self.parameters()).device

    @property
    def spatial_compression_ratio(self) -> int:
        """Return the pixels of a latent cell's side."""
        return int(self.config.scale_factor_spatial)

    @apply_forward_hook
    def encode(self, videos: Float[Tensor, "b 3 n y x"]) -> AutoencoderTinyOutput:
        """Encode videos; a last latent whose frames are not all there sees the last one repeated."""
        frames = pixel_unshuffle((videos.transpose(1, 2) + 1) / 2, self.config.patch_size)
        missing = -frames.shape[1] % self.frames
        frames = torch.cat([frames, frames[:, -1:].expand(-1, missing, -1, -1, -1)], 1)
        latents = torch.cat(list(_run(self.encoder, torch.split(frames, self.frames, 1))), 1)
        return AutoencoderTinyOutput(latents=latents.transpose(1, 2))

    @apply_forward_hook
    def decode(self, latents: Float[Tensor, "b c t h w"]) -> DecoderOutput:
        """Decode latents, one video at a time; the first latent's frames but the last come before the video."""
        return DecoderOutput(sample=torch.cat([self._decode(one) for one in torch.split(latents, 1)]))

    def _decode(self, latents: Float[Tensor, "1 c t h w"]) -> Float[Tensor, "1 3 n y x"]:
        chunks = _run(self.decoder, torch.split(latents.transpose(1, 2), 1, 1))
        pixels = [2 * pixel_shuffle(chunk, self.config.patch_size).clamp(0, 1) - 1 for chunk in chunks]
        pixels[0] = pixels[0][:, self.frames - 1 :]
        return torch.cat(pixels, 1).transpose(1, 2)

    def encode_images(self, images: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b c h w"]:
        """Encode images as videos of a frame."""
        latents: Tensor = self.encode(images.unsqueeze(2)).latents
        return latents.squeeze(2)


def _run(blocks: Iterable[nn.Module], chunks: Iterable[Tensor]) -> Iterator[Tensor]:
    """Run blocks over chunks of frames (B, T, C, H, W), one after the other; blocks remember the frame before."""
    memory: dict[nn.Module, Tensor] = {}
    for chunk in chunks:
        frames = chunk
        for block in blocks:
            batch, flat = len(frames), frames.flatten(0, 1)
            if isinstance(block, _Memory):
                last = memory.get(block, torch.zeros_like(frames[:, :1]))
                before = torch.cat([last, frames[:, :-1]], 1).flatten(0, 1)
                memory[block] = frames[:, -1:]
                frames = block(flat, before).unflatten(0, (batch, -1))
            else:
                frames = block(flat).unflatten(0, (batch, -1))
        yield frames


def taehv_of(state: Mapping[str, Tensor]) -> TinyVideoAutoencoder:
    """Build the autoencoder of the author's weights.

    Raises:
        RuntimeError, LookupError: weights of another architecture.
    """
    first, last = state["encoder.0.weight"], max(int(key.split(".")[1]) for key in state if key.startswith("encoder."))
    pools = [state[f"encoder.{2 + 5 * level}.conv.weight"].shape[1] // WIDTH for level in range(3)]
    channels, patch = len(state[f"encoder.{last}.weight"]), isqrt(first.shape[1] // 3)
    if channels > MOST_CHANNELS or patch > MOST_PATCH or max(pools) > 2:
        raise RuntimeError(f"{channels} channels, patches of {patch}, frames pooled by {pools}")
    vae = TinyVideoAutoencoder(channels, patch, pools)
    # The files may grow more frames than is used: the last ones are taken.
    grown = {f"decoder.{i}.conv.weight": b.conv.out_channels for i, b in enumerate(vae.decoder) if isinstance(b, _Grow)}
    vae.load_state_dict({key: value[-grown[key] :] if key in grown else value for key, value in state.items()})
    return vae
