import json
import resource
import shutil
import signal
import subprocess
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from swd_distill.train import build_trainer
from swd_distill.training.checkpoints import load_checkpoint, save_checkpoint
from swd_distill.training.log import TIMES
from swd_losses import PAPER
from swd_models.adapters import adapter_state

FLAGS = (
    "--training.iterations", "4", "--training.save-every", "2", "--training.sample-every", "4", "--training.rank", "4",
    "--recipe.dmd-weight", "1", "--recipe.gan-weight", "5e-3", "--recipe.fake-updates", "1",
)  # fmt: skip


def _same(one, other):
    """Compare nested dicts and lists of tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other


def _metrics(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def test_a_resumed_run_equals_one_without_interruption_bit_for_bit(cli, argv, encoded, tmp_path):
    cli(*argv("train", encoded, *FLAGS))
    straight, resumed = encoded, tmp_path / "resumed"
    shutil.copytree(straight, resumed)
    for leftover in ("checkpoints/step-000004", "lora", "samples"):
        shutil.rmtree(resumed / leftover)
    junk = resumed / "checkpoints" / ".step-000003.00000000-1-00000000.swd-tmp"  # of another machine
    junk.mkdir()
    (junk / "student.safetensors").write_bytes(b"half")
    with (resumed / "metrics.jsonl").open("r+") as file:  # stopped within its third iteration
        lines = file.readlines()
        file.seek(0)
        file.truncate()
        file.writelines([*lines[:3], '{"step": 4, "mm'])
    kept = (resumed / "checkpoints").glob("step-*")
    first = max(int(path.name.removeprefix("step-")) for path in kept)
    assert first

    assert cli(*argv("train", resumed, *FLAGS)) == f"LoRA in {resumed}/lora\n"
    last = "checkpoints/step-000004"
    for name in ("student", "fake", "head", "balance"):
        one, other = (load_file(run / last / f"{name}.safetensors") for run in (straight, resumed))
        assert _same(one, other), name
    optimizers = [torch.load(run / last / "optimizers.pt", weights_only=True) for run in (straight, resumed)]
    assert set(optimizers[0]) == {"student", "fake"}
    assert _same(*optimizers)
    assert _metrics(straight) == _metrics(resumed)
    assert [row["step"] for row in _metrics(resumed)] == [1, 2, 3, 4]
    assert (resumed / "metrics.jsonl").read_text().splitlines()[:first] == [line.strip() for line in lines[:first]]
    one, other = (load_file(run / "lora" / "pytorch_lora_weights.safetensors") for run in (straight, resumed))
    assert _same(one, other)
    for name in ("samples/step-000004.png", "config.json"):
        assert (straight / name).read_bytes() == (resumed / name).read_bytes(), name


@pytest.fixture
def build(configure, open_cache, tmp_path):
    def call(**recipe):
        losses = {"dmd_weight": 0.0, "gan_weight": 0.0, "fake_updates": 1} | recipe
        return build_trainer(configure(tmp_path, replace(PAPER, **losses)), open_cache())

    return call


def test_the_last_two_checkpoints_are_kept(build, tmp_path):
    trainer, folder = build(), tmp_path / "checkpoints"
    for step in (1, 2, 10, 300):
        assert save_checkpoint(folder, trainer, step) == folder / f"step-{step:06d}"
    assert sorted(path.name for path in folder.iterdir()) == ["latest", "step-000010", "step-000300"]
    assert load_checkpoint(folder, trainer) == 300


def test_a_checkpoint_of_the_same_step_is_replaced_and_a_leftover_ignored(build, tmp_path):
    trainer, folder = build(), tmp_path / "checkpoints"
    folder.mkdir()
    (folder / ".step-000002.00000000-1-00000000.swd-tmp").mkdir()  # of another machine
    assert load_checkpoint(folder, trainer) == 0
    for _ in range(2):
        save_checkpoint(folder, trainer, 2)
    assert sorted(path.name for path in folder.glob("[!.]*")) == ["latest", "step-000002"]
    assert (folder / "latest").read_text() == "step-000002\n"
    assert sorted(path.name for path in (folder / "step-000002").iterdir()) == [
        "optimizers.pt", "state.json", "student.safetensors",
    ]  # fmt: skip


def test_a_checkpoint_brings_back_student_fake_head_and_optimisers(build, tmp_path):
    trained, fresh = (build(dmd_weight=1.0, gan_weight=5e-3) for _ in range(2))
    trained.iterate(0)
    save_checkpoint(tmp_path / "checkpoints", trained, 1)
    assert load_checkpoint(tmp_path / "checkpoints", fresh) == 1
    for role in ("student", "fake"):
        assert _same(adapter_state(getattr(trained.roles, role)), adapter_state(getattr(fresh.roles, role)))
    assert _same(dict(trained.head.state_dict()), dict(fresh.head.state_dict()))
    assert trained.iterate(1) == fresh.iterate(1)


def test_no_checkpoint_means_step_zero(build, tmp_path):
    assert load_checkpoint(tmp_path / "absent", build()) == 0


@pytest.mark.parametrize("name", ["student.safetensors", "optimizers.pt", "state.json"])
def test_one_flipped_bit_in_a_checkpoint_is_refused_in_one_line(refused, argv, copied, snapshot, name):
    damaged = copied / "checkpoints" / "step-000003" / name
    data = bytearray(damaged.read_bytes())
    place = data.index(b"3") if name == "state.json" else len(data) - 100  # the step; the middle of a tensor
    data[place] ^= 1
    damaged.write_bytes(data)
    before = snapshot(copied)
    assert f"{copied / 'checkpoints'} to begin again" in refused(argv("train", copied))
    assert snapshot(copied) == before


def test_a_run_goes_on_where_gradients_are_scaled_and_were_not_before(build, configure, open_cache, tmp_path):
    trainer, folder = build(), tmp_path / "checkpoints"
    trainer.iterate(0)
    save_checkpoint(folder, trainer, 1)
    config = configure(tmp_path, trainer.recipe, dtype="float16")
    half = build_trainer(config, open_cache())
    assert half.student.scaler.is_enabled()
    assert load_checkpoint(folder, half) == 1
    half.iterate(1)


def test_a_full_disk_ends_in_one_line_and_keeps_the_checkpoint_before(build, tmp_path):
    trainer, folder = build(), tmp_path / "checkpoints"
    save_checkpoint(folder, trainer, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # as a disk that has this much left
    try:
        with pytest.raises(OSError, match=r"expected to write .*step-000002, got: "):
            save_checkpoint(folder, trainer, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert (folder / "latest").read_text() == "step-000001\n"
    assert load_checkpoint(folder, trainer) == 1
    save_checkpoint(folder, trainer, 2)
    assert sorted(path.name for path in folder.iterdir()) == ["latest", "step-000001", "step-000002"]


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of 2.5 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2500k", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs may be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_fills_up_ends_the_run_in_one_line_and_it_goes_on_when_there_is_room(
    cli, refused, argv, encoded, small_disk
):
    flags = ("--training.iterations", "6", "--training.save-every", "1", "--training.sample-every", "6",
             "--training.rank", "4", "--training.keep", "4")  # fmt: skip
    (encoded / "checkpoints").symlink_to(small_disk)
    line = refused(argv("train", encoded, *flags), late=True)
    assert "expected to write" in line
    kept = sorted(small_disk.glob("step-*"))
    assert kept
    assert (small_disk / "latest").read_text().strip() == kept[-1].name
    subprocess.run(["mount", "-o", "remount,size=32m", small_disk], check=True)
    cli(*argv("train", encoded, *flags))
    assert [row["step"] for row in _metrics(encoded)] == [1, 2, 3, 4, 5, 6]
    assert not list(small_disk.glob(".*"))


@pytest.mark.parametrize("name", ["student.safetensors", "optimizers.pt"])
def test_a_damaged_checkpoint_is_refused_in_one_line(refused, argv, copied, snapshot, name):
    damaged = copied / "checkpoints" / "step-000003" / name
    damaged.write_bytes(damaged.read_bytes()[:50])
    before = snapshot(copied)
    assert "step-000003" in refused(argv("train", copied))
    assert snapshot(copied) == before


def test_an_optimiser_is_fused_where_this_device_has_it(build, tmp_path):
    """As a run that was begun on another device notes it: what torch finds there, it would take over."""
    trainer = build()
    trainer.iterate(0)
    for group in trainer.student.optimizer.param_groups:
        group["fused"] = False
    save_checkpoint(tmp_path / "checkpoints", trainer, 1)
    other = build()
    expected = [group["fused"] for group in other.student.optimizer.param_groups]
    load_checkpoint(tmp_path / "checkpoints", other)
    assert [group["fused"] for group in other.student.optimizer.param_groups] == expected == [True]
    other.iterate(1)
