import time
from dataclasses import replace

import pytest
import torch

from swd_distill.train import build_trainer
from swd_distill.training.batches import Draw
from swd_distill.training.loader import Loader
from swd_losses import PAPER

DRAWS = [Draw(0, step, "student", range(2)) for step in range(4)]


@pytest.fixture
def reading(open_cache):
    from swd_schedules import presets

    cache = open_cache()
    return lambda draw: draw.batch(cache, presets.TINY_4, PAPER)


def test_batches_are_those_of_their_draws_whether_read_ahead_or_not(reading):
    loader = Loader(reading, torch.device("cpu"))
    for index in (0, 1, 3, 0):  # in order, then not
        found, expected = loader.take(DRAWS[index], DRAWS[index + 1 : index + 3]), reading(DRAWS[index])
        assert torch.equal(found.real, expected.real)
        assert torch.equal(found.noise["mmd"], expected.noise["mmd"])


def test_each_batch_is_read_once_and_before_it_is_asked_for():
    read = []

    def make(draw):
        time.sleep(0.05)
        read.append(draw)
        return draw.step

    class Batch(int):
        def to(self, device):
            return self

    loader = Loader(lambda draw: Batch(make(draw)), torch.device("cpu"))
    assert loader.take(DRAWS[0], DRAWS[1:3]) == 0
    assert loader.waited > 0.04
    time.sleep(0.2)
    assert read == DRAWS[:3]
    before = loader.waited
    assert loader.take(DRAWS[1], DRAWS[2:4]) == 1
    assert loader.waited - before < 0.02
    assert loader.take(DRAWS[2], DRAWS[3:]) == 2
    assert loader.take(DRAWS[3]) == 3
    assert read == DRAWS


def test_an_error_of_the_reading_thread_reaches_the_one_who_asks(configure, open_cache, tmp_path):
    trainer = build_trainer(configure(tmp_path, replace(PAPER, dmd_weight=0.0, gan_weight=0.0)), open_cache())
    trainer.cache.latents = lambda samples, size: (_ for _ in ()).throw(OSError("gone"))
    with pytest.raises(OSError, match="gone"):
        trainer.iterate(0)
