import csv
import json

import pytest
import torch

from swd_spectral import smallest_safe_size
from swd_spectral.density import Density, rapsd, temporal_psd
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


def test_json_gives_back_what_was_written(tmp_path):
    for num in (4, 1):  # of one sample there is no error
        found = measure([torch.randn(num, 4, 9, 8, 8)])
        found.save(tmp_path / "spectrum.json")
        back = Measurement.load(tmp_path / "spectrum.json")
        assert back.full == found.full
        for a, b in ((back.space, found.space), (back.time, found.time)):
            assert (a.extent, a.num_samples, a.axis) == (b.extent, b.num_samples, b.axis)
            assert torch.equal(a.power, b.power)
            torch.testing.assert_close(a.error, b.error, rtol=0, atol=0, equal_nan=True)
    json.loads((tmp_path / "spectrum.json").read_text(), parse_constant=pytest.fail)  # JSON knows no NaN


GOOD = {"extent": 8, "num_samples": 1, "frequency": [0, 0.1], "power": [1, 1], "error": [None, 0], "count": [1, 4]}


@pytest.mark.parametrize(
    "space",
    [
        None,
        [],
        {},
        GOOD | {"power": [1]},
        GOOD | {"power": [1, float("nan")]},
        GOOD | {"power": [1, -1]},
        GOOD | {"power": ["a", "b"]},
        GOOD | {"power": [[1], [1]]},
        GOOD | {"power": 1},
        GOOD | {"power": [1, 10**400]},
        GOOD | {"extent": "8"},
        GOOD | {"extent": 0},
        {key: value[:1] if isinstance(value, list) else value for key, value in GOOD.items()},
    ],
)
def test_another_file_is_named(tmp_path, space):
    path = tmp_path / "spectrum.json"
    path.write_text(json.dumps({"full": [8, 8], "space": GOOD, "time": None}))
    assert Measurement.load(path).space.cycles.tolist() == pytest.approx([0, 0.8])
    path.write_text(json.dumps({"full": [8, 8], "space": space, "time": None}))
    with pytest.raises(ValueError, match=r"expected a spectrum\.json of `swd-spectral analyze`, got .*spectrum\.json"):
        Measurement.load(path)


def test_a_file_that_is_no_json_is_named(tmp_path):
    path = tmp_path / "spectrum.json"
    for text in ("{", "[]", '{"full": [1, 2]}', '{"full": [], "space": 1, "time": null}', ""):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"expected a spectrum\.json .*spectrum\.json"):
            Measurement.load(path)


def test_constants_have_no_spectrum_and_pictures_that_stand_still_have_one():
    for constant in (0.0, 0.3):
        with pytest.raises(ValueError, match="expected latents that differ from place to place, got constant ones"):
            measure([torch.full((2, 4, 16, 16), constant)])
    still = measure([torch.randn(2, 4, 1, 16, 16).expand(2, 4, 9, 16, 16)])
    assert smallest_safe_size(still.time, 0.5, 9, multiple=1) == 1
    none = Density(
        "time", 9, *(torch.tensor(row, dtype=torch.float64) for row in ([0, 0.1], [1, 0], [0, 0], [1, 1])), 2
    )
    assert none.beyond(0.5) == 0


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
