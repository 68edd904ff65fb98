"""Parts that do not fit a device together come one at a time; the meta device takes an accelerator's place."""

import pytest
import torch
from torch import nn

from swd_models import load_denoiser, load_latents, load_text, placing
from swd_models.autoencoders.taehv import TinyVideoAutoencoder
from swd_models.parts import device_of
from swd_models.placing import decode_in_tiles, fits, place

CPU, META = torch.device("cpu"), torch.device("meta")


@pytest.fixture
def small(monkeypatch):
    """Let the meta device have little memory."""
    monkeypatch.setattr(placing, "free_bytes", lambda device: 1000)


@pytest.mark.usefixtures("small")
def test_the_cpu_takes_all_and_a_device_what_fits():
    layer = nn.Linear(10, 10)
    assert fits([layer] * 99, CPU)
    assert fits([layer], META)  # 440 bytes of 750
    assert not fits([layer, nn.Linear(10, 10)], META)
    assert fits([nn.Linear(10, 10, device="meta")] * 99, META)  # which are there already


@pytest.mark.usefixtures("small")
def test_parts_that_fit_are_moved_and_stay():
    layer = nn.Linear(10, 10)
    place([layer], META)()
    assert layer.weight.device == META


@pytest.mark.usefixtures("small")
def test_the_one_before_goes_back_when_the_next_is_called_and_all_when_it_is_done():
    parts = [nn.Linear(20, 20) for _ in range(3)]
    clear = place(parts, META)
    moves = []
    for part in parts:  # what leaves the meta device has no data: only where it should go is noted
        part.to = lambda device, part=part: moves.append((parts.index(part), torch.device(device))) or part
        part._hf_hook.execution_device = META
    for part in parts:
        part._hf_hook.pre_forward(part)
    assert moves == [(0, META), (1, META), (2, META)]
    clear()
    assert moves[-3:] == [(0, CPU), (1, CPU), (2, CPU)]


@pytest.mark.parametrize("tiny", [False, True])
def test_an_autoencoder_decodes_where_it_computes(monkeypatch, tiny):
    """Its latents go to the device to which its hook brings it, not to the host where it is before."""
    latents = load_latents("random-wan" if tiny else "embedded")
    if tiny:
        latents.vae = TinyVideoAutoencoder(4)
    monkeypatch.setattr(placing, "fits", lambda parts, device: False)
    place([latents.vae], META)
    assert latents.vae.device == CPU
    assert device_of(latents.vae) == META
    assert latents.decode(torch.ones(1, 4, *(2,) * tiny, 8, 8)).device == META


def test_a_pipelines_parts_compute_the_same_one_at_a_time(monkeypatch):
    def sample():
        text, denoiser, latents = load_text("embedded"), load_denoiser("embedded"), load_latents("embedded")
        place([*text.encoders, denoiser, latents.vae], CPU)
        cond = text(["a red circle"])
        with torch.no_grad():
            x0 = denoiser.denoise(torch.ones(1, 4, 8, 8), torch.tensor([0.9]), cond)
            return latents.decode(x0)

    expected = sample()
    monkeypatch.setattr(placing, "fits", lambda parts, device: False)
    assert torch.equal(sample(), expected)


def test_an_image_that_does_not_fit_is_decoded_in_tiles(monkeypatch):
    latents, x = load_latents("embedded"), torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = latents.decode(x)
    assert not decode_in_tiles(latents, (16, 16), CPU, batch=2)
    one = 64 * 64 * 3075
    calls, tiled = [], latents.vae.tiled_decode
    monkeypatch.setattr(latents.vae, "tiled_decode", lambda *args, **kw: (calls.append(1), tiled(*args, **kw))[1])
    for free, expected in ((2 * one, 0), (2 * one - 1, 0), (one - 1, 2)):  # both, one at a time, in tiles
        monkeypatch.setattr(placing, "free_bytes", lambda device, free=free: free)
        assert decode_in_tiles(latents, (16, 16), META, batch=2) == (expected > 0)
        with torch.no_grad():
            found = latents.decode(x)
        assert len(calls) == expected
        assert (found - whole).abs().mean() < (0.1 if expected else 1e-5)  # of numbers in [-1, 1]
    assert latents.vae.use_slicing


@pytest.mark.parametrize("size", [(96, 170), (130, 130), (110, 182), (90, 160), (128, 128)])
def test_tiles_of_any_size_join_to_the_whole(monkeypatch, size):
    latents = load_latents("embedded")
    latents.vae.tile_sample_min_size, latents.vae.tile_latent_min_size = 1024, 256
    monkeypatch.setattr(placing, "free_bytes", lambda device: 0)
    assert decode_in_tiles(latents, size, META, batch=1)
    # A decoder that shows where its numbers come from.
    monkeypatch.setattr(latents.vae.decoder, "forward", lambda z: z.repeat_interleave(4, 2).repeat_interleave(4, 3))
    x = torch.arange(float(size[0] * size[1])).view(1, 1, *size).expand(1, 4, *size)
    found = latents.vae.tiled_decode(x).sample
    torch.testing.assert_close(found, latents.vae.decoder(x), rtol=1e-5, atol=0.1)
