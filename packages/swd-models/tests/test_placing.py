"""Parts that do not fit a device together come one at a time; tried on the CPU, which takes the device's place."""

import pytest
import torch
from torch import nn

from swd_models import load_denoiser, load_latents, load_text, placing
from swd_models.placing import decode_in_tiles, fits, place


@pytest.fixture
def small(monkeypatch):
    """Let the CPU be a device of little memory."""
    monkeypatch.setattr(placing, "free_bytes", lambda device: 1000)
    return torch.device("meta")


def test_the_cpu_takes_all_and_a_device_what_fits(small):
    layer = nn.Linear(10, 10)
    assert fits([layer] * 99, torch.device("cpu"))
    assert fits([layer], small)  # 440 bytes of 750
    assert not fits([layer, nn.Linear(10, 10)], small)
    assert fits([nn.Linear(10, 10, device="meta")] * 99, small)  # which are there already


def test_parts_that_fit_are_moved(small):
    layer = nn.Linear(10, 10)
    assert place([layer], small)
    assert layer.weight.device.type == "meta"


def test_the_one_before_goes_back_when_the_next_is_called(monkeypatch):
    monkeypatch.setattr(placing, "fits", lambda parts, device: False)
    parts, device = [nn.Linear(3, 3) for _ in range(3)], torch.device("cpu")
    assert not place(parts, device)
    hooks = [part._hf_hook for part in parts]
    assert [hook.execution_device for hook in hooks] == [device] * 3
    assert [hook.prev_module_hook and hook.prev_module_hook.model for hook in hooks] == [None, *parts[:2]]


def test_a_pipelines_parts_compute_the_same_one_at_a_time(monkeypatch):
    def sample():
        text, denoiser, latents = load_text("embedded"), load_denoiser("embedded"), load_latents("embedded")
        place([*text.encoders, denoiser, latents.vae], torch.device("cpu"))
        assert text.device.type == "cpu"
        cond = text(["a red circle"])
        with torch.no_grad():
            x0 = denoiser.denoise(torch.ones(1, 4, 8, 8), torch.tensor([0.9]), cond)
            return latents.decode(x0)

    expected = sample()
    monkeypatch.setattr(placing, "fits", lambda parts, device: False)
    assert torch.equal(sample(), expected)


def test_an_image_that_does_not_fit_is_decoded_in_tiles(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: None)
    latents, device = load_latents("embedded"), torch.device("meta")
    assert not decode_in_tiles(latents, (16, 16), torch.device("cpu"))
    for free, tiled in ((64 * 64 * 3075, False), (64 * 64 * 3075 - 1, True)):
        monkeypatch.setattr(placing, "free_bytes", lambda device, free=free: free)
        assert decode_in_tiles(latents, (16, 16), device) == latents.vae.use_tiling == tiled
