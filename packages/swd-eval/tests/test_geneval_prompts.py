import hashlib
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from swd_eval.cli import main
from swd_eval.geneval.prompts import draw_prompts
from swd_eval.geneval.run import read_folder
from swd_eval.geneval.score import TASKS

RELEASED = "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13"  # of evaluation_metadata.jsonl


def test_the_folders_hold_the_lines_of_the_released_file(tmp_path, capsys):
    main(["geneval", "prepare", "--out", str(tmp_path)])
    assert "0 of 2212 images" in capsys.readouterr().out
    folders = [tmp_path / f"{index:05d}" for index in range(553)]
    assert sorted(tmp_path.glob("[!.]*")) == [*folders, tmp_path / "prompts.jsonl"]
    released = b"".join((folder / "metadata.jsonl").read_bytes() for folder in folders)
    assert hashlib.sha256(released).hexdigest() == RELEASED
    counts = Counter(json.loads(line)["tag"] for line in released.splitlines())
    assert [counts[task] for task in TASKS] == [80, 99, 80, 94, 100, 100]


def test_prompts_name_each_image_and_its_text_and_missing_images_are_counted(tmp_path, capsys):
    main(["geneval", "prepare", "--out", str(tmp_path)])
    rows = [json.loads(line) for line in (tmp_path / "prompts.jsonl").read_text().splitlines()]
    assert [row["file_name"] for row in rows[3:5]] == ["00000/samples/0003.png", "00001/samples/0000.png"]
    assert [row["text"] for row in rows[3:5]] == ["a photo of a bench", "a photo of a cow"]
    assert rows[-1]["file_name"] == "00552/samples/0003.png"
    assert "missing: 00000/samples/0000.png" in capsys.readouterr().out
    for row in rows[:-1]:
        Image.new("RGB", (1, 1)).save(tmp_path / row["file_name"])
    main(["geneval", "prepare", "--out", str(tmp_path)])
    assert "2211 of 2212 images" in (said := capsys.readouterr().out)
    assert "missing: 00552/samples/0003.png" in said
    samples = read_folder(tmp_path)
    assert [sample.name for sample in samples] == [row["file_name"] for row in rows[:-1]]
    assert [json.loads(sample.prompt)["prompt"] for sample in samples] == [row["text"] for row in rows[:-1]]


def test_folders_of_other_prompts_are_left_as_they_are(tmp_path, capsys):
    (tmp_path / "00007").mkdir()
    (tmp_path / "00007" / "metadata.jsonl").write_text('{"prompt": "a cat"}')
    with pytest.raises(SystemExit) as stop:
        main(["geneval", "prepare", "--out", str(tmp_path)])
    assert stop.value.code == 2
    assert "00007/metadata.jsonl of 'a photo of a surfboard', got another prompt" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [tmp_path / "00007"]


def test_other_random_numbers_are_noticed(monkeypatch):
    monkeypatch.setattr("swd_eval.geneval.prompts.SEED", 42)
    with pytest.raises(ValueError, match=f"others from NumPy {np.__version__}"):
        draw_prompts()


def test_scoring_a_folder_that_was_not_prepared_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["geneval", "score", str(tmp_path), "--out", str(tmp_path / "out"), "--offline"])
    assert stop.value.code == 2
    assert "expected folders 00000, 00001" in capsys.readouterr().err
