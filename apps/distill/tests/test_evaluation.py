import json
import shutil
from dataclasses import replace

import pytest
from safetensors.torch import load_file

from swd_distill.training import evaluation
from swd_distill.training.evaluation import Evaluator
from swd_models.lora.files import FILES

METRICS = ("--evaluation.metrics", "fd-lite0", "kid-lite0", "diagnostics")
FEW = ("--evaluation.num", "3", "--evaluation.every", "2")


@pytest.fixture(scope="module")
def evaluated(finished, cli, argv, tmp_path_factory):
    """Train as the finished run did, and measure."""
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    for part in ("cache", "images"):
        shutil.copytree(finished / part, folder / part)
    cli(*argv("train", folder, *METRICS, *FEW))
    return folder


def numbers_of(folder, step):
    found = json.loads((folder / "evaluation" / f"step-{step:06d}" / "results.json").read_text())
    return {number["metric"]: number for number in found["numbers"]}


def test_a_run_is_measured_now_and_then_and_at_its_end(evaluated):
    steps = sorted(path.name for path in (evaluated / "evaluation").glob("step-*"))
    assert steps == ["step-000002", "step-000003"]
    second = numbers_of(evaluated, 2)
    assert second["fd-lite0"]["value"] > 0
    assert second["fd-lite0"]["num"] == 3
    assert second["fd-lite0"]["notes"]["reference n"] == 6
    assert {"kid-lite0", "brightness", "spectrum-distance"} <= second.keys()
    lines = (evaluated / "evaluation" / "table.md").read_text().splitlines()
    assert lines[0].startswith("| step | fd-lite0 | kid-lite0 |")
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| 2", "| 3"]
    assert f"{second['fd-lite0']['value']:.4g}" in lines[2]


def test_samples_are_of_prompts_that_training_has_not_seen(evaluated):
    rows = (evaluated / "evaluation" / "step-000003" / "samples" / "metadata.jsonl").read_text().splitlines()
    unseen = [json.loads(row)["text"] for row in rows]
    seen = (evaluated / "images" / "metadata.jsonl").read_text()
    assert len(unseen) == 3
    assert not [prompt for prompt in unseen if prompt in seen]


def test_measuring_changes_nothing_of_the_run(evaluated, finished):
    ours, without = (load_file(folder / "lora" / FILES["diffusers"]) for folder in (evaluated, finished))
    assert ours.keys() == without.keys()
    assert all(ours[name].equal(without[name]) for name in ours)


def test_samples_are_what_the_run_samples_afterwards(evaluated):
    import numpy as np
    from PIL import Image

    from swd_sample import SwDPipeline

    folder = evaluated / "evaluation" / "step-000003" / "samples"
    prompts = [json.loads(row)["text"] for row in (folder / "metadata.jsonl").read_text().splitlines()]
    media = SwDPipeline.from_run(evaluated)(prompts, seed=1000)
    for index, item in enumerate(media):
        kept = Image.open(folder / f"{index:06d}.png")
        assert np.abs(np.asarray(item, int) - np.asarray(kept, int)).max() <= 1


def test_two_processes_measure_what_one_does(evaluated, argv, two_workers, tmp_path):
    folder = tmp_path / "run"
    for part in ("cache", "images"):
        shutil.copytree(evaluated / part, folder / part)
    two_workers(argv("train", folder, *METRICS, *FEW, "--evaluation.num", "3"))
    for step in (2, 3):
        one, two = numbers_of(evaluated, step), numbers_of(folder, step)
        assert one.keys() == two.keys()
        for name in ("fd-lite0", "brightness", "spectrum-distance"):
            assert two[name]["value"] == pytest.approx(one[name]["value"], rel=0.02, abs=0.02), name


def test_a_reference_of_ones_own_and_prompts_of_ones_own(finished, encoded, cli, argv, tmp_path):
    (tmp_path / "prompts.txt").write_text("a big red circle at the left, green background\n")
    flags = ("--evaluation.prompts", tmp_path / "prompts.txt", "--evaluation.ref", finished / "images")
    cli(*argv("train", encoded, "--evaluation.metrics", "diagnostics", *flags))
    assert numbers_of(encoded, 3)["brightness"]["num"] == 1


def test_what_cannot_be_measured_is_refused_before_any_work(refused, argv, tmp_path, monkeypatch):
    out = tmp_path / "run"
    assert "expected --metrics of images, got fvd" in refused(argv("train", out, "--evaluation.metrics", "fvd"))
    error = refused(argv("train", out, *METRICS, "--evaluation.ref", tmp_path / "none"))
    assert f"expected a file or folder as --evaluation.ref, got {tmp_path}/none" in error
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "train.parquet").write_bytes(b"")
    error = refused(argv("train", out, *METRICS, "--data.images", tmp_path / "tables"))
    assert f"expected --evaluation.ref, as {tmp_path}/tables is no folder of images: give one" in error
    monkeypatch.setattr("swd_distill.training.evaluation.find_spec", lambda name: None)
    assert "install swd-eval[lite0,video] beside swd-distill" in refused(argv("train", out, *METRICS))
    assert not out.exists()


def test_an_evaluation_that_fails_costs_no_step_and_is_made_up_for(
    encoded, finished, cli, argv, refused, tmp_path, monkeypatch
):
    flags = ("--evaluation.metrics", "diagnostics", "--training.save-every", "2")
    shutil.copytree(encoded, tmp_path / "whole")
    cli(*argv("train", tmp_path / "whole", *flags, *FEW, "--evaluation.ref", finished / "images"))

    def fail(self, step, trainer):
        self._of(step).mkdir(parents=True)
        (self._of(step) / "samples").mkdir()
        raise ValueError("expected memory, got none")

    again = argv("train", encoded, *flags, *FEW, "--evaluation.ref", finished / "images")
    with monkeypatch.context() as broken:
        broken.setattr(Evaluator, "measure", fail)
        assert "expected memory" in refused(again, late=True)
    assert (encoded / "checkpoints" / "latest").read_text() == "step-000002\n"
    cli(*again)
    for step in (2, 3):
        one, other = (numbers_of(run, step) for run in (encoded, tmp_path / "whole"))
        assert {name: each["value"] for name, each in one.items()} == {
            name: each["value"] for name, each in other.items()
        }


def test_what_was_measured_beyond_the_checkpoint_is_made_again_with_other_settings(evaluated, cli, argv, tmp_path):
    folder = shutil.copytree(evaluated, tmp_path / "run")
    for gone in ("lora", "checkpoints"):
        shutil.rmtree(folder / gone)
    cli(*argv("train", folder, *METRICS, "--evaluation.num", "2", "--evaluation.every", "2"))
    assert numbers_of(folder, 2)["fd-lite0"]["num"] == 2


def test_empty_captions_are_no_prompts_to_measure_by(tmp_path, configure, finished):
    config = configure(tmp_path)
    images = shutil.copytree(finished / "images", tmp_path / "own")
    names = sorted(path.name for path in images.glob("*.png"))
    rows = [{"file_name": name, "text": "" if i % 2 else f"a red circle {i}"} for i, name in enumerate(names)]
    (images / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = replace(config, model="random-sd3", data=replace(config.data, images=images))
    assert evaluation._prompts_of(config) == ["a red circle 0", "a red circle 2", "a red circle 4"]
    (images / "metadata.jsonl").write_text("\n".join(json.dumps(row | {"text": " "}) for row in rows))
    with pytest.raises(ValueError, match=r"expected --evaluation\.prompts, as all captions are empty"):
        evaluation._prompts_of(config)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--evaluation.num", "1"), "expected --evaluation.num of 2 or more for fd-lite0, got 1"),
        (("--evaluation.ref", "stats.npz"), "expected a folder as --evaluation.ref for kid-lite0, got stats.npz"),
        (("--evaluation.ref", "empty"), "expected images in --evaluation.ref, got none in empty"),
    ],
)
def test_what_can_be_known_before_is_said_before(encoded, argv, refused, tmp_path, monkeypatch, flags, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "stats.npz").touch()
    assert line in refused(argv("train", encoded, *METRICS, *flags))
