"""Whatever ends a run, it goes on to the numbers of one that was left alone."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import time

import pytest
import torch
from safetensors.torch import load_file

from swd_distill.data.cache import Cache
from swd_distill.train import build_trainer
from swd_distill.training.log import TIMES

FLAGS = (
    "--training.iterations", "12", "--training.save-every", "2", "--training.sample-every", "12",
    "--training.rank", "4", "--training.batch", "4", "--training.accumulate", "2", "--training.ema", "0.9",
    "--recipe.dmd-weight", "30", "--recipe.gan-weight", "1", "--recipe.fake-updates", "1",
)  # fmt: skip


@pytest.fixture
def start(argv, worker):
    """Start `swd-distill train`; give the process, and where it writes stderr."""
    return lambda run: worker(argv("train", run, *FLAGS))


def _result(run):
    """Return all that a finished run has learnt and noted."""
    folder = run / "checkpoints" / "step-000012"
    tensors = {name: load_file(folder / f"{name}.safetensors") for name in ("student", "average", "fake", "head")}
    optimizers = torch.load(folder / "optimizers.pt", weights_only=True)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lora = load_file(run / "lora" / "pytorch_lora_weights.safetensors")
    return tensors, optimizers, [{key: value for key, value in row.items() if key not in TIMES} for row in rows], lora


def _equal(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one == other


def _linked(tmp_path, name, encoded):
    run = tmp_path / name
    run.mkdir()
    (run / "cache").symlink_to(encoded / "cache")
    return run


def test_a_run_killed_again_and_again_ends_as_one_left_alone(start, encoded, tmp_path):
    """Five times: in start-up, in training, in a checkpoint; a run that came to its end makes room for another."""

    def finish(run):
        process, _ = start(run)
        process.join()
        return process.exitcode

    whole, killed = (_linked(tmp_path, name, encoded) for name in ("whole", "killed-0"))
    assert finish(whole) == 0  # and the server that is forked has started
    began = time.monotonic()
    assert finish(_linked(tmp_path, "timed", encoded)) == 0
    seconds, rng, kills, runs = time.monotonic() - began, random.Random(0), 0, [killed]
    while kills < 5:
        (process, errors), seen = start(killed), set((killed / "checkpoints").glob("*"))
        if kills % 2:  # anywhere, in start-up too; else while it trains, which is short, once a checkpoint came
            process.join(rng.uniform(0, seconds))
        else:
            while process.is_alive() and set((killed / "checkpoints").glob("*")) <= seen:
                time.sleep(0.005)
            process.join(rng.uniform(0, 0.5))
        process.kill()
        process.join()
        assert process.exitcode in {0, -signal.SIGKILL}, errors.read_text()
        kills += process.exitcode == -signal.SIGKILL
        if process.exitcode == 0:
            killed = _linked(tmp_path, f"killed-{len(runs)}", encoded)
            runs.append(killed)
    assert finish(killed) == 0
    for run in runs:
        assert _equal(_result(whole), _result(run))
        assert not [path for path in (run / "checkpoints").iterdir() if "swd-" in path.name]


# As text, for pytest's modules have no names by which another process could import them.
KILLED_IN_A_WRITE = """
import os, signal
from pathlib import Path
from swd_distill.cli import main

calls = [0]

def counted(function):
    def call(*args, **options):
        calls[0] += 1
        if calls[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)
    return call

for name in ("fsync", "replace", "unlink", "rmdir", "mkdir"):
    setattr(os, name, counted(getattr(os, name)))
main(args)
Path(count).write_text(str(calls[0]))
"""


def _files(run):
    """Return what a run has made: bytes, or what is in them where a clock or the order of a header has a say."""
    found = {}
    for path in run.rglob("*"):
        name = path.relative_to(run).as_posix()
        if path.is_file() and path.suffix == ".safetensors":
            found[name] = {key: tensor.tolist() for key, tensor in load_file(path).items()}
        elif name == "metrics.jsonl":
            rows = map(json.loads, path.read_text().splitlines())
            found[name] = [{key: value for key, value in row.items() if key not in TIMES} for row in rows]
        elif path.is_file() and path.suffix != ".pt" and path.name not in ("state.json", "lock"):
            found[name] = path.read_bytes().replace(bytes(run), b"RUN")
    return {name: value for name, value in found.items() if not name.startswith("tensorboard/")}


@pytest.mark.slow
def test_a_whole_run_killed_in_its_writes_ends_as_one_left_alone(argv, tmp_path):
    """Twenty times: at a write, a flush, a rename or a removal, which are short, wherever in the run they are."""
    context, rng = multiprocessing.get_context("forkserver"), random.Random(1)
    context.set_forkserver_preload(["swd_distill.run"])

    def run(folder, at):
        names = {"args": argv("run", folder), "at": at, "count": str(tmp_path / "count")}
        process = context.Process(target=exec, args=(KILLED_IN_A_WRITE, names))
        process.start()
        process.join()
        return process.exitcode

    assert run(tmp_path / "whole", 0) == 0
    most, whole = int((tmp_path / "count").read_text()), _files(tmp_path / "whole")
    kills, number = [], 0
    while len(kills) < 20:
        folder, code, number = tmp_path / f"killed-{number}", -signal.SIGKILL, number + 1
        while code:
            # Some soon after the start, so that the next begins at another place; some anywhere.
            at = rng.randint(1, 12) if rng.random() < 0.7 else rng.randint(1, most)
            code = run(folder, at if len(kills) < 20 else 0)
            kills += [at] * (code == -signal.SIGKILL)
            assert code in (0, -signal.SIGKILL)
        assert _files(folder) == whole
        assert not [path for path in folder.parent.rglob(".*") if "swd-" in path.name and "killed" in str(path)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_the_step_saves_and_says_how_to_go_on(start, encoded, tmp_path, number):
    run = _linked(tmp_path, "signalled", encoded)
    process, errors = start(run)
    while not list((run / "checkpoints").glob("step-*")):
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == 128 + number
    step = len((run / "metrics.jsonl").read_text().splitlines())
    assert errors.read_text().splitlines()[-1].startswith(f"swd-distill: stopped and saved at step {step} of 12")
    assert (run / "checkpoints" / "latest").read_text() == f"step-{step:06d}\n"
    assert not (run / "lora").exists()


def test_a_second_run_in_the_same_folder_is_refused_and_the_first_goes_on(start, refused, argv, encoded, tmp_path):
    run = _linked(tmp_path, "shared", encoded)
    first, _ = start(run)
    while not list((run / "checkpoints").glob("step-*")):
        assert first.is_alive()
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGSTOP)
    try:
        for command in ("train", "run"):
            line = refused(argv(command, run, *FLAGS))
            assert f"expected no other run at work in {run}, got one" in line
    finally:
        os.kill(first.pid, signal.SIGCONT)
    first.join()
    assert first.exitcode == 0
    assert (run / "lora").is_dir()


def test_a_cache_that_vanishes_in_mid_run_is_held_open_and_missed_by_the_next_run(configure, refused, argv, encoded):
    trainer, whole = (build_trainer(configure(encoded), Cache.open(encoded / "cache", {})) for _ in range(2))
    expected = [whole.iterate(step) for step in range(3)]
    found = [trainer.iterate(0)]
    shutil.rmtree(encoded / "cache")
    assert [*found, trainer.iterate(1), trainer.iterate(2)] == expected
    assert "run `swd-distill encode` first" in refused(argv("train", encoded))
