import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from swd_models.lora.files import FILES
from swd_sample import SwDPipeline
from swd_schedules.presets import TINY_4


def test_a_run_ends_with_three_lines_of_where_things_are(finished_run):
    folder, printed = finished_run
    assert printed.count("\n") == 3
    assert printed.startswith(f"done: see {folder}/samples/comparison.png\nLoRA: {folder}/lora\ntry: ")


def test_a_run_folder_holds_what_the_design_says(finished):
    assert {path.name for path in finished.iterdir()} == {
        "config.json", "metrics.jsonl", "samples", "checkpoints", "lora", "images", "cache", "tensorboard", ".lock",
    }  # fmt: skip
    assert sorted(path.name for path in (finished / "samples").iterdir()) == ["comparison.png", "step-000003.png"]
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == ["latest", "step-000003"]
    assert not [path for path in finished.rglob("*") if "tmp" in path.name]
    config = json.loads((finished / "config.json").read_text())
    assert config["model"] == "embedded"
    assert config["schedule"] == json.loads(TINY_4.to_json())
    assert config["data"]["teacher_steps"] == 2


def test_pictures_show_every_sample(finished):
    comparison = Image.open(finished / "samples" / "comparison.png")
    step = Image.open(finished / "samples" / "step-000003.png")
    assert comparison.height > 3 * 160
    assert comparison.width > 8 * 160
    assert step.width > 6 * 160


def test_a_second_run_says_so_and_changes_no_file(finished, cli, argv, snapshot):
    before = snapshot(finished)
    assert cli(*argv("run", finished)).startswith("already done: see ")
    assert snapshot(finished) == before


@pytest.mark.parametrize("flag", ["--data.batch", "--training.save-every", "--training.sample-every"])
def test_what_changes_no_number_may_differ_in_the_same_folder(finished, cli, argv, snapshot, flag):
    before = snapshot(finished)
    assert cli(*argv("run", finished, flag, "7")).startswith("already done: see ")
    assert snapshot(finished) == before


@pytest.mark.slow
def test_a_run_of_images_and_a_lora_that_have_changed_since_is_another(copied, tmp_path, cli, argv, refused, snapshot):
    images, lora, out = copied / "images", copied / "lora" / FILES["diffusers"], tmp_path / "own"
    made_of = argv("run", out, "--data.images", str(images), "--init-lora", str(lora), "--teacher-lora", f"{lora}:0.5")
    cli(*made_of)
    before = snapshot(out)
    assert cli(*made_of).startswith("already done: see ")
    whole = lora.read_bytes()
    with safe_open(lora, "pt") as file:
        notes = file.metadata()
    save_file({key: value / 2 for key, value in load_file(lora).items()}, lora, notes)
    assert "made with the given checksums.init_lora, got other checksums.init_lora" in refused(made_of)
    lora.write_bytes(whole)
    rows = (images / "metadata.jsonl").read_text().splitlines()
    (images / "metadata.jsonl").write_text("\n".join(rows[1:]))
    assert "expected a cache in " in (error := refused(made_of))
    assert "made with the given images, got other images" in error
    (images / "metadata.jsonl").write_text("\n".join(rows))
    first = json.loads(rows[0])["file_name"]
    Image.open(images / first).rotate(180).save(images / first, compress_level=0)  # in place
    assert f"got others among samples 0 to {len(rows) - 1} of {images}: put them back" in refused(made_of)
    assert snapshot(out) == before


def test_a_dry_run_refuses_what_the_run_would(finished, refused, cli, argv, snapshot):
    before = snapshot(finished)
    assert "made with training.rank 77, got training.rank " in refused(
        argv("run", finished, "--training.rank", "77", "--dry-run")
    )
    assert "there already" in cli(*argv("run", finished, "--dry-run"))
    assert snapshot(finished) == before


def test_a_second_train_changes_no_weights(copied, cli, argv, snapshot):
    lora = copied / "lora" / FILES["diffusers"]
    before, weights = snapshot(copied), load_file(lora)
    assert cli(*argv("train", copied)) == f"LoRA in {copied}/lora\n"
    after, again = snapshot(copied), load_file(lora)
    assert {key: value.tolist() for key, value in again.items()} == {k: v.tolist() for k, v in weights.items()}
    assert after.keys() == before.keys()
    for name in before.keys() - {f"lora/{FILES['diffusers']}"}:  # its metadata have no order
        assert after[name][0] == before[name][0], name


def test_a_run_without_its_picture_makes_only_that(copied, cli, argv, snapshot):
    picture = copied / "samples" / "comparison.png"
    picture.unlink()
    before = snapshot(copied)
    assert cli(*argv("run", copied)).startswith("done: see ")
    after = snapshot(copied)
    assert picture.is_file()
    for name, (content, _) in before.items():  # the metadata of a LoRA have no order
        assert after[name][0] == content or name == f"lora/{FILES['diffusers']}", name


def test_a_whole_cache_needs_no_images_of_the_teacher(copied, cli, argv, snapshot):
    """Removed to save room: to draw them again would take days."""
    (copied / "samples" / "comparison.png").unlink()
    shutil.rmtree(copied / "images")
    cache = snapshot(copied / "cache")
    assert cli(*argv("run", copied)).startswith("done: see ")
    assert not (copied / "images").exists()
    assert snapshot(copied / "cache") == cache


def test_images_of_two_dtypes_are_not_mixed(copied, refused, cli, argv):
    notes = copied / "images" / "generation.json"
    line = refused(argv("generate", copied, "--training.dtype", "float32"))
    assert "expected images in" in line
    assert "made with dtype float32, got dtype auto" in line
    noted = json.loads(notes.read_text())
    del noted["dtype"]  # as earlier versions
    notes.write_text(json.dumps(noted))
    cli(*argv("generate", copied, "--training.dtype", "float32"))


def test_the_lora_carries_schedule_and_family_and_the_last_weights(finished):
    path = finished / "lora" / FILES["diffusers"]
    weights = load_file(finished / "checkpoints" / "step-000003" / "student.safetensors")
    state = {key.removeprefix("transformer."): value for key, value in load_file(path).items()}
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[key], weights[key]) for key in weights)
    assert SwDPipeline.from_run(finished).schedule == TINY_4


def test_stock_diffusers_with_the_lora_predicts_what_the_student_does(finished, stock_pipe):
    student = SwDPipeline.from_run(finished)
    cond = student.text(["a big red circle at the left, green background", ""])
    x_t, sigma = torch.randn(2, 4, 12, 12, generator=torch.Generator().manual_seed(0)), torch.tensor([0.9, 0.4])
    pipe = stock_pipe()

    def predict():
        with torch.no_grad():
            velocity = pipe.transformer(x_t, cond["prompt_embeds"], cond["pooled_prompt_embeds"], 1000 * sigma).sample
        return x_t - sigma[:, None, None, None] * velocity

    base = predict()
    pipe.load_lora_weights(finished / "lora")
    with torch.no_grad():
        expected = student.denoiser.denoise(x_t, sigma, cond)
    torch.testing.assert_close(predict(), expected)
    assert (expected - base).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("command", "flags", "message"),
    [
        ("train", ["--schedule", "1000:8,602:16"], "made for sizes [[8, 8], [16, 16]], got"),
        ("encode", ["--schedule", "1000:8,602:16"], "expected a cache in"),
        ("run", ["--schedule", "1000:8,602:16"], "expected a run in"),
        ("train", ["--training.rank", "77"], "made with training.rank 77, got training.rank "),
        ("run", ["--training.rank", "77"], "made with training.rank 77, got training.rank "),
        ("run", ["--training.clip", "77"], "made with training.clip 77.0, got training.clip "),
        ("train", ["--seed", "1"], "made with seed 1, got seed 0"),
        ("generate", ["--seed", "1"], "made with seed 1, got seed 0"),
        ("generate", ["--data.teacher-steps", "3"], "made with steps 3, got steps 2"),
        ("generate", ["--data.teacher-guidance", "77"], "made with guidance 77.0, got guidance "),
    ],
)
def test_a_folder_of_other_settings_is_refused_and_left_as_it_is(
    refused, argv, finished, snapshot, command, flags, message
):
    before = snapshot(finished)
    error = refused(argv(command, finished, *flags))
    assert message in error
    assert ("another --out" in error) or ("give the flags that it was made with" in error)
    assert snapshot(finished) == before


def test_other_prompts_in_the_same_folder_are_refused(refused, argv, finished, snapshot, tmp_path):
    (tmp_path / "p.txt").write_text("a red circle\n")
    before = snapshot(finished)
    assert "prompts" in refused(argv("generate", finished, "--data.prompts", tmp_path / "p.txt"))
    assert snapshot(finished) == before


def test_a_truncated_shard_is_refused_and_made_again_after_its_removal(refused, argv, cli, copied, snapshot):
    shard = copied / "cache" / "shard-00000.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    before = snapshot(copied)
    assert f"expected {shard} as it was written" in refused(argv("train", copied))
    assert snapshot(copied) == before
    shard.unlink()
    assert f"expected the file {shard}" in refused(argv("train", copied))
    cli(*argv("encode", copied))
    assert shard.read_bytes() == whole


def test_encoding_over_a_truncated_shard_does_not_make_it_pass_for_whole(argv, cli, copied):
    shard = copied / "cache" / "shard-00000.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    cli(*argv("encode", copied))
    recorded = json.loads((copied / "cache" / "manifest.json").read_text())["shards"][0]["bytes"]
    assert recorded == len(whole)
