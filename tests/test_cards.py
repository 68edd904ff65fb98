"""The page of what fits one card, for one preset and two cards."""

import pytest

from benchmarks import cards


def test_a_table_has_a_row_for_each_base_and_loss(monkeypatch, tmp_path):
    monkeypatch.setattr(cards, "MEMORIES", (4, 24))
    monkeypatch.setattr(cards, "PRESETS", {name: cards.PRESETS[name] for name in ("tiny", "sd35-medium")})
    page = cards.write(tmp_path / "cards.md").read_text()
    assert "## tiny" not in page
    rows = [
        line
        for line in page[page.index("## sd35-medium") :].splitlines()
        if line.startswith("| ") and "GiB" not in line
    ]
    assert [row.split(" | ")[0] for row in rows] == [
        f"| {base}, {loss}" for base in ("bf16", "int8, fp8", "nf4") for loss in ("full", "MMD alone")
    ]
    assert rows[0].split(" | ")[1] == "-"
    assert "(1)" in rows[-1] or "(2)" in rows[-1]


def test_days_are_of_both_students_of_a_model_of_two_experts():
    config, gpu = cards.PRESETS["wan22-a14b"], cards.GPUS["a100"]
    way = next(way for way in cards.ways(config, 80, gpu) if way.found)
    assert f"{way.training_seconds(gpu) / 86400:.1f} ({way.found.share})" in cards.table(cards.ways_of(config))
    assert way.training_seconds(gpu) == pytest.approx(2 * 3000 * way.seconds(gpu))
