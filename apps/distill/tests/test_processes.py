"""One process, several, and shares of a batch: the same numbers."""

import math
import os
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from swd_distill.train import build_trainer
from swd_models.adapters import adapter_parameters

PARITY = Path(__file__).with_name("parity.py")
parity = SimpleNamespace(**runpy.run_path(str(PARITY)))


@pytest.fixture(scope="module")
def of_two(finished, tmp_path_factory):
    """Run parity.py in two processes; give what the main one wrote, by name."""
    out = tmp_path_factory.mktemp("parity")
    script = [str(PARITY), str(finished / "cache"), str(out)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *script]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(torchrun, check=True, env=environment, capture_output=True, text=True, timeout=900)
    return lambda name: load_file(out / f"{name}.safetensors")


@pytest.mark.parametrize("name", parity.RECIPES)
def test_processes_and_shares_train_the_adapters_of_one_batch(open_cache, of_two, name):
    one = parity.train(parity.RECIPES[name], open_cache())
    for other in (of_two(name), parity.train(parity.RECIPES[name], open_cache(), accumulate=2)):
        assert other.keys() == one.keys()
        off = {key: float((other[key] - tensor).norm()) for key, tensor in one.items()}
        assert math.hypot(*off.values()) <= 1e-5 * math.hypot(*(tensor.norm() for tensor in one.values()))
        # Young B are all change, in which Adam turns the rounding of small gradients into steps: 1e-4 was seen.
        assert all(off[key] <= 1e-3 * tensor.norm() for key, tensor in one.items())


@pytest.fixture(scope="module")
def plain(open_cache):
    """Give the gradients of one process that does all at once."""
    return parity.gradients(open_cache(), parity.SWITCHES[0])


@pytest.mark.parametrize("switches", parity.SWITCHES, ids=parity.name_of)
def test_gradients_do_not_depend_on_how_they_are_computed(open_cache, of_two, plain, switches):
    found = [of_two(parity.name_of(switches))]
    if not switches["compile"]:  # takes a minute; the two processes have compiled
        found.append(parity.gradients(open_cache(), switches))
    for other in found:
        assert other.keys() == plain.keys()
        for key, gradient in plain.items():
            assert gradient.dtype == torch.float64
            torch.testing.assert_close(other[key], gradient, rtol=1e-9, atol=1e-12 * float(gradient.abs().max()))


def test_a_base_that_is_split_over_processes_gives_the_same_gradients(of_two, plain):
    sharded = of_two("sharded")
    assert sharded.keys() == plain.keys()
    for key, gradient in plain.items():
        torch.testing.assert_close(sharded[key], gradient, rtol=1e-9, atol=1e-12 * float(gradient.abs().max()))


def test_one_process_has_nobody_to_split_its_base_with(refused, argv, encoded):
    line = refused(argv("train", encoded, "--training.shard-base"))
    assert "expected several processes to split the base over, got one" in line


def test_a_worker_that_is_killed_ends_the_run_which_goes_on_from_its_checkpoint(
    argv, cli, two_workers, encoded, tmp_path
):
    flags = (
        "--training.batch", "4", "--training.iterations", "8", "--training.save-every", "2", "--training.rank", "4",
    )  # fmt: skip
    runs = {}
    for name in ("whole", "killed"):
        runs[name] = tmp_path / name
        runs[name].mkdir()
        (runs[name] / "cache").symlink_to(encoded / "cache")
    cli(*argv("train", runs["whole"], *flags))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    words = argv("train", runs["killed"], *flags, "--training.shard-base")
    command = [*torchrun, "swd_distill", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    launch = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not list((runs["killed"] / "checkpoints").glob("step-*")):
        assert launch.poll() is None
        time.sleep(0.01)
    workers = Path(f"/proc/{launch.pid}/task/{launch.pid}/children").read_text().split()
    os.kill(int(workers[-1]), signal.SIGKILL)
    _, errors = launch.communicate(timeout=300)
    assert launch.returncode == 1
    assert "SIGKILL" in errors
    assert not (runs["killed"] / "lora").exists()
    checkpoint = (runs["killed"] / "checkpoints" / "latest").read_text()
    before = (runs["killed"] / "metrics.jsonl").read_text().splitlines()[: int(checkpoint.removeprefix("step-"))]
    assert before
    two_workers(words)
    rows = (runs["killed"] / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == 8
    assert rows[: len(before)] == before  # with their seconds: those are not made again
    one, other = (load_file(run / "lora" / "pytorch_lora_weights.safetensors") for run in runs.values())
    assert all(float((other[key] - one[key]).norm()) <= 1e-3 * float(one[key].norm()) for key in one)


def test_a_batch_that_cannot_be_split_is_refused(refused, argv, encoded):
    line = refused(argv("train", encoded, "--training.batch", "3", "--training.accumulate", "2"))
    assert "--training.batch divisible by 1 process(es) x --training.accumulate 2, got 3: change either" in line
    flags = ("--training.accumulate", "2", "--recipe.mmd-pooling", "batch")
    assert "--recipe.mmd-pooling image" in refused(argv("train", encoded, *flags))


def test_a_gradient_that_is_not_finite_is_skipped_and_many_stop_the_run(configure, open_cache, tmp_path):
    trainer = build_trainer(configure(tmp_path, parity.RECIPES["mmd"], max_skips=2), open_cache())
    student = adapter_parameters(trainer.roles.student)
    before = [parameter.detach().clone() for parameter in student]
    take = trainer.loader.take

    def spoilt(draw, then):
        batch = take(draw, then)
        return batch if draw.step == 1 else replace(batch, real=batch.real * float("nan"))

    trainer.loader.take = spoilt
    assert math.isnan(trainer.iterate(0)["norm"])
    assert all(map(torch.equal, student, before))
    assert math.isfinite(trainer.iterate(1)["norm"])
    assert not all(map(torch.equal, student, before))
    moved = [parameter.detach().clone() for parameter in student]
    assert trainer.iterate(2)["skips"] == 2
    with pytest.raises(ValueError, match="got 2 updates in a row without"):
        trainer.iterate(3)
    assert all(map(torch.equal, student, moved))
