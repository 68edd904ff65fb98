from itertools import product

import numpy as np
import pytest
import torch

from swd_eval.distances.kid import kernel_distance, squared_mmd


def test_the_mean_over_all_samples_of_two_points_is_the_squared_mmd_of_their_distributions():
    atoms = torch.tensor([[0.0, 1.0], [2.0, -1.0]], dtype=torch.float64)
    p, q = torch.tensor([[0.3, 0.7], [0.6, 0.4]], dtype=torch.float64)
    kernel = (atoms @ atoms.T / 2 + 1) ** 3
    exact = (p - q) @ kernel @ (p - q)
    mean = sum(
        p[a] * p[b] * q[c] * q[d] * squared_mmd(atoms[[a, b]], atoms[[c, d]])
        for a, b, c, d in product((0, 1), repeat=4)
    )
    assert float(mean) == pytest.approx(float(exact), rel=1e-12)


def test_the_estimate_equals_the_sum_over_pairs():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 5)), rng.normal(size=(6, 5)) + 0.5

    def mean(a, b, same):
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (same and i == j)]
        return np.mean([(a[i] @ b[j] / 5 + 1) ** 3 for i, j in pairs])

    expected = mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)
    assert float(squared_mmd(torch.tensor(x), torch.tensor(y))) == pytest.approx(expected, rel=1e-12)


def test_subsets_as_large_as_the_sets_all_give_the_whole_sets_distance():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(20, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    mean, std = kernel_distance(x, y, subsets=3)
    assert mean == pytest.approx(float(squared_mmd(x, y)))
    assert std == pytest.approx(0, abs=1e-12)


def test_sets_without_a_distance_are_refused():
    with pytest.raises(ValueError, match="one dimension"):
        kernel_distance(torch.ones(3, 2), torch.ones(3, 4))
    with pytest.raises(ValueError, match="2 images"):
        kernel_distance(torch.ones(1, 2), torch.ones(3, 2))
