"""Text of more tokens than the pipeline's own: SD3's authors take 512 of T5, where diffusers takes 256."""

import pytest
import torch

from swd_models.loading import cond_shapes, load_teacher, load_text, resolve_model
from swd_models.lora.files import text_tokens_of, write_lora
from swd_models.lora.state import Lora
from swd_models.tiny import tiny_sd3


@pytest.mark.parametrize(
    ("family", "clip"), [("sd3", 12), ("flux", 0), ("wan", 0), ("flux2", 0), ("qwen", 0), ("zimage", 0)]
)
def test_prompts_are_padded_to_what_was_asked_for(family, clip):
    model = f"random-{family}"
    text = load_text(model, 24)
    cond = text(["a red circle"])
    assert cond["prompt_embeds"].shape[1] == clip + 24
    assert cond_shapes(model, 24)["prompt_embeds"][0] == clip + 24
    assert text.uncond()["prompt_embeds"].shape[1] == clip + 24
    assert load_teacher(model, num_tokens=24).options == {"max_sequence_length": 24}


def test_the_numbers_are_those_of_the_pipeline_told_so():
    text = load_text("random-sd3", 24)
    expected = text.pipe.encode_prompt(
        ["a red circle"], None, None, do_classifier_free_guidance=False, max_sequence_length=24
    )[0]
    torch.testing.assert_close(text(["a red circle"])["prompt_embeds"], expected)


def test_the_papers_models_have_the_authors_589_tokens():
    medium = "stabilityai/stable-diffusion-3.5-medium"
    assert cond_shapes(medium, 512)["prompt_embeds"] == (589, 4096)
    assert cond_shapes(medium)["prompt_embeds"] == (333, 4096)
    assert cond_shapes("black-forest-labs/FLUX.1-dev", 256)["prompt_embeds"] == (256, 4096)


@pytest.mark.parametrize("number", [0, -1, 513])
def test_what_diffusers_does_not_encode_is_refused(number):
    with pytest.raises(ValueError, match=f"expected 1 to 512 text tokens, got {number}"):
        load_text("random-sd3", number)


@pytest.mark.parametrize("model", ["random-sdxl", "embedded"])
def test_encoders_of_one_length_take_no_number(model):
    with pytest.raises(ValueError, match="expected no number of text tokens"):
        load_text(model, 77)
    with pytest.raises(ValueError, match="expected no number of text tokens"):
        load_teacher(model, num_tokens=77)
    assert resolve_model(model)


@pytest.mark.parametrize(("told", "found"), [("512", 512), (None, None), ("many", "refused"), ("9" * 99, "refused")])
def test_a_lora_tells_its_tokens(tmp_path, told, found):
    base = tiny_sd3()
    layer = "transformer_blocks.0.attn.to_q"
    state = {f"{layer}.lora_A.weight": torch.ones(4, 32), f"{layer}.lora_B.weight": torch.ones(32, 4)}
    lora = Lora(state, 4.0, notes={} if told is None else {"swd_text_tokens": told})
    path = write_lora(lora, base, tmp_path)
    if found == "refused":
        with pytest.raises(ValueError, match=r"expected a number as swd_text_tokens of .*: save the LoRA again"):
            text_tokens_of(path)
    else:
        assert text_tokens_of(tmp_path) == found
