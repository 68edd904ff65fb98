"""Captions of several lengths in one batch: each sample is as it is alone, and as diffusers computes it."""

import pytest
import torch

from swd_models import load_denoiser
from swd_models.parts import expand, trim
from swd_models.tiny import SIZES, TINY, tiny_cond

LENGTHS = (5, 40, 32)  # of Z-Image 32, 64 and 32 tokens with those that fill up
FAMILIES = ("qwen", "zimage")


def inputs(family):
    denoiser, generator = TINY[family](), torch.Generator().manual_seed(0)
    cond = tiny_cond(family, len(LENGTHS), num_tokens=48)
    cond["prompt_embeds_mask"] = torch.arange(48) < torch.tensor(LENGTHS)[:, None]
    x_t = torch.randn(len(LENGTHS), denoiser.num_channels, *SIZES[family][1], generator=generator)
    return denoiser, x_t, torch.tensor([0.9, 0.6, 0.3]), cond


@pytest.mark.parametrize("family", FAMILIES)
def test_each_sample_of_a_batch_is_as_it_is_alone_without_padding(family):
    denoiser, x_t, sigma, cond = inputs(family)
    block = denoiser.blocks[1]
    with torch.no_grad():
        together = denoiser(x_t, sigma, cond, block=block)
        for i, length in enumerate(LENGTHS):
            alone = {name: value[i : i + 1, :length] for name, value in cond.items()}
            one = denoiser(x_t[i : i + 1], sigma[i : i + 1], alone, block=block)
            torch.testing.assert_close(together.x0[i], one.x0[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(together.features[i], one.features[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_stands_behind_a_caption_changes_nothing(family):
    denoiser, x_t, sigma, cond = inputs(family)
    other = cond | {"prompt_embeds": torch.where(cond["prompt_embeds_mask"][..., None], cond["prompt_embeds"], 7.0)}
    with torch.no_grad():
        assert torch.equal(denoiser(x_t, sigma, cond).x0, denoiser(x_t, sigma, other).x0)


@pytest.mark.parametrize("lengths", [(5, 20, 11), (20, 20, 20), (32, 32, 32), (0, 0, 0)])
@pytest.mark.parametrize("family", FAMILIES)
def test_padding_that_no_text_reaches_is_left_out_and_changes_nothing(family, lengths):
    denoiser, x_t, sigma, cond = inputs(family)
    cond["prompt_embeds_mask"] = torch.arange(48) < torch.tensor(lengths)[:, None]
    short = trim(cond)
    alike = len(set(lengths)) == 1 and lengths[0] > 0
    assert ("prompt_embeds_mask" in short) is not alike  # texts of one length need none
    assert short["prompt_embeds"].shape[1] == (lengths[0] if alike else 32)
    assert short["prompt_embeds"].is_contiguous()
    with torch.no_grad():
        torch.testing.assert_close(denoiser(x_t, sigma, short).x0, denoiser(x_t, sigma, cond).x0, rtol=1e-4, atol=1e-5)


def test_text_without_a_mask_stays_as_it_is():
    cond = tiny_cond("sd3", 1)
    assert trim(cond) == cond
    assert {name: value.shape for name, value in expand(cond, 3).items()} == {
        name: (3, *value.shape[1:]) for name, value in cond.items()
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_float16_is_refused_where_numbers_leave_it(family):
    with pytest.raises(ValueError, match=r"too large for float16, got float16: pass --training\.dtype float32"):
        load_denoiser(f"random-{family}", dtype=torch.float16)


def test_zimage_is_what_the_transformer_of_diffusers_makes_of_lists():
    denoiser, x_t, sigma, cond = inputs("zimage")
    captions = [text[:length] for text, length in zip(cond["prompt_embeds"], LENGTHS, strict=True)]
    with torch.no_grad():
        velocity = -torch.stack(denoiser.backbone(list(x_t.unsqueeze(2)), 1 - sigma, captions).sample).squeeze(2)
        expected = denoiser.process.to_x0(x_t, velocity, sigma)
        torch.testing.assert_close(denoiser(x_t, sigma, cond).x0, expected, rtol=1e-4, atol=1e-5)


def test_qwen_is_what_the_transformer_of_diffusers_makes_of_a_mask():
    from swd_models.families.flux import pack, unpack

    denoiser, x_t, sigma, cond = inputs("qwen")
    rows, columns = (side // 2 for side in x_t.shape[-2:])
    with torch.no_grad():
        velocity = denoiser.backbone(
            pack(x_t), cond["prompt_embeds"], cond["prompt_embeds_mask"], sigma, [[(1, rows, columns)]] * len(x_t)
        ).sample
        expected = denoiser.process.to_x0(x_t, unpack(velocity, x_t.shape[-2:]), sigma)
        torch.testing.assert_close(denoiser(x_t, sigma, cond).x0, expected, rtol=1e-4, atol=1e-5)
