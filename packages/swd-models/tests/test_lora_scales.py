"""rsLoRA, a rank and an alpha a layer, and where they are told; PEFT's own computation is the oracle."""

import json

import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.lora import Linear
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from swd_models import load_denoiser, load_lora, save_lora, share_base
from swd_models.loading import empty_denoiser, resolve_model
from swd_models.lora.files import FILES, PEFT_CONFIG, read_lora, write_lora
from swd_models.tiny import SIZES, TINY, tiny_cond

PATTERNS = {
    "rank_pattern": {"to_q": 2, r"0\.attn.*\.to_k": 3},
    "alpha_pattern": {"to_k": 5, r"to_out\.0": 2.5, "to_q": 1},
}
CONFIGS = {"rslora": {"use_rslora": True}, "patterns": PATTERNS, "both": PATTERNS | {"use_rslora": True}}
CASES = [("sd3", "rslora"), ("sd3", "patterns"), *((family, "both") for family in TINY)]


def config_of(case):
    family, kind = case
    targets = TINY[family]().lora_targets
    targets = targets if isinstance(targets, str) else list(targets)
    return LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False, **CONFIGS[kind])


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def twin(case):
    """A denoiser with PEFT's own layers in it, whose forward is PEFT's."""
    denoiser = load_denoiser(f"random-{case[0]}")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        inject_adapter_in_model(config_of(case), denoiser.backbone)
    layers = [layer for layer in denoiser.backbone.modules() if isinstance(layer, Linear)]
    assert all(type(layer) is Linear for layer in layers)
    assert len({layer.scaling["default"] for layer in layers}) > (1 if "patterns" in case or "both" in case else 0)
    return denoiser


@pytest.fixture(scope="module")
def saved(case, twin, tmp_path_factory):
    """What diffusers saves of it, with its metadata."""
    folder, part = tmp_path_factory.mktemp("saved"), twin.subfolder
    pipeline = type(DiffusionPipeline.from_pretrained(resolve_model(f"random-{case[0]}")))
    layers = {f"{part}_lora_layers": get_peft_model_state_dict(twin.backbone)}
    pipeline.save_lora_weights(folder, **layers, **_collate_lora_metadata({part: twin.backbone}))
    return folder


def fresh(case):
    return load_denoiser(f"random-{case[0]}")


def predict(denoiser):
    x_t = torch.randn(2, denoiser.num_channels, *SIZES[denoiser.family][0], generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return denoiser(x_t, torch.tensor([0.9, 0.4]), tiny_cond(denoiser.family, 2)).x0


def same(denoiser, twin):
    torch.testing.assert_close(predict(denoiser), predict(twin), rtol=1e-4, atol=1e-5)


def deltas(denoiser):
    layers = denoiser.backbone.named_modules()
    return {name: layer.get_delta_weight("default") for name, layer in layers if isinstance(layer, Linear)}


def test_what_diffusers_saved_computes_as_in_peft(case, twin, saved, capsys):
    denoiser = fresh(case)
    load_lora(denoiser, saved)
    same(denoiser, twin)
    assert not torch.allclose(predict(denoiser), predict(fresh(case)), rtol=1e-2)
    merged = fresh(case)
    load_lora(merged, saved, merge=True)
    same(merged, twin)
    assert capsys.readouterr().err == ""


def test_what_peft_saved_computes_as_in_peft_whatever_the_file_is_called(case, twin, tmp_path, capsys):
    own = get_peft_model(fresh(case).backbone, config_of(case))
    own.base_model.model.load_state_dict(twin.backbone.state_dict())
    own.save_pretrained(tmp_path)
    file = (tmp_path / FILES["peft"]).rename(tmp_path / "my style v1.5.safetensors")
    for source in (file, tmp_path):
        denoiser = fresh(case)
        load_lora(denoiser, source)
        same(denoiser, twin)
    assert capsys.readouterr().err == ""


def test_diffusers_computes_the_same_of_what_is_exported_for_it(case, twin, saved, tmp_path):
    empty = empty_denoiser(f"random-{case[0]}")
    write_lora(read_lora(saved, empty), empty, tmp_path)
    pipe, stock = DiffusionPipeline.from_pretrained(resolve_model(f"random-{case[0]}")), fresh(case)
    pipe.load_lora_weights(str(tmp_path))
    stock.backbone = getattr(pipe, stock.subfolder)
    same(stock, twin)


def test_peft_computes_the_same_of_what_is_exported_for_it(case, twin, saved, tmp_path):
    empty = empty_denoiser(f"random-{case[0]}")
    write_lora(read_lora(saved, empty), empty, tmp_path, "peft")
    stock = fresh(case)
    stock.backbone = PeftModel.from_pretrained(stock.backbone, tmp_path).base_model.model
    same(stock, twin)


def test_comfyuis_alpha_over_rank_is_the_scale(case, twin, saved, tmp_path):
    empty = empty_denoiser(f"random-{case[0]}")
    tensors = load_file(write_lora(read_lora(saved, empty), empty, tmp_path, "comfyui"))
    expected = deltas(twin)
    assert len(tensors) == 3 * len(expected)
    for layer, delta in expected.items():
        down, up, alpha = (
            tensors[f"{empty.comfyui_name(layer)}.{kind}"] for kind in ("lora_down.weight", "lora_up.weight", "alpha")
        )
        torch.testing.assert_close(alpha / len(down) * up @ down, delta)  # comfy/weight_adapter/lora.py
    denoiser = fresh(case)
    load_lora(denoiser, tmp_path)
    same(denoiser, twin)


def test_a_student_of_such_a_config_is_saved_with_it(case, twin, saved, tmp_path):
    student = share_base(fresh(case), config_of(case), fake=False).student
    student.backbone.load_state_dict(twin.backbone.state_dict())
    for form in FILES:
        save_lora(student, tmp_path / form, schedule=None, form=form)
        denoiser = fresh(case)
        load_lora(denoiser, tmp_path / form)
        same(denoiser, twin)


def test_all_forms_keep_what_was_read(case, saved, tmp_path):
    empty = empty_denoiser(f"random-{case[0]}")
    first = read_lora(saved, empty)
    for form in FILES:
        write_lora(first, empty, tmp_path / form, form)
        again = read_lora(tmp_path / form, empty)
        assert again.ranks == first.ranks
        for layer, scale in first.scales.items():  # joined layers have one scale: another's is in its factor
            ups = (lora.state[f"{layer}.lora_B.weight"] for lora in (again, first))
            torch.testing.assert_close(again.scales[layer] * next(ups), scale * next(ups))
        if form != "kohya":
            assert again.scales == pytest.approx(first.scales)
        assert (again.rslora, again.alphas) == (first.rslora, first.alphas) or form in ("comfyui", "kohya")


def test_ranks_that_differ_count_as_in_diffusers_where_nothing_tells_an_alpha(tmp_path, capsys):
    denoiser, state = load_denoiser("random-flux"), {}
    generator = torch.Generator().manual_seed(3)
    layers = ("proj_out", "single_transformer_blocks.0.proj_out", "single_transformer_blocks.1.proj_out")
    for rank, layer in enumerate(layers, start=2):
        base = denoiser.backbone.get_submodule(layer)
        state[f"transformer.{layer}.lora_A.weight"] = torch.randn(rank, base.in_features, generator=generator)
        state[f"transformer.{layer}.lora_B.weight"] = torch.randn(base.out_features, rank, generator=generator)
    save_file(state, tmp_path / "ranks.safetensors")
    load_lora(denoiser, tmp_path / "ranks.safetensors")
    assert capsys.readouterr().err == (
        f"no alpha in {tmp_path}/ranks.safetensors: alpha = rank is taken, a scale of 1\n"
    )
    pipe, stock = DiffusionPipeline.from_pretrained(resolve_model("random-flux")), load_denoiser("random-flux")
    pipe.load_lora_weights(str(tmp_path), weight_name="ranks.safetensors")
    stock.backbone = pipe.transformer
    same(denoiser, stock)


LAYER = "transformer_blocks.0.attn.to_q"


def one_layer(name=LAYER, rank=4, **more):
    state = {f"{name}.lora_A.weight": torch.ones(rank, 32), f"{name}.lora_B.weight": torch.ones(32, rank)}
    return state | {key: torch.as_tensor(value) for key, value in more.items()}


def read(tmp_path, state, metadata=None, config=None):
    save_file(state, tmp_path / "lora.safetensors", metadata)
    if config is not None:
        (tmp_path / PEFT_CONFIG).write_text(config if isinstance(config, str) else json.dumps(config))
    return read_lora(tmp_path / "lora.safetensors", TINY["sd3"]())


def test_alphas_of_the_tensors_come_before_the_header_and_the_header_before_the_neighbour(tmp_path, capsys):
    header = {"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 2, "text_encoder.lora_alpha": 7})}
    assert read(tmp_path, one_layer(), header, {"lora_alpha": 3}).scales == {LAYER: 0.5}
    assert read(tmp_path, one_layer(**{f"{LAYER}.alpha": 6.0}), header, {"lora_alpha": 3}).scales == {LAYER: 1.5}
    assert read(tmp_path, one_layer(), {"lora_adapter_metadata": json.dumps({"lora_alpha": 2})}).scales == {LAYER: 0.5}
    text = {"lora_adapter_metadata": json.dumps({"text_encoder.lora_alpha": 7})}
    assert read(tmp_path, one_layer(), text, {"lora_alpha": 3}).scales == {LAYER: 0.75}
    assert capsys.readouterr().err == ""


def test_layers_without_an_alpha_among_others_are_said(tmp_path, capsys):
    other = "transformer_blocks.1.attn.to_q"
    lora = read(tmp_path, one_layer(rank=2) | one_layer(other) | {f"{LAYER}.alpha": torch.tensor([1.0])})
    assert lora.scales == {LAYER: 0.5, other: 1.0}
    assert "no alpha for 1 of 2 layers in" in capsys.readouterr().err
    assert read(tmp_path, one_layer(), config={"r": 4}).scales == {LAYER: 1.0}
    assert "no alpha in" in capsys.readouterr().err


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf"), [1.0, 2.0], [[[]]]], ids=str)
def test_an_alpha_that_is_none_is_refused(tmp_path, alpha):
    with pytest.raises(ValueError, match=rf"expected (an alpha above 0|one number as alpha).* {tmp_path}/lora.safe"):
        read(tmp_path, one_layer(**{f"{LAYER}.alpha": torch.tensor(alpha)}))


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"lora_alpha": 0}, "expected an alpha above 0, got 0 for"),
        ({"lora_alpha": True}, "expected an alpha above 0, got True for"),
        ({"lora_alpha": "8"}, "expected an alpha above 0, got '8' for"),
        ('{"lora_alpha": NaN}', "expected an alpha above 0, got nan for"),
        ('{"lora_alpha": 1' + 400 * "0" + "}", "expected an alpha above 0, got 1000"),
        ({"lora_alpha": 8, "alpha_pattern": {"to_q": None}}, "expected an alpha above 0, got None for"),
        ({"lora_alpha": 8, "alpha_pattern": [1]}, r"expected layers and values as alpha_pattern, got \[1\]"),
        ({"lora_alpha": 8, "alpha_pattern": {"(": 1}}, "expected expressions in alpha_pattern"),
        ({"use_rslora": True}, "expected lora_alpha beside use_rslora"),
        ({"r": 8, "lora_alpha": 8}, f"expected rank 8 in {LAYER}, as .* says, got 4"),
        ({"r": 4, "lora_alpha": 8, "rank_pattern": {"to_q": 8}}, f"expected rank 8 in {LAYER}, as .* says, got 4"),
        ({"lora_alpha": 8, "use_dora": True}, "expected a plain LoRA, got use_dora"),
        ({"lora_alpha": 8, "lora_bias": True, "bias": "all"}, "expected a plain LoRA, got lora_bias, bias"),
        ({"lora_alpha": 8, "peft_type": "LOHA"}, "expected a plain LoRA, got 'LOHA'"),
        (
            {"lora_alpha": 8, "init_lora_weights": "pissa_niter_4"},
            "expected a plain LoRA, got init_lora_weights 'pissa",
        ),
        ("[1]", "expected a PEFT config in "),
        ("{", "expected a PEFT config in "),
        (100_000 * "[", "expected a PEFT config in "),
    ],
)
@pytest.mark.parametrize("place", ["header", "neighbour"])
def test_a_config_that_is_none_or_of_another_adapter_is_refused(tmp_path, config, match, place):
    text = config if isinstance(config, str) else json.dumps(config)
    header = {"lora_adapter_metadata": text} if place == "header" else None
    if place == "header" and isinstance(config, dict):
        header = {"lora_adapter_metadata": json.dumps({f"transformer.{key}": value for key, value in config.items()})}
    with pytest.raises(ValueError, match=match) as error:
        read(tmp_path, one_layer(), header, text if header is None else None)
    assert str(tmp_path / (PEFT_CONFIG if header is None else "lora.safetensors")) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_config_that_is_no_text_is_refused(tmp_path):
    (tmp_path / PEFT_CONFIG).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=f"got byte 0x00 in line 1 of {tmp_path}/{PEFT_CONFIG}"):
        read(tmp_path, one_layer())


def test_patterns_name_whole_layers(tmp_path):
    """`proj_out` is a layer of FLUX and the end of others' names."""
    empty, state = empty_denoiser("random-flux"), {}
    layers = ("proj_out", "single_transformer_blocks.0.proj_out", "single_transformer_blocks.1.proj_out")
    for rank, layer in zip((2, 3, 3), layers, strict=True):
        base = empty.backbone.get_submodule(layer)
        state[f"{layer}.lora_A.weight"] = torch.zeros(rank, base.in_features)
        state[f"{layer}.lora_B.weight"] = torch.zeros(base.out_features, rank)
    save_file(state, tmp_path / "lora.safetensors")
    with safe_open(write_lora(read_lora(tmp_path, empty), empty, tmp_path / "out"), "pt") as handle:
        packed = json.loads(handle.metadata()["lora_adapter_metadata"])
    assert packed["transformer.r"] == 3
    assert packed["transformer.rank_pattern"] == {"^(?:proj_out)": 2}
