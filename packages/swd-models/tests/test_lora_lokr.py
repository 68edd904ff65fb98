"""LoKr files are merged as PEFT computes them, and refused where a LoRA is wanted."""

import pytest
import torch
from peft import LoKrConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import save_file

from swd_models import load_denoiser, load_lora
from swd_models.lora.files import read_lora
from swd_models.lora.loading import check_mergeable
from swd_models.tiny import SIZES, TINY, tiny_cond

MODEL = "random-sd3"
LAYERS = ["transformer_blocks.0.attn.to_q", "transformer_blocks.1.ff.net.0.proj"]


def predict(denoiser):
    family = denoiser.family
    x_t = torch.randn(2, denoiser.num_channels, *SIZES[family][0], generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return denoiser(x_t, torch.tensor([0.9, 0.4]), tiny_cond(family, 2)).x0


@pytest.fixture(params=[False, True], ids=["one-factor-whole", "both-decomposed"])
def peft(request, tmp_path):
    """A denoiser with PEFT's LoKr, and its file as LyCORIS writes it: with an alpha a layer."""
    denoiser = load_denoiser(MODEL)
    config = LoKrConfig(r=1, alpha=2, target_modules=LAYERS, decompose_both=request.param, decompose_factor=4)
    inject_adapter_in_model(config, denoiser.backbone)
    for name, parameter in denoiser.backbone.named_parameters():
        if ".lokr_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    state = {}
    for key, value in get_peft_model_state_dict(denoiser.backbone).items():
        layer, _, part = key.rpartition(".")
        state[f"lycoris_{layer.replace('.', '_')}.{part}"] = value.detach().contiguous()
    assert any(key.endswith("_w2_a") for key in state)
    assert any(key.endswith("_w1_a") for key in state) == request.param
    state |= {f"{key.rpartition('.')[0]}.alpha": torch.tensor(2.0) for key in state}
    save_file(state | {"lora_te1_text.lokr_w1": torch.ones(2, 2)}, tmp_path / "lokr.safetensors")
    return denoiser, tmp_path / "lokr.safetensors"


def test_it_is_merged_as_peft_computes_it(peft, capsys):
    denoiser, file = peft
    check_mergeable(TINY["sd3"](), f"{file}:0.5")
    merged = load_denoiser(MODEL, loras=[str(file)])
    torch.testing.assert_close(predict(merged), predict(denoiser), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(predict(merged), predict(load_denoiser(MODEL)), atol=1e-3)
    assert "left out 1 tensors of text encoders" in capsys.readouterr().err


def test_a_weight_scales_what_it_changes(peft):
    _, file = peft
    plain, half, whole = (load_denoiser(MODEL, loras=loras) for loras in ((), [f"{file}:0.5"], [str(file)]))
    for layer in LAYERS:
        a, b, c = (each.backbone.get_submodule(layer).weight for each in (plain, half, whole))
        torch.testing.assert_close(2 * (b - a), c - a)


def test_one_for_several_layers_is_cut_by_rows(tmp_path):
    w1, w2 = torch.randn(3, 4), torch.randn(32, 8)
    name = "diffusion_model.joint_blocks.0.x_block.attn.qkv"
    state = {f"{name}.lokr_w1": w1, f"{name}.lokr_w2": w2, f"{name}.alpha": torch.tensor(99.0)}
    save_file(state, tmp_path / "l.safetensors")
    merged, plain = load_denoiser(MODEL, loras=[str(tmp_path / "l.safetensors")]), load_denoiser(MODEL)
    for each, rows in zip("qkv", torch.kron(w1, w2).split(32), strict=True):  # alpha says nothing of whole factors
        layer = f"transformer_blocks.0.attn.to_{each}"
        delta = merged.backbone.get_submodule(layer).weight - plain.backbone.get_submodule(layer).weight
        torch.testing.assert_close(delta, rows, rtol=1e-4, atol=1e-5)


def test_halves_that_the_models_own_code_has_swapped_are_swapped(tmp_path):
    """Of the last norm, the model's own code has shift before scale, and diffusers scale before shift."""
    plain = load_denoiser(MODEL)
    width, layer = 32, "norm_out.linear"
    delta = torch.randn(2 * width, width)
    state = {"diffusion_model.final_layer.adaLN_modulation.1.lokr_w1": torch.ones(1, 1)}
    save_file(state | {next(iter(state)).replace("w1", "w2"): delta}, tmp_path / "l.safetensors")
    merged = load_denoiser(MODEL, loras=[str(tmp_path / "l.safetensors")])
    found = merged.backbone.get_submodule(layer).weight - plain.backbone.get_submodule(layer).weight
    torch.testing.assert_close(found, torch.cat([delta[width:], delta[:width]]), rtol=1e-4, atol=1e-5)


NAME = LAYERS[0]


@pytest.mark.parametrize(
    ("state", "line"),
    [
        ({f"{NAME}.lokr_w1": torch.ones(4, 4)}, "expected lokr_w2, or its two factors, of"),
        ({f"{NAME}.lokr_w1": torch.ones(4, 4), f"{NAME}.lokr_w2": torch.ones(4, 8)}, "expected a product of 32x32 for"),
        ({f"{NAME}.lokr_w1": torch.ones(4, 4), f"{NAME}.lokr_w2": torch.ones(8, 8, 3, 3)}, "which are not supported"),
        ({f"{NAME}.lokr_w1": torch.ones(4, 4), f"{NAME}.lokr_t2": torch.ones(2, 2)}, "got .*lokr_t2 in"),
        ({"some.layer.lokr_w1": torch.ones(4, 4)}, "which is no layer of the model"),
        ({f"{NAME}.lokr_w1": torch.ones(4, 4), f"{NAME}.lokr_w2": torch.full((8, 8), torch.nan)}, "got nan or inf for"),
    ],
)
def test_what_cannot_be_merged_is_one_line(tmp_path, state, line):
    save_file(state, tmp_path / "lokr.safetensors")
    with pytest.raises(ValueError, match=line) as caught:
        load_denoiser(MODEL, loras=[str(tmp_path / "lokr.safetensors")])
    assert "\n" not in str(caught.value)


def test_a_student_cannot_be_one(peft):
    _, file = peft
    for call in (lambda: read_lora(file, TINY["sd3"]()), lambda: load_lora(TINY["sd3"](), file)):
        with pytest.raises(ValueError, match=r"got LoKr .*: pass it as --teacher-lora or --base-lora, or merge"):
            call()
