"""Adapters on convolutions load, merge and are written again; a file may write a matrix as a kernel of 1x1."""

import pytest
import torch
from safetensors.torch import save_file

from swd_models import load_lora
from swd_models.lora.files import FILES, read_lora, write_lora
from swd_models.tiny import SIZES, TINY, tiny_cond

CONVOLUTIONS = {
    "sd3": "pos_embed.proj",
    "wan": "patch_embedding",
    "sdxl": "down_blocks.0.resnets.0.conv1",
}


def adapters(layer, rank=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, layer.in_channels, *layer.kernel_size, generator=generator)
    up = torch.randn(layer.out_channels, rank, *[1] * len(layer.kernel_size), generator=generator)
    return 0.1 * down, 0.1 * up


@pytest.mark.parametrize("family", CONVOLUTIONS)
def test_merged_or_apart_a_convolution_gets_its_product(tmp_path, family):
    name, file = CONVOLUTIONS[family], tmp_path / "style.safetensors"
    base = TINY[family]()
    layer = base.backbone.get_submodule(name)
    down, up = adapters(layer)
    save_file({f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up, f"{name}.alpha": torch.tensor(6.0)}, file)
    x_t, cond = torch.randn(2, base.num_channels, *SIZES[family][0]), tiny_cond(family, 2)
    sigma = torch.tensor([0.9, 0.4])
    expected = layer.weight + 2.0 * torch.einsum("or,ri...->oi...", up.flatten(1), down)  # alpha / rank = 2
    apart, merged = TINY[family](), TINY[family]()
    load_lora(apart, file)
    load_lora(merged, file, merge=True)
    torch.testing.assert_close(merged.backbone.get_submodule(name).weight, expected)
    with torch.no_grad():
        plain, one, other = (each.denoise(x_t, sigma, cond) for each in (base, apart, merged))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(one, plain, atol=1e-3)


@pytest.mark.parametrize("form", FILES)
def test_every_form_keeps_convolutions(tmp_path, form):
    base, name = TINY["sdxl"](), CONVOLUTIONS["sdxl"]
    down, up = adapters(base.backbone.get_submodule(name))
    save_file({f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}, tmp_path / "style.safetensors")
    path = write_lora(read_lora(tmp_path / "style.safetensors", base), base, tmp_path / form, form)
    back = read_lora(path, base)
    assert torch.equal(back.state[f"{name}.lora_A.weight"], down)
    assert torch.equal(back.state[f"{name}.lora_B.weight"], up)
    assert back.scales == {name: 1.0}


def test_a_matrix_written_as_a_kernel_of_one_is_that_matrix(tmp_path):
    name = "transformer_blocks.0.attn.to_q"
    state = {f"{name}.lora_A.weight": torch.randn(4, 32, 1, 1), f"{name}.lora_B.weight": torch.randn(32, 4, 1, 1)}
    save_file(state, tmp_path / "style.safetensors")
    found = read_lora(tmp_path / "style.safetensors", TINY["sd3"]()).state
    assert all(torch.equal(found[key], state[key].flatten(1)) for key in state)


@pytest.mark.parametrize(
    ("down", "up", "what"),
    [
        ((3, 8, 1, 1), None, "expected a kernel of 3x3 as lora_A"),
        (None, (8, 3, 3, 3), "expected a kernel of 1x1 as lora_B"),
        ((3, 9, 3, 3), None, "expected width 8 in lora_A"),
        ((3, 72), None, "expected a kernel of 3x3 as lora_A"),
    ],
)
def test_other_kernels_are_refused(tmp_path, down, up, what):
    base, name = TINY["sdxl"](), CONVOLUTIONS["sdxl"]
    layer = base.backbone.get_submodule(name)
    own_down, own_up = adapters(layer)
    side = layer.in_channels
    state = {
        f"{name}.lora_A.weight": own_down if down is None else torch.ones(down[0], side + down[1] - 8, *down[2:]),
        f"{name}.lora_B.weight": own_up if up is None else torch.ones(layer.out_channels, *up[1:]),
    }
    save_file(state, tmp_path / "style.safetensors")
    with pytest.raises(ValueError, match=what.replace("width 8", f"width {side}")):
        read_lora(tmp_path / "style.safetensors", base)
