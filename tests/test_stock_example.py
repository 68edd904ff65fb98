"""The example of swd-losses over a stock transformer: it learns, and its denoiser is that of swd-models."""

import importlib.util
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.provenance import ROOT
from swd_distill.presets import PRESETS
from swd_distill.training.batches import Batch
from swd_distill.training.trainer import Trainer
from swd_losses import PAPER
from swd_models import share_base
from swd_models.adapters import adapter_parameters
from swd_models.tiny import SIZES, tiny_cond, tiny_sd3
from swd_schedules import Stage

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
    for name, share in {"mmd": 0.5, "denoising": 0.8}.items():
        first, last = (sum(part) / 5 for part in (history[name][:5], history[name][-5:]))
        assert last < share * first
    # The head's rises again as the student gains on it: it stays below what a head that knows nothing has.
    assert sum(history["discriminator"][-5:]) / 5 < 2 * math.log(2)


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


def test_its_update_is_the_trainers(example, monkeypatch):
    """The gradients of the student, and of fake model and head, on the same model, batch and draws."""
    monkeypatch.setattr(example, "BLOCK", 1)
    recipe = replace(PAPER, guidance=1.0, gan_rise=0)
    training = replace(PRESETS["tiny"].training, block=example.BLOCK, batch=4)
    roles, head = share_base(tiny_sd3(), 4), recipe.head(32)
    student, fake = adapter_parameters(roles.student), [*adapter_parameters(roles.fake), *head.parameters()]
    with torch.no_grad():
        for parameter in [*student, *fake]:  # as after some training: B is no longer zero
            parameter.add_(0.05 * torch.randn_like(parameter))
    cache = SimpleNamespace(uncond=tiny_cond("sd3", 1))
    trainer = Trainer(replace(PRESETS["tiny"], recipe=recipe, training=training), cache, roles, head)
    cond = tiny_cond("sd3", 4)
    real, upscaled = torch.randn(2, 4, 4, 8, 8)
    draws = {name: (torch.rand(4), torch.randn_like(real)) for name in ("mmd", "dmd", "gan", "fake")}
    noise, sigma = ({name: draw[i] for name, draw in draws.items()} for i in (1, 0))
    noise["input"] = torch.randn_like(real)
    stage = Stage(index=1, sigma=0.8, source=(4, 4), target=(8, 8))
    losing = {name: sigma[name] for name in ("mmd", "dmd", "gan")}
    batch = Batch(stage, upscaled, real, cond, noise, losing)
    expected = torch.autograd.grad(trainer.student_terms(batch, 0).total, student)
    x0 = trainer.generate(batch)
    expected_fake = torch.autograd.grad(trainer.fake_terms(replace(batch, sigma=sigma), x0.detach()).total, fake)

    generate, score = example.StockSD3(roles.student.backbone), example.StockSD3(roles.fake.backbone)
    losses = example.Losses(example.StockSD3(roles.teacher.backbone), score, head, example.FlowMatching())
    named = {"encoder_hidden_states": cond["prompt_embeds"], "pooled_projections": cond["pooled_prompt_embeds"]}
    level = torch.full((4,), stage.sigma)
    x0 = generate(example.FlowMatching().add_noise(upscaled, noise["input"], level), level, named).x0
    slope, _ = losses.slope(x0, real, named, draws)
    torch.testing.assert_close(torch.autograd.grad(x0, student, slope), expected, rtol=1e-4, atol=1e-6)
    losses.balance.step()
    trainer.balance.step()
    later = replace(batch, real=2 * real)  # of the second update, whose weights are those of the first
    x0 = trainer.generate(later)
    expected = torch.autograd.grad(trainer.student_terms(later, 1).total, student)
    slope, _ = losses.slope(x0, 2 * real, named, draws)
    torch.testing.assert_close(torch.autograd.grad(x0, student, slope), expected, rtol=1e-4, atol=1e-6)
    found = torch.autograd.grad(losses.fake(x0.detach(), real, named, *draws["fake"]).total, fake)
    torch.testing.assert_close(found, expected_fake, rtol=1e-4, atol=1e-6)


def test_it_is_short():
    assert sum(bool(line.strip()) for line in Path(EXAMPLE).read_text().splitlines()) < 100
