"""DoRA files are merged as PEFT computes them, and refused where a LoRA is wanted."""

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import save_file

from swd_models import load_denoiser, load_lora
from swd_models.lora.files import read_lora
from swd_models.lora.loading import check_mergeable
from swd_models.tiny import SIZES, TINY, tiny_cond

LAYERS = {
    "sd3": ["transformer_blocks.0.attn.to_q", "transformer_blocks.1.ff.net.0.proj"],
    "sdxl": ["down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", "down_blocks.0.resnets.0.conv1"],
}
NAME = LAYERS["sd3"][0]


def predict(denoiser):
    family = denoiser.family
    x_t = torch.randn(2, denoiser.num_channels, *SIZES[family][0], generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return denoiser(x_t, torch.tensor([0.9, 0.4]), tiny_cond(family, 2)).x0


@pytest.fixture(params=list(LAYERS))
def peft(request, tmp_path):
    """A denoiser with PEFT's DoRA, and its file, as PEFT names it."""
    denoiser = load_denoiser(f"random-{request.param}")
    config = LoraConfig(r=2, lora_alpha=3, use_dora=True, target_modules=LAYERS[request.param])
    inject_adapter_in_model(config, denoiser.backbone)
    for name, parameter in denoiser.backbone.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter, mean=float("magnitude" in name), std=0.3)
    state = get_peft_model_state_dict(denoiser.backbone)
    assert sum("magnitude" in key for key in state) == 2
    save_file({key: value.detach().contiguous() for key, value in state.items()}, tmp_path / "dora.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"r": 2, "lora_alpha": 3, "use_dora": true, "peft_type": "LORA"}')
    return denoiser, tmp_path / "dora.safetensors"


def test_it_is_merged_as_peft_computes_it(peft):
    denoiser, file = peft
    model = f"random-{denoiser.family}"
    check_mergeable(TINY[denoiser.family](), str(file))
    merged = load_denoiser(model, loras=[str(file)])
    torch.testing.assert_close(predict(merged), predict(denoiser), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(predict(merged), predict(load_denoiser(model)), atol=1e-3)


def factors(out, inside, rank=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rank, inside, generator=generator), torch.randn(out, rank, generator=generator)


@pytest.mark.parametrize("axis", [0, 1], ids=["rows", "columns"])
def test_kohyas_lengths_are_of_rows_or_columns_by_their_shape(tmp_path, axis):
    plain, prefix = load_denoiser("random-sd3"), f"lora_unet_{NAME.replace('.', '_')}"
    weight = plain.backbone.get_submodule(NAME).weight
    down, up = factors(*weight.shape)
    length = 1 + torch.rand(len(weight), 1) if axis == 0 else 1 + torch.rand(1, weight.shape[1])
    state = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(1.0), "dora_scale": length}
    save_file({f"{prefix}.{key}": value for key, value in state.items()}, tmp_path / "d.safetensors")
    merged = load_denoiser("random-sd3", loras=[str(tmp_path / "d.safetensors")])
    whole = weight.double() + 0.5 * (up @ down)
    lines = whole if axis == 0 else whole.T
    expected = torch.stack([m * line / line.norm() for m, line in zip(length.flatten(), lines, strict=True)])
    expected = expected if axis == 0 else expected.T
    torch.testing.assert_close(merged.backbone.get_submodule(NAME).weight, expected.float(), rtol=1e-5, atol=1e-6)


def test_one_for_several_layers_is_cut_by_rows(tmp_path):
    name, plain = "diffusion_model.joint_blocks.0.x_block.attn.qkv", load_denoiser("random-sd3")
    layers = [f"transformer_blocks.0.attn.to_{each}" for each in "qkv"]
    weight = torch.cat([plain.backbone.get_submodule(layer).weight for layer in layers])
    down, up = factors(*weight.shape)
    length = 1 + torch.rand(len(weight), 1)
    state = {"lora_down.weight": down, "lora_up.weight": up, "dora_scale": length}
    save_file({f"{name}.{key}": value for key, value in state.items()}, tmp_path / "d.safetensors")
    merged = load_denoiser("random-sd3", loras=[str(tmp_path / "d.safetensors")])
    whole = weight + up @ down
    found = torch.cat([merged.backbone.get_submodule(layer).weight for layer in layers])
    torch.testing.assert_close(found, length * whole / whole.norm(dim=1, keepdim=True), rtol=1e-4, atol=1e-5)


def _file(tmp_path, **tensors):
    down, up = factors(32, 32)
    state = {"lora_A.weight": down, "lora_B.weight": up} | tensors
    save_file({f"{NAME}.{key}": value for key, value in state.items()}, tmp_path / "d.safetensors")
    return str(tmp_path / "d.safetensors")


@pytest.mark.parametrize(
    ("tensors", "line"),
    [
        ({"dora_scale": torch.ones(31, 1)}, "expected 32 lengths of rows, or 32 of columns as"),
        ({"dora_scale": torch.ones(32, 32)}, r"got shape \(32, 32\) as"),
        ({"dora_scale": torch.tensor(1.0)}, r"got shape \(1,\) as"),
        ({"lora_magnitude_vector": torch.full((32,), torch.nan)}, "got nan or inf in"),
    ],
)
def test_what_cannot_be_merged_is_one_line(tmp_path, tensors, line):
    file = _file(tmp_path, **tensors)
    with pytest.raises(ValueError, match=line) as caught:
        load_denoiser("random-sd3", loras=[file])
    assert "\n" not in str(caught.value)


def test_a_weight_is_refused_before_anything_is_loaded(tmp_path):
    file = _file(tmp_path, lora_magnitude_vector=torch.ones(32))
    for call in (
        lambda: check_mergeable(TINY["sd3"](), f"{file}:0.5"),
        lambda: load_denoiser("random-sd3", loras=[f"{file}:0.5"]),
    ):
        with pytest.raises(ValueError, match=r"expected a DoRA without a weight, got 0\.5"):
            call()


def test_lengths_of_another_model_are_named(tmp_path):
    down, up = factors(32, 32)
    state = {f"{NAME}.lora_A.weight": down, f"{NAME}.lora_B.weight": up, "some.layer.dora_scale": torch.ones(3, 1)}
    save_file(state, tmp_path / "d.safetensors")
    with pytest.raises(ValueError, match=r"got some\.layer\.dora_scale, which is no layer of the model"):
        load_denoiser("random-sd3", loras=[str(tmp_path / "d.safetensors")])


def test_a_lokr_with_lengths_is_named_by_what_it_is(tmp_path):
    state = {
        f"{NAME}.lokr_w1": torch.ones(4, 4),
        f"{NAME}.lokr_w2": torch.ones(8, 8),
        f"{NAME}.dora_scale": torch.ones(32, 1),
    }
    save_file(state, tmp_path / "d.safetensors")
    with pytest.raises(ValueError, match=r"expected Kronecker factors and alphas alone, got .*dora_scale"):
        load_denoiser("random-sd3", loras=[str(tmp_path / "d.safetensors")])


def test_a_student_cannot_be_one(peft):
    denoiser, file = peft
    for call in (lambda: read_lora(file, denoiser), lambda: load_lora(TINY[denoiser.family](), file)):
        with pytest.raises(ValueError, match=r"got DoRA .*: pass it as --teacher-lora or --base-lora, or merge"):
            call()
