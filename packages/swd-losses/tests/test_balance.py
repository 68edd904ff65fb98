import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from swd_losses import RunningBalance, balance, sample_norms


def gradients(seed=0, size=4, shape=(3, 5, 2), dtype=torch.float64, scales=(1.0, 1.0, 1.0)):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (scale * torch.randn(size, *shape, generator=generator, dtype=torch.float64)).to(dtype)
        for name, scale in zip(("mmd", "dmd", "gan"), scales, strict=True)
    }


def norms(gradient):
    """Square, add up and take the root by hand."""
    return [math.sqrt(sum(value**2 for value in each.double().flatten().tolist())) for each in gradient]


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32),
    scales=st.tuples(*[st.floats(-12, 12).map(lambda power: 10**power)] * 3),
    alpha=st.floats(1e-3, 10),
    beta=st.floats(1e-3, 10),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_norms_stand_as_the_shares_say_sample_by_sample(seed, scales, alpha, beta, dtype):
    found = gradients(seed, scales=scales, dtype=dtype)
    balanced = balance(found, {"dmd": alpha, "gan": beta})
    assert list(balanced) == ["mmd", "dmd", "gan"]
    assert torch.equal(balanced["mmd"], found["mmd"])
    for name, share in (("dmd", alpha), ("gan", beta)):
        for own, of, reference in zip(norms(balanced[name]), norms(found[name]), norms(found["mmd"]), strict=True):
            assert own == pytest.approx(share * reference, rel=1e-6)
            assert of > 0
        sides = [
            each[name].double().flatten(1) / sample_norms(each[name].double()).flatten(1) for each in (balanced, found)
        ]
        cosine = (sides[0] * sides[1]).sum(1)
        torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened(dtype):
    balanced = balance(gradients(dtype=dtype), {"dmd": 0.3})
    assert balanced["dmd"].dtype == torch.float32
    for own, reference in zip(norms(balanced["dmd"]), norms(gradients(dtype=dtype)["mmd"]), strict=True):
        assert own == pytest.approx(0.3 * reference, rel=1e-6)


def test_what_has_no_share_stays():
    found = gradients()
    balanced = balance(found, {"gan": 0.5})
    assert torch.equal(balanced["dmd"], found["dmd"])


def test_a_gradient_that_vanishes_stays_zero_and_breaks_nothing():
    found = gradients()
    found["dmd"][1], found["mmd"][2] = 0, 0
    found["gan"][3] *= 1e-310  # below the least normal number
    balanced = balance(found, {"dmd": 0.3, "gan": 0.1})
    assert all(gradient.isfinite().all() for gradient in balanced.values())
    assert balanced["dmd"][1].abs().sum() == 0
    assert balanced["dmd"][2].abs().sum() == balanced["gan"][2].abs().sum() == 0
    assert norms(balanced["dmd"])[0] == pytest.approx(0.3 * norms(found["mmd"])[0])
    assert norms(balanced["gan"])[3] <= 0.1 * norms(found["mmd"])[3] * (1 + 1e-6)


def test_samples_do_not_know_of_each_other():
    found, shares = gradients(size=6), {"dmd": 0.3, "gan": 0.1}
    whole = balance(found, shares)
    for part in (slice(0, 2), slice(2, 6)):
        alone = balance({name: gradient[part] for name, gradient in found.items()}, shares)
        assert all(torch.equal(alone[name], whole[name][part]) for name in whole)


def test_norms_keep_their_axes():
    assert sample_norms(torch.ones(2, 3, 4, 5, 6)).shape == (2, 1, 1, 1, 1)
    assert sample_norms(torch.full((2, 9), 2.0)).flatten().tolist() == [6.0, 6.0]


@pytest.mark.parametrize("shares", [{"mmd": 1.0}, {"other": 1.0}])
def test_a_share_of_nothing_is_refused(shares):
    with pytest.raises(ValueError, match=r"expected gradients of mmd and of what has a share"):
        balance(gradients(), shares)
    with pytest.raises(ValueError, match="got dmd"):
        balance({"dmd": gradients()["dmd"]}, {"dmd": 1.0})


SHARES = {"dmd": 0.3, "gan": 0.1}


def batch_norm(gradient):
    return math.hypot(*norms(gradient))


def test_over_a_run_the_weight_is_the_share_of_the_mean_norms_of_batches_before():
    shared, found = RunningBalance(decay=0.9, warmup=2), []
    for update in range(7):
        scales = (10.0 ** (update % 3), 3.0, 0.01 * (update + 1))  # of stages, say, and of a head that learns
        found.append(gradients(update, scales=scales))
        balanced = shared(found[-1], SHARES)
        shared.step()
        assert torch.equal(balanced["mmd"], found[-1]["mmd"])
        if update < 2:
            assert all(torch.equal(balanced[name], each) for name, each in balance(found[-1], SHARES).items())
            continue
        weights = [0.9 ** (update - 1 - before) for before in range(update)]
        means = {
            name: sum(weight * batch_norm(each[name]) for weight, each in zip(weights, found, strict=False))
            for name in found[-1]
        }
        for name, share in SHARES.items():
            expected = share * means["mmd"] / means[name] * found[-1][name]
            torch.testing.assert_close(balanced[name], expected, rtol=1e-12, atol=0)


def test_over_a_run_shares_hold_in_the_mean():
    shared, of = RunningBalance(), {"mmd": 0.0, "dmd": 0.0, "gan": 0.0}
    for update in range(600):
        balanced = shared(gradients(update, scales=(1.0 + update % 4, 7.0, 0.2)), SHARES)
        shared.step()
        if update >= 200:
            of = {name: norm + batch_norm(balanced[name]) for name, norm in of.items()}
    assert of["dmd"] / of["mmd"] == pytest.approx(0.3, rel=0.02)
    assert of["gan"] / of["mmd"] == pytest.approx(0.1, rel=0.02)


def test_over_a_run_a_batch_gives_the_same_numbers_however_it_is_split():
    whole, shares, *processes = (RunningBalance(warmup=1) for _ in range(4))
    for update in range(4):
        found = gradients(update)
        # Of half a batch a mean's gradient is twice that of the whole: both are averaged later.
        parts = [{name: 2 * gradient[part] for name, gradient in found.items()} for part in (slice(0, 2), slice(2, 4))]
        expected = whole(found, SHARES)
        in_shares = [shares(part, SHARES) for part in parts]
        in_processes = [each(part, SHARES) for each, part in zip(processes, parts, strict=True)]
        for name in expected:
            for split in (in_shares, in_processes):
                torch.testing.assert_close(
                    torch.cat([part[name] for part in split]) / 2, expected[name], rtol=1e-12, atol=0
                )
        total = [sum(squares) for squares in zip(*(each._squares.values() for each in processes), strict=True)]

        def over_processes(squares, total=total):
            for square, of in zip(squares, total, strict=True):
                square.copy_(of)

        whole.step()
        shares.step(2)
        for each in processes:
            each.step(2, over_processes)
        for other in (shares, *processes):
            assert {name: float(mean) for name, mean in other.means.items()} == pytest.approx(
                {name: float(mean) for name, mean in whole.means.items()}, rel=1e-12
            )


@pytest.mark.parametrize("warmup", [0, 1, 3])
def test_over_a_run_updates_are_balanced_sample_by_sample_until_enough_were_finite(warmup):
    shared, found = RunningBalance(warmup=warmup), gradients()
    by_sample = balance(found, SHARES)
    for _ in range(max(warmup, 1)):
        shared({name: gradient * torch.nan for name, gradient in found.items()}, SHARES)
        shared.step()
        balanced = shared(found, SHARES)
        assert all(torch.equal(balanced[name], each) for name, each in by_sample.items())
        shared.step()
    assert not torch.equal(shared(found, SHARES)["dmd"], by_sample["dmd"])


def test_over_a_run_a_gradient_that_starts_at_nearly_nothing_does_not_get_a_weight_without_bound():
    shared, largest = RunningBalance(), 0.0
    for update in range(100):
        found = gradients(update, scales=(1.0, max(1e-9, min(update, 50) / 50), 1.0))
        largest = max(largest, batch_norm(shared(found, SHARES)["dmd"]) / batch_norm(found["mmd"]))
        shared.step()
    assert largest < 3 * SHARES["dmd"]


def test_over_a_run_the_state_is_all_there_is_to_keep():
    shared, other = RunningBalance(warmup=3), RunningBalance(warmup=3)
    for update in range(5):
        expected = shared(gradients(update), SHARES)
        found = other(gradients(update), SHARES)
        assert all(torch.equal(found[name], each) for name, each in expected.items())
        shared.step()
        other = RunningBalance(warmup=3)
        other.load_state_dict(shared.state_dict())


def test_over_a_run_a_batch_that_is_not_finite_and_one_that_vanishes_change_and_break_nothing():
    shared = RunningBalance(warmup=1)
    shared.step()  # of nothing
    shared({"mmd": torch.ones(2, 3), "dmd": torch.zeros(2, 3)}, {"dmd": 0.3})
    shared.step()
    assert shared({"mmd": torch.ones(2, 3), "dmd": torch.ones(2, 3)}, {"dmd": 0.3})["dmd"].abs().sum() == 0
    shared.step()
    before = dict(shared.means)
    shared({"mmd": torch.ones(2, 3), "dmd": torch.full((2, 3), torch.inf)}, {"dmd": 0.3})
    shared.step()
    assert shared.means == before
    assert all(mean.isfinite() and mean > 0 for mean in before.values())


@pytest.mark.parametrize("shares", [{"mmd": 1.0}, {"other": 1.0}])
def test_over_a_run_a_share_of_nothing_is_refused(shares):
    with pytest.raises(ValueError, match=r"expected gradients of mmd and of what has a share"):
        RunningBalance()(gradients(), shares)
