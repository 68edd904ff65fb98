"""The recipe `released` against an independent loop in plain torch, from the formulas of the authors' code."""

import math
from dataclasses import replace

import pytest
import torch

from swd_distill.training.batches import GRID, Draw
from swd_distill.training.trainer import Trainer
from swd_losses import RELEASED
from swd_models import load_denoiser, share_base
from swd_models.adapters import adapter_parameters

BLOCK, C = 3, 1e-3


@pytest.fixture(scope="module")
def trainer(configure, open_cache, tmp_path_factory):
    """Build it in float64, with adapters and a head that have learnt something."""
    config = configure(tmp_path_factory.mktemp("released"), RELEASED, block=BLOCK)
    roles = share_base(load_denoiser("embedded").double(), 4)
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = RELEASED.head(roles.teacher.num_features).double()
    with torch.no_grad():
        for parameter in (*adapter_parameters(roles.student), *adapter_parameters(roles.fake), *head.parameters()):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return Trainer(config, open_cache(), roles, head)


def batch_of(trainer, update, step):
    batch = Draw(0, step, update, range(3)).batch(trainer.cache, trainer.schedule, RELEASED)
    return batch.changed(lambda tensor: tensor.double())


def broad(sigma, x):
    return sigma.view(-1, *[1] * (x.ndim - 1))


def noised(x0, noise, sigma):
    return (1 - broad(sigma, x0)) * x0 + broad(sigma, x0) * noise


def predict(role, x_t, sigma, cond):
    """Call diffusers' transformer; return x0 and the image tokens after the block."""
    tokens = []
    layer = role.backbone.transformer_blocks[BLOCK]
    handle = layer.register_forward_hook(lambda module, inputs, out: tokens.append(out[1]))
    found = role.backbone(
        hidden_states=x_t,
        timestep=1000 * sigma,
        encoder_hidden_states=cond["prompt_embeds"],
        pooled_projections=cond["pooled_prompt_embeds"],
        return_dict=False,
    )[0]
    handle.remove()
    return x_t - broad(sigma, x_t) * found, tokens[0]


def student_x0(trainer, batch):
    sigma = torch.full((len(batch.real),), batch.stage.sigma, dtype=torch.float64)
    noise = batch.noise["input"]
    x_t = noise if batch.upscaled is None else noised(batch.upscaled, noise, sigma)
    return predict(trainer.roles.student, x_t, sigma, batch.cond)[0]


def judge(head, tokens):
    """Mean of the tokens, then four times LayerNorm, GELU, Linear."""
    x = tokens.mean(1)
    for norm, _, linear in zip(*[iter(head.layers)] * 3, strict=True):
        mean = x.mean(-1, keepdim=True)
        x = (x - mean) / ((x - mean).square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias
        x = x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
        x = x @ linear.weight.T + linear.bias
    return x[:, 0]


def softplus(x):
    return torch.log1p(torch.exp(-x.abs())) + x.clamp(min=0)


def student_losses(trainer, batch, x0):
    """MMD on the fake model's features, DMD with guidance, and the GAN on DMD's noisy sample."""
    fake, teacher, cond = trainer.roles.fake, trainer.roles.teacher, batch.cond
    noise, sigma = batch.noise["mmd"], batch.sigma["mmd"]
    with torch.no_grad():
        real = predict(fake, noised(batch.real, noise, sigma), sigma, cond)[1].mean(1)
    difference = predict(fake, noised(x0, noise, sigma), sigma, cond)[1].mean(1) - real
    mmd = ((difference**2 + C**2).sqrt() - C).mean()

    noise, sigma = batch.noise["dmd"], batch.sigma["dmd"]
    uncond = {name: value.double().expand_as(cond[name]) for name, value in trainer.cache.uncond.items()}
    with torch.no_grad():
        x_t = noised(x0, noise, sigma)
        without, guided = predict(teacher, x_t, sigma, uncond)[0], predict(teacher, x_t, sigma, cond)[0]
        x0_real = without + 7.0 * (guided - without)
        x0_fake = predict(fake, x_t, sigma, cond)[0]
        scale = (x0 - x0_real).abs().mean((1, 2, 3), keepdim=True)
        target = x0 - (x0_fake - x0_real) / scale
    dmd = 0.5 * (x0 - target).square().mean()

    gan = softplus(-judge(trainer.head, predict(fake, noised(x0, noise, sigma), sigma, cond)[1])).mean()
    return {"mmd": mmd, "dmd": dmd, "gan": gan}


@pytest.mark.parametrize("step", [0, 1, 3])
def test_the_students_losses_and_gradients(trainer, step):
    batch = batch_of(trainer, "student", step)
    parameters = adapter_parameters(trainer.roles.student)
    terms = trainer.student_terms(batch, step)
    found = torch.autograd.grad(terms.total, parameters)
    losses = student_losses(trainer, batch, student_x0(trainer, batch))
    total = losses["mmd"] + losses["dmd"] + 5e-3 * losses["gan"]
    for name, loss in losses.items():
        torch.testing.assert_close(terms.parts[name], loss.detach(), rtol=1e-10, atol=1e-12)
    for one, other in zip(found, torch.autograd.grad(total, parameters), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
        assert one.abs().sum() > 0


def test_the_gan_alone_reaches_the_student_through_dmds_sample(trainer):
    """With a sample of its own, its gradient would be another one."""
    batch = batch_of(trainer, "student", 1)
    x0 = student_x0(trainer, batch).detach().requires_grad_()
    (expected,) = torch.autograd.grad(5e-3 * student_losses(trainer, batch, x0)["gan"], x0)
    found, _ = trainer.slope("gan", x0, batch)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)
    own = batch_of(trainer, "student", 1)
    own = replace(own, noise=own.noise | {"gan": own.noise["mmd"]}, sigma=own.sigma | {"gan": own.sigma["mmd"]})
    assert not torch.allclose(trainer.slope("gan", x0, own)[0], expected, rtol=1e-2)


@pytest.mark.parametrize("step", [0, 2])
def test_the_fake_models_losses_and_gradients(trainer, step):
    batch, fake = batch_of(trainer, "fake-3", step), trainer.roles.fake
    parameters = [*adapter_parameters(fake), *trainer.head.parameters()]
    with torch.no_grad():
        x0 = trainer.generate(batch)
        torch.testing.assert_close(x0, student_x0(trainer, batch), rtol=1e-10, atol=1e-12)
    terms = trainer.fake_terms(batch, x0)
    found = torch.autograd.grad(terms.total, parameters)
    sigma, noise, cond = batch.sigma["fake"], batch.noise["fake"], batch.cond
    denoised, of_fake = predict(fake, noised(x0, noise, sigma), sigma, cond)
    of_real = predict(fake, noised(batch.real, noise, sigma), sigma, cond)[1]
    denoising = (denoised - x0).square().mean()
    discriminator = softplus(judge(trainer.head, of_fake)).mean() + softplus(-judge(trainer.head, of_real)).mean()
    for name, value in (("denoising", denoising), ("discriminator", discriminator)):
        torch.testing.assert_close(terms.parts[name], value.detach(), rtol=1e-10, atol=1e-12)
    expected = torch.autograd.grad(denoising + 1e-2 * discriminator, parameters)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_stages_come_in_turn_for_all_updates_of_an_iteration(trainer):
    stages = trainer.schedule.stages
    for step in range(2 * len(stages) + 1):
        for update in trainer.updates():
            assert Draw(0, step, update, range(1)).stage(trainer.schedule, RELEASED) == stages[step % len(stages)]
    assert trainer.updates() == [*(f"fake-{i}" for i in range(5)), "student"]


def test_levels_are_points_of_the_authors_grid_and_the_gan_has_dmds(trainer):
    first = {"mmd": 18, "dmd": 12, "gan": 12, "fake": 0}
    seen = {name: set() for name in first}
    for step in range(200):
        for update in ("student", "fake-0"):
            draw = Draw(0, step, update, range(4))
            batch = draw.noised(batch_of(trainer, update, step % 4), RELEASED)
            for name, sigma in batch.sigma.items():
                seen[name] |= {min(range(28), key=lambda i, s=s: abs(GRID[i] - s)) for s in sigma.tolist()}
        assert torch.equal(batch_of(trainer, "student", 0).sigma["gan"], batch_of(trainer, "student", 0).sigma["dmd"])
    assert {name: (min(found), max(found)) for name, found in seen.items()} == {n: (i, 27) for n, i in first.items()}
    assert seen["dmd"] == set(range(12, 28))
