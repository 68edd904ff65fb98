"""The preset `tiny` on an accelerator, beside the CPU."""

import json
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from swd_distill import devices
from swd_distill.devices import device_and_dtype
from swd_distill.presets import PRESETS
from swd_distill.run import run
from swd_distill.train import build_trainer
from swd_distill.training.checkpoints import load_checkpoint, save_checkpoint
from swd_distill.training.network import Network
from swd_sample import SwDPipeline

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.accelerator.is_available(), reason="torch finds no accelerator"),
]
FULL = replace(PRESETS["tiny-long"].recipe, fake_updates=1)


@pytest.fixture
def build(monkeypatch, configure, open_cache, tmp_path):
    """Build the trainer of the full loss on a device."""

    def on(device, **training):
        monkeypatch.setattr(devices, "_chosen", device)
        return build_trainer(configure(tmp_path, FULL, batch=4, **training), open_cache())

    return on


def _trained(trainer):
    return torch.cat([each.detach().flatten() for network in trainer.networks.values() for each in network.parameters])


def _slopes(trainer, monkeypatch):
    """Return the metrics of an iteration, and what the optimisers would be given."""
    found = {}
    step = Network._step

    def note(network, norm):
        kept = [each.grad.float().flatten().cpu() for each in network.parameters if each.grad is not None]
        found[len(found)] = torch.cat(kept)
        step(network, norm)

    with monkeypatch.context() as patch:
        patch.setattr(Network, "_step", note)
        return trainer.iterate(1), found


def test_losses_and_gradients_in_bfloat16_on_the_device_are_near_those_of_the_cpu(build, monkeypatch):
    (found, slopes), (expected, single) = (_slopes(build(name), monkeypatch) for name in ("auto", "cpu"))
    assert device_and_dtype()[0].type == "cpu"
    for name in ("mmd", "dmd", "gan", "fake/denoising", "fake/discriminator"):
        assert found[name] == pytest.approx(expected[name], rel=0.05), name
    assert found["stage"] == expected["stage"]
    for update, slope in slopes.items():
        assert float(torch.cosine_similarity(slope, single[update], dim=0)) > 0.95


def test_a_resumed_run_learns_what_an_unbroken_one_does(build, tmp_path):
    with sdpa_kernel(SDPBackend.MATH):  # of others backward adds up in any order
        unbroken, first, second = (build("auto") for _ in range(3))
        start = _trained(unbroken)
        for step in range(4):
            unbroken.iterate(step)
        for step in range(2):
            first.iterate(step)
        save_checkpoint(tmp_path / "checkpoints", first, 2)
        for step in range(load_checkpoint(tmp_path / "checkpoints", second), 4):
            second.iterate(step)
    moved = float((_trained(unbroken) - start).norm())
    assert moved > 0
    assert float((_trained(second) - _trained(unbroken)).norm()) < 1e-3 * moved


def test_a_run_of_the_preset_generates_encodes_trains_and_samples_on_the_device(tmp_path, configure):
    config = configure(tmp_path / "run", FULL, sample_every=3, trackers=())
    assert "done" in run(config)
    last = json.loads((config.out / "metrics.jsonl").read_text().splitlines()[-1])
    assert all(value is not None for value in last.values())
    assert last["gib"] > 0
    student = SwDPipeline.from_run(config.out)
    assert next(student.denoiser.parameters()).device.type == torch.accelerator.current_accelerator().type
    assert student(["a big red circle"])[0].size == (64, 64)
