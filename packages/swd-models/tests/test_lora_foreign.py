"""LoRA files under the names of other tools give what the file they stand for gives; diffusers is the oracle."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from swd_models import load_lora
from swd_models.loading import empty_denoiser, family_of
from swd_models.lora.files import FILES, read_lora, write_lora
from swd_models.lora.originals import original
from swd_models.lora.tensors import layers_of
from swd_models.tiny import SIZES, TINY, tiny_cond

RANK, ALPHA = 3, 6.0
# Shift and scale in the models' own code, scale and shift in diffusers.
SWAPPED = (("norm_out.linear",), ("transformer_blocks.2.norm1_context.linear",))
DIT = "transformer_blocks.0.attn"


def layer_of(family, name):
    return TINY[family]().backbone.get_submodule(name)


def factors(family, among, seed=0):
    """Draw the factors of a layer that stands for several: one A, and rows of B for each."""
    generator = torch.Generator().manual_seed(seed)
    layers = [layer_of(family, name) for name in among]
    inside, outside = layers[0].weight.shape[1], sum(layer.weight.shape[0] for layer in layers)
    kernel = layers[0].weight.shape[2:]
    down = torch.randn(RANK, inside, *kernel, generator=generator)
    return down, torch.randn(outside, RANK, *(1,) * len(kernel), generator=generator)


def plain(family, names):
    """Return the same adapters under diffusers' names, by a plain cut."""
    state = {}
    for i, among in enumerate(names.values()):
        down, up = factors(family, among, i)
        if among in SWAPPED:
            up = torch.cat(up.chunk(2)[::-1])
        widths = [len(layer_of(family, name).weight) for name in among]
        for name, rows in zip(among, up.split(widths), strict=True):
            state |= {f"{name}.lora_A.weight": down.clone(), f"{name}.lora_B.weight": rows.contiguous()}
            state[f"{name}.alpha"] = torch.tensor(ALPHA)
    return state


def foreign(family, names, down="lora_down.weight", up="lora_up.weight", alpha=".alpha"):
    state = {}
    for i, (name, among) in enumerate(names.items()):
        a, b = factors(family, among, i)
        state |= {f"{name}.{down}": a, f"{name}.{up}": b}
        state |= {f"{name}{alpha}": torch.tensor(ALPHA)} if alpha else {}
    return state


def predict(family, path):
    denoiser = TINY[family]()
    load_lora(denoiser, path)
    x_t = torch.randn(2, denoiser.num_channels, *SIZES[family][0], generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return denoiser(x_t, torch.tensor([0.9, 0.4]), tiny_cond(family, 2)).x0


def qkv(base):
    return tuple(f"{base}.to_{each}" for each in "qkv")


def added(base):
    return tuple(f"{base}.add_{each}_proj" for each in "qkv")


SINGLE = "single_transformer_blocks.1"
# Names of the models' own code, and the layers of diffusers that they stand for.
BFL = {
    "double_blocks.0.img_attn.qkv": qkv(DIT),
    "double_blocks.1.txt_attn.qkv": added("transformer_blocks.1.attn"),
    "double_blocks.0.img_attn.proj": (f"{DIT}.to_out.0",),
    "double_blocks.0.txt_attn.proj": (f"{DIT}.to_add_out",),
}
FLUX = BFL | {
    "double_blocks.0.img_mlp.0": ("transformer_blocks.0.ff.net.0.proj",),
    "double_blocks.1.txt_mlp.2": ("transformer_blocks.1.ff_context.net.2",),
    "double_blocks.0.img_mod.lin": ("transformer_blocks.0.norm1.linear",),
    "single_blocks.1.linear1": (*qkv(f"{SINGLE}.attn"), f"{SINGLE}.proj_mlp"),
    "single_blocks.0.linear2": ("single_transformer_blocks.0.proj_out",),
    "single_blocks.0.modulation.lin": ("single_transformer_blocks.0.norm.linear",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
}
FLUX2 = BFL | {
    "double_blocks.0.img_mlp.0": ("transformer_blocks.0.ff.linear_in",),
    "double_blocks.1.txt_mlp.2": ("transformer_blocks.1.ff_context.linear_out",),
    "single_blocks.1.linear1": (f"{SINGLE}.attn.to_qkv_mlp_proj",),
    "single_blocks.0.linear2": ("single_transformer_blocks.0.attn.to_out",),
    "single_stream_modulation.lin": ("single_stream_modulation.linear",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
}
SD3 = {
    "joint_blocks.0.x_block.attn.qkv": qkv(DIT),
    "joint_blocks.0.x_block.attn2.qkv": qkv("transformer_blocks.0.attn2"),
    "joint_blocks.1.context_block.attn.qkv": added("transformer_blocks.1.attn"),
    "joint_blocks.1.x_block.attn.proj": ("transformer_blocks.1.attn.to_out.0",),
    "joint_blocks.1.context_block.attn.proj": ("transformer_blocks.1.attn.to_add_out",),
    "joint_blocks.2.x_block.mlp.fc1": ("transformer_blocks.2.ff.net.0.proj",),
    "joint_blocks.0.context_block.mlp.fc2": ("transformer_blocks.0.ff_context.net.2",),
    "joint_blocks.0.x_block.adaLN_modulation.1": ("transformer_blocks.0.norm1.linear",),
    "joint_blocks.1.context_block.adaLN_modulation.1": ("transformer_blocks.1.norm1_context.linear",),
    "joint_blocks.2.context_block.adaLN_modulation.1": ("transformer_blocks.2.norm1_context.linear",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
    "t_embedder.mlp.0": ("time_text_embed.timestep_embedder.linear_1",),
    "y_embedder.mlp.2": ("time_text_embed.text_embedder.linear_2",),
}
WAN = {
    "blocks.0.self_attn.q": ("blocks.0.attn1.to_q",),
    "blocks.1.cross_attn.o": ("blocks.1.attn2.to_out.0",),
    "blocks.2.ffn.0": ("blocks.2.ffn.net.0.proj",),
    "blocks.2.ffn.2": ("blocks.2.ffn.net.2",),
}
QWEN = {
    "transformer_blocks.0.attn.to_q": ("transformer_blocks.0.attn.to_q",),
    "transformer_blocks.1.img_mlp.net.0.proj": ("transformer_blocks.1.img_mlp.net.0.proj",),
}
ZIMAGE = {
    "layers.0.attention.qkv": qkv("layers.0.attention"),
    "noise_refiner.0.attention.out": ("noise_refiner.0.attention.to_out.0",),
    "layers.1.feed_forward.w2": ("layers.1.feed_forward.w2",),
}
UP, MID = "up_blocks.0.attentions.1", "mid_block.attentions.0.transformer_blocks.0"
SDXL = {
    "input_blocks.5.1.transformer_blocks.0.attn1.to_q": ("down_blocks.2.attentions.0.transformer_blocks.0.attn1.to_q",),
    "input_blocks.3.1.proj_in": ("down_blocks.1.attentions.0.proj_in",),
    "input_blocks.1.0.in_layers.2": ("down_blocks.0.resnets.0.conv1",),
    "input_blocks.2.0.op": ("down_blocks.0.downsamplers.0.conv",),
    "middle_block.1.transformer_blocks.0.attn2.to_out.0": (
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0",
    ),
    "middle_block.2.out_layers.3": ("mid_block.resnets.1.conv2",),
    "output_blocks.1.1.transformer_blocks.0.ff.net.2": (f"{UP}.transformer_blocks.0.ff.net.2",),
    "output_blocks.1.2.conv": ("up_blocks.0.upsamplers.0.conv",),
    "output_blocks.2.0.skip_connection": ("up_blocks.1.resnets.0.conv_shortcut",),
    "output_blocks.4.0.emb_layers.1": ("up_blocks.2.resnets.0.time_emb_proj",),
}
NAMES = {"flux": FLUX, "flux2": FLUX2, "sd3": SD3, "wan": WAN, "qwen": QWEN, "zimage": ZIMAGE, "sdxl": SDXL}


def flat(names):
    return {f"lora_unet_{name.replace('.', '_')}": among for name, among in names.items()}


def prefixed(names, prefix):
    return {f"{prefix}{name}": among for name, among in names.items()}


@pytest.mark.parametrize("style", ["kohya", "lora_A", "diffusion_model.lora_A", "diffusion_model.lora_down", "model."])
@pytest.mark.parametrize("family", list(NAMES))
def test_a_file_under_the_models_own_names_gives_what_the_plain_one_gives(tmp_path, family, style):
    names = flat(NAMES[family]) if style == "kohya" else NAMES[family]
    if style.startswith("diffusion_model"):
        names = prefixed(names, "diffusion_model.")
    if style == "model.":
        names = prefixed(names, "model.diffusion_model.")
    kinds = ("lora_A.weight", "lora_B.weight") if style.endswith("lora_A") else ("lora_down.weight", "lora_up.weight")
    save_file(foreign(family, names, *kinds), tmp_path / "other.safetensors")
    save_file(plain(family, NAMES[family]), tmp_path / "plain.safetensors")
    torch.testing.assert_close(
        predict(family, tmp_path / "other.safetensors"),
        predict(family, tmp_path / "plain.safetensors"),
        rtol=1e-6,
        atol=1e-6,
    )


# What diffusers' converters read of these: not FLUX.1's joined rows at other widths than its own, nor half a block.
READ = {
    "flux": [name for name in FLUX if ".linear1" not in name and "final" not in name],
    "flux2": [name for name in FLUX2 if "modulation" not in name],
    "qwen": list(QWEN),
    "sdxl": [name for name in SDXL if "attn" in name or "ff" in name or "proj_in" in name],
}


@pytest.mark.parametrize("family", list(READ))
def test_diffusers_reads_the_same_from_kohyas_names(tmp_path, family):
    names = {name: NAMES[family][name] for name in READ[family]}
    save_file(foreign(family, flat(names)), tmp_path / "kohya.safetensors")
    options = {"unet_config": TINY["sdxl"]().backbone.config} if family == "sdxl" else {}
    found = family_of(f"random-{family}").pipeline.lora_state_dict(foreign(family, flat(names)), **options)
    state, alphas = found if isinstance(found, tuple) else (found, None)
    ours = read_lora(tmp_path / "kohya.safetensors", empty_denoiser(f"random-{family}"))
    products = 0
    for layer, scale in ours.scales.items():
        down, up = (ours.state[f"{layer}.lora_{kind}.weight"] for kind in "AB")
        theirs = {key: value for key, value in state.items() if _is_of(key, layer)}
        a = next(value for key, value in theirs.items() if "lora_A" in key or ".down." in key)
        b = next(value for key, value in theirs.items() if "lora_B" in key or ".up." in key)
        strength = ALPHA / RANK if alphas else 1.0
        torch.testing.assert_close(scale * up.flatten(1) @ down.flatten(1), strength * b.flatten(1) @ a.flatten(1))
        products += 1
    assert products == sum(len(among) for among in names.values())


def _is_of(key, layer):
    """Tell whether a key of diffusers is of a layer, also in the way of its old attention processors."""
    for old, new in (("_lora.down", ".down"), ("_lora.up", ".up"), (".processor", ""), (".lora.", ".")):
        key = key.replace(old, new)
    key = key.replace("to_out.down", "to_out.0.down").replace("to_out.up", "to_out.0.up")
    return key.partition(".")[2].startswith(f"{layer}.")


def test_every_layer_of_sdxl_has_the_name_that_diffusers_maps_to_it():
    empty = empty_denoiser("stabilityai/stable-diffusion-xl-base-1.0")
    layers = [name for name in layers_of(empty) if ".attn" in name or ".ff." in name or ".proj_" in name]
    flat_names = {f"lora_unet_{original(layer, empty).name.replace('.', '_')}": layer for layer in layers}
    assert len(flat_names) == len(layers) == 722
    for name, layer in flat_names.items():
        state = {f"{name}.lora_{kind}.weight": torch.zeros(1, 1) for kind in ("down", "up")}
        found, _ = family_of("random-sdxl").pipeline.lora_state_dict(state, unet_config=empty.backbone.config)
        assert all(_is_of(key, layer) for key in found)


def test_flux_at_full_width_is_cut_as_diffusers_cuts_it(tmp_path):
    name, among = "lora_unet_single_blocks_7_linear1", qkv("single_transformer_blocks.7.attn")
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(2, 3072, generator=generator), torch.randn(21504, 2, generator=generator)
    state = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(1.0)}
    save_file(state, tmp_path / "kohya.safetensors")
    ours = read_lora(tmp_path / "kohya.safetensors", empty_denoiser("black-forest-labs/FLUX.1-dev"))
    theirs = family_of("random-flux").pipeline.lora_state_dict({key: value.clone() for key, value in state.items()})
    for layer in (*among, "single_transformer_blocks.7.proj_mlp"):
        a, b = (theirs[f"transformer.{layer}.lora_{kind}.weight"] for kind in "AB")
        down, up = (ours.state[f"{layer}.lora_{kind}.weight"] for kind in "AB")
        torch.testing.assert_close(ours.scales[layer] * up @ down, b @ a)


@pytest.mark.parametrize("family", ["flux", "sd3", "flux2", "zimage"])
def test_what_was_joined_is_cut_into_what_it_was(tmp_path, family):
    empty, state = empty_denoiser(f"random-{family}"), plain(family, NAMES[family])
    some = next(name for name in NAMES[family].values() if len(name) > 1)[1]
    state = {key: value for key, value in state.items() if not key.startswith(f"{some}.")}  # one of them has none
    save_file(state, tmp_path / "plain.safetensors")
    before = read_lora(tmp_path / "plain.safetensors", empty)
    after = read_lora(write_lora(before, empty, tmp_path / "out", "kohya"), empty)
    assert after.state.keys() == before.state.keys()
    assert all(torch.equal(after.state[key], before.state[key]) for key in before.state)
    assert after.scales == before.scales
    written = load_file(tmp_path / "out" / FILES["kohya"])
    assert any(len(value) == 3 * RANK for key, value in written.items() if key.endswith("lora_down.weight"))


@pytest.mark.parametrize("form", ["diffusers", "peft", "comfyui", "kohya"])
@pytest.mark.parametrize(
    "family", [family for family, names in NAMES.items() if any(len(n) > 1 for n in names.values())]
)
def test_what_another_tool_has_joined_is_written_in_each_form(tmp_path, family, form):
    """One down for q, k and v: cut apart, each has its own, for a file names no memory twice."""
    empty = empty_denoiser(f"random-{family}")
    save_file(foreign(family, NAMES[family]), tmp_path / "other.safetensors")
    before = read_lora(tmp_path / "other.safetensors", empty)
    after = read_lora(write_lora(before, empty, tmp_path / "out", form), empty)
    assert after.state.keys() == before.state.keys()
    assert all(torch.equal(after.state[key], before.state[key]) for key in before.state)


@pytest.mark.parametrize("prefix", ["lora_unet_", "lora_transformer_", "lycoris_"])
@pytest.mark.parametrize("family", list(TINY))
def test_diffusers_names_with_underscores_are_read(tmp_path, family, prefix):
    names = {among[0]: (among[0],) for among in NAMES[family].values() if among not in SWAPPED}
    flat_names = {f"{prefix}{name.replace('.', '_')}": among for name, among in names.items()}
    save_file(foreign(family, flat_names), tmp_path / "other.safetensors")
    save_file(plain(family, names), tmp_path / "plain.safetensors")
    first, second = (predict(family, tmp_path / f"{name}.safetensors") for name in ("other", "plain"))
    assert torch.equal(first, second)


@pytest.mark.parametrize("beside", ["lora", "lora_linear_layer"])
def test_an_old_diffusers_is_read(tmp_path, beside):
    down, up = f"{beside}.down.weight", f"{beside}.up.weight"
    attention = "mid_block.attentions.0.transformer_blocks.0.attn1"
    names = {f"{attention}.to_q": (f"{attention}.to_q",), f"{attention}.to_out.0": (f"{attention}.to_out.0",)}
    state = foreign("sdxl", prefixed(names, "unet."), down, up, alpha=None)
    save_file(state, tmp_path / "layers.safetensors")
    processors = {}
    for (name, among), short in zip(names.items(), ("to_q", "to_out"), strict=True):
        a, b = (state[f"unet.{name}.{kind}"] for kind in (down, up))
        assert among == (name,)
        processors[f"unet.{attention}.processor.{short}_lora.down.weight"] = a.clone()
        processors[f"unet.{attention}.processor.{short}_lora.up.weight"] = b.clone()
    save_file(processors, tmp_path / "processors.safetensors")
    first, second = (predict("sdxl", tmp_path / f"{name}.safetensors") for name in ("layers", "processors"))
    assert torch.equal(first, second)
    assert not torch.equal(first, TINY["sdxl"]().denoise(*_inputs()))


def _inputs():
    x_t = torch.randn(2, 4, *SIZES["sdxl"][0], generator=torch.Generator().manual_seed(2))
    return x_t, torch.tensor([0.9, 0.4]), tiny_cond("sdxl", 2)


@pytest.mark.parametrize("rslora", [False, True])
def test_a_config_beside_joined_names_is_that_of_the_whole(tmp_path, rslora):
    """As strong as the file says, whether the whole is cut into parts of its rank or not, patterns by its names too."""
    joined, apart = "double_blocks.0.img_attn.qkv", "double_blocks.1.txt_attn.qkv"
    first, second = qkv(DIT), added("transformer_blocks.1.attn")
    generator, state = torch.Generator().manual_seed(0), {}
    for name in (joined, apart):
        up = torch.randn(96, 6, generator=generator)
        if name == joined:
            up = torch.block_diag(*(up[32 * i : 32 * (i + 1), 2 * i : 2 * (i + 1)] for i in range(3)))
        state |= {f"{name}.lora_A.weight": torch.randn(6, 32, generator=generator), f"{name}.lora_B.weight": up}
    save_file(state, tmp_path / "lora.safetensors")
    config = {"r": 6, "lora_alpha": 12, "alpha_pattern": {apart: 24}, "use_rslora": rslora, "peft_type": "LORA"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    lora = read_lora(tmp_path / "lora.safetensors", TINY["flux"]())
    for name, among, alpha, rank in ((joined, first, 12, 2), (apart, second, 24, 6)):
        scale = alpha / (6**0.5 if rslora else 6)
        whole = scale * state[f"{name}.lora_B.weight"] @ state[f"{name}.lora_A.weight"]
        for layer, rows in zip(among, whole.split(32), strict=True):
            down, up = (lora.state[f"{layer}.lora_{kind}.weight"] for kind in "AB")
            assert len(down) == rank
            torch.testing.assert_close(lora.scales[layer] * up @ down, rows)


def test_an_untrained_whole_is_not_taken_for_a_joined_one(tmp_path):
    names = {"single_blocks.1.linear1": FLUX["single_blocks.1.linear1"]}
    state = foreign("flux", names, alpha=None)
    state["single_blocks.1.linear1.lora_down.weight"] = torch.randn(4, 32)
    state["single_blocks.1.linear1.lora_up.weight"] = torch.zeros(224, 4)
    save_file(state, tmp_path / "lora.safetensors")
    assert set(read_lora(tmp_path / "lora.safetensors", TINY["flux"]()).ranks.values()) == {4}


def test_tensors_of_a_layer_under_several_names_are_one_line(tmp_path):
    names = {"double_blocks.0.img_attn.qkv": qkv(DIT)}
    joined, apart = foreign("flux", names, "lora_A.weight", "lora_B.weight"), plain("flux", names)
    down = {key: value for key, value in joined.items() if "lora_A" in key}
    up = {key: value for key, value in apart.items() if "lora_B" in key}
    for mixed in (down | up, joined | {f"{DIT}.to_q.alpha": torch.tensor(1.0)}):
        mixed.pop("double_blocks.0.img_attn.qkv.alpha", None)
        save_file(mixed, tmp_path / "mixed.safetensors")
        with pytest.raises(ValueError, match=r"expected all tensors of .* under one name, got"):
            read_lora(tmp_path / "mixed.safetensors", TINY["flux"]())


def test_rows_that_do_not_add_up_are_one_line(tmp_path):
    name = "double_blocks.0.img_attn.qkv"
    save_file(
        {f"{name}.lora_A.weight": torch.ones(2, 32), f"{name}.lora_B.weight": torch.ones(90, 2)},
        tmp_path / "other.safetensors",
    )
    with pytest.raises(ValueError, match=r"expected 96 rows in double_blocks\.0\.img_attn\.qkv.*, got shape \(90, 2\)"):
        read_lora(tmp_path / "other.safetensors", TINY["flux"]())


def test_a_layer_under_two_names_is_one_line(tmp_path):
    names = {"double_blocks.0.img_attn.qkv": qkv(DIT)}
    save_file(foreign("flux", names) | plain("flux", names), tmp_path / "both.safetensors")
    with pytest.raises(ValueError, match=r"expected one adapter a layer, got .* and .*: keep one of them"):
        read_lora(tmp_path / "both.safetensors", TINY["flux"]())
