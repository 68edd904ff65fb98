"""What an iteration computes, counted: no forward that the mathematics does not need, no gradient of a frozen weight.

In forwards F of the transformer, with p the share up to the feature block: a train pass of frozen weights is 2F
(backward needs the gradients of activations alone), 3F where checkpointing runs the forward again, less its last block,
b.
"""

import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from swd_distill.planning.cost import Counted
from swd_distill.planning.counts import Counts
from swd_distill.planning.estimate import Estimate, cache_gib, mmd_alone
from swd_distill.presets import PRESETS
from swd_distill.train import build_trainer
from swd_distill.training.batches import Draw
from swd_distill.training.meter import Meter, parts_of
from swd_losses import PAPER
from swd_models.loading import family_of

MMD_ONLY = replace(PAPER, dmd_weight=0.0, gan_weight=0.0)
# Fake updates: the student's sample, fake's train pass, its features of real images. Student: train pass, MMD's
# features of both, DMD's three forwards, GAN's features.
FORWARDS = {
    (PAPER, False): lambda p, b: 5 * (1 + 2 + 2 * p) + 2 + (2 * p + p) + 3 + 2 * p,
    (PAPER, True): lambda p, b: 5 * (1 + 3 - b + 3 * p - b) + 3 - b + (3 * p - b + p) + 3 + 3 * p - b,
    (MMD_ONLY, False): lambda p, b: 2 + 2 * p + p,
    (MMD_ONLY, True): lambda p, b: 3 - b + 3 * p - b + p,
}
each_way = pytest.mark.parametrize(
    ("recipe", "checkpointing"), FORWARDS, ids=["full", "full, checkpointed", "mmd", "mmd, checkpointed"]
)


def _flops(call):
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


@each_way
def test_an_iteration_costs_what_the_mathematics_needs_and_was_counted_to(
    configure, open_cache, tmp_path, monkeypatch, recipe, checkpointing
):
    config = configure(tmp_path, recipe, checkpointing="all" if checkpointing else "none")
    trainer = build_trainer(config, open_cache())
    last = trainer.schedule.stages[-1]
    monkeypatch.setattr(Draw, "stage", lambda self, schedule, recipe: last)
    draw = Draw(0, 0, "student", range(config.training.batch))
    batch, sigma = draw.batch(trainer.cache, trainer.schedule, recipe), torch.full((2,), 0.5)

    @torch.no_grad()
    def forward(**options):
        return _flops(lambda: trainer.roles.teacher(batch.real, sigma, batch.cond, **options))

    block = config.training.block
    whole, part, before = forward(), forward(block=block, stop=True), forward(block=block - 1, stop=True)
    expected = FORWARDS[recipe, checkpointing](part / whole, (part - before) / whole)
    found = _flops(lambda: trainer.iterate(0))
    # Above it: adapters of rank 4, whose own weights do have gradients (4 % of a forward, 12 % of a backward).
    assert expected <= found / whole <= 1.08 * expected
    cost = Counted(config).at(last.target, share=2, checkpointed=6 * checkpointing)
    assert cost.flops(config) * 2 == found
    assert cost.forward * 2 == whole


@pytest.mark.parametrize(("recipe", "checkpointing"), [(PAPER, False), (PAPER, True), (MMD_ONLY, False)])
def test_a_full_size_iteration_runs_each_block_as_often_as_the_mathematics_needs(recipe, checkpointing):
    preset = PRESETS["sd35-medium"]
    config = replace(preset, recipe=recipe, schedule="1000:32")
    counts = Counts.shipped(config)  # which `-m slow` counts again
    found = replace(Estimate(config, counts, share=1), checkpointed=24 * checkpointing)
    passes = sum(found.passes().values())
    assert passes == pytest.approx(FORWARDS[recipe, checkpointing](0.5, 1 / 24))
    authors = 5 * (4 + 3 * 0.5) + 6 + 7 * 0.5 if recipe is PAPER else 3 + 4 * 0.5  # of their loop: 37 and 5
    assert passes < authors
    bound = {(PAPER, True): 36.5, (PAPER, False): 27.5, (MMD_ONLY, False): 3.5}
    assert passes <= bound[recipe, checkpointing] + 1e-9
    assert counts.plain[32, 32].forward == pytest.approx(0.911e12, rel=1e-3)


def test_fewer_fake_updates_on_one_rollout_stay_below_sixteen_forwards(configure, tmp_path):
    config = configure(tmp_path, replace(PAPER, fake_updates=2), reuse_rollout=True)
    found = Counted(config).at((8, 8)).passes(config)
    p = (config.training.block + 1) / 6
    assert sum(found.values()) == pytest.approx(2 * (2 + 2 * p) + 1 + 5 + 5 * p)
    assert 2 * (2 + 2 * 0.5) + 1 + 5 + 5 * 0.5 <= 16  # at SD3.5-M's p


@cache
def _estimate(recipe):
    """Count two sizes of a tiny model: an estimate depends on nothing else of the preset."""
    preset = PRESETS["tiny"]
    training = replace(preset.training, rank=4, block=1)
    return Estimate.of(replace(preset, schedule="1000:4,602:8", recipe=recipe, training=training, model="random-sd3"))


def test_counts_survive_json():
    estimate = _estimate(PAPER)
    found, config = estimate.counts, estimate.config
    again = Counts.from_json(found.to_json())
    assert again.to_json() == found.to_json()
    assert again.recomputed((4, 4)).flops(config) == pytest.approx(found.recomputed((4, 4)).flops(config))


def test_ratios_of_an_estimate_are_those_of_two_counts():
    found, alone = map(_estimate, (PAPER, MMD_ONLY))
    first, last = (found.flops(size) for size in found.config.scales.sizes)
    assert found.scale_ratio() == pytest.approx((first + last) / 2 / last)
    assert found.loss_ratio() == pytest.approx(found.iteration() / alone.iteration())
    assert alone.scale_ratio() == found.scale_ratio(mmd_alone(found.config))
    assert alone.passes() == found.passes(mmd_alone(found.config))


def test_checkpointing_holds_less_and_memory_grows_with_the_share(configure, tmp_path):
    config = configure(tmp_path, PAPER)
    counted = Counted(config)
    less, half, whole = (
        counted.at((16, 16), share, checkpointed=count).peak(config) for share, count in ((8, 6), (4, 0), (8, 0))
    )
    assert less < 0.5 * whole
    assert whole == pytest.approx(2 * half, rel=0.1)


def test_weights_and_cache_are_counted_in_bytes(configure, open_cache, tmp_path):
    trainer = build_trainer(configure(tmp_path, PAPER), open_cache())
    base = sum(parameter.numel() for parameter in trainer.roles.teacher.parameters())
    trained = sum(p.numel() for network in trainer.networks.values() for p in network.parameters)
    config = _same(trainer.config)
    estimate = Estimate(config, _counts(config))
    found = estimate.memory()
    assert found["base"] * 2**30 == 2 * base
    assert found["adapters and head"] * 2**30 == 4 * trained
    assert found["optimisers"] * 2**30 == 8 * trained
    latents = 4 * sum(side**2 for side in (8, 10, 12, 16))
    cache_of = cache_gib(replace(config, data=replace(config.data, num_images=6)), estimate.counts.facts)
    assert cache_of["latents"] * 2**30 == pytest.approx(6 * 2 * latents)


def held_by(module):
    """Return the bytes of all parameters, as a library holds them."""
    return sum(part.untyped_storage().nbytes() for parameter in module.parameters() for part in parts_of(parameter))


@pytest.mark.parametrize(
    ("share", "checkpointed", "base"),
    [
        *((share, count, "bf16") for share in (1, 4) for count in (0, 2, 6)),
        *((1, 6, b) for b in ("int8", "fp8", "nf4")),
    ],
)
def test_memory_is_counted_within_a_tenth_of_what_real_updates_hold(
    configure, open_cache, tmp_path, share, checkpointed, base
):
    if base != "bf16":
        pytest.importorskip("bitsandbytes", reason="expected the extra: pip install 'swd-distill[quantized]'")
    config = configure(tmp_path, PAPER, batch=share, checkpointing=checkpointed or "none", base=base)
    trainer = build_trainer(config, open_cache())
    last = trainer.schedule.stages[-1]
    batches = {}
    for update in ("student", "fake-0"):
        draw = Draw(0, 0, update, range(share))
        draw = replace(
            draw, step=next(s for s in range(99) if replace(draw, step=s).stage(trainer.schedule, PAPER) == last)
        )
        batches[update] = draw.batch(trainer.cache, trainer.schedule, PAPER)
    modules = [trainer.roles.teacher, trainer.roles.student, trainer.roles.fake, trainer.head]
    with Meter(modules) as meter:
        gradients = torch.autograd.grad(trainer.student_terms(batches["student"], 0).total, trainer.student.parameters)
        del gradients
        x0 = trainer.generate(batches["fake-0"]).detach()
        torch.autograd.grad(trainer.fake_terms(batches["fake-0"], x0).total, trainer.fake.parameters)
    same = _same(config)
    in_float32 = replace(config, training=replace(config.training, dtype="float32"))
    estimate = Estimate(in_float32, _counts(same), share, checkpointed)
    if base == "bf16":
        assert estimate.peak() == pytest.approx(meter.peak, rel=0.1)
        return
    assert estimate.memory()["base"] * 2**30 == pytest.approx(held_by(trainer.roles.teacher), rel=0.01)
    # The largest layer is whole twice while it is used, which need not be when the rest is at its most.
    assert (
        0.95 * estimate.peak() <= meter.peak <= 1.05 * (estimate.peak() + 2 * 4 * estimate.counts.parameters["largest"])
    )


def _same(config):
    """Return the config that all of these are counted as."""
    return replace(config, training=replace(config.training, batch=1, checkpointing="none", base="bf16"), out=Path())


@cache
def _counts(config):
    """Return counts at the largest size alone, as the CPU computes: norms apart, float32."""
    counted, size = Counted(config, on_gpu=False), config.scales.sizes[-1]
    peaks = {count: tuple(counted.at(size, share, checkpointed=count) for share in (1, 2)) for count in (0, 3, 6)}
    return Counts({}, counted.parameters(), counted.facts, 6, {size: peaks[0][0]}, peaks[6][0], peaks)


@pytest.mark.parametrize(
    "preset", ["sd35-medium", "flux", "wan", "sdxl", "flux2-klein-4b", "z-image", "qwen-image", "wan22-5b"]
)
def test_decoding_holds_what_its_family_says(preset):
    config = PRESETS[preset]
    size, peak = config.scales.sizes[-1], Counts.shipped(config).around["decode"].peak
    cell = 16 if preset == "wan22-5b" else 8
    pixels = math.prod(side * cell for side in size[-2:]) * (4 * (size[0] - 1) + 1 if len(size) == 3 else 1)
    latents = family_of(config.model).latents
    found = latents.patched if preset == "wan22-5b" else latents.bytes_a_pixel
    assert found == pytest.approx(peak / pixels, rel=0.01)
