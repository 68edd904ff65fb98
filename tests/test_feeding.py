"""The stand-in device of the feeding benchmark, and the real commands on it."""

from dataclasses import replace

import pytest
import torch

from benchmarks import feeding, standins
from swd_distill.data.cache import Cache
from swd_distill.data.encode import fitting


class Clock:
    now = 0.0

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def test_a_device_waits_where_it_has_done_all_that_it_was_handed(monkeypatch):
    device, clock = standins.Device(), Clock()
    monkeypatch.setattr(standins, "time", clock)
    with device.holds_meta():
        device.compute(2)
        device.compute(2)  # handed over at once: no waiting
        event = torch.Event(torch.device("meta"))
        event.record()
        copy = torch.empty(2, 3, device="meta").to("cpu", non_blocking=True)
        assert (clock.now, copy.shape) == (0, (2, 3))
        event.synchronize()
        assert (clock.now, device.waited) == (4, 0)
        clock.sleep(1)
        device.compute(2)
        event.synchronize()  # of what was done before
        assert (clock.now, device.waited) == (5, 1)
        assert torch.empty(2, 3, device="meta").cpu().shape == (2, 3)
        assert clock.now == 7
    clock.sleep(3)
    assert device.row(3) == {"batches": 3, "busy": 2, "waited": 1 / 5, "after": 3}


def test_the_commands_run_on_it_and_a_slow_device_hardly_waits(monkeypatch, tmp_path):
    pytest.importorskip("skimage")
    monkeypatch.setattr(standins, "BATCH", 2)
    monkeypatch.setattr(standins, "RATE", 15e12)  # seconds a batch: whatever reads for it is faster
    preset = standins.PRESET
    config = replace(preset, out=tmp_path / "run", data=replace(preset.data, batch=2, teacher_steps=2))
    (tmp_path / "images").mkdir()
    config.out.mkdir()
    row = feeding.encoding(config, tmp_path / "images", 3)
    assert row["busy"] > 1
    assert row["waited"] < 0.5
    assert len(Cache.open(config.cache, fitting(config))) == 6
    row = feeding.generating(config, 2)
    assert row["busy"] == pytest.approx(2 * 2 * standins.FORWARD)
    assert len(list(config.images.glob("*.png"))) == 4
