"""The example of swd-losses over a stock transformer: it learns, and its denoiser is that of swd-models."""

import importlib.util
from pathlib import Path

import pytest
import torch

from benchmarks.provenance import ROOT
from swd_models.tiny import SIZES, tiny_cond, tiny_sd3

EXAMPLE = ROOT / "packages" / "swd-losses" / "examples" / "stock_transformer.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("stock_transformer", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_the_losses_are_about_falls(example):
    before = torch.backends.cuda.cudnn_sdp_enabled()
    history = example.main()
    torch.backends.cuda.enable_cudnn_sdp(before)
    for name in ("mmd", "denoising", "discriminator"):
        first, last = (sum(part) / 5 for part in (history[name][:5], history[name][-5:]))
        assert last < 0.8 * first


@pytest.mark.parametrize("block", [None, 0, 2])
@pytest.mark.parametrize("stop", [False, True])
def test_its_denoiser_is_that_of_swd_models(example, block, stop):
    if stop and block is None:
        pytest.skip("nothing to stop behind")
    ours = tiny_sd3()
    stock = example.StockSD3(ours.backbone)
    x_t, sigma, cond = (
        torch.randn(2, ours.num_channels, *SIZES["sd3"][0]),
        torch.tensor([0.9, 0.3]),
        tiny_cond("sd3", 2),
    )
    named = {"encoder_hidden_states": cond["prompt_embeds"], "pooled_projections": cond["pooled_prompt_embeds"]}
    with torch.no_grad():
        expected = ours(x_t, sigma, cond, block=block, stop=stop)
        found = stock(x_t, sigma, named, block=block, stop=stop)
    for one, other in ((found.x0, expected.x0), (found.features, expected.features)):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_it_is_short():
    assert sum(bool(line.strip()) for line in Path(EXAMPLE).read_text().splitlines()) < 100
