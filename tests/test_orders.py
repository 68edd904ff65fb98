import json

import pytest
import torch

from benchmarks.studies import orders
from swd_schedules import downscale


def test_one_command_writes_a_record_a_seed_and_a_page(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(orders, "TIMESTEPS", (200,))
    orders.main(["--count", "4", "--seeds", "0", "1", "--out", str(tmp_path)])
    page = capsys.readouterr().out
    assert [line.split("|")[2].strip() for line in page.splitlines() if line.startswith("| 200")] == [
        "A", "B", "C", "B'",
    ]  # fmt: skip
    record = json.loads((tmp_path / "orders" / "1.json").read_text())
    assert record["table"]["200"]["A"]["spectral distance"] == 0
    assert record["of"]["seed"] == 1
    assert record["commit"]
    assert "t = 200" in page


@pytest.mark.parametrize("sigma", [0.2, 0.8])
def test_low_frequencies_of_c_are_as_noisy_as_those_of_b_at_its_later_level(sigma):
    """Noise alone, seen in the low half of the DCT: its power over that of the signal's factor, (1 - sigma)^2."""
    empty = orders.Latents(torch.zeros(64, 4, 8, 8), torch.zeros(64, 4, 16, 16))
    ratios = []
    for order in (orders.order_c, orders.order_b_as_c):
        noise, level = order(empty, sigma, torch.Generator().manual_seed(0))
        low = downscale(noise, (4, 4), "dct")  # below the frequencies that bicubic upscaling weakens
        ratios.append(float(low.var()) / (1 - level) ** 2)
    assert ratios[0] == pytest.approx(ratios[1], rel=0.1)


def test_a_claim_is_decided_by_the_seeds():
    def tables(*values):
        return [{"200": {"B": {"all right": value}, "C": {"all right": 0.5}}} for value in values]

    even = orders._verdict(tables(0.5, 0.501, 0.499), "200", "all right", "B", "C", 0.02)
    assert even.startswith("reproduced: +0")
    assert orders._verdict(tables(0.7, 0.71, 0.69), "200", "all right", "B", "C").startswith("reproduced: +0.2")
    assert orders._verdict(tables(0.3, 0.31, 0.29), "200", "all right", "B", "C").startswith("not reproduced")
    assert orders._verdict(tables(0.3, 0.7, 0.5), "200", "all right", "B", "C").startswith("undecided")
