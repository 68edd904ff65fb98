"""One's own fine-tune as teacher: a LoRA merged into the base, everywhere that the base is loaded."""

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from swd_models import load_denoiser, load_lora, save_lora, share_base
from swd_models.adapters import adapter_parameters
from swd_models.loading import load_teacher, resolve_model
from swd_models.lora.loading import split_weight
from swd_sample import SwDPipeline


@pytest.fixture(scope="module")
def style(tmp_path_factory):
    """A LoRA that changes what the embedded teacher draws."""
    folder = tmp_path_factory.mktemp("style")
    student = share_base(load_denoiser("embedded"), 4, fake=False, seed=7).student
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapter_parameters(student):
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return save_lora(student, folder / "a:b", schedule=None)


@pytest.fixture(scope="module")
def merged(style, tmp_path_factory):
    """The same as a model folder of its own."""
    folder = tmp_path_factory.mktemp("merged") / "model"
    shutil.copytree(resolve_model("embedded"), folder)
    denoiser = load_denoiser("embedded")
    load_lora(denoiser, style, merge=True, weight=0.5)
    shutil.rmtree(folder / "transformer")
    denoiser.backbone.save_pretrained(folder / "transformer")
    return folder


@pytest.fixture(scope="module")
def both(cli, argv, style, merged, tmp_path_factory):
    """Run with the LoRA, and over the merged model."""
    base = tmp_path_factory.mktemp("both")
    cli(*argv("run", base / "lora", "--teacher-lora", f"{style}:0.5"))
    cli(*argv("run", base / "merged", "--model", merged))
    return base / "lora", base / "merged"


def lora_of(run):
    return load_file(run / "lora" / "pytorch_lora_weights.safetensors")


def test_distilling_with_a_lora_equals_distilling_the_merged_model_bit_for_bit(both, finished):
    one, other = both
    for name in ("images/000003.png", "samples/comparison.png", "cache/shard-00000.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
        assert (one / name).read_bytes() != (finished / name).read_bytes()
    a, b = lora_of(one), lora_of(other)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_samples_and_exports_over_its_own_teacher(both, cli):
    pictures = [SwDPipeline.from_run(run)(["a red circle"], seed=1)[0].tobytes() for run in both]
    assert pictures[0] == pictures[1]
    for run in both:
        cli("export", str(run), "--to", "merged", "--dtype", "float32")
    name = "export/merged/transformer/diffusion_pytorch_model.safetensors"
    a, b = (load_file(run / name) for run in both)
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_the_header_says_over_what_a_lora_was_made(both, style):
    with safe_open(both[1] / "lora" / "pytorch_lora_weights.safetensors", "pt") as file:
        assert file.metadata()["swd_model"] == "model"  # a folder's name, not where it lies
    with safe_open(both[0] / "lora" / "pytorch_lora_weights.safetensors", "pt") as file:
        found = file.metadata()
    assert (found["swd_model"], found["swd_teacher_lora"]) == ("embedded", f"{style.name}:0.5")


def test_images_of_another_teacher_are_refused(refused, argv, both, style):
    line = refused(argv("generate", both[0], "--teacher-lora", f"{style}:0.7"))
    assert "teacher_lora" in line
    assert "teacher_lora" in refused(argv("generate", both[0]))


def test_images_of_a_lora_that_has_changed_since_are_refused(cli, refused, argv, both, style, tmp_path):
    shutil.copytree(both[0] / "images", tmp_path / "run" / "images")
    command = argv("generate", tmp_path / "run", "--teacher-lora", f"{style}:0.5")
    noted = tmp_path / "run" / "images" / "generation.json"
    made_with = json.loads(noted.read_text())
    noted.write_text(json.dumps(made_with | {"teacher_lora_checksum": "0" * 64}))
    line = "made with the given teacher_lora_checksum, got other teacher_lora_checksum"
    assert line in refused(command, late=True)
    noted.write_text(json.dumps({key: made_with[key] for key in made_with if key != "teacher_lora_checksum"}))
    assert cli(*command).startswith("images in ")  # of an earlier version


def test_several_count_each_by_its_weight(style, tmp_path):
    twice = load_denoiser("embedded", loras=[f"{style}:0.25", f"{style}:0.25"])
    once = load_denoiser("embedded", loras=[f"{style}:0.5"])
    for a, b in zip(twice.parameters(), once.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    back = load_denoiser("embedded", loras=[str(style), f"{style}:-1"])
    for a, b in zip(back.parameters(), load_denoiser("embedded").parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_teacher_with_a_lora_draws_something_else(style):
    options = {"size": (8, 8), "num_steps": 2, "guidance": 1.0}
    found = [
        load_teacher("embedded", loras=loras)(
            ["a red circle"], **options, generators=[torch.Generator().manual_seed(0)]
        )
        for loras in ((), (str(style),))
    ]
    assert isinstance(found[0][0], Image.Image)
    assert found[0][0].tobytes() != found[1][0].tobytes()


@pytest.mark.parametrize("text", ["{style}:x", "{style}:", "{style}:nan", "{style}:0", "{style}:inf", "none:1", "none"])
def test_a_lora_that_is_none_is_one_line(refused, argv, tmp_path, style, text):
    error = refused(argv("run", tmp_path / "run", "--teacher-lora", text.format(style=style)))
    assert "PATH:WEIGHT, got" in error
    assert not (tmp_path / "run").exists()


def test_a_lora_of_another_family_is_one_line(refused, argv, tmp_path):
    student = share_base(load_denoiser("random-flux"), 2, fake=False).student
    file = save_lora(student, tmp_path / "flux", schedule=None)
    line = refused(argv("generate", tmp_path / "run", "--teacher-lora", file), late=True)
    assert "expected a LoRA for sd3, got one for flux" in line


def test_paths_may_hold_colons(style):
    assert split_weight(str(style)) == (str(style), 1.0)
    assert split_weight(f"{style}:2") == (str(style), 2.0)
    assert split_weight(f"{style.parent}:-0.5") == (str(style.parent), -0.5)


def test_a_config_of_before_has_no_loras(finished, copied):
    config = json.loads((copied / "config.json").read_text())
    del config["teacher_lora"]
    (copied / "config.json").write_text(json.dumps(config))
    assert SwDPipeline.from_run(copied).schedule == SwDPipeline.from_run(finished).schedule
