"""What has changed on disk since it was written: a checkpoint is passed by, a cache refused and mended."""

import json
import shutil

import pytest
from safetensors.torch import load_file

from swd_distill.data.cache import Cache
from swd_distill.training.checkpoints import newest_whole

TO_SIX = ("--training.iterations", "6", "--training.save-every", "1", "--training.sample-every", "6",
          "--training.keep", "9")  # fmt: skip


def flip(path, place=-1):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def lora_of(run):
    found = load_file(run / "lora" / "pytorch_lora_weights.safetensors")
    return {name: tensor.view(-1).tolist() for name, tensor in found.items()}


@pytest.fixture(scope="module")
def trained(finished, cli, argv, tmp_path_factory):
    """Train from the finished run's cache, with a checkpoint an iteration."""
    run = tmp_path_factory.mktemp("trained") / "run"
    shutil.copytree(finished / "cache", run / "cache")
    cli(*argv("train", run, *TO_SIX))
    return run


@pytest.fixture
def broken(trained, tmp_path):
    """Copy it, to be harmed."""
    return shutil.copytree(trained, tmp_path / "run")


HARM = {
    "a flipped bit": lambda folder: flip(folder / "student.safetensors"),
    "a cut file": lambda folder: (folder / "optimizers.pt").write_bytes(b""),
    "a file less": lambda folder: (folder / "student.safetensors").unlink(),
    "no state": lambda folder: (folder / "state.json").unlink(),
    "a cut state": lambda folder: (folder / "state.json").write_text('{"step": 6'),
    "a state of another shape": lambda folder: (folder / "state.json").write_text('{"step": [6], "sha256": 1}'),
    "a state that leads out": lambda folder: (folder / "state.json").write_text('{"step": 6, "sha256": {"../a": ""}}'),
    "another step": lambda folder: shutil.copy(folder.parent / "step-000002" / "state.json", folder / "state.json"),
    "nothing": lambda folder: shutil.rmtree(folder) or folder.mkdir(),
}


@pytest.mark.parametrize("harm", HARM)
def test_the_newest_whole_checkpoint_is_used_with_a_word_on_the_others(cli, argv, trained, broken, capsys, harm):
    for step in ("step-000005", "step-000006"):
        if (harm, step) != ("another step", "step-000005"):
            HARM[harm](broken / "checkpoints" / step)
    assert newest_whole(broken / "checkpoints") == ("step-000005" if harm == "another step" else "step-000004")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (1 if harm == "another step" else 2)
    assert lines[0].startswith(f"expected a whole checkpoint, got {broken}/checkpoints/step-000006 (")
    assert lines[0].endswith(f": going on from {'step-000005' if harm == 'another step' else 'step-000004'}")
    cli(*argv("train", broken, *TO_SIX))
    assert lora_of(broken) == lora_of(trained)
    assert newest_whole(broken / "checkpoints") == "step-000006"
    assert capsys.readouterr().err == ""


def test_where_no_checkpoint_is_whole_it_is_said(refused, argv, broken, snapshot):
    for folder in (broken / "checkpoints").glob("step-*"):
        flip(folder / "optimizers.pt", 100)
    before = snapshot(broken)
    line = refused(argv("train", broken, *TO_SIX))
    assert all(f"step-00000{step} (" in line for step in range(1, 7))
    assert f"delete {broken}/checkpoints to begin again" in line
    assert snapshot(broken) == before


def test_strange_files_beside_checkpoints_block_nothing(cli, argv, trained, broken):
    folder = broken / "checkpoints"
    shutil.rmtree(folder / "step-000006")
    (folder / "step-000006").write_text("a stray file")
    (folder / "step-000099.zip").write_text("a backup")
    (folder / "step-final").mkdir()
    (folder / "step-12").mkdir()
    (folder / "notes.txt").write_text("mine")
    cli(*argv("train", broken, *TO_SIX))
    assert (folder / "notes.txt").read_text() == "mine"
    assert [path.read_text() for path in folder.glob("damaged-step-000006-*")] == ["a stray file"]
    assert lora_of(broken) == lora_of(trained)


def test_steps_sort_as_numbers(broken):
    folder = broken / "checkpoints"
    for step in (999_999, 1_000_000):
        shutil.copytree(folder / "step-000006", folder / f"step-{step:06d}")
        state = json.loads((folder / "step-000006" / "state.json").read_text())
        (folder / f"step-{step:06d}" / "state.json").write_text(json.dumps(state | {"step": step}))
    assert newest_whole(folder) == "step-1000000"


FILES = ("shard-00000.safetensors", "text-00000.safetensors", "index.safetensors", "uncond.safetensors")


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_in_the_cache_is_refused_and_mended(cli, refused, argv, copied, snapshot, name):
    shutil.rmtree(copied / "checkpoints")
    path = copied / "cache" / name
    whole = path.read_bytes()
    flip(path)
    before = snapshot(copied)
    line = refused(argv("train", copied))
    assert f"expected {path} as it was written, got other bytes: run `swd-distill encode` again" in line
    assert snapshot(copied) == before
    cli(*argv("encode", copied))
    assert path.read_bytes() == whole
    cli(*argv("train", copied))


def test_the_cache_is_not_read_where_one_says_so(cli, argv, copied):
    shutil.rmtree(copied / "checkpoints")
    flip(copied / "cache" / "uncond.safetensors")
    cli(*argv("train", copied, "--data.no-verify"))


@pytest.mark.parametrize(
    "change",
    [
        {"shards": 1},
        {"shards": [{}]},
        {"texts": None},
        {"texts": [[]]},
        {"captions": None, "files": [{"file": "../../a", "bytes": 1, "sha256": ""}]},
        {"files": {"a": 1}},
        {"prompts_per_text": None, "shards": [{"file": 3, "bytes": 1, "sha256": ""}]},
        {"settings": []},
    ],
)
def test_a_manifest_of_another_shape_is_one_line(refused, argv, copied, change):
    shutil.rmtree(copied / "checkpoints")
    path = copied / "cache" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert str(copied / "cache") in refused(argv("train", copied))


def test_a_cache_of_before_checksums_of_all_files_opens(finished, copied):
    path = copied / "cache" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["files"]
    path.write_text(json.dumps(manifest))
    assert len(Cache.open(copied / "cache", {})) == len(Cache.open(finished / "cache", {}))


@pytest.mark.parametrize(
    ("command", "made"),
    [("generate", "images/000001.png"), ("encode", "cache/shard-00000.safetensors"), ("train", "lora/a.safetensors"),
     ("train", "metrics.jsonl"), ("train", "samples/step-000001.png"), ("run", "images/metadata.jsonl")],
)  # fmt: skip
def test_files_that_are_not_a_runs_are_never_taken_for_its_own(
    refused, argv, finished, tmp_path, snapshot, command, made
):
    """A folder of somebody's, named as --out by mistake."""
    out = tmp_path / "theirs"
    if command == "train":
        shutil.copytree(finished / "cache", out / "cache")
    if command == "encode":
        shutil.copytree(finished / "images", out / "images")
    (out / made).parent.mkdir(parents=True, exist_ok=True)
    (out / made).write_text("a night's work")
    before = snapshot(out)
    line = refused(argv(command, out))
    assert "this command did not write: choose another --out" in line
    found = snapshot(out)
    assert {name: found[name] for name in before} == before


def test_a_damaged_lora_of_the_runs_own_is_written_again(trained, broken, cli, argv):
    (broken / "lora" / "pytorch_lora_weights.safetensors").write_bytes(b"half")
    assert "6 of 6 iterations" in cli(*argv("train", broken, *TO_SIX, "--dry-run"))  # of the checkpoint
    cli(*argv("train", broken, *TO_SIX))
    assert lora_of(broken) == lora_of(trained)


def test_saving_after_a_damaged_checkpoint_was_passed_by_keeps_what_is_saved(cli, argv, broken):
    folder = broken / "checkpoints"
    for step in (1, 2, 3):
        shutil.rmtree(folder / f"step-00000{step}")
    for step in (5, 6):
        flip(folder / f"step-00000{step}" / "optimizers.pt", 100)
    flags = [flag if flag != "9" else "1" for flag in TO_SIX]
    cli(*argv("train", broken, *flags))
    assert newest_whole(folder) == "step-000006"
    assert (folder / "latest").read_text() == "step-000006\n"


@pytest.mark.parametrize("text", ["{", "[]", '{"shards": 1}', '{"shards": [{}], "texts": []}'])
def test_encode_makes_a_manifest_again_that_cannot_be_read(cli, argv, copied, text):
    path = copied / "cache" / "manifest.json"
    whole = path.read_bytes()
    path.write_text(text)
    cli(*argv("encode", copied))
    assert path.read_bytes() == whole


def test_a_run_of_before_does_not_go_on_under_another_loss(cli, refused, argv, copied):
    """Its config says nothing of what came later, which was then as the recipe's defaults are."""
    shutil.rmtree(copied / "checkpoints")
    path, weights = copied / "config.json", ("--recipe.dmd-weight", "30", "--recipe.gan-weight", "1")
    config = json.loads(path.read_text())
    for name in ("balance", "balance_over", "gan_rise", "gan_sample", "stages"):
        config["recipe"].pop(name)
    config.pop("teacher_lora")
    path.write_text(json.dumps(config))
    assert "recipe.stages cycle" in refused(argv("train", copied, "--recipe.stages", "cycle"))
    cli(*argv("train", copied))  # of MMD alone nothing has changed
    shutil.rmtree(copied / "checkpoints")
    config["recipe"] |= {"dmd_weight": 30.0, "gan_weight": 1.0}
    path.write_text(json.dumps(config))
    assert "recipe.balance True" in refused(argv("train", copied, *weights))
    config["recipe"] |= {"balance": True, "gan_rise": 100}
    path.write_text(json.dumps(config))
    assert "recipe.balance_over run" in refused(argv("train", copied, *weights))
