"""Write a trained teacher as a pipeline, with its prompts."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from diffusers import StableDiffusion3Pipeline

from benchmarks.teacher.scenes import Split
from swd_data import whole_folder

RandomScene = Callable[[np.random.Generator, Split], Any]
UNSEEN: tuple[Split, ...] = get_args(Split)[1:]


def distinct_captions(random_scene: RandomScene, num: int, splits: Sequence[Split], *, seed: int) -> list[str]:
    """Return captions of each split in turn."""
    rng = np.random.default_rng(seed)
    captions: dict[str, None] = {}
    while len(captions) < num:
        captions[random_scene(rng, splits[len(captions) % len(splits)]).caption] = None
    return list(captions)


def export(pipe: StableDiffusion3Pipeline, out: Path, random_scene: RandomScene, num: int, num_unseen: int) -> None:
    """Write the pipeline in half precision, `prompts.txt` of the training's kind, and `prompts_test.txt` of others."""
    # Halves the download. Text encoders stay float32: transformers loads the stored dtype, diffusers loads float32.
    pipe.transformer.half()
    pipe.vae.half()
    prompts = {
        "prompts.txt": distinct_captions(random_scene, num, ["train"], seed=1),
        "prompts_test.txt": distinct_captions(random_scene, num_unseen, UNSEEN, seed=2),
    }
    with whole_folder(out, "model_index.json") as temporary:
        pipe.save_pretrained(temporary)
        for name, captions in prompts.items():
            (temporary / name).write_text("\n".join(captions) + "\n")
    print(f"wrote {out}")
