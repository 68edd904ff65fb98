"""A student that begins as a LoRA, and text of more tokens, through whole runs."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from swd_distill.data.cache import Cache
from swd_distill.presets import PRESETS
from swd_models import load_denoiser, load_lora, save_lora, share_base
from swd_models.adapters import adapter_parameters, adapter_state
from swd_models.lora.loading import start_from
from swd_models.tiny import tiny_cond, tiny_sd3
from swd_sample import SwDPipeline

LORA = "lora/pytorch_lora_weights.safetensors"


def student_of(rank, alpha=None, seed=0):
    from swd_models.lora.loading import lora_config

    base = tiny_sd3()
    student = share_base(base, lora_config(base, rank, alpha), fake=False, seed=seed).student
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter_parameters(student):
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return student


def fresh(rank, alpha=None):
    from swd_models.lora.loading import lora_config

    base = tiny_sd3()
    return share_base(base, lora_config(base, rank, alpha), fake=False, seed=3).student


@pytest.mark.parametrize(("rank", "alpha", "own", "own_alpha"), [(4, 4, 4, 4), (4, 8, 6, 6), (2, 1, 4, 16)])
@pytest.mark.parametrize("form", ["diffusers", "comfyui"])
def test_a_student_computes_what_its_lora_computes(tmp_path, form, rank, alpha, own, own_alpha):
    lora = student_of(rank, alpha)
    file, student = save_lora(lora, tmp_path, schedule=None, form=form), fresh(own, own_alpha)
    start_from(student, file)
    x_t, sigma, cond = torch.randn(2, 4, 8, 8), torch.tensor([0.9, 0.4]), tiny_cond("sd3", 2)
    with torch.no_grad():
        expected, found, plain = (each.denoise(x_t, sigma, cond) for each in (lora, student, tiny_sd3()))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, plain, atol=1e-3)


def test_what_a_lora_leaves_out_begins_as_ever(tmp_path):
    layer = "transformer_blocks.0.attn.to_q"
    own, student = adapter_state(fresh(4)), fresh(4)
    save_file(
        {key: value for key, value in adapter_state(student_of(2)).items() if layer in key},
        tmp_path / "few.safetensors",
    )
    start_from(student, tmp_path / "few.safetensors")
    for key, value in adapter_state(student).items():
        assert torch.equal(value, own[key]) == (layer not in key)


def test_a_larger_rank_and_other_layers_are_refused(tmp_path):
    file = save_lora(student_of(8), tmp_path, schedule=None)
    with pytest.raises(ValueError, match=r"expected a LoRA of rank at most 4, got 8 .*: pass --training\.rank 8"):
        start_from(fresh(4), file)
    other = {"proj_out.lora_A.weight": torch.ones(2, 32), "proj_out.lora_B.weight": torch.ones(16, 2)}
    save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="expected adapters of the layers that are trained, got some of proj_out"):
        start_from(fresh(4), tmp_path / "other.safetensors")


@pytest.fixture(scope="module")
def gone_on(cli, argv, finished, tmp_path_factory):
    """A run that begins as the LoRA of another."""
    folder = tmp_path_factory.mktemp("gone-on") / "run"
    cli(*argv("run", folder, "--init-lora", finished / "lora", "--data.images", finished / "images"))
    return folder


def test_a_run_goes_on_from_a_lora_and_says_so(gone_on, finished):
    began, ended = (load_file(folder / LORA) for folder in (finished, gone_on))
    assert began.keys() == ended.keys()
    moved = max(float((ended[key] - began[key]).abs().max()) for key in began)
    assert 0 < moved < 0.02  # three updates of 1e-3 at most, from there and not from nothing
    with safe_open(gone_on / LORA, "pt") as file:
        assert file.metadata()["swd_init_lora"] == "lora"


def test_it_is_read_once_at_the_start(gone_on, cli, argv, finished, refused, tmp_path):
    before = load_file(gone_on / LORA)
    flags = "--init-lora", finished / "lora", "--data.images", finished / "images"
    cli(*argv("train", gone_on, *flags))
    after = load_file(gone_on / LORA)
    assert all(torch.equal(before[key], after[key]) for key in before)
    line = refused(argv("train", gone_on, "--data.images", finished / "images"), late=True)
    assert "made without init_lora, got" in line


@pytest.mark.parametrize("flag", ["--init-lora", "--teacher-lora"])
def test_a_lora_that_does_not_fit_is_one_line_before_any_work(refused, argv, tmp_path, finished, flag):
    file = save_lora(share_base(load_denoiser("random-flux"), 2, fake=False).student, tmp_path / "flux", schedule=None)
    line = refused(argv("run", tmp_path / "run", flag, file))
    assert "expected a LoRA for sd3, got one for flux" in line
    if flag == "--init-lora":
        line = refused(argv("run", tmp_path / "run", flag, finished / "lora", "--training.rank", "4"))
        assert "expected a LoRA of rank at most 4, got 32" in line
    assert not (tmp_path / "run").exists()


def test_a_lora_that_is_none_is_one_line(refused, argv, tmp_path):
    line = refused(argv("run", tmp_path / "run", "--init-lora", tmp_path / "none"))
    assert "as --init-lora, got" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flag", ["--init-lora", "--teacher-lora"])
def test_a_hub_id_out_of_reach_is_one_line(refused, argv, finished, tmp_path, flag):
    images = ("--data.images", finished / "images")
    line = refused(argv("run", tmp_path / "run", flag, "nobody/nothing", *images), late=True)
    assert "neither here nor reachable" in line


TOKENS = (
    "--model", "random-sd3", "--schedule", "1000:4x4,895:6x6,737:8x8", "--training.block", "1", "--training.rank", "2",
    "--data.text-tokens", "24",
)  # fmt: skip


@pytest.fixture(scope="module")
def longer_text(cli, argv, tmp_path_factory):
    """A run with 24 tokens of T5 beside the 12 of its CLIP."""
    folder = tmp_path_factory.mktemp("tokens") / "run"
    (folder.parent / "prompts.txt").write_text("a red circle\na blue square\n")
    cli(*argv("run", folder, "--data.prompts", folder.parent / "prompts.txt", *TOKENS))
    return folder


def test_images_cache_and_lora_have_the_tokens(longer_text):
    assert json.loads((longer_text / "images" / "generation.json").read_text())["text_tokens"] == 24
    fitting = json.loads((longer_text / "cache" / "manifest.json").read_text())["settings"]
    cache = Cache.open(longer_text / "cache", fitting)
    assert cache.cond([0, 1])["prompt_embeds"].shape[1] == 36
    assert cache.uncond["prompt_embeds"].shape[1] == 36
    with safe_open(longer_text / LORA, "pt") as file:
        assert file.metadata()["swd_text_tokens"] == "24"


def test_training_with_other_tokens_than_those_of_the_cache_is_refused(longer_text, argv, refused, tmp_path):
    shutil.copytree(longer_text / "cache", tmp_path / "run" / "cache")
    line = refused(argv("train", tmp_path / "run", *TOKENS[:-2]), late=True)
    assert "text_tokens" in line


def test_a_student_samples_with_the_text_that_it_was_trained_with(longer_text):
    pipe = SwDPipeline.from_run(longer_text)
    assert pipe.text(["a red circle"])["prompt_embeds"].shape[1] == 36
    lora = {"lora": longer_text / "lora"}
    other = SwDPipeline.from_pretrained("random-sd3", text_tokens=8, **lora)
    assert other.text(["a red circle"])["prompt_embeds"].shape[1] == 20


def test_a_cache_of_other_tokens_does_not_serve(longer_text, argv, refused):
    flags = "--data.prompts", longer_text.parent / "prompts.txt", *TOKENS[:-1]
    for command, number in (("generate", "16"), ("encode", "16"), ("train", "16")):
        assert "text_tokens" in refused(argv(command, longer_text, *flags, number), late=True)


def test_the_released_presets_have_the_authors_512_tokens():
    assert {name for name, preset in PRESETS.items() if preset.data.text_tokens == 512} == {
        "sd35-medium-released", "sd35-large-released",
    }  # fmt: skip


@pytest.mark.parametrize(("flags", "what"), [(("513",), "1 to 512 text tokens, got 513"), (("0",), "1 to 512")])
def test_bad_numbers_are_one_line(refused, argv, tmp_path, flags, what):
    command = argv("run", tmp_path / "run", *TOKENS[:-1], *flags)
    assert what in refused(command)
    assert not (tmp_path / "run").exists()


def test_a_lora_of_before_is_read(copied, finished):
    config = json.loads((copied / "config.json").read_text())
    del config["init_lora"], config["data"]["text_tokens"]
    (copied / "config.json").write_text(json.dumps(config))
    assert load_lora(load_denoiser("embedded"), copied / "lora") == SwDPipeline.from_run(finished).schedule
