"""Tiny autoencoders of images (TAESD and its kin): diffusers' class, with blocks that it lacks."""

from collections.abc import Mapping

from diffusers import AutoencoderTiny
from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock
from jaxtyping import Float
from torch import Tensor, nn

_GROUPS = 4
BYTES_A_PIXEL = 1024.0
"""The most that decoding holds in float32: four times 64 channels."""


class PooledBlock(AutoencoderTinyBlock):
    """A block with a norm over the whole image beside it, as TAEF2 has around its middle."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__(channels, channels, "relu")
        self.pool = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.GroupNorm(_GROUPS, hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1, bias=False),
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Add the norm, then run the block."""
        out: Tensor = super().forward(x + self.pool(x))
        return out


def taesd_of(state: Mapping[str, Tensor]) -> AutoencoderTiny:
    """Build the autoencoder of weights under diffusers' names.

    Raises:
        RuntimeError, LookupError, AttributeError: weights of another architecture.
    """
    vae = AutoencoderTiny(latent_channels=state["decoder.layers.0.weight"].shape[1])
    for key, weight in state.items():
        name, found, _ = key.partition(".pool.0.weight")
        if found:
            part, _, index = name.rpartition(".")
            vae.get_submodule(part)[int(index)] = PooledBlock(weight.shape[1], weight.shape[0])
    vae.load_state_dict(state)
    return vae
