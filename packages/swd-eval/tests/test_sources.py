import json

import pytest

from swd_eval.study.sources import kind_of, read_items


def test_runs_are_matched_by_name_whatever_their_format_and_order(tmp_path, write_run):
    a = write_run(tmp_path / "a", ["x", "y"], ["a cat", "a dog"])
    b = write_run(tmp_path / "b", ["y", "x"], ["a dog", "a cat"], suffix=".jpg")
    items = read_items([a, b])
    assert [(item.name, item.prompt) for item in items] == [("x", "a cat"), ("y", "a dog")]
    assert items[1].files == (a / "y.png", b / "y.jpg")
    assert kind_of(items) == "image"


def test_line_i_of_a_prompts_file_is_image_i_in_natural_order(tmp_path, write_run):
    names = [str(number) for number in range(1, 13)]
    runs = [write_run(tmp_path / run, names, names) for run in "ab"]
    (tmp_path / "prompts.txt").write_text("\n".join(f"prompt {name}" for name in names) + "\n\n")
    assert [(item.name, item.prompt) for item in read_items(runs, tmp_path / "prompts.txt")] == [
        (name, f"prompt {name}") for name in names
    ]
    (tmp_path / "six.jsonl").write_text("".join(json.dumps({"text": f"p{i}"}) + "\n" for i in range(6)))
    assert [item.prompt for item in read_items(runs, tmp_path / "six.jsonl")[:5]] == ["p0", "p0", "p1", "p1", "p2"]


def test_runs_that_do_not_fit_are_refused_in_one_line(tmp_path, write_run):
    a = write_run(tmp_path / "a", ["x", "y"], ["a cat", "a dog"])
    fewer = write_run(tmp_path / "fewer", ["x"], ["a cat"])
    other = write_run(tmp_path / "other", ["x", "y"], ["a cat", "a cow"])
    (tmp_path / "three.txt").write_text("1\n2\n3\n")
    (tmp_path / "gap.csv").write_text("id,text\n1,a cat\n2,\n")
    (tmp_path / "bare").mkdir()
    cases = [
        ([a], None, "two or more folders"),
        ([a, fewer], None, "expected the same file names in all runs, got y in .*a but not in .*fewer"),
        ([fewer, a], None, "got y in .*a but not in .*fewer"),
        ([a, other], None, "expected one prompt for y"),
        ([a, a], tmp_path / "three.txt", "expected 3 images .* got 2"),
        ([a, a], tmp_path / "gap.csv", "expected a prompt in the column text in line 3"),
        ([a, tmp_path / "bare"], None, "expected metadata.jsonl or metadata.csv in .*bare"),
        ([a, tmp_path / "absent"], tmp_path / "three.txt", "expected"),
    ]
    for runs, prompts, message in cases:
        with pytest.raises(ValueError, match=message):
            read_items(runs, prompts)


def test_kinds_of_file_that_would_tell_the_models_apart_are_refused(tmp_path):
    for run, suffix in (("a", ".mp4"), ("b", ".webm"), ("c", ".png"), ("d", ".mp4")):
        (tmp_path / run).mkdir()
        (tmp_path / run / f"1{suffix}").write_bytes(b"clip")
    (tmp_path / "prompts.txt").write_text("a wave\n")
    for other in "bc":
        with pytest.raises(ValueError, match="all images or all videos of one kind"):
            read_items([tmp_path / "a", tmp_path / other], tmp_path / "prompts.txt")
    assert kind_of(read_items([tmp_path / "a", tmp_path / "d"], tmp_path / "prompts.txt")) == "video"
