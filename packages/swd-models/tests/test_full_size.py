"""Models at full size, on the meta device: counts, targets and shapes, without weights."""

import re
from functools import cache

import pytest
import torch
from torch import nn

from swd_models.adapters import adapter_parameters
from swd_models.loading import check_fit, empty_denoiser
from swd_models.lora.loading import lora_config
from swd_models.roles import share_base
from swd_schedules import presets

MEDIUM, LARGE = "stabilityai/stable-diffusion-3.5-medium", "stabilityai/stable-diffusion-3.5-large"
FLUX, WAN = "black-forest-labs/FLUX.1-dev", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
QWEN, ZIMAGE = "Qwen/Qwen-Image", "Tongyi-MAI/Z-Image"
KLEIN, KLEIN_9B = "black-forest-labs/FLUX.2-klein-base-4B", "black-forest-labs/FLUX.2-klein-base-9B"
WAN22, WAN22_A14B = "Wan-AI/Wan2.2-TI2V-5B-Diffusers", "Wan-AI/Wan2.2-T2V-A14B-Diffusers"

# Billions of parameters as published; the block whose features feed the losses (appendix A; the middle of the U-Net; of
# models outside the paper ours, about the middle).
MODELS = {
    MEDIUM: (2.243, 11),
    LARGE: (8.057, 20),
    FLUX: (11.90, 15),
    WAN: (1.419, 15),
    SDXL: (2.567, 3),
    QWEN: (20.43, 30),
    ZIMAGE: (6.15, 18),
    KLEIN: (3.88, 10),
    KLEIN_9B: (9.08, 12),
    WAN22: (5.00, 15),
    WAN22_A14B: (14.29, 20),  # each expert
}
# Pixels of latents a token, and the width of features.
TOKENS = {MEDIUM: (4, 1536), LARGE: (4, 2432), FLUX: (4, 3072), WAN: (4, 1536), SDXL: (16, 1280)}
TOKENS |= {QWEN: (4, 3072), ZIMAGE: (4, 3840), KLEIN: (4, 3072), KLEIN_9B: (4, 4096)}
TOKENS |= {WAN22: (4, 3072), WAN22_A14B: (4, 5120)}
SCHEDULES = {
    MEDIUM: ("sd35-medium-6", "sd35-medium-4", "sd35-medium-6-constant-32", "sd35-medium-6-full"),
    LARGE: ("sd35-large-4", "sd35-large-4-full"),
    FLUX: ("flux-4-paper", "flux-4-released"),
    WAN: ("wan-4", "wan-4-spatial"),
    SDXL: ("sdxl-4",),
    QWEN: ("flux-4-paper",),
    ZIMAGE: ("flux-4-paper",),
    KLEIN: ("flux2-4",),
    KLEIN_9B: ("flux2-4",),
    WAN22: ("wan22-5b-4",),
    WAN22_A14B: ("wan-4",),
}
# Layers with adapters, counted by hand from the architecture: (in attention, in MLPs).
TARGETS = {
    MEDIUM: (4 * (24 + 13), 2 * (24 + 23)),  # 13 blocks attend twice; the last block's text stream has no MLP
    LARGE: (4 * 38, 2 * (38 + 37)),
    FLUX: (4 * 19 + 3 * 38, 4 * 19 + 2 * 38),
    WAN: (8 * 30, 2 * 30),
    SDXL: (8 * 70, 2 * 70),
    QWEN: (4 * 60, 2 * (60 + 59)),
    ZIMAGE: (4 * 34, 3 * 34),
    KLEIN: (4 * 5 + 2 * 20, 4 * 5),
    KLEIN_9B: (4 * 8 + 2 * 24, 4 * 8),
    WAN22: (8 * 30, 2 * 30),
    WAN22_A14B: (8 * 40, 2 * 40),
}


each_model = pytest.mark.parametrize("model", list(MODELS), ids=lambda model: model.partition("/")[2])


@pytest.fixture(scope="module")
def empty():
    return cache(empty_denoiser)


@each_model
def test_parameters_are_as_many_as_published(empty, model):
    count = sum(parameter.numel() for parameter in empty(model).parameters()) / 1e9
    assert count == pytest.approx(MODELS[model][0], rel=0.005)


@each_model
def test_adapters_are_where_they_are_meant_to_be_and_nowhere_else(empty, model):
    denoiser = empty(model)
    with torch.device("meta"):
        student = share_base(denoiser, lora_config(denoiser, 64), fake=False).student
    layers = {name.partition(".lora_A")[0] for name, _ in student.named_parameters() if ".lora_A" in name}
    attention = {layer for layer in layers if re.search(r"att\w+\.to_", layer)}
    blocks = ("blocks.", "layers.", "_refiner.")
    assert (len(attention), len(layers - attention)) == TARGETS[model]
    assert all(any(block in layer for block in blocks) for layer in layers)
    assert len(adapter_parameters(student)) == 2 * len(layers)
    assert all(isinstance(denoiser.get_submodule(layer), nn.Linear) for layer in layers)


@pytest.mark.parametrize(("model", "name"), [(model, name) for model in SCHEDULES for name in SCHEDULES[model]])
def test_features_of_every_preset_have_the_stated_shape(empty, model, name):
    denoiser, schedule, block = empty(model), presets.PRESETS[name], MODELS[model][1]
    check_fit(model, schedule.sizes, block)
    cells, width = TOKENS[model]
    for size in sorted(set(schedule.sizes)):
        x_t = torch.zeros(2, denoiser.num_channels, *size, device="meta")
        found = denoiser(x_t, torch.ones(2, device="meta"), cond_of(denoiser), block=block, stop=True).features
        assert found.shape == (2, torch.Size(size).numel() // cells, width)
        assert width == denoiser.num_features


def cond_of(denoiser):
    return {name: torch.zeros(2, *shape, device="meta") for name, shape in denoiser.cond_shapes.items()}
