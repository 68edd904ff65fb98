import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from swd_losses import balance, dmd_loss, sample_norms, share_at


def gradients(seed=0, size=4, shape=(3, 5, 2), dtype=torch.float64, scales=(1.0, 1.0, 1.0)):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (scale * torch.randn(size, *shape, generator=generator, dtype=torch.float64)).to(dtype)
        for name, scale in zip(("mmd", "dmd", "gan"), scales, strict=True)
    }


def norms(gradient):
    """Square, add up and take the root by hand."""
    return [math.sqrt(sum(value**2 for value in each.double().flatten().tolist())) for each in gradient]


def test_a_share_by_size_is_what_a_constant_weight_gives_where_mmds_gradient_falls_with_the_elements():
    def norm_of_dmd(elements):
        generator = torch.Generator().manual_seed(elements)
        x0, x0_real, x0_fake = torch.randn(3, 500, elements, generator=generator, dtype=torch.float64)
        (slope,) = torch.autograd.grad(500 * dmd_loss(x0.requires_grad_(), x0_real, x0_fake), x0)
        return float(sample_norms(slope).mean())

    full = 1024
    assert share_at(0.3, full, full) == 0.3
    for elements in (64, 100, 256):
        norm_of_mmd = full / elements
        constant = norm_of_dmd(elements) / norm_of_dmd(full) / norm_of_mmd
        assert share_at(0.3, elements, full) == pytest.approx(0.3 * constant, rel=0.03)


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
