"""HPSv3 (Ma et al., 2025) over transformers' Qwen2-VL: the released weights, with their keys renamed.

`assets/hpsv3.txt`, the question that the model was trained with, is from the package hpsv3 (MIT License, see the file
beside it).
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from swd_eval.measure import Measure, Prepare, Run, require
from swd_eval.scores.qwen import chat, hidden_states, load_tokenizer, load_trunk
from swd_eval.weights import HPSV3, QWEN, read_state

PIXELS = 256 * 28 * 28
REWARD, IMAGE = "<|Reward|>", "<|image_pad|>"


class HPSv3(nn.Module):
    """Qwen2-VL without its language head, and three linear layers over the hidden state of `<|Reward|>`."""

    def __init__(self, state: Mapping[str, Tensor], config: Any, dtype: torch.dtype) -> None:
        super().__init__()
        head = {name.removeprefix("rm_head."): value for name, value in state.items() if name.startswith("rm_head.")}
        if not head:
            raise ValueError("expected the weights of HPSv3, got others: give HPSv3.safetensors")
        self.trunk = load_trunk(state, config, dtype)
        widths = [head["0.weight"].shape[1], 1024, 16, 2]
        first, second, last = (nn.Linear(a, b) for a, b in pairwise(widths))
        self.head = nn.Sequential(first, nn.ReLU(), nn.Dropout(), second, nn.ReLU(), last)
        self.head.load_state_dict(head)

    def forward(self, tokens: Tensor, mask: Tensor, pixels: Tensor, grid: Tensor, reward_token: int) -> Tensor:
        """Return the mean of the reward (B, 1); the model's second output is its spread."""
        hidden = hidden_states(self.trunk, tokens, mask, pixel_values=pixels, image_grid_thw=grid)
        rewards: Tensor = self.head(hidden[tokens == reward_token].float())
        return rewards[:, :1]


def hpsv3(weights: Path, device: str) -> Measure:
    """Return HPSv3."""
    require("clip", "transformers")
    path, texts = HPSV3.find(weights), QWEN.find(weights)
    about = {
        "weights": HPSV3.note(path),
        "processor": QWEN.note(texts),
        "preprocessing": "Qwen2VLImageProcessorPil, 256 x 28 x 28 pixels",
        "dtype": "bfloat16 trunk, float32 head",
    }
    return Measure("hpsv3", about, lambda: load_hpsv3(path, texts, device), 1, ("hpsv3",))


def load_hpsv3(weights: Path, processor: Path, device: str, dtype: torch.dtype = torch.bfloat16) -> tuple[Prepare, Run]:
    """Load the released weights, and Qwen2-VL's configuration and tokenizer from a folder."""
    from transformers import Qwen2VLConfig, Qwen2VLImageProcessorPil

    config = Qwen2VLConfig.from_pretrained(processor, local_files_only=True)
    network = HPSv3(read_state(weights), config, dtype).to(device).eval()
    pictures = Qwen2VLImageProcessorPil(min_pixels=PIXELS, max_pixels=PIXELS)
    tokens, (reward,) = load_tokenizer(processor, [REWARD])

    def prepare(image: Image.Image) -> tuple[Tensor, Tensor]:
        prepared = pictures(image, return_tensors="pt")
        return prepared.pixel_values, prepared.image_grid_thw

    @torch.inference_mode()
    def run(images: Sequence[tuple[Tensor, Tensor]], prompts: Sequence[str]) -> Tensor:
        pixels, grids = (torch.cat(parts).to(device) for parts in zip(*images, strict=True))
        texts = [question(prompt, int(grid.prod()) // 4) for prompt, grid in zip(prompts, grids, strict=True)]
        text = tokens(texts, padding=True, return_tensors="pt").to(device)
        rewards: Tensor = network(text.input_ids, text.attention_mask, pixels.to(dtype), grids, reward)
        return rewards.cpu()

    return prepare, run


def question(prompt: str, num_tokens: int) -> str:
    """Return what the model is asked of an image that takes so many tokens."""
    return chat(_instruction().format(text_prompt=prompt), IMAGE, num_tokens)


@cache
def _instruction() -> str:
    return files("swd_eval").joinpath("assets/hpsv3.txt").read_text(encoding="utf-8")
