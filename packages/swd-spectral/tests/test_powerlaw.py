from dataclasses import replace

import numpy as np
import pytest
import torch

from swd_spectral.density import Density, rapsd
from swd_spectral.measure import Measurement
from swd_spectral.powerlaw import PowerLaw, fit_power_law


def synthesise(size, exponent):
    """Build images whose power is exactly k^-exponent in cycles along the shorter side, with random phases."""
    rng = np.random.default_rng(0)
    f = np.hypot(np.fft.fftfreq(size[0])[:, None], np.fft.fftfreq(size[1])[None, :]) * min(size)
    f[0, 0] = np.inf
    phase = np.fft.fft2(rng.normal(size=(8, 1, *size)))
    phase /= np.abs(phase)
    return torch.from_numpy(np.fft.ifft2(phase * f ** (-exponent / 2) * np.sqrt(np.prod(size))).real)


@pytest.mark.parametrize("size", [(128, 128), (60, 104), (61, 105)])
@pytest.mark.parametrize("exponent", [1.0, 1.915, 3.0])
def test_a_power_law_is_recovered(size, exponent):
    law = fit_power_law(rapsd(synthesise(size, exponent)))
    assert law.exponent == pytest.approx(exponent, abs=0.005)
    assert law.amplitude == pytest.approx(1, rel=0.02)
    assert law.exponent_interval[0] < law.exponent < law.exponent_interval[1]


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    frequency = torch.arange(1, 21, dtype=torch.float64) / 40
    count = torch.full((20,), 10.0, dtype=torch.float64)
    inside = 0
    for _ in range(400):
        power = 5 * (frequency * 40) ** -2 * torch.from_numpy(np.exp(rng.normal(0, 0.2, 20)))
        law = fit_power_law(Density("space", 40, frequency, power, power, count, 1), confidence=0.9)
        inside += law.exponent_interval[0] < 2 < law.exponent_interval[1]
    assert 0.86 < inside / 400 < 0.94


def of_law(law, extent=64):
    """Return a density that is a law's, bin by bin."""
    cycles = torch.arange(1, extent // 2 + 1, dtype=torch.float64)
    power = torch.tensor([law(float(k)) for k in cycles], dtype=torch.float64)
    return Density("space", extent, cycles / extent, power, power, 6 * cycles, 1)


@pytest.mark.parametrize("law", [PowerLaw(50.0, 1.34, floor=0.36), PowerLaw(200.0, 2.5, floor=0.001)], ids=str)
def test_a_floor_below_a_law_is_recovered(law):
    found = fit_power_law(of_law(law), floor=True)
    assert (found.amplitude, found.exponent) == pytest.approx((law.amplitude, law.exponent), rel=1e-4)
    assert found.floor == pytest.approx(law.floor, rel=1e-3)
    assert found.floor_interval[0] <= found.floor <= found.floor_interval[1]
    assert found(5.0) == pytest.approx(law(5.0))


def test_intervals_of_a_floor_hold_the_truth_as_often_as_they_say():
    rng, truth, inside = np.random.default_rng(0), of_law(PowerLaw(50.0, 1.5, floor=0.3)), 0
    for _ in range(300):
        power = truth.power * torch.from_numpy(np.exp(rng.normal(0, 0.1, len(truth.power))))
        found = fit_power_law(replace(truth, power=power), floor=True, confidence=0.9)
        inside += found.floor_interval[0] < 0.3 < found.floor_interval[1]
    assert 0.84 < inside / 300 < 0.95


def test_no_floor_is_seen_where_there_is_none():
    assert Measurement((64, 64), of_law(PowerLaw(50.0, 1.5)), None).floored is None
    assert Measurement((64, 64), of_law(PowerLaw(50.0, 1.5, floor=0.3)), None).floored is not None


def test_too_few_bins_are_refused(refuses):
    with refuses("at least 3 bins between 5 and 6 cycles"):
        fit_power_law(rapsd(torch.randn(1, 1, 32, 32)), 5, 6)


def test_a_law_reads_well():
    assert str(PowerLaw(203.6, 1.915)) == "203.6 k^-1.915"
    assert str(PowerLaw(203.6, 1.915, (1.0, 2.0), (1.9, 1.93))) == "203.6 k^-1.915 (1.90 to 1.93)"
    assert str(PowerLaw(50.0, 1.34, floor=0.36, floor_interval=(0.3, 0.4))) == "50 k^-1.340 + 0.36 (0.3 to 0.4)"
    assert PowerLaw(2.0, 1.0)(0) == float("inf")
