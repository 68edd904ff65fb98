"""What a run will take is said before it begins, and asked where that is days."""

import io
import json
import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from swd_distill.cli import main
from swd_distill.planning import ahead as module
from swd_distill.planning.ahead import ahead
from swd_distill.presets import PRESETS
from swd_models.lora.files import FILES, STEPS_KEY


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("".join(f"prompt {i}\n" for i in range(20)))
    return path


def save_lora(config, steps):
    save_file({"a": torch.zeros(1)}, config.out / "lora" / FILES["diffusers"], {STEPS_KEY: steps})


@pytest.fixture
def flux(prompts, tmp_path):
    preset = PRESETS["flux"]
    data = replace(preset.data, prompts=prompts, images_per_prompt=0)
    return replace(preset, data=data, out=tmp_path / "run")


def test_a_run_of_days_says_what_it_would_do_and_stops_for_a_yes(prompts, tmp_path, refused, capsys):
    argv = ["run", "flux", "--data.prompts", str(prompts), "--out", str(tmp_path / "run")]
    error = refused(argv, late=True)
    assert re.search(r"expected a yes to work of \d\.\d days, got none: nothing was begun; --yes begins it", error)
    assert not (tmp_path / "run").exists()


def test_the_lines_say_where_the_time_goes(flux):
    found = ahead(flux)
    text = "\n".join(found.lines)
    assert "72,000 images of 20 prompt(s), 3,600 of each: more than 50 teach little, --data.images" in text
    assert "the teacher's images take" in text
    assert "the full loss takes" in text
    assert "GiB of cache" in text
    assert found.hours > 24


def test_the_cache_is_that_of_ones_own_images_and_of_so_many_prompts(flux, tmp_path):
    def gib(config):
        (line,) = (line for line in ahead(config).lines if line.endswith("GiB of cache"))
        return float(line.split()[0].replace(",", ""))

    images = tmp_path / "own"
    images.mkdir()
    rows = (json.dumps({"file_name": f"{i}.png", "text": f"text {i}"}) for i in range(7_200))
    (images / "metadata.jsonl").write_text("\n".join(rows))
    own = replace(flux, data=replace(flux.data, images=images))
    every = replace(flux, data=replace(flux.data, images=tmp_path / "tables"))
    assert gib(own) == pytest.approx(gib(every) / 10, rel=0.02)
    assert "how many" in "\n".join(ahead(every).lines)
    assert "how many" not in "\n".join(ahead(own).lines)
    narrow = replace(own, data=replace(own.data, text_dtype="float8_e4m3fn"))
    assert gib(flux) < gib(narrow) * 10 < gib(own) * 10  # of 20 prompts text is next to nothing


def test_a_run_without_a_cache_has_no_hours_for_one(flux):
    text = "\n".join(ahead(replace(flux, data=replace(flux.data, on_the_fly=True))).lines)
    assert "encode" not in text
    assert "GiB of cache" not in text


def test_a_card_of_less_memory_than_its_sheet_is_told_what_fits(flux, monkeypatch):
    monkeypatch.setattr(module, "optimizer_here", lambda: "adamw")
    config, told = replace(flux, training=replace(flux.training, accumulate=24)), []
    for gib in (79.0, 24.0):
        monkeypatch.setattr(module, "_device", lambda gib=gib: ("a100", gib))
        told.append("\n".join(ahead(config, "train").lines))
    assert "no batch fits" not in told[0]
    assert "no batch fits 22." in told[1]


def test_training_that_does_not_fit_is_refused_before_its_images_are_made(flux, monkeypatch, capsys):
    monkeypatch.setattr(module, "optimizer_here", lambda: "adamw")
    training = replace(flux.training, accumulate=24, base="int8")
    config = replace(flux, training=training, yes=True)
    monkeypatch.setattr(module, "_device", lambda: ("rtx4090", 24.0))
    for command in ("run", "train"):
        with pytest.raises(
            ValueError, match=r"expected training that fits 24\.0 GiB, got 25\.\d: .*adamw-8bit would fit"
        ):
            module.confirm(config, command)
    with pytest.raises(SystemExit):
        main(["run", "flux", "--data.prompts", str(flux.data.prompts), "--out", str(flux.out), "--dry-run"])
    assert "expected training that fits 24.0 GiB" in capsys.readouterr().err
    module.confirm(config, "generate")
    module.confirm(replace(config, training=replace(training, optimizer="adamw-8bit")), "run")
    monkeypatch.setattr(module, "_device", lambda: ("rtx4090", 25.5))  # over what is left free, and may fit yet
    module.confirm(config, "run")
    monkeypatch.setattr(module, "_device", lambda: None)  # reckoned for another card
    module.confirm(config, "run")


def test_a_teacher_in_float32_holds_twice_as_much(flux):
    from swd_distill.planning.before import held
    from swd_distill.planning.estimate import Estimate

    half, single = (
        held(Estimate.of(replace(flux, training=replace(flux.training, dtype=dtype)), 1), "generate", 1e9).gib
        for dtype in ("auto", "float32")
    )
    assert single == pytest.approx(2 * half)


def test_the_planned_cache_is_of_ones_own_images(cli, tmp_path):
    rows = (json.dumps({"file_name": f"{i}.png", "text": "a"}) for i in range(40))
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
    printed = cli("plan", "flux", "--gpus", "1", "--data.images", str(tmp_path))
    assert "GiB of cache for 40 images" in printed
    assert "GiB of cache" not in cli("plan", "flux", "--gpus", "1", "--data.images", str(tmp_path), "--data.on-the-fly")


def test_a_plan_needs_no_library_of_the_run(cli, monkeypatch):
    monkeypatch.setattr("swd_distill.checks.find_spec", lambda name: None)
    assert "GiB a GPU" in cli("plan", "flux", "--gpus", "1", "--training.optimizer", "adamw-8bit")
    with pytest.raises(SystemExit):
        main(["train", "flux", "--training.optimizer", "adamw-8bit"])


def test_few_prompts_make_few_images_unless_more_are_asked_for(prompts, tmp_path, cli):
    argv = ["generate", "flux", "--data.prompts", str(prompts), "--out", str(tmp_path / "run"), "--dry-run"]
    printed = cli(*argv)
    assert printed.startswith("1,000 images of 20 prompt(s), 50 of each (--data.images-per-prompt)")
    assert '"num_images": 1000' in printed
    assert cli(*argv, "--data.images-per-prompt", "3").startswith("60 images of 20 prompt(s), 3 of each")
    assert cli(*argv, "--data.images-per-prompt", "0").startswith("72,000 images of 20 prompt(s), 3,600 of each")
    assert cli(*argv, "--data.num-images", "30").startswith("30 images of 20 prompt(s)\n")


def test_stages_after_the_images_count_those_that_are_there(prompts, tmp_path, cli):
    argv = ["flux", "--out", str(tmp_path / "run"), "--dry-run"]
    assert '"num_images": 72000' in cli("train", *argv)
    (tmp_path / "run" / "images").mkdir(parents=True)
    (tmp_path / "run" / "images" / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "a"}\n' * 7)
    for command in ("encode", "train"):
        assert '"num_images": 7,' in cli(command, *argv)


def test_a_run_keeps_as_many_images_as_it_has(flux, prompts, tmp_path, cli, refused):
    argv = ["run", "flux", "--data.prompts", str(prompts), "--out", str(tmp_path / "run"), "--dry-run"]
    (tmp_path / "run").mkdir()
    data = replace(flux.data, num_images=5000, images_per_prompt=50)
    made = replace(flux, data=data, training=replace(flux.training, optimizer="adamw"))
    (tmp_path / "run" / "config.json").write_text(json.dumps(made.to_json()))
    assert '"num_images": 5000' in cli(*argv, "--data.num-images", "5000")
    assert "made with data.num_images 1000, got data.num_images 5000" in refused(argv)


def test_a_plan_of_prompts_that_are_not_there_is_refused(tmp_path, refused):
    assert "none.txt" in refused(["plan", "flux", "--data.prompts", str(tmp_path / "none.txt")])


def test_presets_have_as_many_images_as_their_students_see():
    for preset in PRESETS.values():
        if preset.name.startswith("tiny"):
            continue
        assert preset.data.num_images == preset.training.iterations * preset.training.batch


def test_the_hours_are_those_of_the_plan(flux, cli):
    one = replace(flux, training=replace(flux.training, accumulate=2))
    stages = next(line for line in ahead(one).lines if "reckoned" in line)
    planned = cli("plan", "flux", "--gpus", "1", "--training.accumulate", "2")
    for stage in ("generate", "encode", "train"):
        hours = re.search(rf"^{stage} ([\d.]+) h", planned, re.MULTILINE)[1]
        assert f"{stage} {hours} h" in stages


def test_each_command_says_its_own(flux):
    reckoned = {command: " ".join(ahead(flux, command).lines) for command in ("generate", "encode", "train")}
    assert "train" not in reckoned["generate"].partition("reckoned")[0].partition("generate")[2]
    assert "images of" not in reckoned["train"]
    assert "generate" not in reckoned["encode"]


def test_what_is_done_takes_no_time(flux):
    (flux.out / "cache").mkdir(parents=True)
    (flux.out / "cache" / "manifest.json").write_text("{}")
    lines = ahead(flux).lines
    assert f"there already, in {flux.out}: the cache" in lines
    assert not any("generate" in line for line in lines if "reckoned" in line)
    (flux.out / "lora").mkdir()
    save_lora(flux, "3000")
    assert ahead(flux).lines == lines  # no run has noted this folder
    (flux.out / "config.json").write_text("{}")
    found = ahead(flux)
    assert f"there already, in {flux.out}: the cache, 3,000 of 3,000 iterations" in found.lines
    assert found.hours == 0


@pytest.mark.parametrize("of", ["checkpoint", "shorter run"])
def test_a_run_that_goes_on_takes_the_rest(flux, of):
    whole = ahead(flux, "train").hours
    if of == "checkpoint":
        (flux.out / "checkpoints").mkdir(parents=True)
        (flux.out / "checkpoints" / "latest").write_text("step-000750\n")
    else:
        (flux.out / "lora").mkdir(parents=True)
        save_lora(flux, "750")
    (flux.out / "config.json").write_text("{}")
    found = ahead(flux, "train")
    assert found.hours == pytest.approx(0.75 * whole)
    assert f"there already, in {flux.out}: 750 of 3,000 iterations" in found.lines


def test_what_has_to_be_downloaded_is_said(flux, monkeypatch):
    (line,) = (line for line in ahead(flux).lines if "download" in line)
    # FLUX.1-dev: 11.90 billion parameters, T5-XXL's encoder 4.76, CLIP-L's .12, the autoencoder's .08.
    assert line == "black-forest-labs/FLUX.1-dev is not in the hub's cache: 31 GiB or more to download first"
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args: "/cache/model_index.json")
    assert not any("download" in line for line in ahead(flux).lines)


def test_images_that_are_there_count(flux):
    flux = replace(flux, data=replace(flux.data, num_images=4))
    whole = ahead(flux, "generate").hours
    flux.images.mkdir(parents=True)
    for i in range(3):
        (flux.images / f"{i:06d}.png").touch()
    assert ahead(flux, "generate").hours == pytest.approx(whole / 4)


@pytest.mark.parametrize(
    ("answer", "goes_on"), [("y\n", True), ("yes\n", True), ("\n", False), ("no\n", False), ("", False)]
)
def test_a_person_is_asked(flux, monkeypatch, capsys, answer, goes_on):
    stdin = io.StringIO(answer)
    stdin.isatty = lambda: True
    monkeypatch.setattr(module.sys, "stdin", stdin)
    if goes_on:
        module.confirm(flux, "run")
    else:
        with pytest.raises(ValueError, match="expected a yes"):
            module.confirm(flux, "run")
    assert "days. Begin? [y/N]" in capsys.readouterr().err


def test_yes_asks_nobody(flux, monkeypatch):
    monkeypatch.setattr(module.sys, "stdin", None)
    module.confirm(replace(flux, yes=True), "run")


def test_several_processes_cannot_be_asked(flux, monkeypatch):
    stdin = io.StringIO("y\n")
    stdin.isatty = lambda: True
    monkeypatch.setattr(module.sys, "stdin", stdin)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="expected a yes"):
        module.confirm(flux, "run")


def test_a_tiny_run_is_not_asked_about(capsys):
    module.confirm(PRESETS["tiny"], "run")
    assert capsys.readouterr().err == ""
    assert ahead(PRESETS["tiny"]).lines == ["1,024 images of 2,000 prompt(s)"]


def test_a_toy_is_called_that(capsys):
    module.confirm(PRESETS["tiny-flux"], "train")
    assert "random-flux is tiny and random" in capsys.readouterr().err
    assert "random-flux is tiny and random" in ahead(PRESETS["tiny-flux"]).lines[0]


def test_few_prompts_are_said_of_every_model(prompts, capsys):
    tiny = PRESETS["tiny"]
    module.confirm(replace(tiny, data=replace(tiny.data, prompts=prompts, num_images=2000)), "generate")
    assert "2,000 images of 20 prompt(s), 100 of each" in capsys.readouterr().err


def test_words_that_the_embedded_teacher_never_saw_are_told(prompts, capsys):
    tiny = PRESETS["tiny"]
    module.confirm(replace(tiny, data=replace(tiny.data, prompts=prompts)), "generate")
    told = "embedded knows the words of its own captions alone, not prompt, 0, 1"
    assert told in capsys.readouterr().err
    main(["run", "tiny", "--data.prompts", str(prompts), "--dry-run", "--out", str(prompts.parent / "run")])
    assert told in capsys.readouterr().err


def test_a_dry_run_reads_the_prompts(tmp_path, refused):
    argv = ["run", "flux", "--data.prompts", str(tmp_path / "none.txt"), "--dry-run"]
    assert "none.txt" in refused(argv)
