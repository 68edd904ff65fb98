"""What an iteration computes, counted: no forward that the mathematics does not need, no gradient of a frozen weight.

In forwards F of the transformer, with p the share up to the feature block: a train pass of frozen weights is 2F
(backward needs the gradients of activations alone), 3F where checkpointing runs the forward again, less its last block,
b.
"""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from swd_distill.batches import Draw
from swd_distill.train import build_trainer
from swd_losses import PAPER

MMD_ONLY = replace(PAPER, dmd_weight=0.0, gan_weight=0.0)


def _flops(call):
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("recipe", "checkpointing", "forwards"),
    [
        # Fake updates: the student's sample, fake's train pass, its features of real images. Student: train pass, MMD's
        # features of both, DMD's three forwards, GAN's features.
        (PAPER, False, lambda p, b: 5 * (1 + 2 + 2 * p) + 2 + (2 * p + p) + 3 + 2 * p),
        (PAPER, True, lambda p, b: 5 * (1 + 3 - b + 3 * p - b) + 3 - b + (3 * p - b + p) + 3 + 3 * p - b),
        (MMD_ONLY, False, lambda p, b: 2 + 2 * p + p),
        (MMD_ONLY, True, lambda p, b: 3 - b + 3 * p - b + p),
    ],
    ids=["full", "full, checkpointed", "mmd", "mmd, checkpointed"],
)
def test_an_iteration_costs_what_the_mathematics_needs(
    configure, open_cache, tmp_path, monkeypatch, recipe, checkpointing, forwards
):
    config = configure(tmp_path, recipe, gradient_checkpointing=checkpointing)
    trainer = build_trainer(config, open_cache())
    last = trainer.schedule.stages[-1]
    monkeypatch.setattr(Draw, "stage", lambda self, schedule: last)
    draw = Draw(0, 0, "student", range(config.training.batch))
    batch, sigma = draw.batch(trainer.cache, trainer.schedule, recipe), torch.full((2,), 0.5)

    @torch.no_grad()
    def forward(**options):
        return _flops(lambda: trainer.roles.teacher(batch.real, sigma, batch.cond, **options))

    block = config.training.block
    whole, part, before = forward(), forward(block=block, stop=True), forward(block=block - 1, stop=True)
    expected = forwards(part / whole, (part - before) / whole)
    # Above it: adapters of rank 4, whose own weights do have gradients (4 % of a forward, 12 % of a backward).
    assert expected <= _flops(lambda: trainer.iterate(0)) / whole <= 1.08 * expected
