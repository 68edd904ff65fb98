"""Wan2.2's smaller model (TI2V-5B): diffusers tells it a timestep a token, of which all are equal for text to video."""

import pytest
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler

from swd_models import load_denoiser, load_latents, load_text
from swd_models.loading import empty_denoiser, resolve_model

MODEL = "random-wan22"
PROMPTS = ["a big red cat", "a small blue dog a big cat"]


@pytest.mark.parametrize("size", [(3, 4, 4), (2, 4, 6), (1, 6, 4)])
def test_x0_is_what_the_pipeline_computes_with_a_timestep_a_token(size):
    pipe = DiffusionPipeline.from_pretrained(resolve_model(MODEL))
    assert pipe.config.expand_timesteps
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    pipe.set_progress_bar_config(disable=True)
    denoiser, latents, seen = load_denoiser(MODEL), load_latents(MODEL), []
    pixels = dict(zip(("num_frames", "height", "width"), latents.pixels(size), strict=True))

    def note(_pipe, _index, _timestep, tensors):
        seen.append(tensors["latents"].clone())
        return tensors

    x = torch.randn(2, denoiser.num_channels, *size, generator=torch.Generator().manual_seed(1))
    x0 = pipe(
        prompt=PROMPTS, latents=x, num_inference_steps=2, guidance_scale=1.0, max_sequence_length=12,
        output_type="latent", callback_on_step_end=note, **pixels,
    ).frames  # fmt: skip
    with torch.no_grad():
        ours = denoiser(seen[0], torch.full((2,), float(pipe.scheduler.sigmas[1])), load_text(MODEL)(PROMPTS)).x0
    torch.testing.assert_close(ours, x0, rtol=1e-4, atol=2e-5)


def test_the_smaller_model_has_24_frames_a_second_and_the_others_16():
    for model, fps in (("Wan-AI/Wan2.2-TI2V-5B-Diffusers", 24), ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", 16)):
        assert empty_denoiser(model).fps == fps
    assert empty_denoiser("random-flux").fps is None


def test_a_cell_has_sixteen_pixels_a_side():
    latents = load_latents(MODEL)
    assert latents.pixels((6, 4, 6)) == (21, 64, 96)
    x = torch.rand(1, 3, 5, 32, 64) * 2 - 1
    with torch.no_grad():
        z = latents.encode(x)
        assert z.shape == (1, 12, 2, 2, 4)
        assert latents.decode(z).shape == x.shape
