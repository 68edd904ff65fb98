import json
import subprocess
import sys

import pytest

from swd_distill.training import log
from swd_distill.training.log import TIMES


def _rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_every_iteration_notes_losses_drift_time_memory_and_flops(finished):
    rows = _rows(finished)
    assert [row["step"] for row in rows] == [1, 2, 3]
    names = {"mmd", "slope_mmd", "norm", "skips", "stage", "contrast", "saturation", "tflop", *TIMES}
    assert all(row.keys() == {"step", *names} for row in rows)
    assert all(row["stage"] in range(4) and row["mmd"] >= 0 and row["norm"] > 0 for row in rows)
    assert all(row["seconds"] > row["wait"] >= 0 for row in rows)
    assert all(0.1 < row["gib"] < 100 for row in rows)


def test_tensorboard_holds_the_same_numbers_and_the_pictures(finished):
    loader = pytest.importorskip("tensorboardX.proto.event_pb2", reason="reads what tensorboardX writes")
    found, pictures = {}, []
    for path in sorted((finished / "tensorboard").glob("events.*")):
        with path.open("rb") as file:
            for record in _records(file):
                event = loader.Event.FromString(record)
                for value in event.summary.value:
                    if value.HasField("image"):
                        pictures.append(event.step)
                    else:
                        found[value.tag, event.step] = value.simple_value
    for row in _rows(finished):
        assert found["mmd", row["step"]] == pytest.approx(row["mmd"])
        assert found[f"stage-{row['stage']:.0f}/norm", row["step"]] == pytest.approx(row["norm"])
    assert pictures == [3]


def test_a_resumed_run_hides_no_point_of_before_in_tensorboard_and_is_one_run_in_wandb(
    configure, tmp_path, monkeypatch
):
    made = []

    class Tracker:
        def __init__(self, *args, **options):
            made.append(options)

        def start(self):
            pass

    monkeypatch.setattr(log, "TensorBoardTracker", Tracker)
    monkeypatch.setattr(log, "WandBTracker", Tracker)
    config = configure(tmp_path)
    for step in (0, 500):
        for name in ("tensorboard", "wandb"):
            log._start(name, config, step)
    assert [each["purge_step"] for each in made[::2]] == [1, 501]  # TensorBoard hides that step and all behind it
    assert made[1]["id"] == made[3]["id"] != ""


def _records(file):
    """Read the frames of an event file: length, its checksum, data, its checksum."""
    while header := file.read(12):
        yield file.read(int.from_bytes(header[:8], "little"))
        file.read(4)


def test_a_tracker_that_is_not_installed_is_named_in_one_line(argv, encoded, refused):
    if subprocess.run([sys.executable, "-c", "import wandb"], capture_output=True).returncode == 0:
        pytest.skip("wandb is installed")
    line = refused(argv("train", encoded, "--training.trackers", "wandb"))
    assert "expected wandb for --training.trackers, got none: pip install wandb" in line
