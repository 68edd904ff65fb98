import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.teacher.checker import check
from benchmarks.teacher.export import UNSEEN, distinct_captions
from benchmarks.teacher.look import look_at
from benchmarks.teacher.parts import build_modules, build_pipeline, build_tokenizer, build_vae
from benchmarks.teacher.scenes import random_scene


def test_a_look_at_an_untrained_teacher_gives_a_picture_and_finds_nothing_right(tmp_path):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    tokenizer = build_tokenizer(random_scene(rng).caption for _ in range(300))
    modules, vae = build_modules(tokenizer), build_vae()
    vae.register_to_config(shift_factor=0.0, scaling_factor=1.0)
    captions = distinct_captions(random_scene, 64, UNSEEN, seed=1)
    pipe = build_pipeline(vae, tokenizer, modules)
    found = look_at(pipe, tmp_path / "look.png", captions=captions, check=check, steps=1)
    assert found["all_right"] == pytest.approx(0.0)
    assert all(0 <= share <= 1 for share in found.values())
    assert Image.open(tmp_path / "look.png").size == (16 * 64, 4 * 64)
