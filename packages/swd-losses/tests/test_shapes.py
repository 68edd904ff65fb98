"""Tensors of unlike shapes are refused: broadcasting would pair every sample with the same one."""

import pytest
import torch

from swd_losses import denoising_loss, dmd_gradient, dmd_loss, guided

FOUR, ONE, SIGMA = torch.ones(4, 2, 3), torch.ones(1, 2, 3), torch.full((4,), 0.5)


@pytest.mark.parametrize(
    ("call", "found"),
    [
        (lambda: dmd_loss(FOUR, ONE, FOUR), "x0 (4, 2, 3), x0_real (1, 2, 3), x0_fake (4, 2, 3)"),
        (lambda: dmd_gradient(FOUR, FOUR, ONE), "x0 (4, 2, 3), x0_real (4, 2, 3), x0_fake (1, 2, 3)"),
        (lambda: guided(FOUR, ONE, 2.0), "cond (4, 2, 3), uncond (1, 2, 3)"),
        (lambda: denoising_loss(ONE, FOUR, SIGMA), "x0_pred (1, 2, 3), x0 (4, 2, 3)"),
    ],
)
def test_unlike_shapes_are_one_line(refuses, call, found):
    with refuses(f"expected tensors of one shape, got {found}"):
        call()
