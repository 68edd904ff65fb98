from dataclasses import replace

import pytest
import torch

from swd_distill.data.streams import integer
from swd_distill.training.batches import GRID, Draw, check_levels, grid_points
from swd_losses import PAPER, RELEASED
from swd_schedules import presets, upscale


def draws(size, updates=("student",), steps=range(40)):
    return [Draw(0, step, update, range(size)) for step in steps for update in updates]


def test_a_batch_is_a_function_of_seed_step_and_update(open_cache):
    cache = open_cache()
    first, again = (Draw(0, 3, "student", range(4)).batch(cache, presets.TINY_4, PAPER) for _ in range(2))
    assert first.stage == again.stage
    assert torch.equal(first.real, again.real)
    assert first.noise.keys() == {"input", *first.sigma} == {"input", "mmd", "dmd", "gan"}
    assert all(torch.equal(noise, again.noise[name]) for name, noise in first.noise.items())
    others = [
        Draw(*key, range(4)).noise("mmd", first.real)
        for key in ((1, 3, "student"), (0, 4, "student"), (0, 3, "fake-0"))
    ]
    noise = Draw(0, 3, "student", range(4)).noise("mmd", first.real)
    assert torch.equal(noise, Draw(0, 3, "student", range(4)).noise("mmd", first.real))
    assert not any(
        torch.equal(noise, other) for other in [*others, Draw(0, 3, "student", range(4)).noise("dmd", first.real)]
    )


def test_samples_do_not_depend_on_the_batch_size(open_cache):
    cache = open_cache()
    for few, many in zip(draws(2, steps=range(6)), draws(5, steps=range(6)), strict=True):
        small, large = few.batch(cache, presets.TINY_4, PAPER), many.batch(cache, presets.TINY_4, PAPER)
        assert small.stage == large.stage
        assert torch.equal(small.real, large.real[:2])
        assert torch.equal(few.noise("mmd", small.real), many.noise("mmd", large.real)[:2])
        for levels in ("uniform", "grid"):
            sigma = many.sigma("mmd", (0.0, 0.6), levels)
            assert torch.equal(few.sigma("mmd", (0.0, 0.6), levels), sigma[:2])


def test_with_one_bucket_the_draws_are_those_of_a_cache_without(open_cache):
    cache, schedule = open_cache(), presets.TINY_4
    assert [(bucket.aspect, among) for bucket, among in cache.buckets] == [(None, range(6))]
    for step in range(6):
        batch = Draw(3, step, "student", range(2, 5)).batch(cache, schedule, PAPER)
        assert batch.stage == schedule.stages[integer(4, 3, step, "student", "stage")]
        samples = [integer(6, 3, step, "student", "sample", place) for place in range(2, 5)]
        assert torch.equal(batch.real, cache.latents(samples, batch.stage.target))
        assert torch.equal(batch.cond["pooled_prompt_embeds"], cache.cond(samples)["pooled_prompt_embeds"])


def test_every_stage_comes_with_its_own_sizes_and_sources(open_cache):
    cache, schedule, seen = open_cache(), presets.TINY_4, set()
    for draw in draws(2):
        batch = draw.batch(cache, schedule, PAPER)
        seen.add(batch.stage.index)
        assert batch.stage == schedule.stages[batch.stage.index]
        assert batch.real.shape == (2, 4, *batch.stage.target)
        assert (batch.upscaled is None) == (batch.stage.index == 0)
        if batch.upscaled is not None:
            every = cache.latents(range(6), batch.stage.target)
            rows = [next(i for i in range(6) if torch.equal(every[i], real)) for real in batch.real]
            assert torch.equal(batch.upscaled, upscale(cache.latents(rows, batch.stage.source), batch.stage.target))
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize("interval", [PAPER.mmd_interval, RELEASED.mmd_interval, RELEASED.dmd_interval, (0.5, 1.0)])
def test_noise_levels_lie_in_their_interval_and_on_the_grid_if_asked(interval):
    for levels in ("uniform", "grid"):
        sigma = torch.cat([draw.sigma("mmd", interval, levels) for draw in draws(25)])
        assert sigma.min() >= interval[0]
        assert sigma.max() <= interval[1]
        if levels == "grid":
            assert torch.equal(sigma.unique(), torch.tensor(sorted(grid_points(interval))))
        else:
            assert len(sigma.unique()) > 900
            torch.testing.assert_close(sigma.mean(), torch.tensor(sum(interval) / 2), rtol=0, atol=0.03)


def test_the_released_intervals_hold_the_grid_points_of_the_authors():
    assert len(GRID) == 28
    assert tuple(grid_points(RELEASED.mmd_interval)) == GRID[18:]
    assert tuple(grid_points(RELEASED.dmd_interval)) == GRID[12:]
    assert tuple(grid_points(RELEASED.fake_interval)) == GRID


@pytest.mark.parametrize("recipe", [PAPER, RELEASED])
def test_both_recipes_pass_the_check(recipe):
    check_levels(recipe)


@pytest.mark.parametrize("name", ["mmd_interval", "dmd_interval", "fake_interval", "gan_interval"])
@pytest.mark.parametrize("interval", [(0.6, 0.0), (0.3, 0.3), (-0.1, 0.5), (0.0, 1.1), (float("nan"), 1.0)])
def test_intervals_that_cannot_be_drawn_from_are_named(name, interval):
    with pytest.raises(ValueError, match=f"expected --recipe.{name.replace('_', '-')} as 0 <= low < high <= 1"):
        check_levels(replace(PAPER, **{name: interval}))


def test_an_interval_between_two_grid_points_is_refused():
    with pytest.raises(ValueError, match="widen it"):
        check_levels(replace(RELEASED, mmd_interval=(0.61, 0.62)))
