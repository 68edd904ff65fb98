import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from swd_data import read_frames, typed
from swd_data.layout import samples_of
from swd_models import load_denoiser, save_lora, share_base
from swd_models.loading import resolve_model
from swd_models.lora.files import FILES, SCHEDULE_KEY
from swd_models.tiny import tiny_sd3
from swd_sample.presets import SOURCES
from swd_sample.words import unknown_words
from swd_schedules import presets

CIRCLE, CROSS = "a big red circle at the left, green background", "a small blue cross, white background"


def test_help_answers_without_importing_torch():
    code = (
        "import sys, swd_sample.cli as c; sys.argv = ['swd-sample', '--help']\n"
        "try: c.main()\n"
        "finally: print({'torch', 'diffusers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "usage: swd-sample" in done.stdout
    assert "--lora PATH" in done.stdout
    assert done.stdout.endswith("set()\n")


def test_words_that_a_model_never_saw_are_told_and_no_more(run, tmp_path):
    code = "import sys, swd_sample.cli as c; c.main()"
    prompt = "A BIG red elephant that rides, in the hills, a bicycle: photo of a many-coloured, cinematic world, " * 2
    command = [sys.executable, "-c", code, str(run), prompt, CIRCLE, "--out", str(tmp_path / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    known = "elephant, that, rides, in, hills, bicycle, photo, many, ..."
    assert line.startswith(f"embedded knows the words of its own captions alone, not {known}: try 'a ")
    assert unknown_words("embedded", [CIRCLE, CROSS]) == []
    assert unknown_words("stabilityai/stable-diffusion-3.5-medium", ["elephant"]) == []


def test_a_file_of_prompts_in_a_prompts_place_is_one_line(refused, run, tmp_path):
    (tmp_path / "prompts.txt").write_text("a big red circle\n")
    line = f"expected a prompt, got the file {tmp_path}/prompts.txt: pass --prompts-file {tmp_path}/prompts.txt --out"
    assert line in refused(run, str(tmp_path / "prompts.txt"))


def test_one_prompt_writes_an_image(cli, run, tmp_path):
    out = tmp_path / "a.png"
    printed = cli(run, CIRCLE, "--out", out)
    assert re.fullmatch(rf"{re.escape(str(out))}: 1 image\(s\), \d+\.\d{{3}} s each, {presets.TINY_4}\n", printed)
    assert Image.open(out).size == (64, 64)
    assert list(tmp_path.iterdir()) == [out]


def test_several_prompts_write_a_grid(cli, run, tmp_path):
    printed = cli(run, CIRCLE, CROSS, CIRCLE, "--out", tmp_path / "grid.webp")
    assert re.search(r": 3 image\(s\), \d+\.\d{3} s each, ", printed)
    picture = Image.open(tmp_path / "grid.webp")
    assert picture.width > 3 * 160
    assert picture.height > 160


def test_the_seed_decides_the_image(cli, run, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        cli(run, CIRCLE, "--seed", seed, "--out", tmp_path / f"{name}.png")
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize(
    ("flags", "schedule", "side"),
    [
        (["--steps", "2"], "1000@8x8 -> 602.2@16x16", 64),
        (["--steps", "1"], "1000@16x16", 64),
        (["--schedule", "1000:8,700:12"], "1000@8x8 -> 700@12x12", 48),
        (["--schedule", "tiny-4-full", "--steps", "2"], "1000@16x16 -> 602.2@16x16", 64),
    ],
)
def test_schedules_are_thinned_and_overridden(cli, run, tmp_path, flags, schedule, side):
    assert cli(run, CIRCLE, *flags, "--out", tmp_path / "a.png").endswith(f" s each, {schedule}\n")
    assert Image.open(tmp_path / "a.png").size == (side, side)


def test_a_preset_takes_the_run_in_the_working_directory_or_any_lora(cli, run, tmp_path, monkeypatch):
    cli(run, CIRCLE, "--out", tmp_path / "a.png")
    cli("tiny", CIRCLE, "--lora", run / "lora", "--out", tmp_path / "b.png")
    cli("tiny", CIRCLE, "--lora", run / "lora" / FILES["diffusers"], "--out", tmp_path / "c.png")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "tiny").symlink_to(run)
    monkeypatch.chdir(tmp_path)
    cli("tiny", CIRCLE, "--out", "d.png")
    assert len({(tmp_path / f"{name}.png").read_bytes() for name in "abcd"}) == 1


def test_presets_name_a_model_and_a_schedule():
    assert SOURCES["tiny"].model == "embedded"
    assert all(presets.resolve(source.schedule).stages for source in SOURCES.values())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere", CIRCLE], f"got 'nowhere': presets are {', '.join(SOURCES)}"),
        (["runs/tiny", CIRCLE], "got 'runs/tiny', which is not here: swd-distill run tiny would make it"),
        (["tiny", CIRCLE], "or make one with `swd-distill run tiny`"),
        (["sd35-medium", CIRCLE], "or make one with `swd-distill run sd35-medium`"),
        (["RUN"], "expected at least one prompt"),
        (["RUN", ""], "expected at least one prompt"),
        (["RUN", CIRCLE, " "], "expected at least one prompt"),
        (["RUN", CIRCLE, "--lora", "absent"], "expected a LoRA as --lora, got absent, which does not exist"),
        (["RUN", CIRCLE, "--out", "a.txt"], "expected --out to be a .png .jpg .jpeg .webp .mp4 file, got a.txt"),
        (["RUN", CIRCLE, "--out", "a"], "expected --out to be a .png .jpg .jpeg .webp .mp4 file, got a"),
        (["RUN", CIRCLE, "--out", "absent/a.png"], "expected a folder that can be written, got absent"),
        (["RUN", CIRCLE, "--steps", "0"], "expected 1 to 4 steps, got 0"),
        (["RUN", CIRCLE, "--steps", "5"], "expected 1 to 4 steps, got 5"),
        (["RUN", CIRCLE, "--schedule", "1000:7,602:16"], "divisible by 2 and at most 16, got 7x7"),
        (["RUN", CIRCLE, "--schedule", "1000:8,602:32"], "at most 16, got 32x32"),
        (["RUN", CIRCLE, "--schedule", "1000:16,602:8"], "never shrink"),
        (["RUN", CIRCLE, "--schedule", "1200:8"], "(0, 1000], got 1200"),
        (["RUN", CIRCLE, "--schedule", "600:8,700:16"], "strictly falling"),
        (["RUN", CIRCLE, "--schedule", "fast"], "expected a schedule, got 'fast'"),
        (["RUN", CIRCLE, "--schedule", "1.0:8,0.6:16"], "1000"),
        (["RUN", CIRCLE, "--batch", "0"], "expected --batch of at least 1, got 0"),
        (["RUN", CIRCLE, "--seed", "18446744073709551616"], "expected --seed of at least 0 and below 2^62"),
        (["RUN", "half \ud83d an emoji"], "expected Unicode text in prompt 1, got half a character"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(refused, run, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(*(run if arg == "RUN" else arg for arg in args))
    assert list(tmp_path.iterdir()) == []


def _other_family(folder):
    path = folder / FILES["diffusers"]
    save_file(load_file(path), path, {"swd_family": "flux"})
    return "expected a LoRA for sd3, got one for flux"


def _other_width(folder):
    save_lora(share_base(tiny_sd3(), 4, fake=False).student, folder, schedule=presets.TINY_4)
    return "choose the model that it was trained for"


def _other_depth(folder):
    path = folder / FILES["diffusers"]
    save_file({key.replace("blocks.0.", "blocks.9."): value for key, value in load_file(path).items()}, path)
    return "no layer of the model"


def _mixed_ranks(folder):
    path = folder / FILES["diffusers"]
    state = load_file(path)
    name = next(key for key in state if "lora_A" in key)
    save_file(state | {name: state[name][:2].contiguous()}, path)
    return "expected one rank in transformer_blocks.0.attn"


def _unlike_anything(folder):
    save_file({"weights": torch.zeros(2)}, folder / FILES["diffusers"])
    return "no layer of the model"


def _empty(folder):
    save_file({}, folder / FILES["diffusers"])
    return "expected"


def _truncated(folder):
    path = folder / FILES["diffusers"]
    path.write_bytes(path.read_bytes()[:-100])
    return "expected a safetensors LoRA"


def _no_tensors(folder):
    (folder / FILES["diffusers"]).write_text("no tensors\nat all")
    return "expected a safetensors LoRA"


def _without_schedule(folder):
    path = folder / FILES["diffusers"]
    with safe_open(path, framework="pt") as file:
        metadata = {key: value for key, value in file.metadata().items() if key != SCHEDULE_KEY}
    save_file(load_file(path), path, metadata)
    return "expected a schedule, got none"


def _without_file(folder):
    (folder / FILES["diffusers"]).unlink()
    return "expected a LoRA file, or a folder with"


@pytest.mark.parametrize(
    "harm",
    [
        _other_family, _other_width, _other_depth, _mixed_ranks, _unlike_anything, _empty, _truncated, _no_tensors,
        _without_schedule, _without_file,
    ],
)  # fmt: skip
def test_a_lora_that_does_not_fit_is_one_line_and_writes_nothing(refused, copied, tmp_path, harm):
    message = harm(copied / "lora")
    assert message in refused(copied, CIRCLE, "--out", tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("config", ["{}", "[]", "{broken", json.dumps({"model": "nobody/nothing"})])
def test_a_run_folder_with_a_bad_config_is_one_line(refused, copied, tmp_path, config):
    (copied / "config.json").write_text(config)
    assert refused(copied, CIRCLE, "--out", tmp_path / "a.png")


def test_a_run_without_its_lora_says_how_to_get_one(refused, copied, tmp_path):
    (copied / "lora" / FILES["diffusers"]).unlink()
    (copied / "lora").rmdir()
    error = refused(copied, CIRCLE, "--out", tmp_path / "a.png")
    assert f"expected a run that is done, got {copied} without lora: go on with its swd-distill run" in error


@pytest.fixture(scope="module")
def video_run(tmp_path_factory):
    """Make a run folder of a video model."""
    folder = tmp_path_factory.mktemp("runs") / "video"
    student = share_base(load_denoiser("random-wan"), 2, fake=False).student
    schedule = presets.resolve("1000:1x4x4,602:2x4x6")
    save_lora(student, folder / "lora", schedule=schedule)
    (folder / "config.json").write_text(json.dumps({"model": "random-wan"}))
    return folder


def test_a_video_model_writes_mp4(cli, video_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli(video_run, CIRCLE, "a blue cat").startswith("sample.mp4: 2 video(s)")
    assert len(read_frames(tmp_path / "sample.mp4", 5)) == 5


def test_an_image_file_for_a_video_is_refused(refused, video_run, tmp_path):
    assert "expected --out to end in .mp4" in refused(video_run, CIRCLE, "--out", tmp_path / "a.png")


def test_a_lora_goes_over_another_base_of_its_family(cli, video_run, tmp_path):
    cli(video_run, CIRCLE, "--model", "random-wan", "--out", tmp_path / "a.mp4")
    assert (tmp_path / "a.mp4").is_file()


def test_another_base_of_another_family_is_refused(refused, video_run, tmp_path):
    error = refused(video_run, CIRCLE, "--model", "random-flux", "--out", tmp_path / "a.mp4")
    assert "expected a LoRA for flux, got one for wan" in error


def test_a_file_of_prompts_fills_a_folder_and_again_only_what_is_missing(cli, run, tmp_path):
    prompts, out = tmp_path / "prompts.txt", tmp_path / "images"
    prompts.write_text(f"{CIRCLE}\n{CROSS}\n{CIRCLE}\n")
    command = (run, "--prompts-file", prompts, "--out", out, "--batch", "2", "--seed", "5")
    assert "3 image(s), 3 of them new" in cli(*command)
    rows = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == [CIRCLE, CROSS, CIRCLE]
    before = [(out / row["file_name"]).read_bytes() for row in rows]
    (out / rows[1]["file_name"]).unlink()
    assert "3 image(s), 1 of them new" in cli(*command)
    assert [(out / row["file_name"]).read_bytes() for row in rows] == before
    cli(run, CIRCLE, "--seed", "7", "--out", tmp_path / "one.png")
    one, third = (np.asarray(Image.open(path)).astype(int) for path in (tmp_path / "one.png", out / "000002.png"))
    assert np.abs(one - third).max() <= 1


@pytest.mark.parametrize(
    ("flags", "name"),
    [(["--seed", "6"], "seed"), (["--steps", "2"], "schedule"), (["--schedule", "tiny-4-full"], "schedule"),
     (["--lora", "other"], "lora"), (["--model", "fine-tune"], "model")],
)  # fmt: skip
def test_a_folder_mixes_no_samples_of_two_settings(cli, refused, run, copied, tmp_path, flags, name):
    prompts, out = tmp_path / "prompts.txt", tmp_path / "images"
    prompts.write_text(f"{CIRCLE}\n{CROSS}\n")
    cli(run, "--prompts-file", prompts, "--out", out)
    (out / "000001.png").unlink()
    before = {path: path.read_bytes() for path in out.iterdir()}
    state = load_file(file := copied / "lora" / FILES["diffusers"])
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    save_file({key: value * 2 for key, value in state.items()}, tmp_path / "other.safetensors", metadata)
    shutil.copytree(resolve_model("embedded"), tmp_path / "fine-tune")
    names = {"other": tmp_path / "other.safetensors", "fine-tune": tmp_path / "fine-tune"}
    line = refused(run, "--prompts-file", prompts, "--out", out, *(names.get(flag, flag) for flag in flags))
    assert "expected samples in" in line
    assert name in line.split(" made with ")[1]
    assert {path: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("name", ["000000.png", "metadata.jsonl"])
def test_files_of_others_are_taken_for_no_samples(refused, run, tmp_path, name):
    prompts, out = tmp_path / "prompts.txt", tmp_path / "theirs"
    prompts.write_text(f"{CIRCLE}\n")
    out.mkdir()
    (out / name).write_text("" if name == "metadata.jsonl" else "a night's work")
    refused(run, "--prompts-file", prompts, "--out", out)
    assert [path.name for path in out.iterdir()] == [name]


def test_metadata_is_written_once(cli, run, tmp_path):
    prompts, out = tmp_path / "prompts.txt", tmp_path / "images"
    prompts.write_text(f"{CIRCLE}\n")
    cli(run, "--prompts-file", prompts, "--out", out)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    cli(run, "--prompts-file", prompts, "--out", out)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_prompts_with_file_names_go_there(cli, run, tmp_path):
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "images"
    prompts.write_text(json.dumps({"file_name": "00000/samples/0000.png", "text": CIRCLE}) + "\n")
    cli(run, "--prompts-file", prompts, "--out", out)
    assert Image.open(out / "00000" / "samples" / "0000.png").size == (64, 64)
    assert json.loads((out / "metadata.jsonl").read_text())["file_name"] == "00000/samples/0000.png"


def test_a_folder_of_other_prompts_and_two_kinds_of_prompts_are_refused(refused, run, tmp_path):
    prompts, out = tmp_path / "prompts.txt", tmp_path / "images"
    prompts.write_text(f"{CIRCLE}\n")
    out.mkdir()
    (out / "metadata.jsonl").write_text('{"file_name": "000000.png", "text": "another"}\n')
    assert "expected samples of these prompts in" in refused(run, "--prompts-file", prompts, "--out", out)
    assert "got prompts too" in refused(run, CIRCLE, "--prompts-file", prompts, "--out", out)
    assert "expected --prompts-file with --out FOLDER" in refused(run, "--prompts-file", prompts)


def test_a_presets_schedule_serves_a_lora_that_carries_none(cli, copied, tmp_path):
    _without_schedule(copied / "lora")
    printed = cli("tiny", CIRCLE, "--lora", copied / "lora", "--out", tmp_path / "a.png")
    assert str(presets.TINY_4) in printed


def test_names_keep_their_dots_and_two_that_meet_are_refused(cli, refused, run, tmp_path):
    rows = [{"file_name": name, "text": CIRCLE} for name in ("cat_v1.5", "cat_v1.6.png", "cat_v1")]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    cli(run, "--prompts-file", tmp_path / "p.jsonl", "--out", out, "--steps", "1")
    assert sorted(path.name for path in out.glob("*.png")) == ["cat_v1.5.png", "cat_v1.6.png", "cat_v1.png"]
    rows.append({"file_name": "cat_v1.jpg", "text": CIRCLE})
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = refused(run, "--prompts-file", tmp_path / "p.jsonl", "--out", tmp_path / "other")
    assert "in line 4 of" in line
    assert "that of line 3" in line
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("u2028.txt", "a big red circle\u2028left\nsecond\n".encode(), ["a big red circle\u2028left", "second"]),
        ("semicolon.csv", b"id;text\n1;first\n2;second\n", ["first", "second"]),
        ("utf16.txt", "zwei \u00e4\n".encode("utf-16"), ["zwei \u00e4"]),
    ],
)
def test_prompt_files_of_all_kinds_are_read(cli, run, tmp_path, name, text, expected):
    (tmp_path / name).write_bytes(text)
    cli(run, "--prompts-file", tmp_path / name, "--out", tmp_path / "out", "--steps", "1")
    rows = (tmp_path / "out" / "metadata.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    assert [json.loads(row)["text"] for row in rows] == expected


def test_a_full_disk_is_one_line_and_leaves_nothing(refused, run, tmp_path, monkeypatch):
    def full(self, path, **options):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    assert "No space left on device" in refused(run, CIRCLE, "--out", tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_stages_are_written_as_a_picture_one_below_the_other(run, cli, tmp_path):
    out = tmp_path / "stages.png"
    assert "2 image(s)" in cli(run, CIRCLE, CIRCLE, "--stages", "--out", out)
    whole, tall = Image.open(out), tmp_path / "one.png"
    cli(run, CIRCLE, CIRCLE, "--out", tall)
    assert whole.height > 3 * Image.open(tall).height
    cli(run, CIRCLE, "--schedule", "tiny-4-full", "--stages", "--out", tmp_path / "full.png")  # of equal sizes
    assert Image.open(tmp_path / "full.png").height > 3 * Image.open(tall).height


def test_a_prompt_may_have_several_samples_and_an_undistilled_model_guidance(run, cli, tmp_path):
    assert "3 image(s)" in cli(run, CIRCLE, "--num-images-per-prompt", "3", "--out", tmp_path / "three.png")
    cli(run, CIRCLE, "--out", tmp_path / "plain.png")
    cli(run, CIRCLE, "--guidance-scale", "3", "--out", tmp_path / "guided.png")
    assert (tmp_path / "plain.png").read_bytes() != (tmp_path / "guided.png").read_bytes()


def test_a_file_of_prompts_takes_no_flags_of_single_ones(run, refused, tmp_path):
    (tmp_path / "p.txt").write_text("a cat\n")
    given = ["--prompts-file", tmp_path / "p.txt", "--out", tmp_path / "o"]
    assert "without --stages, --num-images-per-prompt" in refused(run, *given, "--stages")
    assert "at least 1, got 0" in refused(run, CIRCLE, "--num-images-per-prompt", "0")


def test_one_flag_lets_a_run_draw_what_judges_it(cli, copied, monkeypatch):
    from swd_models import loading

    monkeypatch.setattr(loading, "shipped_prompts", lambda model, unseen: [CIRCLE, CROSS] if unseen else [])
    printed = cli(copied, "--unseen")
    assert f"{copied / 'student'}: 2 image(s), 2 of them new" in printed
    assert f"next: {typed('swd-eval', 'images', str(copied))} --metrics diagnostics --out {copied}/student-m" in printed
    assert samples_of(copied) == copied / "student"
    assert [json.loads(line)["text"] for line in (copied / "student" / "metadata.jsonl").open()] == [CIRCLE, CROSS]


def test_a_model_without_unseen_prompts_is_judged_by_the_runs_own(cli, copied, refused, monkeypatch):
    from swd_models import loading

    monkeypatch.setattr(loading, "shipped_prompts", lambda model, unseen: [])
    assert "expected prompts for --unseen, got none" in refused(copied, "--unseen")
    (copied / "images").mkdir()
    rows = [json.dumps({"file_name": f"{i}.png", "text": CIRCLE}) for i in range(3)]
    (copied / "images" / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    printed = cli(copied, "--unseen")
    assert "1 image(s), 1 of them new" in printed
    assert f"next: {typed('swd-eval', 'images', str(copied))} --ref {copied} --out {copied}/student-meas" in printed


@pytest.mark.parametrize(
    "flags", [("--steps", "2"), ("--base", "int8"), ("--text-tokens", "64"), ("--tiny", "tiny"), ("--base-lora", "l")]
)
def test_what_is_sampled_otherwise_is_no_runs_student(refused, run, flags):
    assert "expected --out FOLDER with --unseen where no run samples as it was trained" in refused(
        run, "--unseen", *flags
    )
    assert not (run / "student").exists()


def test_a_folder_mixes_no_samples_of_two_base_loras_under_one_name(cli, refused, run, tmp_path):
    prompts, out, style = tmp_path / "prompts.txt", tmp_path / "images", tmp_path / "style.safetensors"
    prompts.write_text(f"{CIRCLE}\n")
    shutil.copy(run / "lora" / FILES["diffusers"], style)
    given = (run, "--prompts-file", prompts, "--base-lora", f"{style}:0.5", "--out", out)
    cli(*given)
    with safe_open(style, "pt") as opened:
        metadata = opened.metadata()
    save_file({key: value * 2 for key, value in load_file(style).items()}, style, metadata)
    line = refused(*given)
    assert "the given base_lora_files" in line
    assert "got other base_lora_files" in line
    noted = json.loads((out / "sampling.json").read_text())
    del noted["base_lora_files"]  # as earlier versions
    (out / "sampling.json").write_text(json.dumps(noted))
    assert "0 of them new" in cli(*given)


@pytest.mark.parametrize(
    "flags", [("--stages",), ("--seed", "3"), ("--guidance-scale", "2"), ("--num-images-per-prompt", "2")]
)
def test_the_page_takes_no_flags_of_single_samples(refused, run, flags):
    assert "expected --demo without --stages, --num-images-per-prompt, --guidance-scale and --seed" in refused(
        run, "--demo", *flags
    )


def test_unseen_has_prompts_of_its_own(refused, run):
    assert "expected --unseen without prompts" in refused(run, CIRCLE, "--unseen")


def test_a_part_of_a_run_is_called_that(refused, run):
    assert f"got '{run / 'lora'}', which is in the run {run.resolve()}: give that" in refused(run / "lora", CIRCLE)


def test_a_picture_takes_no_others_place(cli, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [cli(run, CIRCLE).partition(":")[0] for _ in range(2)] == ["sample.png", "sample-1.png"]
