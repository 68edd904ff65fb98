import csv

import pytest
import torch

from swd_spectral.density import rapsd, temporal_psd
from swd_spectral.measure import Measurement, measure


def test_images_have_a_spectrum_over_space_alone():
    x = torch.randn(6, 4, 16, 24)
    found = measure(x.split(2))
    assert found.full == (16, 24)
    assert found.time is None
    torch.testing.assert_close(found.space.power, rapsd(x).power)
    assert list(found.laws) == ["space"]


def test_videos_have_both():
    x = torch.randn(4, 4, 9, 12, 12)
    found = measure(x.split(2), drop_first=True)
    torch.testing.assert_close(found.time.power, temporal_psd(x, drop_first=True).power)
    assert set(found.laws) == {"space", "time"}


def test_json_gives_back_what_was_written():
    found = measure([torch.randn(4, 4, 9, 8, 8)])
    back = Measurement.from_json(found.to_json())
    assert back.full == found.full
    for a, b in ((back.space, found.space), (back.time, found.time)):
        assert (a.extent, a.num_samples, a.axis) == (b.extent, b.num_samples, b.axis)
        assert torch.equal(a.power, b.power)
    for text in ("{", "[]", '{"full": [1, 2]}'):
        with pytest.raises(ValueError, match=r"expected a spectrum\.json"):
            Measurement.from_json(text)


def test_csv_has_a_row_a_bin(tmp_path):
    found = measure([torch.randn(4, 4, 9, 8, 8)])
    found.write_csv(tmp_path / "a.csv")
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    assert len(rows) == len(found.space.power) + 9
    assert float(rows[-1]["power"]) == pytest.approx(float(found.time.power[-1]), rel=1e-6)
    assert float(rows[-1]["cycles"]) == pytest.approx(4)


def test_nothing_to_measure_is_refused():
    with pytest.raises(ValueError, match="at least one batch"):
        measure([])
