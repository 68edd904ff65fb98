"""Look at a video teacher in training: a contact sheet of samples, and what the checker says of them."""

from pathlib import Path

import numpy as np
import torch
from diffusers import WanPipeline
from diffusers.utils import make_image_grid

from benchmarks.video_teacher.checker import check
from benchmarks.video_teacher.clips import NUM_FRAMES, PIXELS, unseen_captions

NUM_PROMPTS = 64


@torch.no_grad()
def look_at(pipe: WanPipeline, path: Path, *, steps: int = 28, guidance: float = 3.0) -> dict[str, float]:
    """Write every fourth frame of samples of unseen prompts; return the shares that are right."""
    captions = unseen_captions()[:NUM_PROMPTS]
    pipe.set_progress_bar_config(disable=True)
    options = {"height": PIXELS, "width": PIXELS, "num_frames": NUM_FRAMES, "output_type": "np"}
    videos = pipe(
        captions,
        num_inference_steps=steps,
        guidance_scale=guidance,
        max_sequence_length=pipe.tokenizer.model_max_length,
        generator=torch.Generator().manual_seed(0),
        **options,
    ).frames
    stills = [frame for video in videos[::4] for frame in pipe.video_processor.numpy_to_pil(video[::4])]
    make_image_grid(stills, rows=NUM_PROMPTS // 4, cols=len(videos[0][::4])).save(path)
    verdicts = [check(video, caption) for video, caption in zip(videos, captions, strict=True)]
    right = {name: float(np.mean([getattr(v, name) for v in verdicts])) for name in vars(verdicts[0])}
    return right | {"all_right": float(np.mean([v.all_right for v in verdicts]))}
