"""Where the large teacher is; before it is trained, one with random weights, which takes as long."""

from pathlib import Path

import torch

from benchmarks.large_teacher.scenes import random_scene
from benchmarks.teacher.export import distinct_captions, export
from benchmarks.teacher.parts import Architecture, build_modules, build_pipeline, build_tokenizer, build_vae

LARGE = Architecture(latent_size=32, channels=8, num_tokens=20, text_width=128, text_layers=3, width=256, layers=8)
"""18.6 M parameters, 1.4 M of text encoders."""
TRAINED, UNTRAINED = Path("runs/large-teacher/pipeline"), Path("runs/large-teacher/untrained")


def pipeline() -> tuple[Path, bool]:
    """Return the folder of the trained pipeline, or write one with random weights; and whether it is trained."""
    if TRAINED.is_dir():
        return TRAINED, True
    if not UNTRAINED.is_dir():
        torch.manual_seed(0)
        tokenizer = build_tokenizer(distinct_captions(random_scene, 300, ["train"], seed=0), LARGE)
        modules, vae = build_modules(tokenizer, LARGE), build_vae(LARGE)
        vae.register_to_config(scaling_factor=1.0, shift_factor=0.0)
        export(build_pipeline(vae, tokenizer, modules), UNTRAINED, random_scene, 20, 20)
    return UNTRAINED, False
