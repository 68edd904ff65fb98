"""Text encoders of full size with random weights: the configs of the models' own, written out."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

NUM_CLIP_TOKENS = 77
_CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
_XXL = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
_GATED = {"feed_forward_proj": "gated-gelu"}

# The CLIPs of a family, and its T5.
_ENCODERS: Mapping[str, tuple[list[dict[str, Any]], str | None]] = {
    "sd3": ([_CLIP_L, _CLIP_G], "t5"),
    "flux": ([_CLIP_L], "t5"),
    "wan": ([], "umt5"),
    "sdxl": ([_CLIP_L, _CLIP_G], None),
}


class RandomText(nn.Module):
    """A family's text encoders: a batch of random tokens to its `cond`; build it on the meta device."""

    def __init__(self, family: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        clips, t5 = _ENCODERS[family]
        self.clips = nn.ModuleList(_clip(config) for config in clips)
        self.t5 = _t5(t5) if t5 else None
        self.num_tokens, self.width = shapes["prompt_embeds"]
        self.pooled = shapes.get("pooled_prompt_embeds", (0,))[0]
        self.clip_is_read = family in {"sd3", "sdxl"}  # by token; FLUX reads the pooled embedding alone

    def forward(self, count: int) -> dict[str, Tensor]:
        """Encode `count` random prompts of full length."""
        found, tokens = {}, []
        if self.clips:
            ids = self._ids(count, NUM_CLIP_TOKENS)
            outputs = [clip(ids, output_hidden_states=True) for clip in self.clips]
            # SDXL's pooled embedding is that of its second CLIP.
            found["pooled_prompt_embeds"] = torch.cat([out.text_embeds for out in outputs], 1)[:, -self.pooled :]
            if self.clip_is_read:
                states = torch.cat([out.hidden_states[-2] for out in outputs], 2)
                tokens.append(pad(states, (0, self.width - states.shape[2])))
        if self.t5 is not None:
            length = self.num_tokens - sum(part.shape[1] for part in tokens)
            tokens.append(self.t5(self._ids(count, length)).last_hidden_state)
        return found | {"prompt_embeds": torch.cat(tokens, 1)}

    def _ids(self, count: int, length: int) -> Tensor:
        return torch.randint(3, 30_000, (count, length), device=next(self.parameters()).device)


def _clip(config: dict[str, Any]) -> Any:
    return CLIPTextModelWithProjection(CLIPTextConfig(**config, projection_dim=config["hidden_size"]))


def _t5(kind: str) -> Any:
    if kind == "umt5":
        return UMT5EncoderModel(UMT5Config(**_XXL, **_GATED, vocab_size=256_384))
    return T5EncoderModel(T5Config(**_XXL, **_GATED, vocab_size=32_128))
