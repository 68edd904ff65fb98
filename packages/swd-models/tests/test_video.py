"""Wan's sizes in space and time, from pixels to latents, and mp4 files."""

import pytest
import torch
from PIL import Image

from swd_models import load_latents
from swd_models.video import read_frames, write_video
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


def test_a_video_comes_back_from_its_file_nearly_unchanged(tmp_path):
    frames = [Image.radial_gradient("L").resize((32, 24)).rotate(20 * i).convert("RGB") for i in range(5)]
    write_video(tmp_path / "a.mp4", frames)
    again = read_frames(tmp_path / "a.mp4", 5)
    assert [frame.size for frame in again] == [(32, 24)] * 5
    for before, after in zip(frames, again, strict=True):
        errors = [abs(a - b) for a, b in zip(before.tobytes(), after.tobytes(), strict=True)]
        assert sum(errors) / len(errors) < 4


def test_a_folder_of_frames_is_a_video_too(tmp_path):
    for i in range(3):
        Image.new("RGB", (8, 8), (80 * i, 0, 0)).save(tmp_path / f"{i:03d}.png")
    assert [frame.getpixel((0, 0))[0] for frame in read_frames(tmp_path, 2)] == [0, 80]
    with pytest.raises(ValueError, match="expected 4 frames or more, got 3"):
        read_frames(tmp_path, 4)
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match="expected one image a frame"):
        read_frames(tmp_path, 4)


def test_what_is_no_video_or_too_short_is_refused(tmp_path):
    write_video(tmp_path / "a.mp4", [Image.new("RGB", (16, 16))] * 3)
    with pytest.raises(ValueError, match="expected 4 frames or more, got 3"):
        read_frames(tmp_path / "a.mp4", 4)
    (tmp_path / "b.mp4").write_text("no video")
    with pytest.raises(ValueError, match="expected a video, got"):
        read_frames(tmp_path / "b.mp4", 1)
