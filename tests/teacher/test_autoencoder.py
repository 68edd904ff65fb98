import numpy as np
import torch

from benchmarks.teacher.checker import check
from benchmarks.teacher.measure import draw_unseen
from swd_models import load_latents


@torch.no_grad()
def test_unseen_scenes_survive_the_autoencoder_of_the_embedded_teacher():
    scenes, images = draw_unseen(48, seed=7)
    latents = load_latents("embedded")
    z = latents.encode(2 * images - 1)
    back = (latents.decode(z) + 1) / 2
    psnr = -10 * (back - images).square().mean((1, 2, 3)).log10()
    right = [
        check(image, scene.caption).all_right
        for image, scene in zip(back.permute(0, 2, 3, 1).numpy(), scenes, strict=True)
    ]
    assert float(psnr.mean()) >= 28
    assert np.mean(right) >= 0.95  # 97 % of many: benchmarks/results/teacher.md
    assert 0.9 < float(z.std()) < 1.1
    assert abs(float(z.mean())) < 0.1
