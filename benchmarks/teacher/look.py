"""Look at a teacher in training: a grid of samples, and what the checker says of them."""

from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusion3Pipeline
from diffusers.utils import make_image_grid

from benchmarks.teacher.checker import check
from benchmarks.teacher.scenes import PIXELS, random_scene

NUM_PROMPTS = 64


@torch.no_grad()
def look_at(pipe: StableDiffusion3Pipeline, path: Path, *, steps: int = 28, guidance: float = 3.0) -> dict[str, float]:
    """Write a grid of samples of unseen prompts, half held-out combinations; return the shares that are right."""
    rng = np.random.default_rng(77)
    captions = [random_scene(rng, "combinations" if i % 2 else "captions").caption for i in range(NUM_PROMPTS)]
    pipe.set_progress_bar_config(disable=True)
    options = {"height": PIXELS, "width": PIXELS, "num_inference_steps": steps, "guidance_scale": guidance}
    generator = torch.Generator().manual_seed(0)
    images = pipe(captions, max_sequence_length=0, generator=generator, **options).images
    make_image_grid(images, rows=4, cols=NUM_PROMPTS // 4).save(path)
    verdicts = [check(np.asarray(image, np.float32) / 255, text) for image, text in zip(images, captions, strict=True)]
    right = {name: float(np.mean([getattr(v, name) for v in verdicts])) for name in vars(verdicts[0])}
    return right | {"all_right": float(np.mean([v.all_right for v in verdicts]))}
