"""Z-Image, outside the paper: denoiser, text, and the teacher's own sampler."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL, ZImagePipeline, ZImageTransformer2DModel
from jaxtyping import Complex, Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad

from swd_models.denoiser import Denoiser, check_block
from swd_models.families.family import Family
from swd_models.families.positions import rotations
from swd_models.known.facts import PATCH, ZIMAGE
from swd_models.parts import MASK, ImageLatents, Text, padded
from swd_models.prediction import Prediction

MULTIPLE = 32
"""Of which image and text have tokens: learned ones fill both up."""


class ZImageDenoiser(Denoiser):
    """Predict x0 with a `ZImageTransformer2DModel`.

    `cond` holds `prompt_embeds` (B, L, D) and, where lengths differ, `prompt_embeds_mask` (B, L), true where there is
    text, from the first token on. The image's positions lie behind those of its own text, so that captions of any
    lengths may be in one batch. Blocks count as they run: two refine the image, two the text, then come those of both,
    which have the features.
    """

    family = "zimage"
    takes_float16 = False
    lora_targets = (
        r"(layers|noise_refiner|context_refiner)\.\d+"
        r"\.(attention\.to_[qkv]|attention\.to_out\.0|feed_forward\.w[123])"
    )

    def __init__(self, backbone: ZImageTransformer2DModel) -> None:
        config = backbone.config
        super().__init__(
            backbone,
            blocks=ZIMAGE.blocks(config),
            num_channels=config.in_channels,
            num_features=config.dim,
        )

    @property
    def layers(self) -> Sequence[nn.Module]:
        """Return the blocks in the order in which they run."""
        model = self.backbone
        return *model.noise_refiner, *model.context_refiner, *model.layers

    @property
    def cond_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of one prompt's embeddings, without the batch."""
        return {
            "prompt_embeds": (self.num_tokens, self.config["cap_feat_dim"]),
            "prompt_embeds_mask": (self.num_tokens,),
        }

    def forward(
        self,
        x_t: Float[Tensor, "b c h w"],
        sigma: Float[Tensor, " b"],
        cond: Mapping[str, Tensor],
        *,
        block: int | None = None,
        stop: bool = False,
    ) -> Prediction:
        """Run the transformer as diffusers does, block by block: image and text alone, then as one sequence."""
        ZIMAGE.check_size(self.config, x_t.shape[-2:])
        check_block(block, self.blocks)
        model, key, last = self.backbone, f"{PATCH}-1", self.last_block(block, stop)
        embed = model.all_x_embedder[key]
        dtype = embed.weight.dtype
        time = model.t_embedder((1 - sigma) * model.t_scale).to(dtype)

        tokens = to_tokens(x_t)
        length = tokens.shape[1]
        fill = model.x_pad_token.expand(len(x_t), -length % MULTIPLE, -1)
        image = torch.cat([embed(tokens.to(dtype)), fill], dim=1)

        full, mask = cond["prompt_embeds"].shape[1], cond.get(MASK)
        lengths = mask.bool().sum(1) if mask is not None else torch.full((len(x_t),), full, device=x_t.device)
        room = -full % MULTIPLE
        text = model.cap_embedder(pad(cond["prompt_embeds"], (0, 0, 0, room)).to(dtype))
        along = torch.arange(text.shape[1], device=x_t.device)
        text = torch.where(along[:, None] < lengths[:, None, None], text, model.cap_pad_token)
        # Up to there learned tokens fill up; nothing sees what is behind them.
        ends = -(-lengths // MULTIPLE) * MULTIPLE
        seen = None if mask is None else along < ends[:, None]
        of_image, of_text = self._positions(ends, x_t.shape[-2:], image.shape[1], text.shape[1])

        for index, layer in enumerate(model.noise_refiner):
            image = self.run(layer, image, None, of_image, time, index=index, last=last)
        for index, layer in enumerate(model.context_refiner, start=len(model.noise_refiner)):
            text = self.run(layer, text, seen, of_text, index=index, last=last)
        both, positions = torch.cat([image, text], dim=1), torch.cat([of_image, of_text], dim=1)
        seen, features = None if seen is None else pad(seen, (image.shape[1], 0), value=True), None
        for index, layer in enumerate(model.layers, start=self.blocks.start):
            both = self.run(layer, both, seen, positions, time, index=index, last=last)
            if index == block:
                features = both[:, :length]
                if stop:
                    return Prediction(None, features)
        velocity = -to_latents(model.all_final_layer[key](both[:, :length], c=time), x_t.shape[-2:])
        return Prediction(self.process.to_x0(x_t, velocity.to(x_t.dtype), sigma), features)

    def _positions(
        self, ends: Int[Tensor, " b"], size: Sequence[int], num_image: int, num_text: int
    ) -> tuple[Complex[Tensor, "b n d"], Complex[Tensor, "b l d"]]:
        """Return those of image tokens (end of text + 1, row, column), 0 where filled up, and of text (1.., 0, 0)."""
        batch, (rows, columns) = len(ends), (side // PATCH for side in size)
        image = torch.zeros(batch, num_image, 3, device=ends.device)
        grid = image[:, : rows * columns].view(batch, rows, columns, 3)
        grid[..., 0] = ends.view(-1, 1, 1) + 1
        grid[..., 1] = torch.arange(rows, device=ends.device)[:, None]
        grid[..., 2] = torch.arange(columns, device=ends.device)
        text = torch.zeros(batch, num_text, 3, device=ends.device)
        text[..., 0] = torch.arange(1, num_text + 1, device=ends.device)
        dims, theta = self.config["axes_dims"], float(self.config["rope_theta"])
        both = rotations(torch.cat([image, text], dim=1).flatten(0, 1), dims, theta)
        both = both.view(batch, num_image + num_text, -1)
        return both[:, :num_image], both[:, num_image:]


def to_tokens(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
    """Turn 2x2 cells into one token, row by row: channels last, unlike FLUX's."""
    batch, channels, height, width = x.shape
    cells = x.reshape(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return cells.permute(0, 2, 4, 3, 5, 1).reshape(batch, height * width // PATCH**2, channels * PATCH**2)


def to_latents(tokens: Float[Tensor, "b n d"], size: Sequence[int]) -> Float[Tensor, "b c h w"]:
    """Undo `to_tokens`."""
    cells = tokens.reshape(len(tokens), size[-2] // PATCH, size[-1] // PATCH, PATCH, PATCH, -1)
    return cells.permute(0, 5, 1, 3, 2, 4).reshape(len(tokens), -1, *size)


class ZImageText(Text):
    """The last layer but one of Qwen3, padded with zeros; a mask tells how many tokens there are."""

    tokenizer = "tokenizer"
    any_length = True

    def guiding(self, num_prompts: int, guidance: float) -> dict[str, Any]:
        """Return what the pipeline must be told, which adds guidance (cond - uncond) to cond: one less."""
        return {"guidance_scale": max(guidance - 1, 0.0)}

    def encode(self, prompts: list[str]) -> dict[str, Tensor]:
        """Call `encode_prompt` as the pipeline does."""
        embeds, _ = self.pipe.encode_prompt(
            list(prompts), self.device, do_classifier_free_guidance=False, **self.options
        )
        return padded(embeds, self.options["max_sequence_length"])


FAMILY = Family(
    pipeline=ZImagePipeline,
    backbone=ZImageTransformer2DModel,
    denoiser=ZImageDenoiser,
    vae=AutoencoderKL,
    latents=ImageLatents,
    text=ZImageText,
    facts=ZIMAGE,
)
