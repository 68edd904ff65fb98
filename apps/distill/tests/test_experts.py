"""A model of two experts gives two students: one after the other, each with its stages, together in one sampler."""

import json
import shutil
import weakref
from dataclasses import replace

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors import safe_open
from safetensors.torch import load, load_file

from swd_data import read_frames
from swd_distill.planning.cards import ways
from swd_distill.planning.roofline import GPUS
from swd_distill.presets import PRESETS
from swd_distill.stopped import Stopped
from swd_distill.train import build_trainer
from swd_distill.training.batches import STUDENT, Draw, recipe_within
from swd_losses import PAPER, RELEASED
from swd_models import load_denoiser
from swd_models.lora.files import steps_of
from swd_sample import SwDPipeline
from swd_schedules import presets

NAME, EXPERTS = "tiny-wan22-a14b", ("high-noise", "low-noise")
SMALL = (
    "--data.num-images", "3", "--data.teacher-steps", "2", "--training.iterations", "4", "--recipe.fake-updates", "1",
)  # fmt: skip
HIGH, LOW = (0.875, 1.0), (0.0, 0.875)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cli):
    out = tmp_path_factory.mktemp("experts") / "run"
    assert f"done: see {out}/samples/comparison.png" in cli("run", NAME, "--out", str(out), *SMALL)
    return out


def _metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_each_student_has_all_losses_on_its_own_stages(finished):
    stages = {name: {line["stage"] for line in _metrics(finished / name)} for name in EXPERTS}
    assert stages["high-noise"] <= {0, 1}
    assert stages["low-noise"] <= {2, 3}
    for name in EXPERTS:
        assert {"mmd", "dmd", "gan", "fake/denoising", "fake/discriminator"} <= _metrics(finished / name)[-1].keys()
        assert (finished / name / "samples").is_dir()
        with safe_open(finished / "lora" / name / "pytorch_lora_weights.safetensors", framework="pt") as lora:
            assert lora.metadata()["swd_expert"] == name
            assert json.loads(lora.metadata()["swd_schedule"])["sizes"][-1] == [6, 8, 12]
    high, low = (load_file(finished / "lora" / name / "pytorch_lora_weights.safetensors") for name in EXPERTS)
    assert all(not torch.equal(high[key], low[key]) for key in high if ".lora_B." in key)


def test_the_images_are_the_teachers_of_both_experts(finished):
    frames = read_frames(finished / "images" / "000002.mp4", 21)
    assert (len(frames), frames[0].size) == (21, (96, 64))


def test_sampling_and_every_form_of_export_hand_over(finished, cli):
    student = SwDPipeline.from_run(finished)
    (video,) = student(["a big red cat"])
    assert len(video) == 21
    for form in ("comfyui", "peft", "kohya"):
        assert str(finished / "export" / form / "low-noise") in cli("export", str(finished), "--to", form)
        again = SwDPipeline.from_pretrained(PRESETS[NAME].model, lora=finished / "export" / form)
        assert again.schedule == student.schedule
        assert all(map(torch.equal, again.denoiser.state_dict().values(), student.denoiser.state_dict().values()))
    printed = cli("export", str(finished), "--to", "merged", "--dtype", "float32")
    for each in student.denoiser.experts:
        folder = finished / "export" / "merged" / each.folder
        assert str(folder) in printed
        merged = WanTransformer3DModel.from_pretrained(folder).state_dict()
        assert all(map(torch.equal, merged.values(), each.backbone.state_dict().values()))


def test_a_folder_of_samples_notes_both_loras(finished, tmp_path, monkeypatch):
    from swd_sample.cli import main

    (tmp_path / "prompts.txt").write_text("a big red cat\n")
    argv = ["swd-sample", str(finished), "--prompts-file", str(tmp_path / "prompts.txt"), "--out", str(tmp_path / "o")]
    monkeypatch.setattr("sys.argv", argv)
    main()
    assert len(json.loads((tmp_path / "o" / "sampling.json").read_text())["lora"].split()) == 2


def test_a_student_that_is_done_is_not_trained_again_and_the_other_goes_on(finished, tmp_path, cli, monkeypatch):
    """Also bit for bit: the low-noise student of a run that was killed is that of a whole one."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    shutil.rmtree(out / "lora" / "low-noise")
    shutil.rmtree(out / "low-noise")
    loaded = []
    monkeypatch.setattr(
        "swd_distill.train.load_denoiser",
        lambda *args, **options: loaded.append(options["expert"].name) or load_denoiser(*args, **options),
    )
    cli("train", NAME, "--out", str(out), *SMALL)
    assert loaded == ["low-noise"]
    before, after = (load_file(at / "lora/low-noise/pytorch_lora_weights.safetensors") for at in (finished, out))
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_a_run_goes_on_with_more_iterations_also_if_killed_before_the_lora_is_written(finished, tmp_path, cli):
    out, file = tmp_path / "run", "pytorch_lora_weights.safetensors"
    shutil.copytree(finished, out)
    longer = ["train", NAME, "--out", str(out), *SMALL, "--training.iterations", "6"]
    cli(*longer)
    assert [len(_metrics(out / name)) for name in EXPERTS] == [6, 6]
    assert [steps_of(out / "lora" / name) for name in EXPERTS] == [6, 6]
    whole = [load((out / "lora" / name / file).read_bytes()) for name in EXPERTS]
    shutil.copy(finished / "lora/high-noise" / file, out / "lora/high-noise" / file)  # that of four
    (out / "lora/low-noise" / file).unlink()  # its folder was made, then came the kill
    cli(*longer)
    for name, before in zip(EXPERTS, whole, strict=True):
        after = load_file(out / "lora" / name / file)
        assert all(torch.equal(after[key], before[key]) for key in before)


def test_the_first_experts_memory_is_free_when_the_second_is_loaded(finished, tmp_path, cli, monkeypatch):
    out, built = tmp_path / "run", []
    shutil.copytree(finished, out)
    shutil.rmtree(out / "lora")

    def build(*args):
        assert [each() for each in built] == [None] * len(built)
        trainer = build_trainer(*args)
        built.append(weakref.ref(trainer.roles.teacher.backbone))
        return trainer

    monkeypatch.setattr("swd_distill.train.build_trainer", build)
    cli("train", NAME, "--out", str(out), *SMALL)
    assert len(built) == 2


def test_an_export_is_of_both_or_of_none(finished, tmp_path, refused):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    shutil.rmtree(out / "lora" / "low-noise")
    shutil.rmtree(out / "export", ignore_errors=True)
    assert "expected a folder with high-noise and low-noise" in refused(["export", str(out), "--to", "comfyui"])
    assert not (out / "export").exists()


def test_a_fine_tune_is_a_lora_for_each_and_a_student_may_begin_as_both(finished, tmp_path, cli):
    lora = str(finished / "lora")
    flags = [*SMALL, "--training.iterations", "1", "--teacher-lora", f"{lora}:0.5", "--init-lora", lora]
    cli("run", NAME, "--out", str(tmp_path / "run"), *flags)
    for name in EXPERTS:
        file = f"{name}/pytorch_lora_weights.safetensors"
        began, ended = (load_file(folder / "lora" / file) for folder in (finished, tmp_path / "run"))
        moved = max(float((ended[key] - began[key]).abs().max()) for key in began)
        assert 0 < moved < 0.02  # of one update, from there and not from nothing
    merged = load_denoiser(PRESETS[NAME].model, loras=[f"{lora}:0.5"])
    plain = load_denoiser(PRESETS[NAME].model)
    for one, other in zip(merged.experts, plain.experts, strict=True):
        assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--schedule", "1000:2x4x6,900:6x8x12"], "expected stages for both experts of random-wan22-a14b, whose bound"),
        (["--schedule", "800:2x4x6,602:6x8x12"], "boundary is at timestep 875, got 800@2x4x6"),
        (["--evaluation.metrics", "diagnostics"], "expected no --evaluation.metrics for random-wan22-a14b, whose two"),
        (["--data.buckets", "1:1", "4:3"], "expected no --data.buckets for random-wan22-a14b, of two experts"),
        (["--teacher-lora", "."], "expected a folder with high-noise and low-noise, a LoRA in each, got ."),
        (["--recipe.no-mmd-noised"], "got --recipe.no-mmd-noised: leave it out"),
    ],
)
def test_what_experts_cannot_take_is_one_line(refused, tmp_path, flags, line):
    assert line in refused(["run", NAME, "--out", str(tmp_path / "run"), *SMALL, *flags])


def test_intervals_are_cut_to_what_an_expert_knows_or_are_the_same_share_of_it():
    high, low = recipe_within(PAPER, HIGH), recipe_within(PAPER, LOW)
    assert high.mmd_interval == pytest.approx((0.875, 0.95))
    assert high.dmd_interval == pytest.approx((0.875, 0.875 + 0.125 * 0.791))
    assert high.fake_interval == high.gan_interval == HIGH
    assert (low.mmd_interval, low.dmd_interval) == (PAPER.mmd_interval, PAPER.dmd_interval)
    assert low.fake_interval == low.gan_interval == LOW
    assert recipe_within(PAPER, (0.0, 1.0)) is PAPER
    assert recipe_within(replace(PAPER, mmd_noised=False), LOW).mmd_noised is False


@pytest.mark.parametrize("recipe", [PAPER, RELEASED], ids=["paper", "released"])
@pytest.mark.parametrize("levels", [HIGH, LOW], ids=EXPERTS)
def test_stages_and_levels_are_drawn_within(recipe, levels):
    schedule, met = presets.PRESETS["wan-4"], set()
    mine = schedule.within(*levels)
    for step in range(60):
        draw = Draw(0, step, STUDENT, range(4), levels)
        met.add(draw.stage(schedule, recipe))
        within = recipe_within(recipe, levels)
        for name in ("mmd", "dmd", "fake", "gan"):
            sigma = draw.sigma(name, getattr(within, f"{name}_interval"), recipe.levels)
            assert bool(((sigma >= levels[0]) & (sigma <= levels[1])).all())
    assert met == set(mine)
    assert len(mine) == 2


def test_the_hours_of_both_students_are_counted(cli):
    page = cli("plan", "wan22-a14b", "--gpus", "8")
    assert "two experts, one after the other: high noise at 6x20x34, 11x30x52, low noise at 16x40x70, 21x60x104" in page
    assert "(2 students, each 3,000 iterations of" in page


def test_days_on_a_card_are_of_both_students_and_stages_on_one_side_are_one_line(cli, refused):
    config, gpu = PRESETS["wan22-a14b"], GPUS["a100"]
    way = next(way for way in ways(config, 80, gpu) if way.found)
    means = [sum(way.found.seconds(gpu, s.target).total() for s in half) / 2 for half in way.found.students()]
    expected = 3000 * sum(means) * (config.training.batch // way.found.share)
    assert way.training_seconds(gpu) == pytest.approx(expected)
    days = f"{way.training_seconds(gpu) / 86400:.1f}"
    assert days in cli("plan", "wan22-a14b", "--memory", "80", "--gpu", "a100")
    line = refused(["plan", "wan22-a14b", "--schedule", "1000:21x60x104"])
    assert "A14B-Diffusers, whose boundary is at timestep 875, got 1000@21x60x104: choose another --schedule" in line


def test_both_loras_are_published_with_one_card(finished, tmp_path, cli):
    out = tmp_path / "hub"
    text = cli("publish", str(finished), "--to", str(out), "--samples", "1", "--dry-run")
    names = {path.relative_to(out).as_posix() for path in out.rglob("*.safetensors")}
    files = ("comfyui_lora.safetensors", "pytorch_lora_weights.safetensors")
    assert names == {f"{expert}/{file}" for expert in EXPERTS for file in files}
    assert (out / "samples" / "0.mp4").is_file()
    for part in ("pipeline_tag: text-to-video", "for each of 2 experts", "put its two LoRAs into", "6x8x12 | 64x96"):
        assert part in text


def test_a_run_that_is_stopped_says_whose_student_it_was():
    assert str(Stopped(3, 9, 15, "low-noise")).startswith("the low-noise student stopped and saved at step 3 of 9")
    assert str(Stopped(3, 9, 15)).startswith("stopped and saved at step 3 of 9")
