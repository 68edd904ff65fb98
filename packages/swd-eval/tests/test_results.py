import json

import pytest
import torch

from swd_eval.runs.results import Number, group_means, mean_of, render_table, write_results


def number(metric, value=1.0, better="higher"):
    return Number(metric, value, (value - 0.5, value + 0.5), 10, better)


def test_columns_stand_as_in_table_3(tmp_path):
    names = ("diversity-swd", "kid-swd", "geneval", "fid-swd", "image-reward", "hpsv3", "pickscore", "clip-score")
    write_results(tmp_path, "mine", [number(name) for name in names], {})
    head = (tmp_path / "table.md").read_text().splitlines()[0]
    order = ("pickscore", "hpsv3", "image-reward", "fid-swd", "geneval", "kid-swd", "clip-score", "diversity-swd")
    assert head == f"| Model | {' | '.join(f'{name} ↑' for name in order)} |"


def test_columns_of_videos_stand_as_in_table_2(tmp_path):
    names = ("motion", "videoreward", "videoreward-vq", "visionreward")
    write_results(tmp_path, "mine", [number(name) for name in names], {})
    head = (tmp_path / "table.md").read_text().splitlines()[0]
    assert head == "| Model | visionreward ↑ | videoreward ↑ | videoreward-vq ↑ | motion ↑ |"


def test_a_number_that_is_made_again_replaces_the_old_one(tmp_path):
    write_results(tmp_path, "mine", [number("hpsv3", 1.0), number("geneval", 2.0)], {})
    write_results(tmp_path, "mine", [number("hpsv3", 3.0)], {})
    found = json.loads((tmp_path / "results.json").read_text())["numbers"]
    assert [(each["metric"], each["value"]) for each in found] == [("hpsv3", 3.0), ("geneval", 2.0)]


def test_an_interval_is_over_prompts():
    values, prompts = torch.tensor([1.0, 3, 5, 5, 9, 1]), ["a", "a", "b", "b", "c", "c"]
    assert group_means(values, prompts).tolist() == [2, 5, 5]
    found = mean_of("score", values, prompts)
    width = 1.96 * 3**0.5 / 3**0.5  # the deviation of 2, 5, 5 is the root of 3
    assert found.value == pytest.approx(4)
    assert found.interval == pytest.approx((4 - width, 4 + width))
    assert group_means(values, [""] * 6).tolist() == values.tolist()
    assert mean_of("score", values[:2], prompts[:2]).interval is None


def test_a_name_does_not_break_the_table():
    assert "| a\\|b | 1 |" in render_table("a|b", [number("hpsv3")])
