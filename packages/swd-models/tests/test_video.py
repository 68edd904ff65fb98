"""Wan's sizes in space and time, from pixels to latents."""

import pytest
import torch

from swd_models import load_latents
from swd_schedules import downscale, presets, upscale

# (frames, height, width) of the paper's four stages; latents 6x20x34, 11x30x52, 16x40x70, 21x60x104.
PIXELS = [(21, 160, 272), (41, 240, 416), (61, 320, 560), (81, 480, 832)]


def test_the_stages_of_wan_are_the_papers_in_pixels():
    latents = load_latents("random-wan")
    assert [latents.pixels(size) for size in presets.WAN_4.sizes] == PIXELS


@pytest.mark.parametrize("index", range(4))
def test_each_stage_is_downscaled_in_pixels_and_encoded_to_its_latent_size(index):
    latents = load_latents("random-wan")
    latents.vae.to("meta")  # 81 frames of 480x832: shapes alone
    video = torch.zeros(1, 3, *PIXELS[-1], device="meta")
    small = downscale(video, PIXELS[index])
    assert latents.vae.encode(small).latent_dist.mode().shape[2:] == presets.WAN_4.sizes[index]


def test_frames_and_space_grow_from_stage_to_stage_as_in_the_paper():
    x = torch.zeros(1, 1, *presets.WAN_4.sizes[0])
    for size in presets.WAN_4.sizes[1:]:
        x = upscale(x, size)
        assert x.shape[2:] == size


def test_a_static_clip_stays_static():
    picture = torch.randn(1, 2, 1, 12, 20, generator=torch.Generator().manual_seed(0))
    clip = picture.expand(-1, -1, 21, -1, -1)
    for frames in (6, 11, 16):
        shorter = downscale(clip, (frames, 12, 20))
        torch.testing.assert_close(shorter, picture.expand(-1, -1, frames, -1, -1))
        torch.testing.assert_close(upscale(shorter, (21, 12, 20)), clip)
    small = downscale(clip, (6, 6, 10))
    assert torch.equal(small, small[:, :, :1].expand_as(small))
    grown = upscale(small, (11, 8, 14))
    torch.testing.assert_close(grown, grown[:, :, :1].expand_as(grown))
