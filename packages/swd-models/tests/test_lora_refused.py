"""What is no plain LoRA of the model is refused by what it is, in one line that names the file."""

import json
import random
import struct

import pytest
import torch
from safetensors.torch import save, save_file

from swd_models import load_lora
from swd_models.adapters import adapter_alphas, adapter_state
from swd_models.lora import files
from swd_models.lora.files import FILES, PEFT_CONFIG, read_lora, write_lora
from swd_models.tiny import tiny_flux, tiny_sd3, tiny_sdxl, tiny_wan

LAYER = "transformer_blocks.0.attn.to_q"
A, B = torch.ones(4, 32), torch.ones(32, 4)
ONE = {f"{LAYER}.lora_A.weight": A, f"{LAYER}.lora_B.weight": B}


@pytest.fixture(scope="module")
def sd3():
    return tiny_sd3()


def named(layer, down="lora_down.weight", up="lora_up.weight"):
    return {f"{layer}.{down}": A.clone(), f"{layer}.{up}": B.clone()}


def refused(tmp_path, state, denoiser):
    file = tmp_path / "style.safetensors"
    save_file({key: torch.as_tensor(value).clone() for key, value in state.items()}, file)
    with pytest.raises(ValueError, match="expected ") as error:
        read_lora(file, denoiser)
    message = str(error.value)
    assert str(file) in message
    assert message.isprintable()
    assert ": " in message.split(str(file))[-1] + message.split("expected")[-1]  # what to do
    return message


@pytest.mark.parametrize(
    ("layer", "family"),
    [
        ("lora_unet_double_blocks_0_img_attn_qkv", tiny_sd3),
        ("lora_unet_joint_blocks_0_x_block_attn_qkv", tiny_flux),
        ("blocks.0.self_attn.q", tiny_sdxl),
        ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q", tiny_wan),
    ],
)
def test_the_names_of_another_familys_code_are_no_layers(tmp_path, layer, family):
    assert f"got {layer}.lora_down.weight, which is no layer of the model" in refused(tmp_path, named(layer), family())


def test_the_layers_of_another_family_are_no_names_of_another_tool(tmp_path):
    message = refused(tmp_path, named("lora_unet_down_blocks_0_attentions_0_proj_in"), tiny_flux())
    assert "which is no layer of the model" in message


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({f"{LAYER}.lora_magnitude_vector": torch.ones(32)}, "DoRA"),
        ({f"{LAYER}.lora_magnitude_vector.default.weight": torch.ones(32)}, "DoRA"),
        ({f"{LAYER}.dora_scale": torch.ones(32, 1)}, "DoRA"),
        ({f"{LAYER}.lokr_w1": A, f"{LAYER}.lokr_w2_a": A}, "LoKr"),
        ({f"{LAYER}.hada_w1_a": A, f"{LAYER}.hada_w1_b": B}, "LoHa"),
        ({f"{LAYER}.oft_blocks": A}, "OFT"),
        ({f"{LAYER}.lora_mid.weight": torch.ones(4, 4, 3, 3)}, "a LoCon of three factors"),
        ({f"{LAYER}.lora_B.bias": torch.ones(32)}, "a LoRA with biases"),
        ({f"{LAYER}.lora_B.default.bias": torch.ones(32)}, "a LoRA with biases"),
        ({f"base_model.model.{LAYER}.bias": torch.ones(32)}, "a LoRA with biases"),
        ({f"{LAYER}.diff_b": torch.ones(32)}, "a LoRA with biases"),
        ({f"{LAYER}.diff": torch.ones(32, 32)}, "whole weights"),
        ({"base_model.model.proj_out.modules_to_save.weight": A}, "whole weights"),
        ({"proj_out.weight": A, "proj_out.bias": torch.ones(4)}, "whole weights"),
    ],
)
def test_other_kinds_are_called_by_their_own(tmp_path, sd3, more, kind):
    message = refused(tmp_path, ONE | more, sd3)
    assert f"got {kind} ({next(iter(sorted(more)))})" in message or f"got {kind} ({next(iter(more))})" in message
    assert "which is not supported" in message


@pytest.mark.parametrize("kind", ["A", "B"])
def test_half_an_adapter_is_refused(tmp_path, sd3, kind):
    other = "transformer_blocks.1.attn.to_q"
    half = {f"{other}.lora_{'B' if kind == 'A' else 'A'}.weight": B if kind == "A" else A}
    assert f"got {other} without lora_{kind} in" in refused(tmp_path, ONE | half, sd3)


def test_an_alpha_without_its_adapter_is_refused(tmp_path, sd3):
    other = "transformer_blocks.1.attn.to_q"
    assert f"got {other} without lora_A in" in refused(tmp_path, ONE | {f"{other}.alpha": torch.tensor(4.0)}, sd3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_numbers_that_are_none_are_refused(tmp_path, sd3, value, dtype):
    broken = B.to(dtype).clone()
    broken[7, 2] = value
    message = refused(tmp_path, ONE | {f"{LAYER}.lora_B.weight": broken}, sd3)
    assert f"got nan or inf in lora_B of {LAYER} in" in message


def test_numbers_beyond_float32_are_refused(tmp_path, sd3):
    assert "got nan or inf" in refused(tmp_path, ONE | {f"{LAYER}.lora_B.weight": 1e300 * B.double()}, sd3)


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ({"A": torch.ones(0, 32), "B": torch.ones(32, 0)}, "expected a rank in 1..4096, got 0 in lora_A"),
        ({"A": torch.ones(5000, 32), "B": torch.ones(32, 5000)}, "expected a rank in 1..4096, got 5000 in lora_A"),
        ({"A": torch.ones(4, 32), "B": torch.ones(32, 2)}, f"expected one rank in {LAYER}, got lora_A (4, 32), lora_B"),
        ({"A": torch.ones(4), "B": torch.ones(32, 4)}, "expected a matrix as lora_A"),
        ({"A": torch.ones(()), "B": torch.ones(32, 4)}, "expected a matrix as lora_A"),
        ({"A": torch.ones(4, 32).int(), "B": torch.ones(32, 4)}, "expected floating-point numbers in"),
        ({"A": torch.ones(4, 33), "B": torch.ones(32, 4)}, "expected width 32 in lora_A"),
    ],
)
def test_shapes_that_no_adapter_has_are_refused(tmp_path, sd3, state, found):
    assert found in refused(tmp_path, {f"{LAYER}.lora_{kind}.weight": value for kind, value in state.items()}, sd3)


def test_two_adapters_for_a_layer_are_refused(tmp_path, sd3):
    twice = ONE | named(LAYER, "lora_A.default_0.weight", "lora_B.default_0.weight")
    assert "expected one adapter a layer" in refused(tmp_path, twice, sd3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
@pytest.mark.parametrize("adapter", ["", ".default", ".default_0", ".student"])
def test_adapters_of_any_precision_and_name_are_read(tmp_path, sd3, dtype, adapter):
    state = named(LAYER, f"lora_A{adapter}.weight", f"lora_B{adapter}.weight")
    save_file({key: value.to(dtype) for key, value in state.items()}, tmp_path / "a.safetensors")
    lora = read_lora(tmp_path / "a.safetensors", sd3)
    assert {key: value.dtype for key, value in lora.state.items()} == dict.fromkeys(ONE, dtype)
    fresh = tiny_sd3(num_layers=1, dual_attention_layers=())
    load_lora(fresh, write_lora(lora, sd3, tmp_path))
    assert fresh.backbone.get_submodule(LAYER).lora_A["default"].weight.eq(1).all()


@pytest.mark.parametrize(
    "text", ["text_encoder.text_model.layers.0.q_proj", "text_encoder_2.a.b", "text_encoder_3.a", "lora_te1_a_b"]
)
def test_adapters_of_text_encoders_are_left_out_with_a_word(tmp_path, sd3, capsys, text):
    file = tmp_path / "style.safetensors"
    save_file(ONE | named(text) | {f"{LAYER}.alpha": torch.tensor(4.0)}, file)
    assert read_lora(file, sd3).layers == [LAYER]
    assert capsys.readouterr().err == f"left out 2 tensors of text encoders in {file}: they stay as they are\n"
    assert "adapters of text encoders alone" in refused(tmp_path, named(text), sd3)


def test_a_file_without_tensors_is_refused(tmp_path, sd3):
    assert "got no tensor in" in refused(tmp_path, {}, sd3)


def header(text, data=b""):
    return struct.pack("<Q", len(text)) + text + data


BROKEN = {
    "empty": b"",
    "short": b"abc",
    "endless": struct.pack("<Q", 2**63) + bytes(100),
    "longer than the file": struct.pack("<Q", 99_000_000) + b"{}",
    "no JSON": header(b"{"),
    "no object": header(b"[]"),
    "no UTF-8": header(b'{"\xff": 1}'),
    "beyond the file": header(b'{"a": {"dtype": "F32", "shape": [1048576], "data_offsets": [0, 4194304]}}'),
    "beyond numbers": header(b'{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 0]}}'),
    "negative": header(b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}', b"1234"),
    "metadata of numbers": header(b'{"__metadata__": {"a": 1}}'),
    "pickle": b"PK\x03\x04" + bytes(1000),
    "LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_no_safetensors_is_refused(tmp_path, sd3, name):
    file = tmp_path / "style.safetensors"
    file.write_bytes(BROKEN[name])
    with pytest.raises(ValueError, match=f"expected a safetensors LoRA, got {file}: .*again$"):
        read_lora(file, sd3)


@pytest.mark.parametrize("text", ["{", "[]", 100_000 * "[", '{"timesteps": [1' + 400 * "0" + '], "sizes": [[8, 8]]}'])
def test_a_schedule_that_is_none_is_refused(tmp_path, sd3, text):
    file = tmp_path / "style.safetensors"
    save_file(ONE, file, {"swd_schedule": text})
    with pytest.raises(ValueError, match=f"expected a schedule as swd_schedule of {file}, got none"):
        read_lora(file, sd3)


def test_a_folder_gives_its_one_file_whatever_it_is_called(tmp_path, sd3):
    save_file(ONE, tmp_path / "style v1.5.safetensors")
    (tmp_path / "._style v1.5.safetensors").write_bytes(b"a resource fork")
    (tmp_path / "folder.safetensors").mkdir()
    assert read_lora(tmp_path, sd3).layers == [LAYER]
    save_file(ONE, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=f"got {tmp_path} with 2: name the file"):
        read_lora(tmp_path, sd3)
    with pytest.raises(ValueError, match="expected a LoRA file, or a folder with"):
        read_lora(tmp_path / "none", sd3)


@pytest.mark.parametrize("form", list(FILES))
def test_a_full_disk_leaves_nothing(tmp_path, sd3, form, monkeypatch):
    save_file(ONE, tmp_path / "style.safetensors")
    lora = read_lora(tmp_path, sd3)

    def full(state, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(OSError, match=r"expected to write .*, got: \[Errno 28\] No space left on device"):
        write_lora(lora, sd3, tmp_path / "out", form)
    assert list((tmp_path / "out").iterdir()) == []


SMALL = {
    f"transformer.{LAYER}.lora_A.weight": torch.ones(2, 32),
    f"transformer.{LAYER}.lora_B.weight": torch.ones(32, 2),
    f"transformer.{LAYER}.alpha": torch.tensor(4.0),
}
PACKED = {"lora_adapter_metadata": json.dumps({"transformer.r": 2, "transformer.lora_alpha": 4})}
WORDS = ("lora_A", "lora_B", "alpha", "weight", "bias", "2", "32", "F32", "F16", "I8", "F8_E8M0", "BOOL", "0", "[", "]")
WORDS += ("transformer", "text_encoder", "_", ".", '"', "{", "}", ",", "-", "nan", "1e999", "null", "\\n", "lora_te1_")


def mutated(rng):
    """A small file with some of its words, bytes or lengths changed; half the time the header's length is mended."""
    state = dict(rng.sample(sorted(SMALL.items()), rng.choice((2, 3, 3))))
    data = save(state, rng.choice((None, PACKED, {"swd_schedule": "{}"})))
    length = struct.unpack("<Q", data[:8])[0]
    head, body = data[8 : 8 + length].decode(), bytearray(data[8 + length :])
    for _ in range(rng.choice((0, 0, 1, 2))):
        old = rng.choice([word for word in WORDS if word in head])
        head = head.replace(old, rng.choice(WORDS), rng.choice((1, -1)))
    for _ in range(rng.choice((0, 0, 1, 4))):
        body[rng.randrange(len(body))] = rng.randrange(256)
    whole = bytearray(header(head.encode()) + body)
    for _ in range(rng.choice((0, 0, 0, 0, 3))):
        whole[rng.randrange(len(whole))] = rng.randrange(256)
    return bytes(whole[: rng.choice((*(None,) * 7, rng.randrange(len(whole))))]) + rng.choice((*(b"",) * 7, b"\0"))


def refusal(denoiser, file):
    try:
        load_lora(denoiser, file)
    except ValueError as error:
        return str(error)


def test_mutated_files_load_with_finite_weights_or_are_refused_in_a_line(tmp_path):
    rng, num_loaded = random.Random(0), 0
    file, neighbour = tmp_path / "style.safetensors", tmp_path / PEFT_CONFIG
    denoiser = tiny_sd3(num_layers=1, dual_attention_layers=())
    for index in range(500):
        file.write_bytes(mutated(rng))
        neighbour.write_text(rng.choice(("{}", '{"lora_alpha": 4, "r": 2}', '{"lora_alpha": [], "r": {}}', "", "nan")))
        message = refusal(denoiser, file)
        if message is not None:
            assert message.startswith("expected "), index
            assert str(tmp_path) in message, index
            assert message.isprintable(), index
            continue
        num_loaded += 1
        assert all(value.isfinite().all() for value in adapter_state(denoiser).values()), index
        assert 0 < adapter_alphas(denoiser)[LAYER] < float("inf"), index
        denoiser.backbone.set_submodule(LAYER, denoiser.backbone.get_submodule(LAYER).base_layer)
        del denoiser.backbone.peft_config
    assert not any(".lora_" in name for name in denoiser.state_dict())
    assert 50 < num_loaded < 450
