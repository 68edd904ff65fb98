"""What all ways of running must agree on, alone or under torchrun: `parity.py CACHE OUT` writes adapters and gradients.

Adapters: after five iterations in float32, for each combination of losses. Gradients: of one iteration in float64, for
each combination of switches.
"""

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from swd_distill.data.cache import Cache
from swd_distill.devices import processes
from swd_distill.planning.memory import recompute_blocks
from swd_distill.presets import PRESETS
from swd_distill.train import build_trainer
from swd_distill.training.trainer import Trainer
from swd_losses import PAPER, RELEASED, RunningBalance
from swd_models import load_denoiser, share_base
from swd_models.adapters import adapter_state
from swd_models.roles import compile_blocks, shard_base

FULL = replace(PAPER, balance=False, gan_rise=0, dmd_weight=30.0, gan_weight=1.0, fake_updates=1)
RECIPES = {
    "paper": replace(PAPER, fake_updates=1, gan_rise=2),
    "in-each-sample": replace(PAPER, fake_updates=1, gan_rise=2, balance_over="sample"),
    "weights": FULL,
    "released": replace(RELEASED, fake_updates=1),
    "mmd": replace(PAPER, dmd_weight=0.0, gan_weight=0.0),
    "rbf": replace(PAPER, dmd_weight=0.0, gan_weight=0.0, mmd_kernel="rbf"),
    "moments": replace(PAPER, dmd_weight=0.0, gan_weight=0.0, mmd_kernel="moments"),
    "dmd": replace(FULL, mmd_weight=0.0, gan_weight=0.0),
    "gan": replace(FULL, mmd_weight=0.0, dmd_weight=0.0, gradient_penalty=0.1),
    "mmd-of-fake": replace(FULL, mmd_features="fake", dmd_weight=0.0),
    "balanced-rbf": replace(PAPER, fake_updates=1, mmd_kernel="rbf", gan_rise=0),
}
SWITCHES = [
    *(
        {"checkpointing": checkpointing, "accumulate": accumulate, "compile": None}
        for checkpointing, accumulate in itertools.product(("none", 3), (1, 2))
    ),
    {"checkpointing": 3, "accumulate": 2, "compile": "eager"},
]


def configure(recipe, **training):
    preset = PRESETS["tiny"]
    settings = {"batch": 4, "rank": 4, "lr": 1e-4, "fake_lr": 1e-4, "ema": 0.9, "iterations": 10} | training
    training = replace(preset.training, **settings)
    # Two of the cache's sizes are enough.
    return replace(preset, recipe=recipe, training=training, schedule="1000:8x8,896:10x10")


def train(recipe, cache, accumulate=1):
    """Return all that five iterations have taught."""
    trainer = build_trainer(configure(recipe, accumulate=accumulate), cache)
    if isinstance(trainer.balance, RunningBalance):
        trainer.balance.warmup = 2  # so that the others of the five have weights of the run
    for step in range(5):
        trainer.iterate(step)
    tensors = {f"student.{name}": value for name, value in adapter_state(trainer.roles.student).items()}
    if trainer.roles.fake is not None:
        tensors |= {f"fake.{name}": value for name, value in adapter_state(trainer.roles.fake).items()}
    if trainer.head is not None:
        tensors |= {f"head.{name}": value for name, value in trainer.head.state_dict().items()}
    return {name: value.detach().clone().contiguous() for name, value in tensors.items()}


def gradients(cache, switches):
    """Return what one iteration adds up for each network, in float64, before the optimiser."""
    config = configure(FULL, clip=1e9, **switches)
    base = load_denoiser("embedded").double()
    roles = share_base(base, 4)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        head = FULL.head(base.num_features).double()
        for role in (roles.student, roles.fake):  # as after some training: B is no longer zero
            for parameter in role.parameters():
                if parameter.requires_grad:
                    parameter.copy_(0.05 * torch.randn(parameter.shape, dtype=torch.float64))
    if config.training.shard_base:
        shard_base(roles, torch.device("cpu"))
    if config.training.compile:
        compile_blocks(roles, config.training.compile)
    recompute_blocks(config, roles, 4)
    trainer = Trainer(config, cache, roles, head)
    read = trainer.loader._read
    trainer.loader._read = lambda draw: read(draw).changed(torch.Tensor.double)
    found = {}
    for name, network in trainer.networks.items():
        network.optimizer.step = lambda name=name, network=network: found.update(
            {f"{name}.{i}": p.grad.clone() for i, p in enumerate(network.parameters) if p.grad is not None}
        )
    trainer.iterate(1)  # of the second stage
    return found


def name_of(switches):
    return "-".join(str(value) for value in switches.values())


if __name__ == "__main__":
    state, cache, out = processes(), Cache.open(Path(sys.argv[1]), {}), Path(sys.argv[2])
    adapters = {name: train(recipe, cache) for name, recipe in RECIPES.items()}
    found = {name_of(switches): gradients(cache, switches) for switches in SWITCHES}
    found["sharded"] = gradients(cache, {"shard_base": True, "checkpointing": "all"})
    if state.is_main_process:
        for name, tensors in (adapters | found).items():
            save_file(tensors, out / f"{name}.safetensors")
    state.wait_for_everyone()
