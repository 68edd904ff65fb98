"""Every form of LoRA file, for every family; stock diffusers and PEFT are the oracles."""

import json

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

from swd_models import load_denoiser, load_lora, save_lora, share_base
from swd_models.adapters import adapter_parameters, adapter_state, merge_adapters
from swd_models.loading import empty_denoiser, resolve_model
from swd_models.lora.files import FILES, PEFT_CONFIG, read_lora, write_lora
from swd_models.lora.loading import lora_config
from swd_models.tiny import SIZES, TINY, tiny_cond
from swd_schedules import ScaleSchedule

SCHEDULE = ScaleSchedule.square((1000.0, 602.15), (8, 16))
# What ComfyUI maps: `model_lora_keys_unet` of its comfy/lora.py.
COMFYUI = {
    "sd3": "transformer.transformer_blocks.0.attn.to_q.lora_down.weight",
    "flux": "transformer.single_transformer_blocks.1.proj_mlp.lora_up.weight",
    "wan": "diffusion_model.blocks.2.cross_attn.o.lora_down.weight",
    "flux2": "transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj.lora_up.weight",
    "qwen": "transformer.transformer_blocks.2.img_mlp.net.0.proj.lora_up.weight",
    "zimage": "transformer.layers.0.attention.to_q.lora_down.weight",
    "sdxl": "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0.lora_down.weight",
}


@pytest.fixture(scope="module", params=list(TINY))
def family(request):
    return request.param


@pytest.fixture(scope="module")
def student(family):
    base = load_denoiser(f"random-{family}")
    student = share_base(base, lora_config(base, 4, alpha=8), fake=False).student
    with torch.no_grad():
        for parameter in adapter_parameters(student):
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return student


def predict(denoiser):
    x_t = torch.randn(2, denoiser.num_channels, *SIZES[denoiser.family][0], generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return denoiser(x_t, torch.tensor([0.9, 0.4]), tiny_cond(denoiser.family, 2)).x0


@pytest.mark.parametrize("form", list(FILES))
def test_every_form_comes_back_exactly_and_predicts_the_same(student, family, tmp_path, form):
    file = save_lora(student, tmp_path, schedule=SCHEDULE, form=form)
    lora, own = read_lora(file, empty_denoiser(f"random-{family}")), adapter_state(student)
    assert (lora.alpha, set(lora.ranks.values()), lora.schedule) == (8.0, {4}, SCHEDULE)
    assert set(lora.scales.values()) == {2.0}
    assert lora.state.keys() == own.keys()
    assert all(torch.equal(lora.state[key], own[key]) for key in own)
    fresh = load_denoiser(f"random-{family}")
    load_lora(fresh, tmp_path)
    assert torch.equal(predict(fresh), predict(student))


@pytest.mark.parametrize("first", list(FILES))
@pytest.mark.parametrize("second", list(FILES))
def test_any_form_becomes_any_other_without_a_change(student, family, tmp_path, first, second):
    empty = empty_denoiser(f"random-{family}")
    lora = read_lora(save_lora(student, tmp_path / "first", schedule=SCHEDULE, form=first), empty)
    there = read_lora(write_lora(lora, empty, tmp_path / "second", second), empty)
    direct = load_file(save_lora(student, tmp_path / "direct", schedule=SCHEDULE, form=second))
    written = load_file(tmp_path / "second" / FILES[second])
    assert written.keys() == direct.keys()
    assert all(torch.equal(written[key], direct[key]) for key in direct)
    assert (there.alpha, there.schedule) == (lora.alpha, lora.schedule)


def test_stock_diffusers_loads_it_with_the_same_output(student, family, tmp_path):
    save_lora(student, tmp_path, schedule=SCHEDULE)
    pipe = DiffusionPipeline.from_pretrained(resolve_model(f"random-{family}"))
    pipe.load_lora_weights(str(tmp_path))
    stock = load_denoiser(f"random-{family}")
    stock.backbone = pipe.unet if family == "sdxl" else pipe.transformer
    assert not torch.equal(predict(stock), predict(load_denoiser(f"random-{family}")))
    torch.testing.assert_close(predict(stock), predict(student))


def test_comfyui_finds_its_keys(student, family, tmp_path):
    keys = load_file(save_lora(student, tmp_path, schedule=SCHEDULE, form="comfyui"))
    layer, _, _ = COMFYUI[family].rpartition(".lora_")
    assert COMFYUI[family] in keys
    assert float(keys[f"{layer}.alpha"]) == 8.0


def test_a_merged_model_predicts_the_same_without_adapters(student, family, tmp_path):
    save_lora(student, tmp_path, schedule=SCHEDULE)
    merged = load_denoiser(f"random-{family}")
    names = merged.state_dict().keys()
    load_lora(merged, tmp_path)
    merge_adapters(merged)
    assert merged.state_dict().keys() == names
    torch.testing.assert_close(predict(merged), predict(student), rtol=1e-4, atol=1e-5)


def test_a_lora_loads_over_another_fine_tune_of_its_family(student, family, tmp_path):
    save_lora(student, tmp_path, schedule=SCHEDULE)
    other = TINY[family](seed=5)
    assert load_lora(other, tmp_path) == SCHEDULE
    assert not torch.equal(predict(other), predict(TINY[family](seed=5)))


# The authors' PEFT trees: `base_model.model.` and layers beyond the ones that this project adapts.
RELEASED = {
    "sd3": ["transformer_blocks.0.attn.to_q", "transformer_blocks.2.ff.net.0.proj", "transformer_blocks.1.ff.net.2"],
    "flux": ["context_embedder", "proj_out", "transformer_blocks.1.attn.to_k", "single_transformer_blocks.0.proj_out"],
    "sdxl": ["mid_block.attentions.0.transformer_blocks.0.attn2.to_v", "mid_block.attentions.0.proj_in"],
}


@pytest.mark.parametrize("family", list(RELEASED), scope="function")
def test_adapters_as_the_authors_released_them_load_by_key_names(family, tmp_path):
    denoiser, state = TINY[family](), {}
    for name in RELEASED[family]:
        layer = denoiser.backbone.get_submodule(name)
        state[f"base_model.model.{name}.lora_A.weight"] = torch.randn(4, layer.in_features)
        state[f"base_model.model.{name}.lora_B.weight"] = torch.randn(layer.out_features, 4)
    save_file(state, tmp_path / FILES["peft"])
    (tmp_path / PEFT_CONFIG).write_text(json.dumps({"r": 4, "lora_alpha": 16, "peft_type": "LORA"}))
    assert read_lora(tmp_path, denoiser).alpha == 16
    before = predict(TINY[family]())
    assert load_lora(denoiser, tmp_path) is None
    assert adapter_state(denoiser).keys() == {key.removeprefix("base_model.model.") for key in state}
    assert not torch.allclose(predict(denoiser), before)
