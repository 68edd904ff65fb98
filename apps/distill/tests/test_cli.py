import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import swd_distill.cli as cli_module
from swd_distill.cli import COMMANDS, main
from swd_distill.planning.cards import ways
from swd_distill.planning.counts import Counts
from swd_distill.planning.roofline import GPUS
from swd_distill.presets import PRESETS
from swd_sample.presets import SOURCES
from swd_schedules import devices


def test_help_answers_without_importing_torch():
    code = "import sys, swd_distill.cli as c; c.main(['--help']); print({'torch', 'diffusers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: swd-distill COMMAND PRESET")
    assert all(name in done.stdout for name in (*COMMANDS, *PRESETS))
    assert done.stdout.endswith("set()\n")


@pytest.mark.parametrize("args", [[], ["-h"], ["--help"]])
def test_no_command_prints_the_usage(cli, args):
    assert cli(*args).startswith("usage: swd-distill")


@pytest.mark.parametrize("command", ["run", "plan", "train"])
def test_help_without_a_preset_lists_the_flags(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    printed = capsys.readouterr().out
    assert caught.value.code == 0
    assert f"usage: swd-distill {command} PRESET" in printed
    assert "--training.iterations" in printed
    assert "presets: tiny, " in printed
    assert ("--gpus {None}" in printed) == (command == "plan")


def test_shapes_that_the_model_cannot_take_are_blamed_not_the_schedule(refused, tmp_path):
    error = refused(["run", "tiny", "--data.buckets", "1:1", "4:3", "--out", str(tmp_path / "run")])
    assert error.endswith("got 14x18; that size is of --data.buckets 1:1 4:3: choose others")


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"export", "publish", "zoo"}))
def test_a_dry_run_prints_config_and_stages_and_writes_nothing(cli, argv, tmp_path, command):
    printed = cli(*argv(command, tmp_path / "run", "--dry-run"))
    config = json.loads(printed[printed.index("{") :])
    assert (config["data"]["num_images"], config["schedule"]["sizes"][0]) == (6, [8, 8])
    assert printed.count("Stage(") == 4
    assert not (tmp_path / "run").exists()


def test_a_schedule_comes_as_text_or_as_a_file(cli, argv, tmp_path):
    (tmp_path / "s.json").write_text('{"timesteps": [1000, 602], "sizes": [[8, 8], [16, 16]]}')
    for schedule in ("1000:8,602:16", tmp_path / "s.json"):
        assert "1000@8x8 -> 602@16x16" in cli(*argv("run", tmp_path, "--dry-run", "--schedule", schedule))


def test_presets_hold_the_settings_of_the_authors():
    medium, large = PRESETS["sd35-medium"], PRESETS["sd35-large"]
    assert (medium.training.batch, medium.training.rank, medium.training.block, medium.training.lr) == (
        64,
        64,
        11,
        4e-6,
    )
    assert (large.training.batch, large.training.block, large.data.teacher_steps) == (24, 20, 28)
    assert (medium.recipe.dmd_weight, medium.recipe.gan_weight, medium.recipe.fake_updates) == (0.12, 0.1, 5)
    assert (len(medium.scales.sizes), len(large.scales.sizes)) == (6, 4)


def test_presets_know_their_names_and_folders():
    assert [PRESETS[name].needs_fake for name in ("tiny", "tiny-long", "sd35-medium")] == [False, True, True]
    assert PRESETS.keys() == SOURCES.keys()
    assert all(preset.out == Path("runs") / name for name, preset in PRESETS.items())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["frobnicate", "tiny"],
            "expected a command of run, generate, encode, train, plan, export, publish, zoo, got 'frobnicate'",
        ),
        (["run"], "expected a preset, got nothing: for example swd-distill run tiny"),
        (["run", "tiny-fluks"], "expected a preset, got 'tiny-fluks': perhaps tiny-flux"),
        (["train", "--out", "here"], "got '--out'"),
    ],
)
def test_an_unknown_command_or_preset_is_refused(refused, args, message):
    assert message in refused(args)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--schedule", "1000:7,602:16"], "divisible by 2 and at most 16, got 7x7"),
        (["--schedule", "1000:8,602:32"], "at most 16, got 32x32"),
        (["--schedule", "1000:2x8x8,602:3x8x8"], "got 2x8x8"),
        (["--schedule", "1000:16,602:8"], "never shrink"),
        (["--schedule", "1200:8,602:16"], "(0, 1000], got 1200"),
        (["--schedule", "602:8,1000:16"], "strictly falling timesteps"),
        (["--schedule", "602"], "expected a schedule, got '602'"),
        (["--schedule", "absent.json"], "got absent.json"),
        (["--model", "nobody/nothing"], "neither on disk nor reachable"),
        (["--training.block", "6"], "expected --training.block from 0 to 5 for embedded, got 6"),
        (["--training.batch", "0"], "expected --training.batch of at least 1, got 0"),
        (["--training.rank", "0"], "expected --training.rank of at least 1, got 0"),
        (["--data.num-images", "0"], "expected --data.num-images of at least 1, got 0"),
        (["--data.images", "absent"], "expected a folder of images, got absent"),
        (["--data.prompts", "absent.txt"], "expected a file, got absent.txt"),
        (["--recipe.mmd-interval", "0.9", "0.1"], "expected --recipe.mmd-interval as 0 <= low < high <= 1"),
        (["--recipe.levels", "grid", "--recipe.mmd-interval", "0.001", "0.002"], "widen it"),
        (["--recipe.gan-weight", "1", "--recipe.fake-updates", "0"], "expected --recipe.fake-updates of at least 1"),
        (["--recipe.mmd-weight", "0"], "expected"),
        (["--device", "cuda:99"], "expected a device of this machine, got cuda:99: torch"),
        (["--device", "gpu"], "expected a device such as cuda, cuda:1, xpu, mps or cpu, got 'gpu'"),
        (["--training.compile", "foo"], "expected a backend of "),
        (["--data.compile", "foo"], "got 'foo'"),
        (["--training.checkpointing", "0"], "expected --training.checkpointing of at least 1, got 0"),
    ],
    ids=lambda value: "_".join(value)[:60] if isinstance(value, list) else "",
)
def test_bad_flags_are_refused_before_anything_is_written(refused, argv, tmp_path, flags, message):
    assert message in refused(argv("run", tmp_path / "run", *flags))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("empty.txt", " \n\n", "expected at least one prompt"),
        ("empty.jsonl", "", "expected at least one prompt"),
        ("broken.jsonl", '{"text": "a"}\n{"text": ', "expected JSON in line 2"),
        ("other.csv", "word\na\n", "expected a column named text or prompt or caption"),
        ("prompts.md", "a", "expected a file of .txt, .csv"),
    ],
)
@pytest.mark.parametrize("command", ["run", "generate"])
def test_bad_prompt_files_are_refused_before_anything_is_written(refused, argv, tmp_path, command, name, text, message):
    (tmp_path / name).write_text(text)
    error = refused(argv(command, tmp_path / "run", "--data.prompts", tmp_path / name))
    assert message in error
    assert name in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["run", "generate"])
def test_an_output_that_cannot_be_written_is_refused(refused, argv, tmp_path, command):
    (tmp_path / "file").write_text("mine")
    assert str(tmp_path / "file") in refused(argv(command, tmp_path / "file" / "run"))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(("command", "message"), [("encode", "metadata.jsonl"), ("train", "manifest.json")])
def test_a_command_before_its_turn_names_the_one_to_run(refused, argv, tmp_path, command, message):
    error = refused(argv(command, tmp_path / "run"))
    assert message in error
    assert "run `swd-distill" in error
    assert not (tmp_path / "run").exists()


def test_plan_prints_a_page_without_a_run_folder(cli, tmp_path):
    flags = ("--gpus", "2", "--memory", "1", "--gpu", "a100", "--schedule", "1000:8", "--out", str(tmp_path / "run"))
    page = cli("plan", "tiny", *flags)
    assert page.startswith("tiny: 1000@8x8")
    assert "batch 16 on 2 x a100, 8 at a time" in page
    assert "recipe: 1 MMD alone, without a fake model\n" in page
    assert "0 of 6 blocks recomputed: " in page
    assert ": fits; this one is taken" in page
    assert "Reckoned, not measured: NVIDIA A100 80GB SXM data sheet" in page
    assert re.search(r"^train \d", page, re.MULTILINE)
    assert not (tmp_path / "run").exists()


def test_a_shipped_preset_is_planned_without_counting(cli, monkeypatch):
    monkeypatch.setattr(Counts, "count", None)
    for preset in ("sd35-medium", "sd35-medium-released", "sd35-large", "sd35-large-released", "flux", "wan", "sdxl"):
        page = cli("plan", preset, "--gpus", "8")
        for stage in ("generate", "encode", "train"):
            assert re.search(rf"^{stage} [\d,.]+ h", page, re.MULTILINE), (preset, stage)


def test_a_plan_says_what_the_recipe_is_and_on_what_it_spends(cli):
    page = cli("plan", "sd35-medium")
    assert (
        "recipe: 1 MMD + 0.12 DMD + 0.1 GAN (shares of MMD's gradient over the run), 5 fake updates an update\n" in page
    )
    spent = re.search(r"^spent on: (.*)$", page, re.MULTILINE)[1].split(", ")
    parts = {part.rpartition(" ")[0]: int(part.rpartition(" ")[2].rstrip("%")) for part in spent}
    assert parts.keys() == {"5 x fake", "5 x rollout", "dmd", "student", "mmd", "gan"}
    assert sum(parts.values()) == pytest.approx(100, abs=len(parts) / 2)
    assert "weights, which hold for one model" in cli("plan", "sd35-medium-released")


def test_a_plan_says_what_does_not_fit_and_what_would(cli):
    page = cli("plan", "flux", "--gpus", "1", "--memory", "24")
    assert "no batch fits 22.8 GiB: " in page
    assert "of them the base; --training.base int8 --training.optimizer adamw-8bit would fit, or a lower" in page
    page = cli("plan", "flux", "--gpus", "1", "--memory", "48")
    count = re.search(r"\d+ samples at a time fit: --training.accumulate (\d+)", page)[1]
    page = cli("plan", "flux", "--gpus", "1", "--memory", "48", "--training.accumulate", count)
    assert "this one is taken" in page


def test_a_plan_says_what_would_fit_before_training(cli):
    def line(stage, *flags):
        page = cli("plan", "flux", "--gpus", "1", "--memory", "24", *flags)
        return re.search(rf"^{stage} .*$", page, re.MULTILINE)[0]

    assert line("generate").endswith("at 8 a time, one part at a time: does not fit; --data.batch 1 would")
    assert line("generate", "--data.batch", "1").endswith(": fits")
    assert line("generate", "--training.base", "nf4").endswith(": fits")
    assert line("encode", "--memory", "16").endswith("; --data.batch 5 would")
    assert line("encode", "--memory", "16", "--data.batch", "5").endswith(": fits")
    assert line("generate", "--memory", "16").endswith("does not fit; --training.base int8 would")
    assert line("generate", "--memory", "4").endswith("does not fit; take a device of more memory")
    assert line("train").endswith(" s): does not fit, see above")
    assert line("train", "--training.base", "nf4", "--training.accumulate", "24").endswith(" s)")
    assert line("batch").startswith("batch 24 on 1 x rtx4090")  # the card of that memory
    page = cli("plan", "qwen-image", "--memory", "24")
    assert re.search(r"^swd-distill run qwen-image .* --data.batch 5$", page, re.MULTILINE)
    assert page.count(" of 22.8 GiB a GPU at 5 a time") == 2
    hours = [float(each) for each in re.findall(r"^(?:generate|encode) ([\d.]+) h", page, re.MULTILINE)]
    days = float(re.search(r"^nf4 +full .* ([\d.]+)$", page, re.MULTILINE)[1])
    whole = float(re.search(r"^in all ([\d.]+) days with the first of these; fewer images", page, re.MULTILINE)[1])
    assert whole == pytest.approx(days + sum(hours) / 24, abs=0.1)


def test_a_plan_of_a_card_says_what_fits_and_the_command_that_does_it(cli, tmp_path, monkeypatch):
    page = cli("plan", "flux", "--memory", "24")
    assert "batch 24 on a card of 24 GiB, as fast as rtx4090" in page
    rows = {tuple(line.split()[:2]): line for line in page.splitlines() if re.match(r"(bf16|int8|fp8|nf4) ", line)}
    assert rows.keys() == {(base, loss) for base in ("bf16", "int8", "fp8", "nf4") for loss in ("full", "MMD")}
    assert "does not fit" in rows["bf16", "MMD"]
    assert "does not fit" not in rows["nf4", "full"] + rows["int8", "MMD"]
    command = re.search(r"^swd-distill run (.*)$", page, re.MULTILINE)[1].split()
    assert command[:3] == ["flux", "--training.base", "int8"]
    assert command[-2:] == ["--data.prompts", "prompts.txt"]  # which it has none of its own
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("a cat\n")
    assert re.search(r"^\(int8 has the most bits of what fits; nf4 takes 0.\d\d of its time\)$", page, re.MULTILINE)
    assert re.search(r"^generate .* of 22.8 GiB a GPU at 8 a time, one part at a time: fits$", page, re.MULTILINE)
    assert re.search(r"^encode .* of 22.8 GiB a GPU at 8 a time: fits$", page, re.MULTILINE)
    assert cli("plan", *command, "--gpus", "1", "--memory", "24").count("this one is taken") == 1
    (tmp_path / "a b.txt").write_text("a cat\n")
    flags = ("--training.lr", "1e-05", "--data.prompts", "a b.txt", "--recipe.no-balance")
    page = cli("plan", "flux", "--memory", "24", *flags)
    full, alone = re.findall(r"^(?:or with MMD alone: )?swd-distill run (flux .*)$", page, re.MULTILINE)
    assert full.endswith(" --data.prompts 'a b.txt' --training.lr 1e-05 --recipe.no-balance")
    assert alone.endswith(f" --recipe.gan-weight 0{full[full.index(' --data.prompts') :]}")
    assert page.rstrip().endswith("swd-distill plan flux --gpus 1 --gpu rtx4090 --memory 24")
    alone = cli("plan", "flux", "--memory", "14")
    assert re.search(
        r"^swd-distill run flux --training.base nf4 .* --recipe.gan-weight 0 --data.prompts .* --data.batch \d$",
        alone,
        re.MULTILINE,
    )
    assert re.search(
        r"^nothing fits 8 GiB: 1\d GiB are the least, with MMD alone",
        cli("plan", "flux", "--memory", "8"),
        re.MULTILINE,
    )


@pytest.mark.parametrize(
    ("preset", "loss", "base", "most"),
    [
        ("flux", "MMD alone", "nf4", 13), ("flux", "MMD alone", "int8", 18), ("flux", "full", "nf4", 16.5),
        ("flux", "full", "int8", 21), ("sd35-large", "full", "nf4", 11.5),
    ],
)  # fmt: skip
def test_a_quantised_base_takes_at_most_so_many_gib_at_one_sample(preset, loss, base, most):
    found = {(way.config.training.base, way.loss): way.least for way in ways(PRESETS[preset], 24, GPUS["rtx4090"])}
    assert found[base, loss] <= most


@pytest.mark.parametrize("memory", ["0", "-1", "nan", "inf"])
def test_a_card_of_no_memory_is_one_line(refused, memory):
    assert "expected --memory above 0, in GiB" in refused(["plan", "flux", "--memory", memory])


def test_plan_refuses_a_batch_that_gpus_cannot_share(refused):
    assert "divisible by 3 GPU(s) x 1 share(s), got 16" in refused(["plan", "tiny", "--gpus", "3"])


def test_a_full_device_is_one_line_that_says_what_to_do(refused, monkeypatch):
    def full(args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(cli_module, "_dispatch", full)
    line = refused(["train", "tiny"])
    assert (
        "got CUDA out of memory. Tried to allocate 2.00 GiB: give it less at a time, by --training.accumulate" in line
    )


def test_an_error_that_nobody_expected_shows_its_traceback_and_asks_to_report_it(monkeypatch, capsys):
    def broken(args):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(cli_module, "_dispatch", broken)
    with pytest.raises(SystemExit) as caught:
        cli_module.main(["train", "tiny"])
    shown = capsys.readouterr().err
    assert caught.value.code == 1
    assert "RuntimeError: mat1 and mat2 shapes" in shown
    assert "please report it" in shown


def test_plan_takes_no_device_to_compute_on(refused):
    assert "expected the GPU of a plan as --gpu, got --device a100" in refused(["plan", "tiny", "--device", "a100"])


def test_plan_refuses_an_unknown_gpu(refused):
    line = refused(["plan", "tiny", "--gpu", "b200"])
    assert "expected --gpu of a100, h100, h200, l40s, rtx4090, rtx4080, rtx5090, mi300x, got b200" in line


def test_a_dtype_that_a_device_does_not_compute_in_is_refused(refused, argv, tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "_has_bfloat16", lambda device: False)
    line = refused(argv("train", tmp_path / "run", "--training.dtype", "bfloat16"))
    assert "expected a dtype that cpu computes in, got bfloat16: try float16 or float32" in line
