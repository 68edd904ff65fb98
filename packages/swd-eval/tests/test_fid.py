import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from swd_eval.distances.fid import Statistics, bootstrap_interval, frechet_distance


def draw(num, dim, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    return scale * torch.randn(num, dim, generator=generator, dtype=torch.float64) @ mixing


def given(mu, sigma):
    return Statistics(torch.as_tensor(mu, dtype=torch.float64), torch.as_tensor(sigma, dtype=torch.float64))


def test_the_distance_of_a_sample_to_itself_is_zero():
    for num in (8, 200):
        statistics = Statistics.of(draw(num, 16))
        assert frechet_distance(statistics, statistics) == pytest.approx(0, abs=1e-6)


def test_a_shift_of_the_mean_counts_squared():
    features, shift = draw(100, 12), torch.arange(12, dtype=torch.float64)
    distance = frechet_distance(Statistics.of(features), Statistics.of(features + shift))
    assert distance == pytest.approx(float(shift.square().sum()), rel=1e-9)


def test_commuting_covariances_have_a_closed_form():
    basis = torch.linalg.qr(draw(6, 6)).Q
    a, b = torch.tensor([1.0, 2, 3, 4, 5, 0]).double(), torch.tensor([4.0, 1, 9, 0, 2, 3]).double()
    distance = frechet_distance(
        given(torch.zeros(6), basis @ a.diag() @ basis.T), given(torch.zeros(6), basis @ b.diag() @ basis.T)
    )
    assert distance == pytest.approx(float((a.sqrt() - b.sqrt()).square().sum()), rel=1e-6)


def test_the_distance_equals_that_by_scipys_matrix_square_root():
    a, b = draw(90, 10, 1), draw(80, 10, 2) + 0.3
    (mu_a, sigma_a), (mu_b, sigma_b) = ((x.mean(0).numpy(), np.cov(x.numpy(), rowvar=False)) for x in (a, b))
    expected = ((mu_a - mu_b) ** 2).sum() + np.trace(sigma_a + sigma_b - 2 * sqrtm(sigma_a @ sigma_b).real)
    assert frechet_distance(Statistics.of(a), Statistics.of(b)) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(given(mu_a, sigma_a), Statistics.of(b).rooted()) == pytest.approx(expected, rel=1e-10)


def test_with_fewer_images_than_dimensions_the_distance_is_that_of_the_full_covariances():
    few, fewer, many = draw(9, 30, 1), draw(7, 30, 2) + 0.2, draw(300, 30, 3)

    def full(features):
        return given(features.mean(0), features.T.cov())

    assert Statistics.of(few).cov is None
    for a, b in ((few, fewer), (few, many), (many, fewer)):
        expected = frechet_distance(full(a), full(b))
        assert frechet_distance(Statistics.of(a), Statistics.of(b)) == pytest.approx(expected, rel=1e-6)


def test_features_in_half_precision_are_summed_in_double():
    features = draw(50, 4).half()
    assert torch.equal(Statistics.of(features).sigma, Statistics.of(features.double()).sigma)


def test_a_bootstrap_interval_of_a_mean_has_the_width_of_its_standard_error():
    samples = draw(400, 1)
    mean = float(samples.mean())
    low, high = bootstrap_interval(lambda x: float(x.mean()), samples, mean, resamples=2000)
    assert (low + high) / 2 == pytest.approx(mean)
    assert high - low == pytest.approx(2 * 1.96 * float(samples.std()) / 20, rel=0.06)


def test_features_that_have_no_distance_are_refused():
    with pytest.raises(ValueError, match="2 images or more"):
        Statistics.of(draw(1, 4))
    with pytest.raises(ValueError, match="finite"):
        Statistics.of(torch.tensor([[1.0, torch.nan], [0, 0]]))
    with pytest.raises(ValueError, match="one dimension"):
        frechet_distance(Statistics.of(draw(5, 4)), Statistics.of(draw(5, 3)))
