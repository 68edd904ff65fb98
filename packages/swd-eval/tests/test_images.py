import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from swd_data import read_samples
from swd_eval import commands
from swd_eval.cli import main
from swd_eval.distances.fid import Statistics
from swd_eval.measure import Measure
from swd_eval.runs.collect import collect
from swd_eval.runs.reference import write_statistics

pytest.importorskip("efficientnet_lite_pytorch")


def run(*argv):
    main(["images", *map(str, argv), "--device", "cpu", "--batch", "4"])


def fails(capsys, *argv):
    with pytest.raises(SystemExit) as stop:
        run(*argv)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.count("\n") == 1
    return error


@pytest.fixture
def folders(tmp_path, write_run):
    names = [str(index) for index in range(6)]
    write_run(tmp_path / "real", names, names, seed=1)
    write_run(tmp_path / "fake", names, ["a cat"] * 3 + ["a dog"] * 3, seed=2)
    return tmp_path


def results(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("lacking", ["--ref FOLDER", "the extra swd-eval[lite0]"])
def test_what_needs_no_more_is_measured_where_something_is_not_there(folders, capsys, monkeypatch, lacking):
    ref = ["--ref", folders / "real"] if "lite0" in lacking else []
    if ref:
        monkeypatch.setattr(commands, "find_spec", lambda name: None)
    run(folders / "fake", *ref, "--out", folders / "out")
    assert capsys.readouterr().out.endswith(f"fd-lite0 and kid-lite0 need {lacking}\n")
    found = {number["metric"] for number in results(folders / "out")["numbers"]}
    assert {"brightness", "contrast", "saturation"} <= found
    assert not any("lite0" in name for name in found)
    assert ("brightness-drift" in found) == bool(ref)


def test_results_say_what_is_needed_to_trust_them(folders, capsys):
    out = folders / "out"
    run(folders / "fake", "--ref", folders / "real", "--out", out)
    found = results(out)
    assert (found["num_images"], found["num_prompts"], found["device"]) == (6, 2, "cpu")
    assert {"torch", "pillow", "numpy", "python"} <= found["numbers"][0]["versions"].keys()
    numbers = {number["metric"]: number for number in found["numbers"]}
    assert list(numbers) == [
        "fd-lite0", "kid-lite0", "brightness", "contrast", "saturation", "brightness-drift", "contrast-drift",
        "saturation-drift", "spectrum-distance", "diversity-lite0",
    ]  # fmt: skip
    distance = numbers["fd-lite0"]
    assert distance["interval"][0] < distance["value"] < distance["interval"][1]
    assert distance["num"] == distance["notes"]["reference n"] == 6
    assert distance["notes"]["mode"] == "lite0"
    assert distance["notes"]["weights"]["sha256"].startswith("57934424")
    assert numbers["diversity-lite0"]["num"] == 2
    table = (out / "table.md").read_text()
    assert table in capsys.readouterr().out
    assert table.startswith("| Model | fd-lite0 ↓ | kid-lite0 ↓ | brightness")
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert [row["file_name"] for row in rows] == [f"{index}.png" for index in range(6)]
    assert np.mean([row["contrast"] for row in rows]) == pytest.approx(numbers["contrast"]["value"])


def test_a_folder_is_at_no_distance_from_itself_by_any_kind_of_reference(folders):
    real, first = folders / "real", folders / "first"
    run(real, "--ref", real, "--out", first, "--metrics", "fd-lite0")
    for ref, out in (("statistics-lite0.npz", "second"), ("reference-lite0.npz", "third"), ("", "fourth")):
        run(real, "--ref", first / ref, "--out", folders / out, "--metrics", "fd-lite0")
    for out in ("first", "second", "third", "fourth"):
        assert results(folders / out)["numbers"][0]["value"] == pytest.approx(0, abs=1e-4)


def test_a_run_that_broke_off_goes_on_and_ends_as_one_that_did_not(folders, capsys):
    fake, broken = folders / "fake", folders / "fake" / "5.png"
    whole = broken.read_bytes()
    run(fake, "--ref", folders / "real", "--out", folders / "whole")
    broken.write_bytes(whole[:60].ljust(len(whole), b"\0"))
    error = fails(capsys, fake, "--ref", folders / "real", "--out", folders / "out")
    assert "expected an image, got" in error
    assert "5.png" in error
    kept = folders / "out" / "tone.parts"
    assert (kept / "0.f32").stat().st_size == 4 * 3 * 4
    assert not (kept / "4.f32").exists()
    (kept / "4.99.tmp.f32").write_bytes(b"half")  # as a process leaves it that is killed while it writes
    broken.write_bytes(whole)
    run(fake, "--ref", folders / "real", "--out", folders / "out")
    assert not kept.exists()
    assert (folders / "out" / "samples.jsonl").read_bytes() == (folders / "whole" / "samples.jsonl").read_bytes()
    assert results(folders / "out")["numbers"] == results(folders / "whole")["numbers"]


def test_metrics_are_added_to_those_of_earlier_runs(folders):
    fake, out = folders / "fake", folders / "out"
    run(fake, "--out", out, "--metrics", "diagnostics")
    before = results(out)["numbers"]
    run(fake, "--out", out, "--metrics", "fd-lite0", "--ref", folders / "real")
    after = results(out)["numbers"]
    assert [number["metric"] for number in after] == ["fd-lite0", "brightness", "contrast", "saturation"]
    assert after[1:] == before
    assert "brightness" in json.loads((out / "samples.jsonl").read_text().splitlines()[0])


def test_another_reference_is_not_taken_for_the_first(folders, write_run):
    fake, out = folders / "fake", folders / "out"
    write_run(folders / "other", ["a", "b", "c"], ["a", "b", "c"], seed=3)
    distances = {}
    for ref in ("real", "other", "real"):
        run(fake, "--out", out, "--metrics", "fd-lite0", "--ref", folders / ref)
        distances.setdefault(ref, set()).add(results(out)["numbers"][0]["value"])
    assert len(distances["real"]) == len(distances["other"]) == 1
    assert distances["real"] != distances["other"]


def test_numbers_against_another_reference_do_not_stay_beside_new_ones(folders, write_run):
    fake, out = folders / "fake", folders / "out"
    write_run(folders / "other", ["a", "b", "c"], ["a", "b", "c"], seed=3)
    run(fake, "--out", out, "--metrics", "kid-lite0", "diagnostics", "--ref", folders / "real")
    run(fake, "--out", out, "--metrics", "fd-lite0", "--ref", folders / "other")
    found = {number["metric"] for number in results(out)["numbers"]}
    assert {"fd-lite0", "brightness"} <= found
    assert not found & {"kid-lite0", "brightness-drift", "spectrum-distance"}
    assert "no longer here, as they were against another reference: kid-lite0, " in (out / "table.md").read_text()


def test_results_of_a_run_that_broke_off_are_no_reference(folders, capsys):
    real, first = folders / "real", folders / "first"
    run(real, "--ref", real, "--out", first, "--metrics", "fd-lite0")
    features = first / "lite0.f32"
    features.write_bytes(features.read_bytes()[: 4 * 4 * 1280])
    argv = (folders / "fake", "--ref", first, "--out", folders / "out", "--metrics", "fd-lite0")
    assert "of 6 samples in" in fails(capsys, *argv)


def test_images_that_changed_are_not_mixed_with_old_scores(folders, capsys):
    fake, out = folders / "fake", folders / "out"
    run(fake, "--out", out, "--metrics", "diagnostics")
    argv = (fake, "--out", out, "--metrics", "diagnostics")
    (folders / "prompts.txt").write_text("a cow\na pig\n")
    assert "made with the given prompts_sha256" in fails(capsys, *argv, "--prompts", folders / "prompts.txt")
    Image.new("RGB", (9, 9)).save(fake / "3.png")
    assert "made with the given images_sha256" in fails(capsys, *argv)


def test_statistics_of_another_mode_or_network_are_refused(folders, capsys):
    statistics = Statistics.of(torch.randn(5, 1280))
    write_statistics(folders / "clean.npz", statistics, "clean")
    np.savez(folders / "small.npz", mu=np.zeros(8), sigma=np.eye(8))
    np.savez(folders / "other.npz", a=np.zeros(8))
    (folders / "text.npz").write_text("no archive")
    np.savez(folders / "nan.npz", mu=np.full(1280, np.nan), sigma=np.eye(1280))
    messages = {
        "clean": "mode lite0 in .*, got clean",
        "small": "1280 dimensions",
        "other": "expected mu and sigma",
        "text": "an .npz with mu and sigma",
        "nan": "finite statistics",
        "absent": "expected an .npz or a folder as --ref",
    }
    for name, message in messages.items():
        argv = (folders / "fake", "--ref", folders / f"{name}.npz", "--out", folders / "out", "--metrics", "fd-lite0")
        error = fails(capsys, *argv)
        assert re.search(message, error), error
    assert not (folders / "out" / "results.json").exists()


def test_what_is_missing_is_said_before_anything_is_computed(folders, capsys):
    fake, real, out = folders / "fake", folders / "real", folders / "out"
    (folders / "none").mkdir()
    (folders / "two.txt").write_text("one\ntwo\nthree\nfour\n")
    (fake / "metadata.jsonl").unlink()
    given = ("--weights", folders / "weights")
    cases = [
        ((folders / "none",), "expected images in"),
        ((fake, "--metrics", "fid"), "expected --metrics of images, got fid: perhaps"),
        ((fake, "--metrics", "fd-lite0"), "expected --ref FOLDER with fd-lite0"),
        ((fake, "--metrics", "pickscore"), "expected a prompt for each image"),
        ((fake, "--metrics", "diagnostics", "--prompts", folders / "two.txt"), "expected 4 images .* got 6"),
        ((fake, "--metrics", "fid-swd", "--ref", real, *given), r"1 missing: pytorch-fid.*\(91 MB\)"),
        (
            (real, "--metrics", "pickscore", "image-reward", "fid-clean", "--ref", real, "--offline", *given),
            r"5 missing: .*yuvalkirstain/PickScore_v1 \(about 4 GB\).*THUDM/ImageReward",
        ),
    ]
    for argv, message in cases:
        error = fails(capsys, *argv, "--out", out)
        assert re.search(message, error), error
    assert not out.exists()


def test_fid_runs_in_each_mode_with_weights_from_the_users_folder(folders, capsys):
    from swd_eval.distances.inception import FidInception

    weights = folders / "weights"
    weights.mkdir()
    torch.manual_seed(0)
    path = weights / "pt_inception-2015-12-05-6726825d.pth"
    torch.save(FidInception().state_dict(), path)
    out = folders / "out"
    argv = (folders / "fake", "--ref", folders / "real", "--weights", weights)
    run(*argv, "--out", out, "--metrics", "fid-swd", "fid-clean")
    numbers = results(out)["numbers"]
    assert [(number["metric"], number["notes"]["mode"]) for number in numbers] == [
        ("fid-swd", "swd"),
        ("fid-clean", "clean"),
    ]
    assert numbers[0]["value"] != numbers[1]["value"]
    assert numbers[0]["notes"]["weights"]["known"] is False
    assert "WEIGHTS ARE NOT THE PUBLISHED ONES" in (out / "table.md").read_text()
    swd = out / "statistics-swd.npz"
    error = fails(capsys, folders / "fake", "--ref", swd, "--weights", weights, "--out", out, "--metrics", "fid-clean")
    assert "mode clean" in error
    assert "got swd" in error


def test_scores_that_are_not_finite_stop_a_run_and_the_batches_before_them_stay(folders):
    done, bad = [], [float("nan")]

    def run_scores(images, prompts):
        done.append(len(images))
        return torch.tensor([[bad[0] if len(done) == 2 and place == 1 else 1.0] for place in range(len(images))])

    measure = Measure("score", {}, lambda: (lambda image: image, run_scores), 1, ("score",))
    samples = read_samples(folders / "fake")
    with pytest.raises(ValueError, match=r"expected finite score for 3.png, got \[nan\]"):
        collect(measure, samples, folders / "out", batch=2)
    assert not (folders / "out" / "score.jsonl").exists()
    bad[0] = 1.0
    assert collect(measure, samples, folders / "out", batch=2).tolist() == [[1.0]] * 6
    assert done == [2, 2, 2, 2]  # the first batch was not done again


def test_batches_of_another_size_are_done_again(folders):
    def run_scores(images, prompts):
        if len(images) == 2:
            raise OSError("no space left")
        return torch.full((len(images), 1), float(len(images)))

    measure = Measure("score", {}, lambda: (lambda image: image, run_scores), 1)
    samples = read_samples(folders / "fake")
    with pytest.raises(OSError, match="no space"):
        collect(measure, samples, folders / "out", batch=4)
    assert collect(measure, samples, folders / "out", batch=3).tolist() == [[3.0]] * 6


def test_of_a_run_the_student_is_measured_against_its_teacher(folders, capsys):
    (folders / "run").mkdir()
    (folders / "run" / "config.json").write_text('{"model": "embedded", "recipe": {}}')
    (folders / "real").rename(folders / "run" / "images")
    argv = [folders / "run", "--ref", folders / "run", "--out", folders / "out"]
    assert "--unseen` lets its student draw" in fails(capsys, *argv)
    (folders / "fake").rename(folders / "run" / "student")
    run(*argv)
    assert results(folders / "out")["images"] == str((folders / "run" / "student").resolve())
    kid = next(each for each in results(folders / "out")["numbers"] if each["metric"] == "kid-lite0")
    assert kid["notes"]["reference"]["path"] == str((folders / "run" / "images").resolve())


def test_a_metric_that_is_none_is_told_those_like_it(folders, capsys):
    argv = [folders / "fake", "--ref", folders / "real", "--out", folders / "out", "--metrics"]
    assert "got fid: perhaps fid-" in fails(capsys, *argv, "fid")
    assert "got xyz: there are pickscore, " in fails(capsys, *argv, "xyz")


def test_long_work_has_a_bar_in_a_terminal_alone(folders, capsys, monkeypatch):
    argv = [folders / "fake", "--ref", folders / "real", "--out", folders / "out", "--metrics", "fd-lite0"]
    run(*argv)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    run(*argv[:-3], folders / "again", *argv[-2:])
    said = capsys.readouterr().err
    assert "lite0" in said
    assert "interval" in said
