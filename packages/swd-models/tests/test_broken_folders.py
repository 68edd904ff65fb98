"""Model folders as people have them, harmed: one line each, and no code of theirs runs."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from swd_data.errors import is_expected
from swd_models import load_denoiser, load_latents, load_text
from swd_models.loading import facts_of, load_config, load_teacher, resolve_model


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(resolve_model("embedded"), tmp_path / "model")


def write(name, value):
    return lambda folder: (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))


def patch(name, **fields):
    def harm(folder):
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | fields))

    return harm


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def pickled(folder):
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    weights.with_suffix(".bin").write_bytes(pickle.dumps({"x": Evil()}))


def with_code(folder):
    patch("transformer/config.json", auto_map={"AutoModel": "evil.Model"}, _class_name="Model")(folder)
    (folder / "transformer" / "evil.py").write_text("import pytest\npytest.fail('code was run')\n")


WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
HARM = {
    "no index": lambda folder: (folder / "model_index.json").unlink(),
    "an index of a list": write("model_index.json", [1]),
    "an index of no class": write("model_index.json", {}),
    "an index of a list as class": write("model_index.json", {"_class_name": ["a"]}),
    "an index that is deep": write("model_index.json", "[" * 100_000),
    "no config": lambda folder: (folder / "transformer" / "config.json").unlink(),
    "a config of a list": write("transformer/config.json", [1]),
    "a config that is no JSON": write("transformer/config.json", "{"),
    "texts for numbers": patch("transformer/config.json", num_layers="two", attention_head_dim="x"),
    "layers without number": patch("transformer/config.json", num_layers=None),
    "another width": patch("transformer/config.json", attention_head_dim=16),
    "a quantisation nobody has": patch("transformer/config.json", quantization_config={"quant_method": "none-such"}),
    "a quantisation of a list": patch("transformer/config.json", quantization_config=[1]),
    "bitsandbytes": patch("transformer/config.json", quantization_config={"quant_method": "bitsandbytes"}),
    "no weights": lambda folder: (folder / WEIGHTS).unlink(),
    "cut weights": lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:5000]),
    "weights that are a page": lambda folder: (folder / WEIGHTS).write_text("<html>not found</html>"),
    "weights of another model": lambda folder: shutil.copy(
        folder / "vae" / "diffusion_pytorch_model.safetensors", folder / WEIGHTS
    ),
    "pickled weights": pickled,
}


@pytest.mark.parametrize("harm", HARM)
def test_a_broken_denoiser_is_one_line(folder, harm, capfd):
    HARM[harm](folder)
    facts_of.cache_clear()
    with pytest.raises((ValueError, OSError)) as caught:
        load_denoiser(str(folder))
    assert is_expected(caught.value) or isinstance(caught.value, OSError), repr(caught.value)
    assert str(folder) in str(caught.value)


def test_code_in_a_folder_is_not_run(folder):
    with_code(folder)
    assert load_denoiser(str(folder)).backbone.config.num_layers > 0


INDEX = json.loads((Path(resolve_model("embedded")) / "model_index.json").read_text())
PARTS = {
    "a decoder of a list": ("vae/config.json", [1], load_latents),
    "a decoder of no channels": (
        "vae/config.json",
        {"_class_name": "AutoencoderKL", "latent_channels": "x"},
        load_latents,
    ),
    "an encoder of a list": ("text_encoder/config.json", [1], load_text),
    "no tokenizer": ("tokenizer/tokenizer.json", "{}", load_text),
    "a scheduler of a list": ("scheduler/scheduler_config.json", [1], load_teacher),
    "an encoder that nobody knows": (
        "model_index.json",
        INDEX | {"text_encoder": ["transformers", "NoSuch"]},
        load_text,
    ),
    "an encoder without a class": ("model_index.json", INDEX | {"text_encoder": ["transformers", None]}, load_text),
}


@pytest.mark.parametrize("harm", PARTS)
def test_a_broken_part_is_one_line(folder, harm):
    name, value, load = PARTS[harm]
    write(name, value)(folder)
    with pytest.raises((ValueError, OSError)) as caught:
        load(str(folder))
    assert is_expected(caught.value) or isinstance(caught.value, OSError), repr(caught.value)


def test_a_teacher_is_whole_or_refused(folder):
    """Of each part half the weights: diffusers and transformers would draw the rest at random."""
    for name in ("transformer", "vae", "text_encoder"):
        path = next((folder / name).glob("*.safetensors"))
        whole = path.read_bytes()
        state = load_file(path)
        save_file(dict(list(state.items())[::2]), path)
        with pytest.raises(ValueError, match=rf"expected all weights of {name} in .*, got none for .* and \d+ more"):
            load_teacher(str(folder))
        path.write_bytes(whole)


def test_a_denoiser_that_is_quantised_already_is_refused(folder):
    patch("transformer/config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})(folder)
    with pytest.raises(
        ValueError, match=r"expected a whole transformer in .*, got one quantised by bitsandbytes: take"
    ):
        load_denoiser(str(folder))


@pytest.mark.parametrize("scale", ["proj_out.scale_weight", "proj_out.weight_scale", "scaled_fp8"])
def test_weights_with_scales_are_refused(folder, scale):
    path = folder / WEIGHTS
    save_file(load_file(path) | {scale: torch.ones(1)}, path)
    with pytest.raises(
        ValueError, match=rf"expected whole weights of transformer in .*, got such with scales .*{scale}"
    ):
        load_denoiser(str(folder))


@pytest.mark.parametrize(
    ("field", "value"),
    [("prediction_type", "v_prediction"), ("rescale_betas_zero_snr", True), ("sigma_data", 0.5), ("beta_end", 0.02)],
)
def test_an_sdxl_of_another_process_is_refused(tmp_path, field, value):
    model = shutil.copytree(resolve_model("random-sdxl"), tmp_path / "model")
    load_denoiser(str(model))
    patch("scheduler/scheduler_config.json", **{field: value})(model)
    with pytest.raises(ValueError, match=rf"expected a model that predicts noise .*{field} {value}"):
        load_denoiser(str(model))


def test_a_config_is_read_or_refused_too(folder):
    write("transformer/config.json", [1])(folder)
    with pytest.raises((ValueError, OSError)):
        load_config(str(folder))


def test_an_adapters_expression_that_takes_for_ever_is_refused(tmp_path):
    from swd_models.lora.scales import MAX_PATTERNS, _matched

    layers = {"transformer_blocks.0.attn.to_q" + "a" * 60: 4}
    for key in ("(a+)+$", "(a|a)*b", ".*.*.*.*.*x", "(.*)*", "([a-z]+)+[A-Z]", "(x{2}){30,}"):
        with pytest.raises(ValueError, match=r"expected at most .* plain expressions"):
            _matched({"alpha_pattern": {key: 1}}, "alpha_pattern", 1, layers, "a config")
    many = {f"layer.{i}": 1 for i in range(MAX_PATTERNS + 1)}
    with pytest.raises(ValueError, match="plain expressions"):
        _matched({"alpha_pattern": many}, "alpha_pattern", 1, layers, "a config")
    for key in ("^(?:a\\.to_q|b\\.to_k)", r"transformer_blocks\.\d+\.attn\..*", "to_q", r".*\.(to_q|to_k)"):
        assert _matched({"alpha_pattern": {key: 1}}, "alpha_pattern", 2, {"a.to_q": 4}, "a config")
