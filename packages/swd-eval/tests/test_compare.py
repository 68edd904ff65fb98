import json

import numpy as np
import pytest
import torch
from scipy.stats import permutation_test

from swd_eval.cli import main
from swd_eval.runs.compare import _notes_of, compare, sign_flip_p_value


@pytest.fixture
def write_result(tmp_path):
    def write(name, scores, prompts=None, **fid):
        folder = tmp_path / name
        folder.mkdir()
        prompts = prompts or [f"prompt {index}" for index in range(len(scores))]
        rows = [
            json.dumps({"file_name": f"{index}.png", "prompt": prompt, "pickscore": score})
            for index, (score, prompt) in enumerate(zip(scores, prompts, strict=True))
        ]
        (folder / "samples.jsonl").write_text("\n".join(rows) + "\n")
        numbers = [{"metric": "pickscore", "value": float(np.mean(scores)), "num": len(scores), "notes": {}}]
        number = {"metric": "fid-swd", "value": 20.0, "num": len(scores), "notes": {"mode": "swd", "reference n": 9}}
        numbers.append(number | fid)
        (folder / "results.json").write_text(
            json.dumps({"images": name, "num_images": len(scores), "numbers": numbers})
        )
        return folder

    return write


def test_the_p_value_is_scipys():
    for num in (7, 40):
        differences = np.random.default_rng(num).normal(0.25, 1, num)
        expected = permutation_test(
            (differences, np.zeros(num)), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples",
            vectorized=True, n_resamples=20_000, rng=0,
        ).pvalue  # fmt: skip
        assert sign_flip_p_value(torch.tensor(differences)) == pytest.approx(expected, abs=0.01)


def test_scores_are_compared_pair_by_pair_and_distances_stand_beside_each_other(write_result, capsys):
    a = write_result("a", [1.0, 2, 3, 4, 5, 6, 7, 8])
    b = write_result("b", [1.5, 2.6, 3.4, 4.5, 5.5, 6.6, 7.4, 8.5], value=18.0)
    main(["report", str(a), str(b)])
    out = capsys.readouterr().out
    assert "| pickscore | 4.5 | 5 | +0.5 | [0.448, 0.552] | 0.0078 | 8 |" in out
    assert "| fid-swd | 20 | 18 | -2 | | | 8 |" in out


def test_scores_of_other_weights_or_detectors_are_not_compared(write_result):
    folders = [write_result(name, [1.0, 2, 3]) for name in "ab"]

    def noted(**notes):
        for folder, note in zip(folders, zip(*notes.values(), strict=True), strict=True):
            results = json.loads((folder / "results.json").read_text())
            results["numbers"][0]["notes"] = dict(zip(notes, note, strict=True))
            (folder / "results.json").write_text(json.dumps(results))
        return compare(*folders)

    moved = ({"sha256": "1", "path": "here"}, {"sha256": "1", "path": "there"})
    other = ({"sha256": "1"}, {"sha256": "2"})
    assert "| pickscore | 2 | 2 | +0 |" in noted(weights=moved, dtype=("float32", "float32"))
    assert "| pickscore | 2 | 2 | not comparable: weights | | | |" in noted(weights=other)
    assert "| pickscore | 2 | 2 | not comparable: detector, dtype | | | |" in noted(
        detector=other, dtype=("float32", "bfloat16")
    )


@pytest.mark.parametrize(
    ("score", "metric"),
    [("videoreward-vq", "videoreward-vq"), ("visionreward-07", "visionreward"), ("correct", "geneval"), ("mine", None)],
)
def test_a_score_of_samples_has_the_notes_of_its_number(score, metric):
    numbers = {name: {"notes": {"of": name}} for name in ("videoreward", "videoreward-vq", "visionreward", "geneval")}
    assert _notes_of(score, numbers) == ({"of": metric} if metric else {})


def test_images_of_one_prompt_count_once(write_result):
    a = write_result("a", [0.0, 0, 0, 0], ["x", "x", "y", "y"])
    b = write_result("b", [1.0, 3, 2, 2], ["x", "x", "y", "y"])
    assert "| pickscore | 0 | 2 | +2 | [2, 2] | 0.5 | 2 |" in compare(a, b)


def test_distances_of_other_modes_references_or_numbers_are_not_compared(write_result):
    a = write_result("a", [1.0, 2])
    clean = write_result("b", [1.0, 2], notes={"mode": "clean", "reference n": 9})
    fewer = write_result("c", [1.0, 2], num=1)
    notes = {"mode": "swd", "reference n": 9, "reference": {"sha256": "another"}}
    other = write_result("d", [1.0, 2], notes=notes)
    assert "not comparable: mode" in compare(a, clean)
    assert "not comparable: reference |" in compare(a, other)
    assert "not comparable: n 2 and 1" in compare(a, fewer)


def test_results_of_other_prompts_are_refused(write_result, tmp_path):
    a, b = write_result("a", [1.0, 2]), write_result("b", [1.0, 2], ["other", "prompts"])
    with pytest.raises(ValueError, match="nothing pairs them"):
        compare(a, b)
    with pytest.raises(ValueError, match=r"expected results.json"):
        compare(a, tmp_path)
