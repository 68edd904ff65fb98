"""CogVLM2-Video (Hong et al., 2024): EVA2-CLIP-E on each frame, a projector, and Llama 3 without visual experts.

After the code that lies beside the released weights. Its language half is transformers' Llama: in float32 the two are
equal, in bfloat16 their norms and rotations round at other places.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention, silu

ARCHITECTURE = "CogVLMVideoForCausalLM"
RENAMED = {
    "model.vision.": "vision.",
    "model.": "language.",
    ".patch_embedding.": ".",
    ".transformer.": ".",
    ".attention.": ".",
    ".mlp.fc": ".fc",
    ".language_mlp.": ".",
    "language_expert_dense": "o_proj",
}
QKV = "language_expert_query_key_value"
FREQUENCIES = "rotary_emb.inv_freq"


class CogVLMVideo(nn.Module):
    """Reads a video once, then what is asked of it."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Take the fields of the released `config.json`."""
        from transformers import LlamaModel

        super().__init__()
        self.bos = int(config["bos_token_id"])
        self.vision = Vision(config["vision_config"], config["hidden_size"], config["intermediate_size"])
        self.language = LlamaModel(_llama_config(config))
        self.language.rotary_emb = Rotary(config["hidden_size"] // config["num_attention_heads"])
        self.lm_head = nn.Linear(config["hidden_size"], config["vocab_size"], bias=False)

    def watch(self, pixels: Tensor, times: Sequence[Sequence[int]]) -> tuple[Any, int]:
        """Read frames (T, 3, H, W), each followed by the tokens of its time.

        Returns:
            The cache of keys and values, and the position of the next token.
        """
        from transformers import DynamicCache

        frames = self.vision(pixels)
        words = [self.language.embed_tokens(self._tokens(each)) for each in ([self.bos], *times)]
        parts, positions = [words[0]], [0]
        for frame, time in zip(frames, words[1:], strict=True):
            parts += [frame, time]
            positions += frame_positions(positions[-1] + 1, len(frame) - 2, len(time))
        cache = DynamicCache(config=self.language.config)
        self._read(cache, positions, inputs_embeds=torch.cat(parts)[None])
        return cache, positions[-1] + 1

    def ask(self, cache: Any, start: int, tokens: Sequence[int]) -> Tensor:
        """Return the logits (vocabulary,) of what follows some tokens, and leave the cache as it was."""
        hidden = self._read(cache, range(start, start + len(tokens)), input_ids=self._tokens(tokens)[None])
        cache.crop(-len(tokens))
        logits: Tensor = self.lm_head(hidden[0, -1]).float()
        return logits

    def _read(self, cache: Any, positions: Sequence[int], **inputs: Tensor) -> Tensor:
        # The mask says that all is one sequence: positions that stand still could be taken for several.
        mask = torch.ones(1, cache.get_seq_length() + len(positions), device=self.lm_head.weight.device)
        read = self.language(
            **inputs,
            attention_mask=mask,
            position_ids=self._tokens(positions)[None],
            past_key_values=cache,
            use_cache=True,
        )
        hidden: Tensor = read.last_hidden_state
        return hidden

    def _tokens(self, ids: Sequence[int]) -> Tensor:
        return torch.tensor(list(ids), device=self.lm_head.weight.device)


class Vision(nn.Module):
    """EVA2-CLIP-E, a convolution that joins 2 x 2 patches, a gated projector; `boi` and `eoi` around each frame."""

    def __init__(self, config: Mapping[str, Any], hidden: int, intermediate: int) -> None:
        super().__init__()
        width, patch = config["hidden_size"], config["patch_size"]
        self.proj = nn.Conv2d(config["in_channels"], width, patch, patch)
        self.cls_embedding = nn.Parameter(torch.zeros(1, width))
        self.position_embedding = nn.Embedding(config["num_positions"], width)
        self.layers = nn.ModuleList(VisionLayer(config) for _ in range(config["num_hidden_layers"]))
        self.conv = nn.Conv2d(width, width, 2, 2)
        self.linear_proj = Projector(width, hidden, intermediate)
        self.boi, self.eoi = (nn.Parameter(torch.zeros(1, 1, hidden)) for _ in range(2))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return embeddings (T, patches / 4 + 2, hidden) of frames (T, 3, H, W)."""
        patches = self.proj(pixels)
        x = torch.cat([self.cls_embedding.expand(len(pixels), 1, -1), patches.flatten(2).mT], dim=1)
        x = x + self.position_embedding.weight
        for layer in self.layers:
            x = layer(x)
        x = self.conv(x[:, 1:].mT.reshape(patches.shape)).flatten(2).mT
        begin, end = (each.expand(len(pixels), -1, -1) for each in (self.boi, self.eoi))
        return torch.cat([begin, self.linear_proj(x), end], dim=1)


class VisionLayer(nn.Module):
    """Attention and MLP, each with its norm behind it."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, inner, eps = config["hidden_size"], config["intermediate_size"], config["layer_norm_eps"]
        self.num_heads = config["num_heads"]
        self.query_key_value, self.dense = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.input_layernorm, self.post_attention_layernorm = (nn.LayerNorm(width, eps) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, L, width) to the same shape."""
        qkv = self.query_key_value(x).view(*x.shape[:2], 3, self.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = x + self.input_layernorm(self.dense(mixed))
        out: Tensor = x + self.post_attention_layernorm(self.fc2(gelu(self.fc1(x))))
        return out


class Projector(nn.Module):
    """From the vision tower's width to the language model's."""

    def __init__(self, width: int, hidden: int, intermediate: int) -> None:
        super().__init__()
        self.linear_proj = nn.Linear(width, hidden, bias=False)
        self.norm1 = nn.LayerNorm(hidden)
        self.gate_proj, self.dense_h_to_4h = (nn.Linear(hidden, intermediate, bias=False) for _ in range(2))
        self.dense_4h_to_h = nn.Linear(intermediate, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to (..., hidden)."""
        x = gelu(self.norm1(self.linear_proj(x)))
        out: Tensor = self.dense_4h_to_h(silu(self.gate_proj(x)) * self.dense_h_to_4h(x))
        return out


class Rotary(nn.Module):
    """Cosines and sines of positions, at the frequencies that the weights bring: those of 500000, rounded to bfloat16.

    Positions and products stay in float32: so transformers 4.42.4 loads the released code, which its authors ask for.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.inv_freq = nn.Buffer(torch.empty(dim // 2))

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return both (B, L, dim) in the dtype of x."""
        angles = position_ids[..., None].float() * self.inv_freq
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


def frame_positions(start: int, num_patches: int, num_words: int) -> list[int]:
    """Return the positions of a frame and of the tokens of its time: all patches between `boi` and `eoi` share one."""
    return [start, *[start + 1] * num_patches, *range(start + 2, start + 3 + num_words)]


def load_cogvlm(state: Mapping[str, Tensor], config: Mapping[str, Any], dtype: torch.dtype) -> CogVLMVideo:
    """Build the model of the released `config.json` from the released weights.

    Raises:
        ValueError: they are of another model.
    """
    if config.get("architectures") != [ARCHITECTURE]:
        raise ValueError(f"expected a configuration of {ARCHITECTURE}, got {config.get('architectures')}")
    with torch.device("meta"):
        model = CogVLMVideo(config)
    renamed = rename(state)
    got, wanted = _shapes(renamed), _shapes(model.state_dict())
    wrong = min((name for name in got.keys() | wanted.keys() if got.get(name) != wanted.get(name)), default=None)
    if wrong:
        shapes = [str(each.get(wrong, "nothing")) for each in (wanted, got)]
        raise ValueError(f"expected {shapes[0]} as {wrong} of {ARCHITECTURE}, got {shapes[1]}")
    dtypes = {name: torch.float32 if name.endswith(FREQUENCIES) else dtype for name in renamed}
    model.load_state_dict({name: value.to(dtypes[name]) for name, value in renamed.items()}, assign=True)
    return model.requires_grad_(False).eval()


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the released weights under the names of `CogVLMVideo`: queries, keys and values apart."""
    renamed = {}
    for name, value in state.items():
        for old, new in RENAMED.items():
            name = name.replace(old, new)
        if name.endswith(FREQUENCIES):
            renamed[f"language.{FREQUENCIES}"] = value  # every layer has the same
        elif QKV in name:
            width = value.shape[1]
            parts = torch.split(value, [width, *[(len(value) - width) // 2] * 2])
            renamed |= {name.replace(QKV, f"{part}_proj"): each for part, each in zip("qkv", parts, strict=True)}
        else:
            renamed[name] = value
    return renamed


def _llama_config(config: Mapping[str, Any]) -> Any:
    from transformers import LlamaConfig

    same = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act",
        "rms_norm_eps", "pad_token_id",
    )  # fmt: skip
    return LlamaConfig(**{name: config[name] for name in same}, num_key_value_heads=config["num_multi_query_heads"])


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}
