"""Tiny autoencoders from files: the author's layers in plain torch are the oracle."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from swd_models import load_latents
from swd_models.autoencoders.files import load_tiny_autoencoder

RELEASED = Path(os.environ.get("SWD_TAEF2") or Path(__file__).parents[4] / "shared" / "flux2")
needs_release = pytest.mark.skipif(not RELEASED.is_dir(), reason="needs TAEF2: ../shared/flux2, or SWD_TAEF2")


def conv(inside, outside, **options):
    return nn.Conv2d(inside, outside, 3, padding=1, **options)


class Block(nn.Module):
    def __init__(self, pooled):
        super().__init__()
        self.conv = nn.Sequential(conv(64, 64), nn.ReLU(), conv(64, 64), nn.ReLU(), conv(64, 64))
        if pooled:
            self.pool = nn.Sequential(
                nn.Conv2d(64, 256, 1, bias=False),
                nn.GroupNorm(4, 256),
                nn.ReLU(),
                nn.Conv2d(256, 64, 1, bias=False),
            )

    def forward(self, x):
        x = x + self.pool(x) if hasattr(self, "pool") else x
        return (self.conv(x) + x).relu()


class Clamp(nn.Module):
    def forward(self, x):
        return torch.tanh(x / 3) * 3


def author_encoder(channels, pooled):
    def level(pooled):
        return conv(64, 64, stride=2, bias=False), *(Block(pooled) for _ in range(3))

    return nn.Sequential(conv(3, 64), Block(False), *level(False), *level(False), *level(pooled), conv(64, channels))


def author_decoder(channels, pooled):
    def level(pooled):
        return *(Block(pooled) for _ in range(3)), nn.Upsample(scale_factor=2), conv(64, 64, bias=False)

    first = (Clamp(), conv(channels, 64), nn.ReLU())
    return nn.Sequential(*first, *level(pooled), *level(False), *level(False), Block(False), conv(64, 3))


def parts(channels, pooled):
    torch.manual_seed(0)
    return author_encoder(channels, pooled).eval(), author_decoder(channels, pooled).eval()


def write(folder, encoder, decoder, suffix):
    folder.mkdir(exist_ok=True)
    for name, part in (("taef2_encoder", encoder), ("taef2_decoder", decoder)):
        save = torch.save if suffix == ".pth" else save_file
        save(part.state_dict(), folder / f"{name}{suffix}")
    return folder


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(("channels", "pooled"), [(4, False), (32, True)])
@torch.no_grad()
def test_it_computes_what_its_author_wrote(tmp_path, channels, pooled, suffix):
    encoder, decoder = parts(channels, pooled)
    vae = load_tiny_autoencoder(write(tmp_path / "tiny", encoder, decoder, suffix))
    x = torch.rand(2, 3, 32, 48)
    z = encoder(x)
    torch.testing.assert_close(vae.encode(2 * x - 1).latents, z)
    torch.testing.assert_close(vae.decode(z).sample, 2 * decoder(z) - 1)


@torch.no_grad()
def test_one_file_under_diffusers_names_is_the_same(tmp_path):
    whole = load_tiny_autoencoder(write(tmp_path / "two", *parts(16, True), ".pth"))
    save_file(whole.state_dict(), tmp_path / "taef2.safetensors")
    again = load_tiny_autoencoder(tmp_path / "taef2.safetensors")
    assert all(map(torch.equal, whole.state_dict().values(), again.state_dict().values()))


@torch.no_grad()
def test_it_stands_in_for_a_familys_autoencoder_and_keeps_its_normalisation(tmp_path):
    encoder, decoder = parts(4, False)
    path = write(tmp_path / "tiny", encoder, decoder, ".pth")
    own, tiny = load_latents("random-flux2"), load_latents("random-flux2", tiny=path)
    x = torch.rand(1, 3, 32, 48)
    mean, std = own._statistics(torch.device("cpu"))
    expected = (torch.nn.functional.pixel_unshuffle(encoder(x), 2) - mean) / std
    z = tiny.encode(2 * x - 1)
    torch.testing.assert_close(z, torch.nn.functional.pixel_shuffle(expected, 2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tiny.decode(z), (2 * decoder(encoder(x)) - 1).clamp(-1, 1), rtol=1e-4, atol=1e-4)


def test_what_is_no_tiny_autoencoder_is_refused_in_a_line(tmp_path):
    encoder, decoder = parts(4, False)
    folder = write(tmp_path / "tiny", encoder, decoder, ".pth")
    for model, line in (
        ("random-flux2-none", "expected random-"),
        ("random-wan", "built as TAEHV, got one as TAESD in"),
    ):
        with pytest.raises(ValueError, match=line):
            load_latents(model, tiny=folder)
    with pytest.raises(ValueError, match="of 4 channels, got 16"):
        load_latents("random-sd3", tiny=write(tmp_path / "wide", *parts(16, False), ".safetensors"))
    with pytest.raises(ValueError, match="a folder of its two, got"):
        load_tiny_autoencoder(tmp_path / "nowhere")
    save_file(encoder.state_dict(), folder / "taesd_encoder.safetensors")
    with pytest.raises(ValueError, match="got several: name the file of one"):
        load_tiny_autoencoder(folder)
    (folder / "taesd_encoder.safetensors").unlink()
    (folder / "taef2_encoder.pth").unlink()
    with pytest.raises(ValueError, match="expected a tiny autoencoder's encoder in"):
        load_tiny_autoencoder(folder)
    save_file({"0.weight": torch.zeros(2, 3), "a.b": torch.zeros(1)}, folder / "taef2_encoder.safetensors")
    with pytest.raises(ValueError, match="expected the layers of a tiny autoencoder"):
        load_tiny_autoencoder(folder)
    state = encoder.state_dict()
    del state["1.conv.0.bias"]
    save_file(state, folder / "taef2_encoder.safetensors")
    with pytest.raises(ValueError, match="as TAESD or TAEHV is built"):
        load_tiny_autoencoder(folder)


def test_a_pickle_that_is_more_than_tensors_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "harm"),))

    (tmp_path / "taef2_encoder.pth").write_bytes(pickle.dumps({"0.weight": Evil()}))
    with pytest.raises(ValueError, match="expected tensors alone"):
        load_tiny_autoencoder(tmp_path / "taef2_encoder.pth")
    assert not (tmp_path / "harm").exists()


@needs_release
@torch.no_grad()
def test_the_released_taef2_brings_a_picture_back():
    vae = load_tiny_autoencoder(RELEASED)
    rows = torch.linspace(-1, 1, 128)
    x = torch.stack([rows[:, None] * rows, (6 * rows).sin()[:, None] * rows, rows.abs()[None] * rows[:, None]])[None]
    error = (vae.decode(vae.encode(x).latents).sample - x).square().mean()
    assert vae.config.latent_channels == 32
    assert 10 * torch.log10(4 / error) > 25  # dB
