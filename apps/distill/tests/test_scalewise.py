"""The file that a published LoRA brings along, beside the pipeline of swd-sample."""

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from swd_distill.scalewise import enlarged, sample
from swd_models import load_denoiser, save_lora, share_base
from swd_models.adapters import adapter_parameters
from swd_models.loading import resolve_model
from swd_models.tiny import TINY
from swd_sample import SwDPipeline
from swd_sample.presets import SOURCES
from swd_schedules import presets, upscale

FAMILIES = [*TINY, "wan22"]
PROMPT = "a big red cat"


@pytest.fixture
def lora(request, tmp_path):
    """Write a LoRA that is no longer zero."""

    def write(model, schedule):
        student = share_base(load_denoiser(model), 2, fake=False).student
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in adapter_parameters(student):
                parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
        save_lora(student, tmp_path, schedule=schedule)
        return tmp_path

    return write


def _arrays(media):
    return np.stack([np.asarray(each, int) for each in (media if isinstance(media, list) else [media])])


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_pipelines_sample_as_ours_does(family, lora):
    model = f"random-{family}"
    source = SOURCES.get(f"tiny-{family}")
    schedule = presets.resolve(source.schedule if source else "1000:4x6,800:6x6,600:6x8,400:8x12")
    ours = SwDPipeline.from_pretrained(model, lora=lora(model, schedule))
    pipe = DiffusionPipeline.from_pretrained(resolve_model(model))
    pipe.set_progress_bar_config(disable=True)
    scheduler, options = pipe.scheduler, ours.text.options | ours.text.guiding(1, ours.denoiser.guidance or 1.0)
    base = sample(pipe, PROMPT, schedule.timesteps, schedule.sizes, seed=3, **options)
    pipe.load_lora_weights(lora(model, schedule), weight_name="pytorch_lora_weights.safetensors")
    found = sample(pipe, PROMPT, schedule.timesteps, schedule.sizes, seed=3, **options)
    (expected,) = ours([PROMPT], seed=3)
    assert np.abs(_arrays(found) - _arrays(expected)).max() <= 1
    assert np.abs(_arrays(base) - _arrays(expected)).max() > 1
    assert pipe.scheduler is scheduler


@pytest.mark.parametrize("mode", ["bicubic", "bilinear", "nearest"])
@pytest.mark.parametrize(
    "sizes", [((5, 7), (8, 12)), ((2, 5, 7), (4, 8, 12)), ((3, 4, 4), (3, 4, 8)), ((4, 4), (4, 4))]
)
def test_latents_are_enlarged_as_in_training(mode, sizes):
    x = torch.randn(1, 3, *sizes[0])
    assert torch.equal(enlarged(x, sizes[1], mode), upscale(x, sizes[1], mode))
