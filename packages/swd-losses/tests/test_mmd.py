import math
import random
import statistics

import pytest
import torch
from torch import Tensor

from swd_losses import huber_mmd, linear_mmd, moments_mmd, rbf_mmd

N, L, C = 3, 5, 4
ALL = [linear_mmd, huber_mmd, moments_mmd, rbf_mmd]


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    fake, real = torch.randn(2, N, L, C, dtype=torch.float64, generator=generator)
    return fake, real + 0.5


def means(image: list[list[float]]) -> list[float]:
    return [sum(token[c] for token in image) / len(image) for c in range(len(image[0]))]


def rbf(x: list[float], y: list[float], bandwidth: float) -> float:
    return math.exp(-(math.dist(x, y) ** 2) / (2 * bandwidth**2))


def rbf_reference(fake: list[list[float]], real: list[list[float]], bandwidth: float) -> float:
    n = len(fake)
    xx = sum(rbf(fake[i], fake[j], bandwidth) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(rbf(real[i], real[j], bandwidth) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return xx + yy - 2 * sum(rbf(x, y, bandwidth) for x in fake for y in real) / n**2


def as_images(fake: Tensor, real: Tensor, pooling: str) -> list[tuple[list[list[float]], list[list[float]]]]:
    if pooling == "batch":
        return [([t for image in fake.tolist() for t in image], [t for image in real.tolist() for t in image])]
    return list(zip(fake.tolist(), real.tolist(), strict=True))


@pytest.mark.parametrize("pooling", ["image", "batch"])
def test_linear_is_equation_2(pair, pooling):
    images = as_images(*pair, pooling)
    expected = sum(math.dist(means(fake), means(real)) ** 2 for fake, real in images)
    assert linear_mmd(*pair, pooling=pooling).item() == pytest.approx(expected, rel=1e-12)


def test_linear_is_equation_1_with_the_linear_kernel(pair):
    def mean_kernel(a, b):
        return sum(sum(p * q for p, q in zip(x, y, strict=True)) for x in a for y in b) / (len(a) * len(b))

    expected = sum(
        mean_kernel(fake, fake) + mean_kernel(real, real) - 2 * mean_kernel(fake, real)
        for fake, real in as_images(*pair, "image")
    )
    assert linear_mmd(*pair).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("loss", [linear_mmd, moments_mmd])
def test_linear_and_moments_sum_over_images(pair, loss):
    fake, real = pair
    twice = loss(torch.cat([fake, fake]), torch.cat([real, real]))
    assert twice.item() == pytest.approx(2 * loss(fake, real).item())


@pytest.mark.parametrize("pooling", ["image", "batch"])
def test_moments_add_equation_1_with_the_squared_kernel_on_centred_tokens(pair, pooling):
    def mean_kernel(a, b):
        products = [sum(p * q for p, q in zip(x, y, strict=True)) for x in a for y in b]
        return sum(product**2 for product in products) / len(products)

    expected = 0.0
    for fake, real in as_images(*pair, pooling):
        middles = means(fake), means(real)
        a, b = (
            [[p - q for p, q in zip(t, m, strict=True)] for t in x] for x, m in zip((fake, real), middles, strict=True)
        )
        apart = mean_kernel(a, a) + mean_kernel(b, b) - 2 * mean_kernel(a, b)
        variance = sum(sum(p**2 for p in token) for token in a + b) / (len(a) + len(b))
        expected += math.dist(*middles) ** 2 + apart / variance
    assert moments_mmd(*pair, pooling=pooling).item() == pytest.approx(expected, rel=1e-10)


def test_moments_see_what_smoothing_takes_away(pair):
    fake, _ = pair
    smooth = fake.mean(1, keepdim=True) + 0.5 * (fake - fake.mean(1, keepdim=True))
    smooth.requires_grad_(True)
    assert linear_mmd(smooth, fake).item() == pytest.approx(0, abs=1e-25)
    loss = moments_mmd(smooth, fake)
    loss.backward()
    spread = smooth - smooth.mean(1, keepdim=True)
    assert (smooth.grad * spread).sum() < 0  # a step down takes tokens apart


@pytest.mark.parametrize("pooling", ["image", "batch"])
@pytest.mark.parametrize("c", [1e-3, 0.7])
def test_huber(pair, c, pooling):
    images = as_images(*pair, pooling)
    terms = [math.hypot(f - r, c) - c for fake, real in images for f, r in zip(means(fake), means(real), strict=True)]
    assert huber_mmd(*pair, c, pooling=pooling).item() == pytest.approx(statistics.fmean(terms), rel=1e-10)


def test_huber_keeps_its_digits_near_zero():
    fake, real = torch.full((1, 2, 1), 1e-8), torch.zeros(1, 2, 1)
    assert huber_mmd(fake, real).item() == pytest.approx(1e-16 / 2e-3, rel=1e-5)


@pytest.mark.parametrize("pooling", ["image", "batch"])
@pytest.mark.parametrize("bandwidth", [0.8, 100.0])
def test_rbf(pair, bandwidth, pooling):
    expected = statistics.fmean(rbf_reference(*images, bandwidth) for images in as_images(*pair, pooling))
    assert rbf_mmd(*pair, bandwidth=bandwidth, pooling=pooling).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("pooling", ["image", "batch"])
def test_rbf_with_the_median_distance(pair, pooling):
    expected = []
    for fake, real in as_images(*pair, pooling):
        tokens = fake + real
        distances = [math.dist(x, y) for i, x in enumerate(tokens) for y in tokens[i + 1 :]]
        expected.append(rbf_reference(fake, real, statistics.median_low(distances)))
    value = rbf_mmd(*pair, bandwidth="median", pooling=pooling)
    assert value.item() == pytest.approx(statistics.fmean(expected), rel=1e-9)


def test_rbf_with_a_wide_kernel_in_single_precision(pair):
    fake, real = pair
    exact = rbf_mmd(fake, real, bandwidth=100.0).item()
    assert rbf_mmd(fake.float(), real.float(), bandwidth=100.0).item() == pytest.approx(exact, rel=1e-3)


def test_rbf_far_from_the_origin(pair):
    fake, real = pair
    moved = rbf_mmd((fake + 1000).float(), (real + 1000).float(), bandwidth=1.0)
    assert moved.item() == pytest.approx(rbf_mmd(fake, real, bandwidth=1.0).item(), abs=1e-3)


def test_rbf_where_most_tokens_coincide():
    fake, real = torch.zeros(1, 6, 2, requires_grad=True), torch.zeros(1, 6, 2)
    real[:, 0] = 1
    loss = rbf_mmd(fake, real, bandwidth="median")
    loss.backward()
    assert loss.isfinite()
    assert fake.grad.isfinite().all()


def test_rbf_is_zero_in_expectation_for_equal_distributions():
    generator = torch.Generator().manual_seed(1)
    values = torch.stack([rbf_mmd(*torch.randn(2, 1, 8, 2, generator=generator), bandwidth=1.0) for _ in range(400)])
    assert (values < 0).any()
    assert abs(values.mean()) < 4 * values.std() / 20


def test_rbf_rejects_other_distributions_and_accepts_equal_ones():
    def p_value(shift: float) -> float:
        generator, shuffler = torch.Generator().manual_seed(2), random.Random(2)
        tokens = torch.randn(40, 2, generator=generator)
        tokens[:20] += shift
        observed, larger = None, 0
        order = list(range(40))
        for _ in range(100):
            value = rbf_mmd(tokens[order[:20]][None], tokens[order[20:]][None], bandwidth=1.0).item()
            observed = value if observed is None else observed
            larger += value >= observed
            shuffler.shuffle(order)
        return larger / 100

    assert p_value(shift=1.0) <= 0.02
    assert p_value(shift=0.0) > 0.05


@pytest.mark.parametrize("mmd", [linear_mmd, huber_mmd, moments_mmd])
def test_never_negative_and_zero_on_equal_inputs(pair, mmd):
    fake, real = pair
    assert mmd(fake, real) > 0
    assert mmd(fake, fake) == 0


@pytest.mark.parametrize("pooling", ["image", "batch"])
@pytest.mark.parametrize("mmd", ALL)
def test_symmetric_and_blind_to_the_order_of_tokens(pair, mmd, pooling):
    fake, real = pair
    value = mmd(fake, real, pooling=pooling).item()
    assert mmd(real, fake, pooling=pooling).item() == pytest.approx(value, rel=1e-9)
    assert mmd(fake.flip(1), real.roll(2, 1), pooling=pooling).item() == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("pooling", ["image", "batch"])
@pytest.mark.parametrize("mmd", [linear_mmd, huber_mmd, rbf_mmd])
def test_gradients(pair, mmd, pooling):
    fake, real = (x[:2, :3, :2].clone().requires_grad_() for x in pair)
    assert torch.autograd.gradcheck(lambda f, r: mmd(f, r, pooling=pooling), (fake, real))


def test_gradients_of_moments_hold_the_variance_constant(pair):
    fake, real = (x.clone().requires_grad_() for x in pair)
    variance = [
        (torch.cov(f.T, correction=0) + torch.cov(r.T, correction=0)).trace().item() / 2
        for f, r in zip(*pair, strict=True)
    ]

    def explicit(fake, real):
        each = zip(fake, real, variance, strict=True)
        apart = ((torch.cov(f.T, correction=0) - torch.cov(r.T, correction=0)).square().sum() / v for f, r, v in each)
        return linear_mmd(fake, real) + sum(apart)

    assert torch.autograd.gradcheck(explicit, (fake, real))
    for found, expected in zip(
        torch.autograd.grad(moments_mmd(fake, real), (fake, real)),
        torch.autograd.grad(explicit(fake, real), (fake, real)),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("mmd", ALL)
def test_half_precision_computes_in_float32(pair, mmd):
    fake, real = (x.bfloat16() for x in pair)
    value = mmd(fake, real)
    assert value.dtype == torch.float32
    assert value == mmd(fake.float(), real.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert mmd(fake.float(), real.float()) == value


def test_refusals(pair, refuses):
    fake, real = pair
    with refuses("expected two (N, L, C) tensors of one shape, got (1, 5, 4) and (3, 5, 4)"):
        linear_mmd(fake[:1], real)
    with refuses('expected pooling "image" or "batch", got \'video\''):
        huber_mmd(fake, real, pooling="video")
    with refuses("expected at least 2 tokens to pool, got 1"):
        rbf_mmd(fake[:, :1], real[:, :1])
    with refuses("expected a positive bandwidth, got 0.0"):
        rbf_mmd(fake, real, bandwidth=0.0)
