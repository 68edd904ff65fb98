"""One bad sample of many: left out of every number alike, counted, listed, until there are too many."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from swd_data import Skipped, read_samples
from swd_eval.cli import main
from swd_eval.measure import Measure
from swd_eval.runs.collect import collect
from swd_eval.runs.rows import Rows

NUM = 9


def run(*argv, kind="images"):
    main([kind, *map(str, argv), "--device", "cpu", "--batch", "2"])


def fails(capsys, *argv, kind="images"):
    with pytest.raises(SystemExit) as stop:
        run(*argv, kind=kind)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.count("\n") == 1
    return error


def results(folder):
    return json.loads((folder / "results.json").read_text())


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def numbers(folder):
    return {each["metric"]: (each["value"], each["num"]) for each in results(folder)["numbers"]}


def break_file(path):
    """Leave the head of an image, of the same size as before."""
    path.write_bytes(path.read_bytes()[:60].ljust(path.stat().st_size, b"\0"))


@pytest.fixture
def folders(tmp_path, write_run):
    """Nine images, of which 3 is broken, and the same without 3; a reference likewise."""
    names = [str(index) for index in range(NUM)]
    for kind, seed in (("fake", 1), ("real", 2)):
        write_run(tmp_path / kind, names, [f"prompt {name}" for name in names], seed=seed)
        (tmp_path / f"{kind}-good").mkdir()
        rows = lines(tmp_path / kind / "metadata.jsonl")
        kept = [row for row in rows if row["file_name"] != "3.png"]
        for row in kept:
            (tmp_path / f"{kind}-good" / row["file_name"]).write_bytes(
                (tmp_path / kind / row["file_name"]).read_bytes()
            )
        (tmp_path / f"{kind}-good" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
        break_file(tmp_path / kind / "3.png")
    return tmp_path


def test_numbers_are_those_of_the_folder_without_the_bad_sample(folders, capsys):
    pytest.importorskip("efficientnet_lite_pytorch")
    out, good = folders / "out", folders / "good"
    run(folders / "fake", "--ref", folders / "real", "--out", out, "--max-bad", "0.2")
    said = capsys.readouterr().out
    run(folders / "fake-good", "--ref", folders / "real-good", "--out", good)
    for metric, (value, num) in numbers(good).items():
        assert numbers(out)[metric] == (pytest.approx(value, rel=1e-3, abs=1e-4), num), metric
    assert (out / "samples.jsonl").read_text().count("\n") == NUM - 1
    assert [row["file_name"] for row in lines(out / "samples.jsonl")] == [f"{i}.png" for i in range(NUM) if i != 3]
    [row] = lines(out / "skipped.jsonl")
    assert row["file_name"] == "3.png"
    assert row["reason"].startswith(f"expected an image, got {folders / 'fake' / '3.png'}, which cannot be read")
    assert results(out)["skipped"] == [row | {"row": 3}]
    assert (results(out)["num_images"], results(out)["num_prompts"]) == (NUM - 1, NUM - 1)
    assert "1 of 9 images cannot be read and are left out of all numbers: see skipped.jsonl" in said
    assert "1 of 9 images of the reference cannot be read" in said
    assert not (good / "skipped.jsonl").exists()


def test_more_than_the_share_is_one_line_and_what_was_done_stays(folders, capsys):
    out, fake = folders / "out", folders / "fake"
    break_file(fake / "7.png")
    argv = (fake, "--out", out, "--metrics", "diagnostics")
    error = fails(capsys, *argv, "--max-bad", "0.15")
    assert "expected at most 0.15 of 9 samples to be bad, got 2, listed in" in error
    assert [row["file_name"] for row in lines(out / "skipped.jsonl")] == ["3.png", "7.png"]
    done = {path: path.stat().st_mtime_ns for path in (out / "tone.parts").glob("*.f32")}
    assert len(done) == 3
    run(*argv, "--max-bad", "0.3")
    assert [row["row"] for row in results(out)["skipped"]] == [3, 7]
    assert numbers(out)["brightness"][1] == NUM - 2


@pytest.mark.parametrize("share", ["0", "0.01"])
def test_one_of_few_is_the_error_itself(folders, capsys, share):
    error = fails(capsys, folders / "fake", "--out", folders / "out", "--metrics", "diagnostics", "--max-bad", share)
    assert error.startswith(f"swd-eval: error: expected an image, got {folders / 'fake' / '3.png'}")
    assert not (folders / "out" / "results.json").exists()


def test_shares_and_batches_that_are_none_are_refused_before_any_work(folders, capsys):
    argv = (folders / "fake", "--out", folders / "out", "--metrics", "diagnostics")
    for share in ("-0.1", "1.5", "nan"):
        assert "--max-bad from 0 to 1" in fails(capsys, *argv, "--max-bad", share)
    with pytest.raises(SystemExit, match="2"):
        main(["images", *map(str, argv), "--batch", "0"])
    assert "expected --batch of 1 or more" in capsys.readouterr().err
    assert not (folders / "out").exists()


def test_a_folder_of_which_nothing_can_be_read_is_refused(folders, capsys):
    for index in range(NUM):
        break_file(folders / "fake" / f"{index}.png")
    argv = (folders / "fake", "--out", folders / "out", "--metrics", "diagnostics", "--max-bad", "1")
    assert "expected samples that can be read, got none" in fails(capsys, *argv)


def test_results_with_a_bad_sample_serve_as_a_reference(folders):
    out, again = folders / "out", folders / "again"
    run(folders / "fake", "--out", out, "--metrics", "diagnostics", "--max-bad", "0.2")
    run(folders / "fake-good", "--ref", out, "--out", again, "--metrics", "diagnostics")
    assert numbers(again)["brightness-drift"] == (0, NUM - 1)
    assert numbers(again)["spectrum-distance"][0] == 0


def test_two_results_are_paired_over_what_both_could_read(folders, capsys):
    a, b = folders / "a", folders / "b"
    run(folders / "fake", "--out", a, "--metrics", "diagnostics", "--max-bad", "0.2")
    whole = folders / "fake-good"
    Image.new("RGB", (48, 48)).save(whole / "3.png")
    run(whole, "--prompts", folders / "fake" / "metadata.jsonl", "--out", b, "--metrics", "diagnostics")
    capsys.readouterr()
    main(["report", str(a), str(b)])
    said = capsys.readouterr().out
    assert "; without 1 that could not be read in A or B" in said
    [line] = [line for line in said.splitlines() if line.startswith("| brightness |")]
    assert line.endswith("+0 | [0, 0] | 1 | 8 |")


def measure_of(name, open_, done=None):
    """Return a measure of one number, for which `open_` prepares an image."""

    def run_rows(images, prompts):
        if done is not None:
            done.append(len(images))
        return torch.tensor([[float(image)] for image in images])

    return Measure(name, {}, lambda: (open_, run_rows), 1, (name,))


def test_a_sample_that_one_measure_cannot_read_is_in_no_number_of_any(folders):
    samples, opened = read_samples(folders / "fake-good"), []

    def second(image):
        opened.append(image)
        if len(opened) == 5:
            raise ValueError("expected 4 frames in a.mp4, got none at index 3")
        return 2

    measures = [measure_of("one", lambda image: 1), measure_of("two", second)]
    rows = Rows(samples, folders / "out", NUM, 0.2)
    rows.collect(measures)
    assert [len(rows.of(measure)) for measure in measures] == [NUM - 2] * 2
    assert len(rows.samples) == NUM - 2
    assert rows.skipped[0]["reason"] == "expected 4 frames in a.mp4, got none at index 3"
    later = Rows(samples, folders / "out", NUM, 0.2)  # a later run, with a metric that reads it
    later.collect([measures[0]])
    assert [each.name for each in later.samples] == [each.name for each in rows.samples]


def test_earlier_numbers_go_where_they_are_over_other_samples(folders, write_video, capsys, monkeypatch):
    """A clip that is damaged at its end may do for one metric and not for another."""
    from swd_eval.runs import evaluate

    frames = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), np.uint8)
    for index in range(3):
        write_video(folders / "clips" / f"{index}.mp4", frames)
    names = ("one", "two")
    monkeypatch.setattr(evaluate, "check_names", lambda metrics, kind: None)
    monkeypatch.setattr(evaluate, "SCORES", dict.fromkeys(names, ()))

    def open_score(metric, weights, device):
        def open_(clip):
            if (metric, clip.path.name) == ("two", "1.mp4"):
                raise ValueError(f"expected a video in {clip.path}, got half of one")
            return 1

        return measure_of(metric, open_)

    monkeypatch.setattr(evaluate, "open_score", open_score)
    monkeypatch.setattr(evaluate, "weights_of", lambda metrics: [])
    (folders / "p.txt").write_text("a\nb\nc\n")
    argv = (folders / "clips", "--out", folders / "out", "--prompts", folders / "p.txt", "--max-bad", "0.5")
    run(*argv, "--metrics", "one", kind="videos")
    assert numbers(folders / "out") == {"one": (1, 3)}
    run(*argv, "--metrics", "two", kind="videos")
    assert numbers(folders / "out") == {"two": (1, 2)}
    assert "as they were over other samples: one; ask for them again" in capsys.readouterr().out
    run(*argv, "--metrics", "one", kind="videos")
    assert numbers(folders / "out") == {"one": (1, 2), "two": (1, 2)}
    assert [row["file_name"] for row in lines(folders / "out" / "samples.jsonl")] == ["0.mp4", "2.mp4"]


def test_batches_with_a_bad_sample_are_not_done_again_and_keep_its_reason(folders):
    samples, done, full = read_samples(folders / "fake"), [], []

    def prepare(image):
        full.append(image)
        if len(full) == 6:
            raise OSError("no space left")
        return 1

    measure = measure_of("score", prepare, done)
    with pytest.raises(OSError, match="no space"):
        collect(measure, samples, folders / "out", batch=2, threads=1, skipped=Skipped(folders / "list", NUM, 0.2))
    assert done == [2, 1, 2]
    skipped = Skipped(folders / "list", NUM, 0.2)
    rows = collect(measure, samples, folders / "out", batch=2, threads=1, skipped=skipped)
    assert done == [2, 1, 2, 2, 1]  # batches 3 and 4
    assert rows.isnan()[:, 0].tolist() == [index == 3 for index in range(NUM)]
    assert skipped.reasons["3.png"].startswith("expected an image, got")
    again = Skipped(folders / "list", NUM, 0.2)
    assert collect(measure, samples, folders / "out", skipped=again).isnan().sum() == 1
    assert again.reasons == skipped.reasons


def test_a_number_that_is_not_finite_of_a_sample_that_can_be_read_stays_an_error(folders):
    samples = read_samples(folders / "fake-good")
    skipped = Skipped(folders / "list", len(samples), 0.5)
    with pytest.raises(ValueError, match=r"expected finite score for 0.png, got \[nan\]"):
        collect(measure_of("score", lambda image: float("nan")), samples, folders / "out", skipped=skipped)


def test_a_fault_of_ours_is_not_taken_for_a_bad_sample(folders):
    def prepare(image):
        raise ValueError("operands could not be broadcast")

    skipped = Skipped(folders / "list", NUM, 1.0)
    with pytest.raises(ValueError, match="broadcast"):
        collect(measure_of("score", prepare), read_samples(folders / "fake"), folders / "out", skipped=skipped)


def test_a_broken_clip_is_left_out_too(folders, write_video, capsys):
    for index in range(3):
        frames = np.full((3, 32, 32, 3), 50 * index, np.uint8)
        write_video(folders / "clips" / f"{index}.mp4", frames)
    (folders / "clips" / "1.mp4").write_bytes(b"no video")
    run(folders / "clips", "--out", folders / "out", "--max-bad", "0.5", kind="videos")
    assert "1 of 3 videos cannot be read" in capsys.readouterr().out
    assert numbers(folders / "out")["brightness"] == (pytest.approx(50 / 255, abs=0.01), 2)
    assert results(folders / "out")["skipped"][0]["file_name"] == "1.mp4"
