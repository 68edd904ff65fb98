"""Runs over a base in fewer bits: like any other, over the same base when they go on or are sampled."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from swd_models.quantized import FrozenLinear
from swd_sample import SwDPipeline
from swd_sample.cli import main as swd_sample

pytest.importorskip("bitsandbytes", reason="expected the extra: pip install 'swd-distill[quantized]'")
LORA = "lora/pytorch_lora_weights.safetensors"
CIRCLE = "a big red circle at the left, green background"


def is_quantised(denoiser):
    return any(isinstance(module, FrozenLinear) for module in denoiser.modules())


@pytest.fixture(scope="module")
def over_nf4(cli, argv, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nf4") / "run"
    cli(*argv("run", folder, "--training.base", "nf4", "--training.save-every", "2"))
    return folder


def test_images_header_and_samples_are_of_that_base(over_nf4, finished):
    assert json.loads((over_nf4 / "images" / "generation.json").read_text())["base"] == "nf4"
    assert (over_nf4 / "images" / "000000.png").read_bytes() != (finished / "images" / "000000.png").read_bytes()
    with safe_open(over_nf4 / LORA, "pt") as file:
        assert file.metadata()["swd_base"] == "nf4"
    assert is_quantised(SwDPipeline.from_run(over_nf4).denoiser)
    assert not is_quantised(SwDPipeline.from_run(over_nf4, base="bf16").denoiser)


def test_it_goes_on_bit_for_bit(over_nf4, cli, argv, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(over_nf4, folder)
    for gone in ("lora", "samples"):
        shutil.rmtree(folder / gone)
    last = max((folder / "checkpoints").glob("step-*"))
    shutil.rmtree(last) if last.is_dir() else last.unlink()
    (folder / "checkpoints" / "latest").unlink(missing_ok=True)
    cli(*argv("train", folder, "--training.base", "nf4", "--training.save-every", "2"))
    one, other = load_file(over_nf4 / LORA), load_file(folder / LORA)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_it_does_not_go_on_over_another(over_nf4, argv, refused):
    assert "training.base" in refused(argv("train", over_nf4, "--training.save-every", "2"), late=True)


def test_swd_sample_takes_the_runs_base_or_another(over_nf4, tmp_path, monkeypatch, capsys):
    pictures = {}
    for name, flags in {
        "own": (),
        "nf4": ("--base", "nf4"),
        "whole": ("--base", "bf16"),
        "int8": ("--base", "int8"),
    }.items():
        out = tmp_path / f"{name}.png"
        monkeypatch.setattr("sys.argv", ["swd-sample", str(over_nf4), CIRCLE, "--out", str(out), *flags])
        swd_sample()
        pictures[name] = out.read_bytes()
    assert pictures["own"] == pictures["nf4"]
    assert len(set(pictures.values())) == 3


def test_a_run_by_its_presets_name_keeps_its_base(over_nf4, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "tiny").symlink_to(over_nf4)
    monkeypatch.chdir(tmp_path)
    pictures = []
    for source in ("tiny", str(over_nf4)):
        monkeypatch.setattr("sys.argv", ["swd-sample", source, CIRCLE, "--out", "a.png"])
        swd_sample()
        pictures.append((tmp_path / "a.png").read_bytes())
    assert pictures[0] == pictures[1]


def test_merged_export_is_over_the_whole_base(over_nf4, cli):
    cli("export", str(over_nf4), "--to", "merged", "--dtype", "float32")
    merged = load_file(over_nf4 / "export/merged/transformer/diffusion_pytorch_model.safetensors")
    assert all(value.dtype == torch.float32 for value in merged.values())


@pytest.mark.parametrize("base", ["int8", "nf4"])
def test_a_teacher_lora_is_merged_before_the_base_is_quantised(base, finished):
    from swd_models import load_denoiser
    from swd_models.quantized import dequantised, quantise, quantised_layers

    lora = str(finished / "lora")
    found = load_denoiser("embedded", loras=[lora], base=base)
    expected = quantise(load_denoiser("embedded", loras=[lora]), base)
    for name in quantised_layers(found):
        a, b = (each.backbone.get_submodule(name).weight for each in (found, expected))
        assert torch.equal(dequantised(a), dequantised(b))


def test_a_base_is_split_or_quantised(refused, argv, tmp_path):
    line = refused(argv("run", tmp_path / "run", "--training.base", "nf4", "--training.shard-base"))
    assert "expected --training.base bf16 with --training.shard-base, got nf4" in line
    assert not (tmp_path / "run").exists()


def test_without_the_extra_is_one_line(refused, argv, tmp_path, monkeypatch):
    monkeypatch.setattr("swd_models.quantized.find_spec", lambda name: None)
    line = refused(argv("run", tmp_path / "run", "--training.base", "nf4"))
    assert "expected bitsandbytes for a base in nf4, got none: pip install 'swd-models[quantized]'" in line
    assert not (tmp_path / "run").exists()
