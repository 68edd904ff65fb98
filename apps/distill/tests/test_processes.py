"""One process, several, and shares of a batch: the same numbers."""

import math
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from swd_distill.train import build_trainer
from swd_losses import PAPER, RELEASED
from swd_models.roles import adapter_parameters

FULL = replace(PAPER, dmd_weight=30.0, gan_weight=1.0, fake_updates=2)
RECIPES = {
    "paper": FULL,
    "released": replace(RELEASED, fake_updates=1),
    "mmd": replace(PAPER, dmd_weight=0.0, gan_weight=0.0),
    "rbf": replace(PAPER, dmd_weight=0.0, gan_weight=0.0, mmd_kernel="rbf"),
    "dmd": replace(FULL, mmd_weight=0.0, gan_weight=0.0),
    "gan": replace(FULL, mmd_weight=0.0, dmd_weight=0.0, gradient_penalty=0.1),
    "mmd-of-fake": replace(FULL, mmd_features="fake", dmd_weight=0.0),
}


def _gradients(trainer, step=0):
    """Return what one update of each network adds up, before the optimiser."""
    found = {}
    for name, network in trainer.networks.items():
        network.optimizer.step = lambda name=name, network=network: found.__setitem__(
            name, [p.grad.clone() for p in network.parameters if p.grad is not None]
        )
    trainer.iterate(step)
    return found


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_shares_of_a_batch_add_up_to_its_gradient(configure, open_cache, tmp_path, recipe):
    def gradients(accumulate):
        config = configure(tmp_path, recipe, batch=4, accumulate=accumulate, clip=1e9)
        trainer = build_trainer(config, open_cache())
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():  # as after some training: B is no longer zero
            for network in trainer.networks.values():
                for parameter in network.parameters:
                    parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        return _gradients(trainer)

    whole, shares = gradients(1), gradients(4)
    assert whole.keys() == shares.keys()
    for name in whole:
        for one, other in zip(whole[name], shares[name], strict=True):
            torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-5 * float(one.abs().max()) + 1e-9)


def test_two_processes_train_the_adapters_of_one(argv, cli, encoded, tmp_path):
    flags = ("--training.batch", "4", "--training.iterations", "10", "--training.rank", "4", "--training.lr", "1e-4",
             "--training.fake-lr", "1e-4", "--training.ema", "0.9", "--recipe.dmd-weight", "30",
             "--recipe.gan-weight", "1", "--recipe.fake-updates", "1")  # fmt: skip
    out = {}
    for name, launch, more in (
        ("one", [], []),
        ("two", ["--nproc-per-node", "2"], []),
        ("two-by-two", ["--nproc-per-node", "2"], ["--training.accumulate", "2"]),
    ):
        run = tmp_path / name
        run.mkdir()
        (run / "cache").symlink_to(encoded / "cache")
        args = [*map(str, argv("train", run, *flags)), *more]
        if not launch:
            cli(*args)
        else:
            torchrun = [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--standalone",
                *launch,
                "-m",
                "swd_distill",
                *args,
            ]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
            subprocess.run(torchrun, check=True, env=environment, capture_output=True, text=True, timeout=600)
        folder = run / "checkpoints" / "step-000010"
        out[name] = {role: load_file(folder / f"{role}.safetensors") for role in ("student", "average", "fake", "head")}
    for name in ("two", "two-by-two"):
        for role, tensors in out["one"].items():
            off = {key: float((out[name][role][key] - one).norm()) for key, one in tensors.items()}
            assert math.hypot(*off.values()) <= 1e-5 * math.hypot(*(one.norm() for one in tensors.values()))
            # Young B are all change, in which Adam turns the rounding of small gradients into steps: 1e-4 was seen.
            assert all(off[key] <= 1e-3 * one.norm() for key, one in tensors.items()), (name, role)


def test_a_batch_that_cannot_be_split_is_refused(refused, argv, encoded):
    line = refused(argv("train", encoded, "--training.batch", "3", "--training.accumulate", "2"))
    assert "--training.batch divisible by 1 process(es) x 2 share(s), got 3" in line
    flags = ("--training.accumulate", "2", "--recipe.mmd-pooling", "batch")
    assert "--recipe.mmd-pooling image" in refused(argv("train", encoded, *flags))


def test_a_gradient_that_is_not_finite_is_skipped_and_many_stop_the_run(configure, open_cache, tmp_path):
    trainer = build_trainer(configure(tmp_path, RECIPES["mmd"], max_skips=2), open_cache())
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
