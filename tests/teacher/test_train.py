from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.teacher.stages import Settings, run_stage

SETTINGS = replace(Settings(), save_every=3, warmup=2)


def _stage(folder, num_steps, stop_after=None):
    torch.manual_seed(0)
    modules = nn.ModuleDict({"net": nn.Linear(3, 1)})

    def loss_at(step, progress):
        if stop_after is not None and step >= stop_after:
            raise KeyboardInterrupt
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        return (modules["net"](x) - x.sum(1, keepdim=True)).square().mean()

    return run_stage("stage", folder, modules, loss_at, num_steps, SETTINGS)


def test_an_interrupted_stage_goes_on_to_the_weights_of_an_unbroken_one(tmp_path):
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole = _stage(tmp_path / "whole", 10)
    with pytest.raises(KeyboardInterrupt):
        _stage(tmp_path / "broken", 10, stop_after=7)
    resumed = _stage(tmp_path / "broken", 10)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
