import statistics

import pytest
import torch

from swd_losses import dmd_gradient, dmd_loss, guided

SHAPES = [(3, 2), (2, 3, 2, 2), (2, 2, 2, 1, 3)]


def triple(shape: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return list(torch.randn(3, *shape, dtype=torch.float64, generator=generator))


def reference(x0, x0_real, x0_fake) -> list[list[float]]:
    rows = []
    for x, r, f in zip(*(t.flatten(1).tolist() for t in (x0, x0_real, x0_fake)), strict=True):
        scale = statistics.fmean(abs(a - b) for a, b in zip(x, r, strict=True))
        rows.append([(b - a) / scale for a, b in zip(r, f, strict=True)])
    return rows


@pytest.mark.parametrize("shape", SHAPES)
def test_gradient(shape):
    gradient = dmd_gradient(*triple(shape))
    torch.testing.assert_close(gradient.flatten(1), torch.tensor(reference(*triple(shape)), dtype=torch.float64))


@pytest.mark.parametrize("shape", SHAPES)
def test_loss_value_and_gradient(shape):
    x0, x0_real, x0_fake = (t.requires_grad_() for t in triple(shape))
    rows = reference(x0, x0_real, x0_fake)
    loss = dmd_loss(x0, x0_real, x0_fake)
    assert loss.item() == pytest.approx(statistics.fmean(g**2 for row in rows for g in row) / 2)
    loss.backward()
    expected = torch.tensor(rows, dtype=torch.float64).view(shape) / x0.numel()
    torch.testing.assert_close(x0.grad, expected)
    assert x0_real.grad is None
    assert x0_fake.grad is None


def test_each_sample_has_its_own_scale():
    x0, x0_real, x0_fake = triple((2, 3))
    wide = dmd_gradient(x0 * torch.tensor([[1.0], [10.0]]), x0_real, x0_fake)
    torch.testing.assert_close(wide[0], dmd_gradient(x0, x0_real, x0_fake)[0])


def test_no_gradient_where_the_scores_agree():
    x0, x0_real, _ = triple((2, 3))
    assert dmd_gradient(x0, x0_real, x0_real).count_nonzero() == 0
    # 0 / 0: the student already gives what the teacher predicts.
    assert dmd_gradient(x0_real, x0_real, x0_real).count_nonzero() == 0


def test_a_diverged_model_is_not_hidden():
    x0, x0_real, x0_fake = triple((2, 3))
    assert dmd_loss(x0, x0_real, x0_fake * float("nan")).isnan()


def test_guidance():
    cond, uncond, _ = triple((2, 3))
    torch.testing.assert_close(guided(cond, uncond, 0.0), uncond)
    torch.testing.assert_close(guided(cond, uncond, 1.0), cond)
    torch.testing.assert_close(guided(cond, uncond, 4.5), 4.5 * cond - 3.5 * uncond)
    inputs = (cond.requires_grad_(), uncond.requires_grad_())
    assert torch.autograd.gradcheck(lambda c, u: guided(c, u, 4.5), inputs)


def test_half_precision_computes_in_float32():
    half = [t.bfloat16() for t in triple((2, 3))]
    wide = [t.float() for t in half]
    for function in (dmd_gradient, dmd_loss):
        assert function(*half).dtype == torch.float32
        assert torch.equal(function(*half), function(*wide))
    assert guided(half[0], half[1], 7.0).dtype == torch.float32
