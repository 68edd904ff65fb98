import json
import re

import numpy as np
import pytest
import torch

from swd_eval.cli import main
from swd_eval.measure import Measure
from swd_eval.runs.metrics import score_numbers
from swd_eval.scores.video_reward import FIELDS

pytest.importorskip("av")


def run(*argv):
    main(["videos", *map(str, argv), "--device", "cpu", "--batch", "2"])


def fails(capsys, *argv):
    with pytest.raises(SystemExit) as stop:
        run(*argv)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.count("\n") == 1
    return error


@pytest.fixture
def folders(tmp_path, write_video):
    """Three grey videos of three frames: of the fake ones each frame is lighter by 51, of the real ones by 0."""
    for name, step in (("fake", 51), ("real", 0)):
        for index in range(3):
            levels = [20 * index + step * frame for frame in range(3)]
            frames = np.stack([np.full((32, 48, 3), level, np.uint8) for level in levels])
            write_video(tmp_path / name / f"{index}.mp4", frames)
    (tmp_path / "fake" / "metadata.jsonl").write_text(
        "".join(json.dumps({"file_name": f"{index}.mp4", "text": f"prompt {index}"}) + "\n" for index in range(3))
    )
    return tmp_path


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_results_of_videos_are_those_of_images_and_motion(folders, capsys):
    out = folders / "out"
    run(folders / "fake", "--ref", folders / "real", "--out", out)
    found = results(out)
    assert (found["num_videos"], found["num_prompts"], found["videos"]) == (3, 3, str(folders / "fake"))
    numbers = {number["metric"]: number["value"] for number in found["numbers"]}
    assert list(numbers) == [
        "brightness", "contrast", "saturation", "motion", "brightness-drift", "contrast-drift", "saturation-drift",
        "motion-drift", "spectrum-distance",
    ]  # fmt: skip
    expected = {"brightness": 71 / 255, "motion": 0.2, "brightness-drift": 0.2, "motion-drift": 0.2, "contrast": 0}
    assert {name: numbers[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    table = (out / "table.md").read_text()
    assert table in capsys.readouterr().out
    assert table.startswith("| Model | brightness | contrast | saturation | motion |")
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert [(row["file_name"], row["prompt"]) for row in rows] == [(f"{i}.mp4", f"prompt {i}") for i in range(3)]
    assert [row["motion"] for row in rows] == pytest.approx([0.2] * 3)


def test_results_of_videos_serve_as_a_reference_and_are_compared(folders, capsys):
    for name in ("fake", "real"):
        run(folders / name, "--prompts", folders / "fake" / "metadata.jsonl", "--out", folders / f"{name}-out")
    run(folders / "fake", "--ref", folders / "fake-out", "--out", folders / "again")
    numbers = {number["metric"]: number["value"] for number in results(folders / "again")["numbers"]}
    assert numbers["motion-drift"] == numbers["spectrum-distance"] == 0
    capsys.readouterr()
    main(["report", str(folders / "real-out"), str(folders / "fake-out")])
    text = capsys.readouterr().out
    assert text.startswith(f"A: {folders / 'real'} (3 videos)\nB: {folders / 'fake'} (3 videos)")
    assert "| motion | 0 | 0.2 | +0.2 |" in text


def test_a_run_that_meets_a_broken_video_stops_there_and_goes_on(folders, capsys):
    fake, out, broken = folders / "fake", folders / "out", folders / "fake" / "2.mp4"
    run(fake, "--out", folders / "whole")
    whole = broken.read_bytes()
    broken.write_bytes(b"\0" * len(whole))
    assert re.search("expected a video, got .*2.mp4", fails(capsys, fake, "--out", out))
    assert [path.name for path in (out / "tone.parts").glob("*.f32")] == ["0.f32"]
    broken.write_bytes(whole)
    run(fake, "--out", out)
    assert (out / "samples.jsonl").read_bytes() == (folders / "whole" / "samples.jsonl").read_bytes()


def test_what_is_missing_is_said_before_anything_is_computed(folders, capsys, write_run):
    fake, real = folders / "fake", folders / "real"
    write_run(folders / "images", ["a"], ["a cat"])
    np.savez(folders / "statistics.npz", mu=np.zeros(8), sigma=np.eye(8))
    rewards = ("--metrics", "visionreward", "videoreward", "--weights", folders / "weights")
    cases = [
        ((folders / "images",), "expected videos in"),
        ((fake, "--metrics", "fd-lite0"), "of videos, got fd-lite0: there are visionreward, videoreward, diagnostics"),
        ((real, *rewards), "expected a prompt for each video for visionreward"),
        ((fake, "--ref", folders / "statistics.npz"), "expected a folder as --ref"),
        ((fake, "--ref", folders / "absent"), "expected a folder as --ref"),
        (
            (fake, *rewards, "--offline"),
            r"3 missing: \S*VisionReward\S* \(about 25 GB\).*KwaiVGI/VideoReward \(about 5 GB\).*Qwen2-VL-2B-Instruct",
        ),
    ]  # fmt: skip
    for argv, message in cases:
        error = fails(capsys, *argv, "--out", folders / "out")
        assert re.search(message, error), error
    assert not (folders / "out").exists()


def test_of_many_fields_the_score_and_its_parts_are_numbers():
    rows = torch.arange(2 * len(FIELDS), dtype=torch.float32).reshape(2, -1)
    measure = Measure("video-reward", {"dtype": "any"}, lambda: (str, torch.tensor), len(FIELDS), FIELDS)
    numbers = score_numbers("videoreward", rows, ["a", "b"], measure)
    assert [number.metric for number in numbers] == [
        "videoreward",
        "videoreward-vq",
        "videoreward-mq",
        "videoreward-ta",
    ]
    assert [number.value for number in numbers] == [rows[:, FIELDS.index(each.metric)].mean() for each in numbers]
    answers = ("visionreward", "visionreward-unclear", "visionreward-01")
    measure = Measure("visionreward", {}, lambda: (str, torch.tensor), 3, answers)
    assert [each.metric for each in score_numbers("visionreward", rows, ["a", "b"], measure)] == ["visionreward"]
