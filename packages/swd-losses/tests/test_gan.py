import math
import statistics

import pytest
import torch
from torch import nn

from swd_losses import DiscriminatorHead, discriminator_loss, generator_loss, gradient_penalty


def features(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(2, 3, 9, dtype=dtype, generator=torch.Generator().manual_seed(0))


def head_of(pool: str) -> DiscriminatorHead:
    torch.manual_seed(0)
    head = DiscriminatorHead(9, pool=pool).double()
    with torch.no_grad():
        for weight in head.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return head


def mlp(head: DiscriminatorHead, token: list[float]) -> float:
    """Run the four groups of layers on one token in plain Python."""
    weights = {name: w.tolist() for name, w in head.layers.named_parameters()}
    for group in range(4):
        mean = statistics.fmean(token)
        std = math.sqrt(statistics.fmean((v - mean) ** 2 for v in token) + 1e-5)
        scale, shift = weights[f"{3 * group}.weight"], weights[f"{3 * group}.bias"]
        token = [(v - mean) / std * a + b for v, a, b in zip(token, scale, shift, strict=True)]
        token = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in token]
        matrix, bias = weights[f"{3 * group + 2}.weight"], weights[f"{3 * group + 2}.bias"]
        token = [sum(a * v for a, v in zip(row, token, strict=True)) + b for row, b in zip(matrix, bias, strict=True)]
    (logit,) = token
    return logit


@pytest.mark.parametrize("pool", ["tokens", "logits"])
def test_head(pool):
    head = head_of(pool)
    for logit, image in zip(head(features()).tolist(), features().tolist(), strict=True):
        if pool == "tokens":
            expected = mlp(head, [statistics.fmean(channel) for channel in zip(*image, strict=True)])
        else:
            expected = statistics.fmean(mlp(head, token) for token in image)
        assert logit == pytest.approx(expected, rel=1e-9)


def test_widths_fall_evenly_to_one():
    linear = [layer for layer in DiscriminatorHead(1536).layers if isinstance(layer, nn.Linear)]
    assert [layer.in_features for layer in linear] == [1536, 1152, 768, 384]
    assert linear[-1].out_features == 1


@pytest.mark.parametrize("pool", ["tokens", "logits"])
def test_head_gradients_and_order_of_tokens(pool):
    head = head_of(pool)
    assert torch.autograd.gradcheck(head, (features().requires_grad_(),))
    torch.testing.assert_close(head(features()), head(features().flip(1)))


def test_losses():
    real, fake = torch.tensor([0.3, -2.0, 1.0]).double(), torch.tensor([1.5, -0.2]).double()
    softplus = [math.log1p(math.exp(v)) for v in fake.tolist()]
    expected = statistics.fmean(softplus) + statistics.fmean(math.log1p(math.exp(-v)) for v in real.tolist())
    assert discriminator_loss(real, fake).item() == pytest.approx(expected)
    expected = statistics.fmean(math.log1p(math.exp(-v)) for v in fake.tolist())
    assert generator_loss(fake).item() == pytest.approx(expected)
    assert torch.autograd.gradcheck(discriminator_loss, (real.requires_grad_(), fake.requires_grad_()))
    assert torch.autograd.gradcheck(generator_loss, (fake,))


def test_gradient_penalty_of_a_linear_head_is_half_its_squared_norm():
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
    real = torch.randn(4, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    # The mean over 2 tokens: each token sees half the weight, the image 2 x (1/4) |w|^2.
    penalty = gradient_penalty(lambda f: (f @ weight).mean(1), real)
    assert penalty.item() == pytest.approx((1 + 4 + 0.25) / 2 / 2)
    (gradient,) = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(gradient, weight.detach() / 2)


def test_gradient_penalty_of_the_head():
    head, real, step = head_of("logits"), features(), 1e-5
    total = 0.0
    for index in range(real.numel()):
        nudge = torch.zeros(real.numel(), dtype=real.dtype)
        nudge[index] = step
        nudge = nudge.view_as(real)
        total += ((head(real + nudge) - head(real - nudge)).sum().item() / (2 * step)) ** 2
    with torch.no_grad():
        penalty = gradient_penalty(head, real)
    assert penalty.item() == pytest.approx(total / len(real) / 2, rel=1e-6)


def test_gradient_penalty_trains_the_head_alone():
    head, real = head_of("tokens"), features().requires_grad_()
    gradient_penalty(head, real).backward()
    assert real.grad is None
    assert head.layers[2].weight.grad.count_nonzero() > 0


def test_half_precision_computes_in_float32():
    head = DiscriminatorHead(9)
    half = features(torch.float32).bfloat16()
    assert torch.equal(head(half), head(half.float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head(half.float()), head(half))
    logits = head(half).detach().bfloat16()
    assert discriminator_loss(logits, logits).dtype == torch.float32
    assert generator_loss(logits) == generator_loss(logits.float())


def test_refusals(refuses):
    with refuses("expected at least 5 channels, got 4"):
        DiscriminatorHead(4)
    with refuses('expected pool "tokens" or "logits", got \'max\''):
        DiscriminatorHead(8, pool="max")
