from dataclasses import replace

import pytest
import torch

from swd_losses import PAPER, RELEASED, huber_mmd, linear_mmd, moments_mmd, rbf_mmd

GRID = [3 * u / (1 + 2 * u) for u in torch.linspace(1, 0.002994, 28, dtype=torch.float64).tolist()]


def test_the_paper():
    assert (PAPER.mmd_features, PAPER.mmd_kernel, PAPER.mmd_pooling, PAPER.mmd_noised) == (
        "teacher",
        "linear",
        "image",
        True,
    )
    assert (PAPER.mmd_interval, PAPER.levels, PAPER.guidance) == ((0.0, 0.6), "uniform", 4.5)


def test_the_released_code():
    assert (RELEASED.mmd_features, RELEASED.mmd_kernel, RELEASED.rbf_bandwidth) == ("fake", "huber", 100.0)
    assert (RELEASED.levels, RELEASED.guidance, RELEASED.fake_updates) == ("grid", 7.0, 5)
    weights = (RELEASED.mmd_weight, RELEASED.dmd_weight, RELEASED.gan_weight, RELEASED.discriminator_weight)
    assert weights == (1.0, 1.0, 5e-3, 1e-2)
    assert (RELEASED.head_pool, RELEASED.denoising_weighting, RELEASED.gradient_penalty) == ("tokens", "x0", 0.0)


@pytest.mark.parametrize(("interval", "first"), [("mmd_interval", 18), ("dmd_interval", 12), ("fake_interval", 0)])
def test_released_intervals_hold_the_grid_points_of_the_authors(interval, first):
    low, high = getattr(RELEASED, interval)
    assert [i for i, sigma in enumerate(GRID) if low <= sigma <= high] == list(range(first, 28))


@pytest.mark.parametrize("recipe", [PAPER, RELEASED], ids=["paper", "released"])
@pytest.mark.parametrize("pooling", ["image", "batch"])
def test_kernels(recipe, pooling):
    fake, real = torch.randn(2, 2, 4, 3, generator=torch.Generator().manual_seed(0))
    expected = {"linear": linear_mmd, "huber": huber_mmd}[recipe.mmd_kernel](fake, real, pooling=pooling)
    assert replace(recipe, mmd_pooling=pooling).kernel()(fake, real) == expected
    rbf = replace(recipe, mmd_kernel="rbf", mmd_pooling=pooling, rbf_bandwidth=2.0)
    assert rbf.kernel()(fake, real) == rbf_mmd(fake, real, bandwidth=2.0, pooling=pooling)
    moments = replace(recipe, mmd_kernel="moments", mmd_pooling=pooling)
    for each in (recipe, rbf, moments):  # a sum of twice as many images is twice as large
        if pooling == "image":
            once, twice = (each.kernel()(fake.repeat(n, 1, 1), real.repeat(n, 1, 1)).item() for n in (1, 2))
            assert twice == pytest.approx((2 if each.mmd_sums else 1) * once)
    assert moments.kernel()(fake, real) == moments_mmd(fake, real, pooling=pooling)


def test_head():
    assert replace(PAPER, head_pool="logits").head(16).pool == "logits"
    assert RELEASED.head(16).layers[0].normalized_shape == (16,)
