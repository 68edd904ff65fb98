"""Text in the cache: each prompt once, in the model's numbers or in a byte each."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from swd_distill.data import encode as encode_module
from swd_distill.data.cache import Cache
from swd_distill.data.encode import fitting
from swd_distill.data.fp8 import from_fp8, to_fp8
from swd_models.families.sd3 import SD3Text

PROMPTS = ["a red circle", "a blue square", "a red circle", "a red circle", "a blue square", "a green cross"]


@pytest.fixture
def images(finished, tmp_path):
    """Give the finished run's images other captions, of which some are equal."""
    folder = Path(shutil.copytree(finished / "images", tmp_path / "images"))
    path = folder / "metadata.jsonl"
    rows = [
        json.loads(line) | {"text": text} for line, text in zip(path.read_text().splitlines(), PROMPTS, strict=True)
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder


@pytest.fixture
def encoded(images, cli, argv, configure, tmp_path):
    """Encode these images into a run folder and open the cache."""

    def make(name, **data):
        run, config = tmp_path / name, configure(tmp_path / name)
        flags = [item for key, value in data.items() for item in (f"--data.{key.replace('_', '-')}", value)]
        cli(*argv("encode", run, "--data.images", images, *flags))
        return Cache.open(run / "cache", fitting(replace(config, data=replace(config.data, **data))))

    return make


def _bytes(run):
    return sum(path.stat().st_size for path in (run / "cache").glob("text-*"))


def test_equal_prompts_are_encoded_and_stored_once(monkeypatch, encoded, finished, tmp_path):
    seen, encode = [], SD3Text.encode
    monkeypatch.setattr(SD3Text, "encode", lambda self, prompts: (seen.extend(prompts), encode(self, prompts))[1])
    monkeypatch.setattr(encode_module, "SHARD_SAMPLES", 2)
    cache = encoded("run")
    assert seen == ["a red circle", "a blue square", "a green cross", ""]
    texts = sorted((tmp_path / "run" / "cache").glob("text-*"))
    assert [load_file(path)["cond.prompt_embeds"].shape[0] for path in texts] == [2, 1]
    assert cache.captions == PROMPTS
    found, first = cache.cond(range(6)), cache.cond([0, 1, 5])
    for name, value in found.items():
        assert torch.equal(value, first[name][[0, 1, 0, 0, 1, 2]])
        assert len(value.unique(dim=0)) == 3
    assert _bytes(tmp_path / "run") < 0.55 * _bytes(finished)


def test_text_is_that_of_each_caption_by_itself(encoded, stock_pipe):
    found = encoded("run").cond(range(6))
    with torch.no_grad():
        embeds, _, pooled, _ = stock_pipe().encode_prompt(
            PROMPTS, None, None, do_classifier_free_guidance=False, max_sequence_length=0
        )
    torch.testing.assert_close(found["prompt_embeds"], embeds, rtol=0, atol=1e-4)
    torch.testing.assert_close(found["pooled_prompt_embeds"], pooled, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_float8_is_off_by_no_more_than_its_format_allows(dtype):
    tokens = torch.randn(4, 7, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    tokens *= torch.logspace(-6, 6, 28).reshape(4, 7, 1).to(dtype)  # each token has a scale of its own
    tokens[0, 0] = 0
    values, scale = to_fp8(tokens)
    found, tokens = from_fp8(values, scale), tokens.float()
    assert (values.dtype, scale.dtype, found.dtype) == (torch.float8_e4m3fn, torch.float32, torch.float32)
    assert scale.shape == (4, 7, 1)
    assert ((found - tokens).abs() <= tokens.abs() / 16 + scale / 1024).all()
    torch.testing.assert_close(found.abs().amax(-1), tokens.abs().amax(-1), rtol=1e-6, atol=0)
    assert not found[0, 0].any()


def test_a_cache_of_float8_text_takes_a_byte_a_number_and_a_scale_a_token(encoded, cli, argv, tmp_path):
    exact = encoded("exact").cond(range(6))
    found = encoded("small", text_dtype="float8_e4m3fn").cond(range(6))
    tensors = load_file(tmp_path / "small" / "cache" / "text-00000.safetensors")
    for name, value in exact.items():
        numbers, scale = tensors[f"cond.{name}"], tensors[f"scale.{name}"]
        assert numbers.nbytes == value[:3].bfloat16().nbytes / 2
        assert scale.nbytes == 4 * value[:3, ..., 0].numel()
        assert found[name].dtype == torch.float32
        assert ((found[name] - value).abs() <= value.abs().amax(-1, keepdim=True) / 16).all()
        assert not torch.equal(found[name], value)
    cli(*argv("train", tmp_path / "small", "--data.text-dtype", "float8_e4m3fn"))
    assert (tmp_path / "small" / "lora").is_dir()


def test_a_cache_of_another_text_dtype_is_refused(refused, argv, copied):
    error = refused(argv("train", copied, "--data.text-dtype", "float8_e4m3fn"))
    assert 'made for text_dtype "float8_e4m3fn", got one made for "model"' in error
