"""PickScore (Kirstain et al., 2023) and CLIP score over transformers: 100 times the cosine of image and prompt.

The processor is PIL's by name: the default depends on whether torchvision is there, and its pixels differ by up to .03.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cosine_similarity

from swd_eval.measure import Measure, Prepare, Run, require
from swd_eval.weights import CLIP_H, CLIP_L, PICKSCORE, Weights

NUM_TOKENS = 77


def pickscore(weights: Path, device: str) -> Measure:
    """Return PickScore: table 3's numbers, of about 22."""
    return _measure("pickscore", PICKSCORE, CLIP_H, weights, device)


def clip_score(weights: Path, device: str) -> Measure:
    """Return CLIP score with OpenAI's ViT-L/14."""
    return _measure("clip-score", CLIP_L, CLIP_L, weights, device)


def _measure(name: str, model: Weights, processor: Weights, weights: Path, device: str) -> Measure:
    require("clip", "transformers")
    path, texts = model.find(weights), processor.find(weights)
    about = {
        "weights": model.note(path),
        "processor": processor.note(texts),
        "preprocessing": "CLIPImageProcessorPil",
        "dtype": "float32",
    }
    return Measure(name, about, lambda: load_clip(path, texts, device), 1, (name,))


def load_clip(model: Path, processor: Path, device: str) -> tuple[Prepare, Run]:
    """Load a CLIP of safetensors; its scores are 100 times the cosine."""
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    network = CLIPModel.from_pretrained(model, use_safetensors=True, local_files_only=True, dtype=torch.float32)
    network = network.to(device).eval()
    pixels = CLIPImageProcessorPil.from_pretrained(processor, local_files_only=True)
    tokens = CLIPTokenizer.from_pretrained(processor, local_files_only=True)

    def prepare(image: Image.Image) -> Tensor:
        prepared: Tensor = pixels(image, return_tensors="pt").pixel_values[0]
        return prepared

    @torch.inference_mode()
    def run(images: Sequence[Tensor], prompts: Sequence[str]) -> Tensor:
        options: dict[str, Any] = {"padding": True, "truncation": True, "max_length": NUM_TOKENS}
        text = tokens(list(prompts), return_tensors="pt", **options).to(device)
        outputs = network(**text, pixel_values=torch.stack(list(images)).to(device))
        return 100 * cosine_similarity(outputs.image_embeds, outputs.text_embeds)[:, None].cpu()

    return prepare, run
