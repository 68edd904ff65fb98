import numpy as np
import pytest
import torch
from PIL import Image

from swd_data import Clip
from swd_eval.diagnostics import (
    diversity,
    radial_power,
    spectrum,
    spectrum_distance,
    tone_of,
    video_spectrum,
    video_tone_of,
)
from swd_eval.runs.metrics import _drift


def test_tones_of_flat_and_striped_images_are_known():
    assert tone_of(Image.new("RGB", (8, 8), (255, 0, 0))).tolist() == pytest.approx([0.2126, 0, 1], abs=1e-6)
    assert tone_of(Image.new("RGB", (8, 8), (51, 51, 51))).tolist() == pytest.approx([0.2, 0, 0], abs=1e-6)
    assert tone_of(Image.new("RGB", (8, 8))).tolist() == [0, 0, 0]
    half = Image.new("RGB", (8, 8))
    half.paste((255, 255, 255), (0, 0, 4, 8))
    assert tone_of(half).tolist() == pytest.approx([0.5, 0.5, 0])


def test_tone_and_motion_of_a_video_are_means_over_its_frames(tmp_path, write_video):
    frames = np.zeros((3, 16, 32, 3), np.uint8)
    frames[1], frames[2, :8] = 102, 255
    video = Clip.open(write_video(tmp_path / "a.mp4", frames))
    # Luma 0, .4, and half of it 1: from 0 to .4 is .4, from there to 1 and 0 is .5 on the mean.
    assert video_tone_of(video).tolist() == pytest.approx([0.3, 0.5 / 3, 0, 0.45], abs=1e-6)
    still = Clip.open(write_video(tmp_path / "b.mp4", frames[2:]))
    assert video_tone_of(still).tolist() == pytest.approx([0.5, 0.5, 0, 0], abs=1e-6)


def test_the_spectrum_of_a_video_is_that_of_its_middle_frame(tmp_path, write_video):
    frames = np.random.default_rng(0).integers(0, 255, (5, 256, 256, 3), np.uint8)
    prepare, run = video_spectrum().load()
    found = run([prepare(Clip.open(write_video(tmp_path / "a.mp4", frames)))], [""])
    prepare, run = spectrum().load()
    assert found.equal(run([prepare(Image.fromarray(frames[2]))], [""]))


def test_radial_power_of_white_noise_is_one_and_of_a_wave_is_where_it_is():
    noise = torch.randn(400, 64, 64, generator=torch.Generator().manual_seed(0))
    assert (radial_power(noise).mean(0)[4:40] - 1).abs().max() < 0.05
    wave = torch.cos(2 * torch.pi * 5 * torch.arange(64) / 64).expand(1, 64, 64)
    assert radial_power(wave)[0].argmax() == 5


def test_spectra_of_twice_the_amplitude_are_six_decibels_apart():
    power = torch.rand(4, 182, generator=torch.Generator().manual_seed(0)) + 0.1
    assert spectrum_distance(4 * power, power) == pytest.approx(6.0206, abs=1e-4)
    assert spectrum_distance(power, power) == 0


def test_diversity_is_the_mean_cosine_distance_of_a_prompts_pairs():
    features = torch.tensor([[1.0, 0], [0, 2], [-1, 0], [3, 3], [1, 1], [5, 0]])
    prompts = ["a", "a", "a", "b", "b", "alone"]
    assert diversity(features, prompts).tolist() == pytest.approx([(1 + 2 + 1) / 3, 0], abs=1e-9)


def test_an_interval_of_drift_is_over_prompts():
    """Four equal images of each prompt say no more than one."""
    values, others = torch.randn(8, generator=torch.Generator().manual_seed(0)), torch.linspace(-1, 1, 50)
    prompts = [f"p{i}" for i in range(8)]
    once = _drift("d", values, others, prompts, {})
    repeated = _drift("d", values.repeat(4), others, prompts * 4, {})
    assert repeated.interval == pytest.approx(once.interval)
    assert (once.num, repeated.num) == (8, 32)
