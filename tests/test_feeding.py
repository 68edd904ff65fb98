"""The stand-in device of the feeding benchmark, and the real commands on it."""

import time
from dataclasses import replace

import pytest
import torch

from benchmarks import feeding
from swd_distill.cache import Cache
from swd_distill.encode import fitting


def test_a_device_waits_where_it_has_done_all_that_it_was_handed():
    device = feeding.Device()
    with device.holds_meta():
        device.compute(0.2)
        device.compute(0.2)  # handed over at once: no waiting
        event = torch.Event(torch.device("meta"))
        event.record()
        began = time.perf_counter()
        copy = torch.empty(2, 3, device="meta").to("cpu", non_blocking=True)
        assert time.perf_counter() - began < 0.1
        event.synchronize()
        assert time.perf_counter() - began > 0.3
        assert device.waited == 0
        time.sleep(0.1)
        device.compute(0.2)
        assert torch.empty(2, 3, device="meta").cpu().shape == copy.shape == (2, 3)
    row = device.row(3)
    assert device.waited > 0.09
    assert row["busy"] == pytest.approx(0.2)
    assert row["waited"] == pytest.approx(device.waited / (device.waited + 0.4))


def test_the_commands_run_on_it_and_a_slow_device_hardly_waits(monkeypatch, tmp_path):
    pytest.importorskip("skimage")
    monkeypatch.setattr(feeding, "BATCH", 2)
    monkeypatch.setattr(feeding, "RATE", 15e12)  # seconds a batch: whatever reads for it is faster
    preset = feeding.PRESET
    config = replace(preset, out=tmp_path / "run", data=replace(preset.data, batch=2, teacher_steps=2))
    (tmp_path / "images").mkdir()
    config.out.mkdir()
    row = feeding.encoding(config, tmp_path / "images", 3)
    assert row["busy"] > 1
    assert row["waited"] < 0.5
    assert len(Cache.open(config.cache, fitting(config))) == 6
    row = feeding.generating(config, 2)
    assert row["busy"] == pytest.approx(2 * 2 * feeding.FORWARD)
    assert len(list(config.images.glob("*.png"))) == 4
