import torch

from swd_distill.data.streams import integer, normal, stream, uniform


def test_the_same_key_gives_the_same_numbers_whatever_was_drawn_before():
    first = torch.randn(3, generator=stream(0, 7, "noise"))
    torch.manual_seed(5)
    torch.randn(9)
    assert torch.equal(first, torch.randn(3, generator=stream(0, 7, "noise")))


def test_the_numbers_of_a_key_stay_the_same():
    """Resumed and published runs depend on them: a change needs a word in the change log."""
    assert stream(0, 1, "student", "noise", 2).initial_seed() == 6_506_844_357_614_582_361
    assert integer(1000, 0, 1, "sample") == 730


def test_keys_that_differ_anywhere_give_other_numbers():
    keys = [(0, 1, "a"), (1, 1, "a"), (0, 2, "a"), (0, 1, "b"), (0, 1, "a", 0), (0, "1", "a"), (0, 11, "a")]
    seeds = {stream(*key).initial_seed() for key in keys}
    assert len(seeds) == len(keys)


def test_samples_do_not_depend_on_the_batch():
    whole = normal(3, 1, "noise", samples=range(4), shape=(2, 5))
    parts = [normal(3, 1, "noise", samples=samples, shape=(2, 5)) for samples in (range(2), range(2, 4))]
    assert torch.equal(whole, torch.cat(parts))
    levels = uniform(3, 1, "sigma", samples=range(4))
    assert torch.equal(levels[2:], uniform(3, 1, "sigma", samples=[2, 3]))


def test_draws_have_the_distributions_they_name():
    noise = normal(0, "n", samples=range(50), shape=(400,))
    ratios = uniform(0, "u", samples=range(2000))
    whole = torch.tensor([integer(4, 0, "i", i) for i in range(2000)])
    assert abs(noise.mean()) < 0.03
    assert abs(noise.std() - 1) < 0.03
    assert (ratios.min() >= 0, ratios.max() < 1) == (True, True)
    assert abs(ratios.mean() - 0.5) < 0.03
    assert whole.bincount(minlength=4).min() > 400
