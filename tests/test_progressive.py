import numpy as np
import pytest
import torch
from PIL import Image
from scipy.fft import dctn, idctn

from benchmarks.studies import progressive
from swd_spectral.masking import matched_sigma


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_an_extended_latent_is_the_large_one_noised():
    sigma, ratio = 0.7, 2.0
    small = matched_sigma(sigma, ratio)
    x0, low, high = noise(1, 2, 8, 8), noise(1, 2, 8, 8, seed=1), noise(1, 2, 16, 16, seed=2)
    found = progressive.extend((1 - small) * x0 + small * low, sigma, high)
    # By SciPy: the large image has the small one's DCT, times 2 for equal amplitudes; all its noise has variance 1.
    signal, white = (torch.zeros(1, 2, 16, 16, dtype=torch.float64) for _ in range(2))
    white[:] = torch.from_numpy(dctn(high.numpy(), axes=(2, 3), norm="ortho"))
    signal[..., :8, :8] = 2 * torch.from_numpy(dctn(x0.numpy(), axes=(2, 3), norm="ortho"))
    white[..., :8, :8] = torch.from_numpy(dctn(low.numpy(), axes=(2, 3), norm="ortho"))
    expected = idctn(((1 - sigma) * signal + sigma * white).numpy(), axes=(2, 3), norm="ortho")
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-5)


def test_rescaled_time_is_that_of_the_paper():
    """kappa = rho / (1 + (rho - 1) t), and it goes on at kappa t."""
    t, rho = 0.4, 2.0
    kappa = rho / (1 + (rho - 1) * t)
    assert matched_sigma(kappa * t, rho) == pytest.approx(t)


def test_a_weak_frequency_shows_later_than_a_strong_one():
    levels = [progressive.activation(power, 0.01) for power in (100.0, 1.0, 0.02)]
    assert levels == sorted(levels, reverse=True)
    assert progressive.activation(1.0, 0.01) == pytest.approx(1 / (1 + (0.01 / 1.99) ** 0.5))
    assert progressive.activation(1.0, 0.05) < progressive.activation(1.0, 0.01)


def test_steps_above_the_switch_are_small_and_a_perfect_teacher_is_returned():
    clean, seen = noise(1, 4, 16, 16).float(), []

    def denoise(x_t, sigma):
        seen.append((tuple(x_t.shape[2:]), round(sigma, 3)))
        return clean[..., : x_t.shape[2], : x_t.shape[3]]

    found = progressive.sample_progressive(
        denoise, [1.0, 0.9, 0.6, 0.2, 0.0], 0.7, [torch.Generator().manual_seed(0)], 4
    )
    assert torch.equal(found, clean)
    assert seen == [((8, 8), 1.0), ((8, 8), round(matched_sigma(0.9, 2), 3)), ((16, 16), 0.6), ((16, 16), 0.2)]


def test_one_command_writes_page_picture_and_records(tmp_path, capsys):
    command = ["--count", "2", "--seeds", "0", "1", "--steps", "3", "2", "--out", str(tmp_path)]
    progressive.main(command)
    page = capsys.readouterr().out
    assert "| full scale, 3 steps (1536 cells" in page
    assert "| progressive, d = 0.01, 2 steps: better than full scale with as many cells" not in page  # none so cheap
    assert "| progressive, d = 0.05, 3 steps: as good as full scale with as many, at" in page
    assert Image.open(tmp_path / "progressive.png").width > 1000
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "progressive").glob("*.json")}
    assert len(before) == 12
    progressive.main(command)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_scores_between_costs_are_interpolated_in_their_logarithm():
    def rows(*values):
        return [{"scores": {"all_right": value, "kid x 1000": 10 * value}} for value in values]

    found = progressive.at_cost({100: rows(0.4, 0.5), 1: rows(0.2, 0.1)}, 10)
    assert np.allclose([record["scores"]["all_right"] for record in found], [0.3, 0.3])
    assert found[0]["scores"]["kid x 1000"] == pytest.approx(3.0)
