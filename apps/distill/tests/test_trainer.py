import math
import sys
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import interpolate
from torch.utils._python_dispatch import TorchDispatchMode

from swd_distill.train import build_trainer
from swd_distill.training.batches import Draw
from swd_distill.training.checkpoints import load_checkpoint, save_checkpoint
from swd_distill.training.network import lr_ratio
from swd_distill.training.trainer import Trainer, drift
from swd_losses import PAPER, RELEASED, DenoisingObjective, FakeObjective, balance
from swd_models import load_denoiser, share_base
from swd_models.adapters import adapter_parameters

FULL = replace(PAPER, balance=False, gan_rise=0, dmd_weight=1.0, gan_weight=5e-3, fake_updates=2)
MMD_ONLY = replace(PAPER, dmd_weight=0.0, gan_weight=0.0)
FAKE = {"fake/denoising", "fake/discriminator", "fake/accuracy"}
ALWAYS = {"norm", "skips", "stage", "contrast", "saturation"}
MMD, DMD, GAN = {"mmd", "slope_mmd"}, {"dmd", "gap", "slope_dmd"}, {"gan", "slope_gan"}


@pytest.fixture
def build(configure, open_cache, tmp_path):
    """Build a trainer on the finished run's cache."""
    return lambda recipe, **training: build_trainer(configure(tmp_path, recipe, **training), open_cache())


def _trainable(trainer):
    """Name the trainable tensors: the student's, and the others'."""
    others = [*adapter_parameters(trainer.roles.fake), *trainer.head.parameters()]
    return adapter_parameters(trainer.roles.student), others


def _copy(parameters):
    return [parameter.detach().clone() for parameter in parameters]


def _equal(parameters, before):
    return all(torch.equal(parameter, old) for parameter, old in zip(parameters, before, strict=True))


def _batch_of_stage(trainer, first_or_later):
    for step in range(50):
        batch = Draw(0, step, "student", range(2)).batch(trainer.cache, trainer.schedule, trainer.recipe)
        if (batch.stage.index == 0) == (first_or_later == "first"):
            return batch
    raise AssertionError


def test_a_generator_step_moves_the_student_alone_and_leaves_no_gradient(build):
    trainer = build(FULL)
    student, others = _trainable(trainer)
    before = _copy(student), _copy(others)
    found = trainer.update_student(0)
    assert set(found) == ALWAYS | MMD | DMD | GAN | {"share_dmd", "share_gan"}
    assert not _equal(student, before[0])
    assert _equal(others, before[1])
    assert all(parameter.grad is None for parameter in [*student, *others])


def test_a_fake_step_moves_fake_and_head_and_leaves_no_gradient(build):
    trainer = build(FULL)
    student, others = _trainable(trainer)
    adapters, head = adapter_parameters(trainer.roles.fake), list(trainer.head.parameters())
    before = _copy(student), _copy(adapters), _copy(head)
    found = trainer.update_fake(0, "fake-0")
    assert set(found) == FAKE | {"fake/norm", "fake/skips"}
    assert _equal(student, before[0])
    assert not _equal(adapters, before[1])
    assert not _equal(head, before[2])
    assert all(parameter.grad is None for parameter in [*student, *others])


def test_the_base_never_changes(build):
    trainer = build(FULL)
    before = {name: tensor.clone() for name, tensor in trainer.roles.teacher.state_dict().items()}
    for step in range(2):
        trainer.iterate(step)
    for role in (trainer.roles.teacher, trainer.roles.student, trainer.roles.fake):
        state = {name.replace(".base_layer", ""): value for name, value in role.state_dict().items()}
        assert all(torch.equal(state[name], value) for name, value in before.items())
    assert all(parameter.grad is None for parameter in trainer.roles.teacher.parameters())


def test_mmd_alone_builds_no_fake_and_no_head(build):
    trainer = build(MMD_ONLY)
    assert trainer.roles.fake is None
    assert trainer.head is None
    assert set(trainer.iterate(0)) == ALWAYS | MMD | {"tflop"}


@pytest.mark.parametrize(
    ("recipe", "parts"),
    [
        (replace(PAPER, fake_updates=1), MMD | DMD | GAN | FAKE),
        (replace(RELEASED, fake_updates=1), MMD | DMD | GAN | FAKE),
        (replace(FULL, gan_weight=0.0), MMD | DMD | {"fake/denoising"}),
        (replace(FULL, mmd_weight=0.0, dmd_weight=0.0), GAN | FAKE),
        (replace(MMD_ONLY, mmd_features="fake"), MMD),
        (replace(MMD_ONLY, mmd_kernel="rbf", mmd_pooling="batch"), MMD),
        (replace(FULL, gradient_penalty=0.1), MMD | DMD | GAN | FAKE | {"fake/gradient_penalty"}),
    ],
    ids=["paper", "released", "mmd+dmd", "gan", "mmd-of-fake", "rbf", "penalty"],
)  # fmt: skip
def test_every_recipe_runs_and_reports_its_parts(build, recipe, parts):
    trainer = build(recipe)
    found = trainer.iterate(0)
    shares = {f"share_{name}" for name in ("dmd", "gan") if {"mmd", name} <= parts}
    if trainer.balance is not balance:
        shares |= {"weight_dmd", "weight_gan"}
    assert set(found) - {"fake/norm", "fake/skips", "tflop"} == ALWAYS | parts | shares
    assert all(math.isfinite(value) for value in found.values())
    if trainer.roles.fake is not None:
        assert type(trainer.fake_loss) is (FakeObjective if recipe.gan_weight else DenoisingObjective)


@pytest.mark.parametrize("recipe", [FULL, replace(PAPER, fake_updates=2)])
def test_numbers_are_read_once_an_iteration(build, monkeypatch, recipe):
    trainer, reads = build(recipe), []
    trainer.iterate(0)

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func._overloadpacket.__name__ == "_local_scalar_dense" and args[0].dtype != torch.int64:  # a draw
                reads.append(func)
            return func(*args, **(kwargs or {}))

    to_cpu = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: (reads.append("cpu"), to_cpu(tensor))[1])
    with Watch():
        found = trainer.iterate(1)
    assert reads == ["cpu"]
    assert {"norm", "fake/norm", "mmd"} < set(found)


def test_two_trainers_of_one_config_do_the_same(build):
    first, second = build(FULL), build(FULL)
    assert first.iterate(0) == second.iterate(0)
    assert _equal(_trainable(first)[0], _trainable(second)[0])


def test_student_gradients_with_checkpointing_equal_those_without(configure, open_cache, tmp_path):
    config = configure(tmp_path, FULL)

    def gradients(checkpointing):
        base = load_denoiser("embedded").double()
        base.checkpoint(len(base.layers) if checkpointing else 0)
        roles = share_base(base, 4)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():  # as after some training: B is no longer zero
            for parameter in (*adapter_parameters(roles.student), *adapter_parameters(roles.fake)):
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
            with torch.random.fork_rng():
                torch.manual_seed(0)
                head = FULL.head(base.num_features).double()
        trainer = Trainer(config, open_cache(), roles, head)
        batch = _batch_of_stage(trainer, "later")
        batch = replace(batch, real=batch.real.double(), upscaled=batch.upscaled.double())
        terms = trainer.student_terms(batch, 0)
        assert terms.total.dtype == torch.float64
        assert {"mmd", "dmd", "gan"} < set(terms.parts)
        terms.total.backward(inputs=trainer.student.parameters)
        assert all(p.grad is None for p in (*adapter_parameters(roles.fake), *head.parameters()))
        return [parameter.grad for parameter in trainer.student.parameters]

    for plain, checkpointed in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(checkpointed, plain, rtol=1e-12, atol=1e-14)
        assert plain.abs().sum() > 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "kernel",
    [{}, {"mmd_kernel": "rbf"}, {"mmd_kernel": "huber"}, {"mmd_kernel": "moments"}, {"mmd_pooling": "batch"},
     {"mmd_features": "fake"}, {"mmd_noised": False}],
)  # fmt: skip
def test_gradients_stand_in_the_shares_of_the_recipe_sample_by_sample(build, kernel, dtype):
    recipe = replace(PAPER, dmd_weight=0.3, gan_weight=0.2, balance_over="sample", gan_rise=4, fake_updates=1)
    trainer = build(replace(recipe, **kernel), batch=4)
    batch = Draw(0, 3, "student", range(4)).batch(trainer.cache, trainer.schedule, trainer.recipe)
    if dtype == "float64":
        for role in (trainer.roles.teacher, trainer.roles.student, trainer.roles.fake, trainer.head):
            role.double()
        batch = batch.changed(lambda tensor: tensor.double())
        trainer.uncond = {key: value.double() for key, value in trainer.uncond.items()}
    x0 = trainer.generate(batch).detach()
    slopes = {name: trainer.slope(name, x0, batch)[0] for name in batch.sigma}
    for step, beta in ((0, 0.05), (2, 0.15), (3, 0.2), (50, 0.2)):
        balanced = trainer._balanced(slopes, step)
        norms = {name: slope.flatten(1).double().square().sum(1).sqrt() for name, slope in balanced.items()}
        torch.testing.assert_close(norms["dmd"], 0.3 * norms["mmd"], rtol=1e-6, atol=0)
        torch.testing.assert_close(norms["gan"], beta * norms["mmd"], rtol=1e-6, atol=0)
        parts = trainer.student_terms(batch, step).parts
        assert float(parts["share_dmd"]) == pytest.approx(0.3, rel=1e-6)
        assert float(parts["share_gan"]) == pytest.approx(beta, rel=1e-6)
    assert torch.equal(balanced["mmd"], slopes["mmd"])


def test_over_a_run_dmd_has_one_weight_of_all_samples_and_stages(build):
    recipe = replace(PAPER, dmd_weight=0.3, gan_weight=0.2, balance_over="run", gan_rise=0, fake_updates=1)
    trainer = build(recipe, batch=4)
    trainer.balance.warmup = 1
    trainer.iterate(0)
    means = {name: float(mean) for name, mean in trainer.balance.means.items()}
    weights, stages = set(), set()
    for step in range(8):
        batch = Draw(0, step, "student", range(4)).batch(trainer.cache, trainer.schedule, trainer.recipe)
        x0 = trainer.generate(batch).detach()
        slopes = {name: trainer.slope(name, x0, batch)[0] for name in batch.sigma}
        balanced = trainer._balanced(slopes, step)
        ratios = balanced["dmd"].flatten(1).norm(dim=1) / slopes["dmd"].flatten(1).norm(dim=1)
        weights |= {float(f"{ratio:.4g}") for ratio in ratios.tolist()}
        assert float(trainer.student_terms(batch, step).parts["weight_dmd"]) == pytest.approx(
            float(ratios[0]), rel=1e-5
        )
        stages.add(batch.stage.index)
    assert len(weights) == 1
    assert weights.pop() == pytest.approx(0.3 * means["mmd"] / means["dmd"], rel=1e-3)
    assert len(stages) > 1


def test_losses_one_by_one_have_the_gradient_of_their_weighted_sum(build):
    trainer = build(FULL)
    batch = _batch_of_stage(trainer, "later")
    one_by_one = torch.autograd.grad(trainer.student_terms(batch, 0).total, trainer.student.parameters)
    x0, cond, (sigma, noise) = trainer.generate(batch), batch.cond, (batch.sigma, batch.noise)
    total = 2 / 2 * trainer.mmd(x0, batch.real, cond, sigma["mmd"], noise["mmd"]).total
    uncond = {name: value.repeat(2, *[1] * (value.ndim - 1)) for name, value in trainer.cache.uncond.items()}
    total = total + trainer.dmd(x0, cond, uncond, sigma["dmd"], noise["dmd"]).total
    total = total + 5e-3 * trainer.gan.generator(x0, cond, sigma["gan"], noise["gan"]).total
    for one, other in zip(one_by_one, torch.autograd.grad(total, trainer.student.parameters), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6 * float(other.abs().max()))


def test_a_reused_rollout_samples_the_student_once_for_all_fake_updates(build):
    calls = []
    for reuse in (False, True):
        trainer = build(replace(FULL, fake_updates=3), reuse_rollout=reuse, accumulate=2, batch=2)
        generate = trainer.generate
        trainer.generate = lambda batch, generate=generate: (calls.append(batch), generate(batch))[1]
        found = trainer.iterate(0)
        assert len(calls) == 2 * ((1 if reuse else 3) + 1)
        assert math.isfinite(found["fake/denoising"])
        first, second = (batch.noise["input"] for batch in calls[:2])  # the two shares of the first update
        assert not torch.equal(first, second)
        calls.clear()


def test_flops_of_a_reused_rollout_are_those_of_the_stage_that_was_drawn_for_it(build):
    trainer = build(replace(FULL, fake_updates=3), reuse_rollout=True)
    stages = [Draw(0, step, "fake-0", range(2)).stage(trainer.schedule, trainer.recipe) for step in range(4)]
    assert len(set(stages)) > 1
    for step in range(4):
        trainer.iterate(step)
    assert {like[1] for like in trainer._flops if like[0] != "student"} == set(stages)


@pytest.mark.parametrize("kernel", ["linear", "moments", "rbf"])
def test_the_mmd_that_is_noted_is_the_whole_batchs_however_it_is_split(build, kernel):
    recipe = replace(MMD_ONLY, mmd_kernel=kernel)
    whole, split = (build(recipe, batch=4, accumulate=shares).iterate(0) for shares in (1, 2))
    assert split["mmd"] == pytest.approx(whole["mmd"], rel=1e-4)
    assert split["slope_mmd"] == pytest.approx(whole["slope_mmd"], rel=0.3)  # but for how much shares differ


def test_the_switch_for_checkpointing_reaches_every_role_and_changes_no_number(build):
    plain, checkpointed = build(FULL), build(FULL, checkpointing="all")
    for role in (checkpointed.roles.student, checkpointed.roles.fake, checkpointed.roles.teacher):
        assert role.checkpointed == len(role.layers)
    assert plain.roles.student.checkpointed == 0
    found, again = plain.iterate(0), checkpointed.iterate(0)
    assert again.pop("tflop") > found.pop("tflop")
    assert again == pytest.approx(found, rel=1e-5)


@torch.no_grad()
def test_the_first_stage_starts_from_noise_and_ignores_the_data(build):
    trainer = build(MMD_ONLY)
    batch = _batch_of_stage(trainer, "first")
    x0 = trainer.generate(batch)
    assert torch.equal(x0, trainer.generate(replace(batch, real=torch.zeros_like(batch.real))))
    noise = batch.noise["input"]
    student = trainer.roles.student
    assert batch.stage.sigma == 1.0
    assert torch.equal(x0, student.denoise(noise, torch.ones(2), batch.cond))


@torch.no_grad()
def test_later_stages_start_from_the_real_previous_scale_renoised(build):
    trainer = build(MMD_ONLY)
    batch = _batch_of_stage(trainer, "later")
    stage = batch.stage
    every = trainer.cache.latents(range(6), stage.target)
    rows = [next(i for i in range(6) if torch.equal(every[i], real)) for real in batch.real]
    previous = trainer.cache.latents(rows, stage.source)
    upscaled = interpolate(previous, stage.target, mode="bicubic")
    x_t = (1 - stage.sigma) * upscaled + stage.sigma * batch.noise["input"]
    expected = trainer.roles.student.denoise(x_t, torch.full((2,), stage.sigma), batch.cond)
    torch.testing.assert_close(trainer.generate(batch), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("step", "settings", "ratio"),
    [
        (0, {}, 1.0),
        (0, {"warmup": 4}, 0.25),
        (3, {"warmup": 4}, 1.0),
        (5, {"decay": True, "iterations": 10}, 0.5),
        (0, {"decay": True, "iterations": 10}, 1.0),
        (1, {"warmup": 4, "decay": True, "iterations": 4}, 0.5 * 0.5 * (1 + math.sqrt(0.5))),
    ],
)
def test_learning_rates_warm_up_and_fall(configure, tmp_path, step, settings, ratio):
    training = configure(tmp_path, **{"warmup": 0, "decay": False} | settings).training
    assert lr_ratio(step, training) == pytest.approx(ratio)


def test_drift_is_one_for_real_latents_and_tells_contrast_from_saturation():
    real = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0)) + torch.arange(1.0, 5.0).view(4, 1, 1)
    mean = real.mean((2, 3), keepdim=True)
    assert {name: float(value) for name, value in drift(real, real).items()} == {"contrast": 1, "saturation": 1}
    stronger = drift(mean + 2 * (real - mean), real)
    assert [float(stronger[name]) for name in ("contrast", "saturation")] == pytest.approx([2, 1], rel=1e-5)
    warmer = drift(real + 2 * mean, real)
    assert [float(warmer[name]) for name in ("contrast", "saturation")] == pytest.approx([1, 3], rel=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_base_in_half_precision_trains_adapters_in_single(build, dtype):
    trainer = build(FULL, dtype=dtype)
    student, others = _trainable(trainer)
    before = _copy(student), _copy(others)
    assert next(trainer.roles.teacher.parameters()).dtype == getattr(torch, dtype)
    assert {parameter.dtype for parameter in (*student, *others)} == {torch.float32}
    single, skipped = build(FULL, dtype="float32"), 0
    for step in range(8 if dtype == "float16" else 2):  # in float16 the scale falls until gradients fit
        found, expected = trainer.iterate(step), single.iterate(step)
        skipped += not math.isfinite(found["norm"])
    assert skipped <= (4 if dtype == "float16" else 0)
    assert found["mmd"] == pytest.approx(expected["mmd"], rel=0.2)
    assert found["norm"] == pytest.approx(expected["norm"], rel=0.2)
    assert not _equal(student, before[0])
    assert not _equal(others, before[1])
    assert trainer.student.scaler.is_enabled() == (dtype == "float16")


def test_an_overflow_in_float16_is_skipped_and_the_scale_halved(build):
    trainer = build(MMD_ONLY, dtype="float16")
    trainer.iterate(0)
    scale = trainer.student.scaler.get_scale()
    before = _copy(trainer.student.parameters)
    trainer.weights["mmd"] = 1e38
    assert trainer.iterate(1)["skips"] == 1
    assert _equal(trainer.student.parameters, before)
    assert trainer.student.scaler.get_scale() == scale / 2


def test_flops_are_counted_once_for_each_kind_of_update(build):
    trainer = build(FULL)
    first, again = trainer.iterate(3)["tflop"], trainer.iterate(3)["tflop"]
    assert first == again > 0
    assert len(trainer._flops) == 3


def test_the_optimiser_in_eight_bits_is_named_where_it_is_missing(build, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    with pytest.raises(ValueError, match=r"swd-distill\[8bit\]"):
        build(MMD_ONLY, optimizer="adamw-8bit")


@pytest.mark.slow
def test_the_optimiser_in_eight_bits_follows_adamw_and_comes_back_from_a_checkpoint(build, tmp_path):
    pytest.importorskip("torchao", reason="expected torchao: pip install 'swd-distill[8bit]'")
    plain, small, back = (build(MMD_ONLY, optimizer=name, rank=32) for name in ("adamw", "adamw-8bit", "adamw-8bit"))
    before = _copy(plain.student.parameters)
    for step in range(4):
        plain.iterate(step)
        small.iterate(step)
    moved = [one - old for one, old in zip(plain.student.parameters, before, strict=True)]
    other = [one - old for one, old in zip(small.student.parameters, before, strict=True)]
    off = math.hypot(*(float((one - two).norm()) for one, two in zip(moved, other, strict=True)))
    assert off < 0.2 * math.hypot(*(float(one.norm()) for one in moved))
    save_checkpoint(tmp_path, small, 4)
    assert load_checkpoint(tmp_path, back) == 4
    assert small.iterate(4) == back.iterate(4)


def test_gradients_in_bfloat16_point_where_those_in_float32_do(build):
    """Of each loss, through teacher, student, fake model and head, as after some training."""
    found = {}
    for dtype in ("float32", "bfloat16"):
        trainer = build(FULL, dtype=dtype, rank=32, batch=8)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in (*adapter_parameters(trainer.roles.student), *adapter_parameters(trainer.roles.fake)):
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
        draw = Draw(0, 1, "student", range(8))
        batch = draw.batch(trainer.cache, trainer.schedule, FULL)
        x0 = trainer.generate(batch)
        for name in ("mmd", "dmd", "gan"):
            slope, _ = trainer.slope(name, x0, batch)
            found[name, dtype] = torch.autograd.grad(x0, trainer.student.parameters, slope, retain_graph=True)
        fake = replace(draw, update="fake-0").noised(batch, FULL)
        total = trainer.fake_terms(fake, x0.detach()).total
        found["fake", dtype] = torch.autograd.grad(total, trainer.fake.parameters)
    for name in ("mmd", "dmd", "gan", "fake"):
        half, single = (
            torch.cat([part.flatten().double() for part in found[name, dtype]]) for dtype in ("bfloat16", "float32")
        )
        cosine = float(torch.cosine_similarity(half, single, dim=0))
        assert cosine >= 0.998, (name, cosine)
