import statistics

import pytest
import torch

from swd_losses import denoising_loss


def inputs(*shape: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0_pred, x0 = torch.randn(2, *shape, dtype=torch.float64, generator=generator)
    return x0_pred, x0, torch.linspace(0.2, 1.0, shape[0], dtype=torch.float64)


@pytest.mark.parametrize("shape", [(3, 2), (3, 2, 4, 4), (2, 2, 3, 2, 2)])
@pytest.mark.parametrize("weighting", ["x0", "velocity"])
def test_value(shape, weighting):
    x0_pred, x0, sigma = inputs(*shape)
    terms = [
        (a - b) ** 2 / (s**2 if weighting == "velocity" else 1)
        for p, x, s in zip(x0_pred.flatten(1).tolist(), x0.flatten(1).tolist(), sigma.tolist(), strict=True)
        for a, b in zip(p, x, strict=True)
    ]
    loss = denoising_loss(x0_pred, x0, sigma, weighting=weighting)
    assert loss.item() == pytest.approx(statistics.fmean(terms), rel=1e-12)


def test_velocity_weighting_is_the_flow_matching_loss():
    x0_pred, x0, sigma = inputs(3, 2, 4)
    noise = torch.randn(x0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    s = sigma[:, None, None]
    x_t = (1 - s) * x0 + s * noise
    expected = ((x_t - x0_pred) / s - (noise - x0)).square().mean()
    torch.testing.assert_close(denoising_loss(x0_pred, x0, sigma, weighting="velocity"), expected)


@pytest.mark.parametrize("weighting", ["x0", "velocity"])
def test_gradients(weighting):
    x0_pred, x0, sigma = inputs(2, 2, 2)
    assert torch.autograd.gradcheck(
        lambda p, x: denoising_loss(p, x, sigma, weighting=weighting), (x0_pred.requires_grad_(), x0.requires_grad_())
    )


def test_half_precision_computes_in_float32():
    x0_pred, x0, sigma = (t.bfloat16() for t in inputs(3, 2, 4))
    loss = denoising_loss(x0_pred, x0, sigma, weighting="velocity")
    assert loss.dtype == torch.float32
    assert loss == denoising_loss(x0_pred.float(), x0.float(), sigma.float(), weighting="velocity")


def test_refusals(refuses):
    x0_pred, x0, sigma = inputs(2, 3)
    assert denoising_loss(x0_pred, x0, 0 * sigma).isfinite()
    with refuses("expected sigma > 0, got 0.0"):
        denoising_loss(x0_pred, x0, 0 * sigma, weighting="velocity")
    with refuses('expected weighting "x0" or "velocity", got \'snr\''):
        denoising_loss(x0_pred, x0, sigma, weighting="snr")
    for shaped in (sigma[:, None], sigma[:1]):  # would be averaged over one another
        with refuses("expected a level for each of 2 samples, as (B,), got shape"):
            denoising_loss(x0_pred, x0, shaped, weighting="velocity")
