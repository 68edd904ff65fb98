"""Look at a teacher in training: a grid of samples, and what the checker says of them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusion3Pipeline
from diffusers.utils import make_image_grid

PER_ROW = 16
BATCH = 64


@torch.no_grad()
def look_at(
    pipe: StableDiffusion3Pipeline,
    path: Path,
    *,
    captions: Sequence[str],
    check: Callable[[Any, str], Any],
    steps: int = 28,
    guidance: float = 3.0,
) -> dict[str, float]:
    """Write a grid of samples of captions, a multiple of 16; return the shares that are right."""
    pipe.set_progress_bar_config(disable=True)
    generator, images = torch.Generator().manual_seed(0), []
    for start in range(0, len(captions), BATCH):
        few = list(captions[start : start + BATCH])
        options = {"num_inference_steps": steps, "guidance_scale": guidance, "generator": generator}
        images += pipe(few, max_sequence_length=0, **options).images
    make_image_grid(images, rows=len(images) // PER_ROW, cols=PER_ROW).save(path)
    verdicts = [check(np.asarray(image, np.float32) / 255, text) for image, text in zip(images, captions, strict=True)]
    right = {name: float(np.mean([getattr(v, name) for v in verdicts])) for name in vars(verdicts[0])}
    return right | {"all_right": float(np.mean([v.all_right for v in verdicts]))}
