"""Qwen2-VL as reward models of transformers 4.45 used it: no language head, one position a token, image or not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

CHAT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>{vision}"
    "<|vision_end|>{text}<|im_end|>\n<|im_start|>assistant\n"
)


def load_trunk(state: Mapping[str, Tensor], config: Any, dtype: torch.dtype) -> nn.Module:
    """Return the model without its language head, from weights under the names of transformers 4.45.

    Raises:
        ValueError: weights are missing or of another size.
    """
    from transformers import Qwen2VLModel

    renamed = rename(state)
    if (words := renamed.get("language_model.embed_tokens.weight")) is not None:
        # As many words as its tokenizer has, which are fewer than in Qwen2-VL's own weights.
        config.text_config.vocab_size = words.shape[0]
    model, found = Qwen2VLModel.from_pretrained(
        None, config=config, state_dict=renamed, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True
    )
    wrong = sorted([*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])])
    if wrong:
        raise ValueError(f"expected weights that fit Qwen2-VL's configuration, got {len(wrong)} not so: {wrong[0]} ...")
    # Also the frequencies of its positions, as the released code rounds them.
    trunk: nn.Module = model.to(dtype)
    return trunk


def hidden_states(trunk: nn.Module, tokens: Tensor, mask: Tensor, **vision: Tensor) -> Tensor:
    """Return the last hidden states (B, L, C) of tokens (B, L); vision: pixels and grids under transformers' names."""
    # Without `get_rope_index`: so transformers 4.45 ran these models, whose code passes no positions.
    positions = torch.arange(tokens.shape[1], device=tokens.device).expand(3, *tokens.shape)
    states: Tensor = trunk(input_ids=tokens, attention_mask=mask, position_ids=positions, **vision).last_hidden_state
    return states


def load_tokenizer(folder: Path, rewards: list[str]) -> tuple[Any, list[int]]:
    """Return the tokenizer of a folder with the tokens at which rewards are read, and their numbers."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side="right")
    tokenizer.add_special_tokens({"additional_special_tokens": rewards})
    return tokenizer, tokenizer.convert_tokens_to_ids(rewards)


def chat(text: str, pad: str, num_tokens: int) -> str:
    """Return the conversation: an image or a video of so many tokens, then the text."""
    return CHAT.format(vision=pad * num_tokens, text=text)


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the trunk's weights under transformers 5's names, without the language head."""
    trunk = {name: value for name, value in state.items() if name.startswith(("model.", "visual."))}
    return {name.replace("model.", "language_model.", 1) if name[0] == "m" else name: trunk[name] for name in trunk}
