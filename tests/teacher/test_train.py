from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks.teacher import stages
from benchmarks.teacher.stages import Settings, run_stage

SETTINGS = replace(Settings(), save_every=3, warmup=2)


def _stage(folder, num_steps, stop_after=None, seconds=None, seen=None):
    torch.manual_seed(0)
    modules = nn.ModuleDict({"net": nn.Linear(3, 1)})

    def loss_at(step, progress):
        if seen is not None:
            seen.append(progress)
        if stop_after is not None and step >= stop_after:
            raise KeyboardInterrupt
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        return (modules["net"](x) - x.sum(1, keepdim=True)).square().mean()

    return run_stage("stage", folder, modules, loss_at, num_steps, SETTINGS, batch=8, seconds=seconds)


def test_seconds_without_a_limit_are_no_part_of_one(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(stages, "time", SimpleNamespace(monotonic=lambda: now.append(now[-1] + 1.0) or now[-1]))
    seen = []
    with pytest.raises(KeyboardInterrupt):
        _stage(tmp_path, 1000, stop_after=100)
    _stage(tmp_path, 1000, seconds=50.0, seen=seen)
    assert 0.099 <= seen[0] < 0.15  # of the steps, with nothing of the clock yet
    assert seen[-1] > 0.9
    again = []
    _stage(tmp_path, 1000, seconds=50.0, seen=again)  # as long again: half of it is behind
    assert 0.4 < again[0] < 0.6


def test_an_interrupted_stage_goes_on_to_the_weights_of_an_unbroken_one(tmp_path):
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole = _stage(tmp_path / "whole", 10)
    with pytest.raises(KeyboardInterrupt):
        _stage(tmp_path / "broken", 10, stop_after=7)
    resumed = _stage(tmp_path / "broken", 10)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
