"""Text encoders of full size with random weights: the configs of the models' own, written out."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
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

_QWEN25 = {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4}
_QWEN3 = {"num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
_QWEN3_4B = {"hidden_size": 2560, "intermediate_size": 9728}
_QWEN3_8B = {"hidden_size": 4096, "intermediate_size": 12288}
_MROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
_STATES = {"flux2": (9, 18, 27), "qwen": (-1,), "zimage": (-2,)}
TEMPLATE = 34
"""Tokens of Qwen-Image's template, which are run and dropped."""

# The CLIPs of a family, and its language model.
_ENCODERS: Mapping[str, tuple[list[dict[str, Any]], str | None]] = {
    "sd3": ([_CLIP_L, _CLIP_G], "t5"),
    "flux": ([_CLIP_L], "t5"),
    "wan": ([], "umt5"),
    "sdxl": ([_CLIP_L, _CLIP_G], None),
    "flux2": ([], "qwen3"),
    "qwen": ([], "qwen2.5"),
    "zimage": ([], "qwen3"),
}


class RandomText(nn.Module):
    """A family's text encoders: a batch of random tokens to its `cond`; build it on the meta device."""

    def __init__(self, family: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        clips, language = _ENCODERS[family]
        self.family, self.masked = family, "prompt_embeds_mask" in shapes
        self.num_tokens, self.width = shapes["prompt_embeds"]
        self.clips = nn.ModuleList(_clip(config) for config in clips)
        self.language = _language(language, family, self.width) if language else None
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
        if self.language is not None:
            tokens.append(self._read(count, self.num_tokens - sum(part.shape[1] for part in tokens)))
        if self.masked:
            device = tokens[0].device
            found["prompt_embeds_mask"] = torch.ones(count, self.num_tokens, dtype=torch.bool, device=device)
        return found | {"prompt_embeds": torch.cat(tokens, 1)}

    def _read(self, count: int, length: int) -> Tensor:
        """Return what the family takes of its language model's layers."""
        assert self.language is not None
        if self.family not in _STATES:
            return self.language(self._ids(count, length)).last_hidden_state  # type: ignore[no-any-return]
        dropped = TEMPLATE if self.family == "qwen" else 0
        ids = self._ids(count, length + dropped)
        states = self.language(ids, output_hidden_states=True, use_cache=False).hidden_states
        return torch.cat([states[i][:, dropped:] for i in _STATES[self.family]], 2)

    def _ids(self, count: int, length: int) -> Tensor:
        return torch.randint(3, 30_000, (count, length), device=next(self.parameters()).device)


def _clip(config: dict[str, Any]) -> Any:
    return CLIPTextModelWithProjection(CLIPTextConfig(**config, projection_dim=config["hidden_size"]))


def _language(kind: str, family: str, width: int) -> Any:
    if kind == "qwen2.5":  # with the tower for images that it brings, which runs for none
        text = {**_QWEN25, "num_hidden_layers": 28, "vocab_size": 152_064, "rope_parameters": _MROPE}
        vision = {"hidden_size": 1280, "out_hidden_size": _QWEN25["hidden_size"]}
        return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))
    if kind == "qwen3":
        small = width in (_QWEN3_4B["hidden_size"], 3 * _QWEN3_4B["hidden_size"])
        config = Qwen3Config(
            **(_QWEN3_4B if small else _QWEN3_8B), **_QWEN3, vocab_size=151_936, tie_word_embeddings=small
        )
        return Qwen3ForCausalLM(config) if family == "flux2" else Qwen3Model(config)
    if kind == "umt5":
        return UMT5EncoderModel(UMT5Config(**_XXL, **_GATED, vocab_size=256_384))
    return T5EncoderModel(T5Config(**_XXL, **_GATED, vocab_size=32_128))
