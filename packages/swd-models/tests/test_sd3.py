import pytest
import torch

from swd_models.tiny import tiny_cond, tiny_sd3


@pytest.fixture(scope="module")
def denoiser():
    return tiny_sd3().double()


def _inputs(size=(6, 10), batch=2):
    generator = torch.Generator().manual_seed(1)
    x_t = torch.randn(batch, 4, *size, generator=generator, dtype=torch.float64)
    return x_t, torch.tensor([0.9, 0.3], dtype=torch.float64), tiny_cond("sd3", batch)


@pytest.mark.parametrize("size", [(6, 10), (16, 16)])
def test_x0_is_what_the_transformer_of_diffusers_predicts(denoiser, size):
    x_t, sigma, cond = _inputs(size)
    velocity = denoiser.backbone(
        x_t, cond["prompt_embeds"].double(), cond["pooled_prompt_embeds"].double(), 1000 * sigma
    ).sample
    assert torch.equal(denoiser(x_t, sigma, cond).x0, x_t - sigma[:, None, None, None] * velocity)


@pytest.mark.parametrize("block", [0, 1, 2])
def test_features_are_the_block_output_that_a_hook_sees(denoiser, block):
    x_t, sigma, cond = _inputs()
    seen = []
    handle = denoiser.backbone.transformer_blocks[block].register_forward_hook(lambda *args: seen.append(args[2][1]))
    full = denoiser(x_t, sigma, cond, block=block)
    handle.remove()
    assert full.features.shape == (2, 15, 32)
    assert torch.equal(full.features, seen[0])
    assert torch.equal(full.x0, denoiser(x_t, sigma, cond).x0)


def test_a_sub_forward_runs_no_block_after_the_one_asked_for(denoiser):
    x_t, sigma, cond = _inputs()
    calls = []
    handles = [
        block.register_forward_hook(lambda *args, i=i: calls.append(i))
        for i, block in enumerate(denoiser.backbone.transformer_blocks)
    ]
    stopped = denoiser(x_t, sigma, cond, block=1, stop=True)
    for handle in handles:
        handle.remove()
    assert calls == [0, 1]
    assert stopped.x0 is None
    assert torch.equal(stopped.features, denoiser(x_t, sigma, cond, block=1).features)


@pytest.mark.parametrize("size", [(7, 8), (8, 34)])
def test_sizes_that_patches_would_truncate_or_positions_do_not_reach_are_refused(denoiser, size):
    with pytest.raises(ValueError, match="divisible by 2 and at most 32"):
        denoiser(torch.zeros(1, 4, *size).double(), torch.ones(1), tiny_cond("sd3", 1))


def test_a_block_beyond_the_last_is_refused(denoiser):
    x_t, sigma, cond = _inputs()
    with pytest.raises(ValueError, match=r"expected a block in 0\.\.2, got 3"):
        denoiser(x_t, sigma, cond, block=3)


def test_the_latent_keeps_its_precision_over_a_half_precision_base():
    denoiser = tiny_sd3().to(torch.bfloat16)
    x_t = torch.randn(2, 4, 8, 8)
    assert denoiser(x_t, torch.tensor([0.5, 1.0]), tiny_cond("sd3", 2)).x0.dtype == torch.float32
