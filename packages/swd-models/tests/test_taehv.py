"""Tiny autoencoders of videos from files: the author's recurrence, frame by frame in plain torch, is the oracle."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from swd_models import load_latents
from swd_models.autoencoders.files import load_tiny_autoencoder
from swd_models.autoencoders.taehv import TinyVideoAutoencoder

RELEASED = os.environ.get("SWD_TAEW")
needs_release = pytest.mark.skipif(not RELEASED, reason="needs TAEW2.1's weights: SWD_TAEW")


def weights(channels=4, patch=1, first_grows=2):
    """Draw weights under the author's names, whose first level grows more frames than are used."""
    torch.manual_seed(0)
    state = dict(TinyVideoAutoencoder(channels, patch).state_dict())
    state["decoder.7.conv.weight"] = 0.1 * torch.randn(256 * first_grows, 256, 1, 1)
    return state


def encoder_by_frame(state, frames):
    """Return latents of frames (3, y, x) in [0, 1], one by one, with a memory at each block that has one."""

    def conv(name, x, stride=1):
        return functional.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), stride=stride, padding=1)

    def block(index, x, memory):
        before = memory.get(index, torch.zeros_like(x))
        memory[index] = x
        y = torch.cat([x, before], 1)
        for layer in (0, 2, 4):
            y = conv(f"encoder.{index}.conv.{layer}", y)
            y = y.relu() if layer < 4 else y
        return (y + x).relu()

    memory, waiting, latents = {}, {2: [], 7: []}, []

    def level(index, x):
        """Run from a pooling layer on, once it has its frames."""
        if index in waiting:
            waiting[index].append(x)
            if len(waiting[index]) < 2:
                return
            x, waiting[index] = torch.cat(waiting[index], 1), []
        x = functional.conv2d(x, state[f"encoder.{index}.conv.weight"])
        x = conv(f"encoder.{index + 1}", x, stride=2)
        for place in (2, 3, 4):
            x = block(index + place, x, memory)
        if index == 12:
            latents.append(conv("encoder.17", x))
        else:
            level(index + 5, x)

    for frame in frames:
        level(2, conv("encoder.0", frame[None]).relu())
    return torch.cat(latents)


def decoder_by_frame(state, latents):
    """Return the frames of latents (c, h, w), one by one, those before the video too."""

    def conv(name, x):
        return functional.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), padding=1)

    memory, frames = {}, []

    def block(index, x):
        before = memory.get(index, torch.zeros_like(x))
        memory[index] = x
        y = torch.cat([x, before], 1)
        for layer in (0, 2, 4):
            y = conv(f"decoder.{index}.conv.{layer}", y)
            y = y.relu() if layer < 4 else y
        return (y + x).relu()

    def level(index, x, grows):
        for place in (0, 1, 2):
            x = block(index + place, x)
        x = functional.interpolate(x, scale_factor=2)
        width = x.shape[1]
        grown = functional.conv2d(x, state[f"decoder.{index + 4}.conv.weight"][-width * grows[0] :])
        for each in grown.split(width, 1):
            y = conv(f"decoder.{index + 5}", each)
            if index == 15:
                frames.append(conv("decoder.22", y.relu()))
            else:
                level(index + 6, y, grows[1:])

    for latent in latents:
        level(3, conv("decoder.1", torch.tanh(latent[None] / 3) * 3).relu(), (1, 2, 2))
    return torch.cat(frames)


@pytest.mark.parametrize("patch", [1, 2])
@torch.no_grad()
def test_it_computes_what_its_author_wrote(tmp_path, patch):
    state = weights(patch=patch)
    save_file(state, tmp_path / "taew.safetensors")
    vae = load_tiny_autoencoder(tmp_path / "taew.safetensors")
    videos = torch.rand(2, 3, 9, 16 * patch, 24 * patch) * 2 - 1
    z = vae.encode(videos).latents
    assert z.shape == (2, 4, 3, 2, 3)
    frames = functional.pixel_unshuffle((videos.transpose(1, 2) + 1) / 2, patch)
    for one, found in zip(frames, z, strict=True):
        last = one[-1:].expand(3, -1, -1, -1)
        torch.testing.assert_close(found.transpose(0, 1), encoder_by_frame(state, torch.cat([one, last])))
    decoded = vae.decode(z).sample
    assert decoded.shape == videos.shape
    for one, found in zip(z, decoded, strict=True):
        expected = functional.pixel_shuffle(decoder_by_frame(state, one.transpose(0, 1))[3:], patch).clamp(0, 1) * 2 - 1
        torch.testing.assert_close(found.transpose(0, 1), expected)


@torch.no_grad()
def test_a_frame_depends_on_those_before_it_alone():
    vae = TinyVideoAutoencoder(4)
    z = torch.randn(1, 4, 3, 2, 2)
    changed = z.clone()
    changed[:, :, 2] += 1
    first, second = (vae.decode(each).sample for each in (z, changed))
    assert torch.equal(first[:, :, :5], second[:, :, :5])
    assert not torch.equal(first[:, :, 5:], second[:, :, 5:])


@torch.no_grad()
def test_it_stands_in_for_wans_and_qwens_autoencoder_whose_latents_are_normalised(tmp_path):
    save_file(weights(), tmp_path / "taew2_1.safetensors")
    own = load_latents("random-wan", tiny=tmp_path / "taew2_1.safetensors")
    vae = load_tiny_autoencoder(tmp_path / "taew2_1.safetensors")
    assert own.pixels((3, 4, 6)) == (9, 32, 48)
    video = torch.rand(1, 3, 9, 32, 48) * 2 - 1
    torch.testing.assert_close(own.encode(video), vae.encode(video).latents)
    torch.testing.assert_close(own.decode(own.encode(video)), vae.decode(vae.encode(video).latents).sample)
    image = video[:, :, 0]
    qwen = load_latents("random-qwen", tiny=tmp_path / "taew2_1.safetensors")
    assert qwen.pixels((4, 6)) == (32, 48)
    torch.testing.assert_close(qwen.encode(image), vae.encode_images(image))
    assert qwen.decode(qwen.encode(image)).shape == image.shape


def test_one_of_patches_is_of_the_smaller_wan22(tmp_path):
    save_file(weights(12, patch=2), tmp_path / "taew2_2.safetensors")
    latents = load_latents("random-wan22", tiny=tmp_path / "taew2_2.safetensors", dtype=torch.bfloat16)
    assert latents.pixels((2, 2, 4)) == (5, 32, 64)
    assert latents.vae.dtype == torch.float32  # as the one in whose place it is
    assert latents.decode(torch.zeros(1, 12, 2, 2, 4)).shape == (1, 3, 5, 32, 64)


def test_one_of_another_kind_or_architecture_is_one_line(tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_file(weights(), path)
    with pytest.raises(ValueError, match=r"expected a tiny autoencoder built as TAESD, got one as TAEHV in .*tiny"):
        load_latents("random-flux", tiny=path)
    with pytest.raises(ValueError, match="of 12 channels, got 4"):
        load_latents("random-wan22", tiny=path)
    state = weights() | {"decoder.3.conv.0.weight": torch.zeros(512, 1, 7, 7)}  # as in its larger variant
    save_file(state, path)
    with pytest.raises(ValueError, match=r"expected a tiny autoencoder as TAESD or TAEHV is built in .*, got another"):
        load_tiny_autoencoder(path)
    save_file({key: value for key, value in weights().items() if key.startswith("encoder")}, path)
    with pytest.raises(ValueError, match="expected a tiny autoencoder's decoder in"):
        load_tiny_autoencoder(path)


@needs_release
@torch.no_grad()
def test_the_released_one_gives_back_a_picture():
    vae = load_tiny_autoencoder(Path(str(RELEASED)))
    ramp = torch.linspace(-1, 1, 64)
    image = torch.stack([ramp.expand(64, 64), ramp.expand(64, 64).T, torch.zeros(64, 64)])[None]
    z = vae.encode_images(image)
    assert vae.decode(z.unsqueeze(2)).sample.squeeze(2).sub(image).abs().mean() < 0.1
