import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from swd_models import load_denoiser, load_latents, load_text
from swd_models.known.configs import RANDOM
from swd_models.known.facts import experts_in
from swd_models.loading import (
    EMBEDDED,
    EMBEDDED_VIDEO,
    check_fit,
    experts_of,
    facts_of,
    family_of,
    load_teacher,
    resolve_model,
    shipped_prompts,
)
from swd_models.logs import quiet

PROMPT = "a big red circle left of a small blue cross, green background"


@pytest.fixture(scope="module")
def pipe():
    quiet()
    return StableDiffusion3Pipeline.from_pretrained(resolve_model(EMBEDDED), text_encoder_3=None, tokenizer_3=None)


def test_the_embedded_teacher_is_an_sd3_pipeline(pipe):
    assert family_of(EMBEDDED).denoiser.family == "sd3"
    assert sum(p.numel() for p in load_denoiser(EMBEDDED).parameters()) < 5e6


def test_the_embedded_video_teacher_makes_videos():
    assert family_of(EMBEDDED_VIDEO).denoiser.family == "wan"
    (frames,) = load_teacher(EMBEDDED_VIDEO)(
        ["a red circle moving left, white background"],
        size=(2, 4, 4),
        num_steps=1,
        guidance=3.0,
        generators=[torch.Generator().manual_seed(0)],
    )
    assert [frame.size for frame in frames] == [(16, 16)] * 5


def test_each_caption_word_of_the_embedded_teacher_is_one_token(pipe):
    assert len(pipe.tokenizer(PROMPT).input_ids) == len(PROMPT.replace(",", " ,").split()) + 2


def test_text_equals_the_pipelines_own_encoding(pipe):
    cond = load_text(EMBEDDED)([PROMPT, ""])
    embeds, empty, pooled, empty_pooled = pipe.encode_prompt(PROMPT, None, None, max_sequence_length=0)
    torch.testing.assert_close(cond["prompt_embeds"], torch.cat([embeds, empty]))
    torch.testing.assert_close(cond["pooled_prompt_embeds"], torch.cat([pooled, empty_pooled]))


def test_text_moves_and_loads_no_transformer_and_no_vae():
    text = load_text(EMBEDDED).to("cpu")
    assert text.pipe.vae is None
    assert {p.device.type for p in text.pipe.transformer.parameters()} == {"meta"}


def test_latents_round_trip_has_unit_scale_and_keeps_the_image(pipe):
    images = load_teacher(EMBEDDED)(
        [PROMPT], size=(16, 16), num_steps=4, guidance=3.0, generators=[torch.Generator().manual_seed(0)]
    )
    pixels = torch.tensor(list(images[0].tobytes())).reshape(1, 64, 64, 3).permute(0, 3, 1, 2) / 127.5 - 1
    latents = load_latents(EMBEDDED)
    z = latents.encode(pixels)
    assert z.shape == (1, 4, 16, 16)
    by_hand = pipe.vae.encode(pixels).latent_dist.mode() - pipe.vae.config.shift_factor
    torch.testing.assert_close(z, by_hand * pipe.vae.config.scaling_factor)
    assert (latents.decode(z) - pixels).square().mean() < 0.02


def test_the_teacher_is_the_stock_pipeline(pipe):
    ours = load_teacher(EMBEDDED)(
        [PROMPT],
        size=(16, 16),
        num_steps=3,
        guidance=3.0,
        generators=[torch.Generator().manual_seed(7)],
    )
    stock = pipe(
        PROMPT,
        height=64,
        width=64,
        num_inference_steps=3,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(7),
        max_sequence_length=0,
    ).images
    assert ours[0].tobytes() == stock[0].tobytes()


@pytest.mark.parametrize(
    ("model", "dtype", "expected"),
    [
        ("random-sdxl", torch.float16, torch.float32),  # whose decoder overflows, as the pipeline knows
        ("random-sdxl", torch.bfloat16, torch.bfloat16),
        ("random-sd3", torch.float16, torch.float16),
    ],
)
def test_an_autoencoder_that_overflows_computes_in_float32(model, dtype, expected):
    latents = load_latents(model, dtype=dtype)
    assert latents.vae.dtype == expected
    with torch.no_grad():
        assert latents.decode(torch.ones(1, latents.vae.config.latent_channels, 4, 4)).dtype == torch.float32


def test_sizes_are_checked_by_the_config_alone():
    check_fit(EMBEDDED, [(8, 8), (10, 16)])
    with pytest.raises(ValueError, match="divisible by 2 and at most 16, got 7x8"):
        check_fit(EMBEDDED, [(8, 8), (7, 8)])
    with pytest.raises(ValueError, match=r"for a model of images, got 5x8x8; take a preset or schedule of images"):
        check_fit(EMBEDDED, [(5, 8, 8)])
    with pytest.raises(ValueError, match=r"frames, height and width for a model of videos, got 8x8; take a preset"):
        check_fit("embedded-video", [(8, 8)])


def test_a_block_is_checked_by_the_config_alone():
    check_fit(EMBEDDED, [(8, 8)], block=5)
    with pytest.raises(ValueError, match=r"expected --training\.block from 0 to 5 for embedded, got 6"):
        check_fit(EMBEDDED, [(8, 8)], block=6)


def test_other_models_are_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"expected a diffusers directory with model_index\.json"):
        family_of(str(tmp_path))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model_index.json").write_text(json.dumps({"_class_name": "WuerstchenPipeline"}))
    with pytest.raises(ValueError, match=r"expected a pipeline of .*, got Wuerstchen"):
        family_of(str(tmp_path / "other"))


def test_a_hub_id_out_of_reach_is_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="neither on disk nor reachable"):
        family_of("nobody/nothing")


@pytest.mark.parametrize(
    ("model", "change", "line"),
    [
        ("random-flux2", {"is_distilled": True}, "takes guidance, got a distilled one in .*: take its base model"),
    ],
)
def test_a_model_that_would_be_distilled_wrongly_is_refused(tmp_path, model, change, line):
    index = json.loads((Path(resolve_model(model)) / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    assert family_of(str(tmp_path)) is family_of(model)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model_index.json").write_text(json.dumps(index | change))
    with pytest.raises(ValueError, match=line):
        family_of(str(tmp_path / "other"))


@pytest.mark.parametrize("name", RANDOM)
def test_what_is_known_of_a_random_model_before_it_is_built_is_what_is_built(name):
    model = f"random-{name}"
    folder = Path(resolve_model(model))
    index = json.loads((folder / "model_index.json").read_text())
    kind, config = RANDOM[name]
    assert index["_class_name"] == kind
    assert experts_of(model) == experts_in(index)
    built = json.loads((folder / facts_of(model).subfolder / "config.json").read_text())
    assert json.loads(json.dumps(config)).items() <= built.items()
    assert shipped_prompts(model) == (folder / "prompts.txt").read_text().splitlines()
