from collections import Counter

from hypothesis import given, settings, strategies as st

from swd_eval.study.assignment import LEASE_SECONDS, Assignment, choose, may_answer, num_left


class Raters:
    """Raters who come, finish a pair or walk away, by the rules alone."""

    def __init__(self, num_pairs):
        self.pairs, self.now, self.held = [f"p{index}" for index in range(num_pairs)], 0.0, {}

    def come(self, rater):
        pair = choose(self.pairs, self.held.values(), rater, self.now)
        if pair is not None:
            assert not (self.held.get((pair, rater)) or Assignment(pair, rater, 0.0, False)).finished
            self.held[pair, rater] = Assignment(pair, rater, self.now + LEASE_SECONDS, False)
        return pair

    def finish(self, rater, pair):
        allowed = may_answer(self.held.values(), pair, rater, self.now)
        if allowed:
            self.held[pair, rater] = Assignment(pair, rater, self.now + LEASE_SECONDS, True)
        return allowed

    def finished(self):
        return Counter(a.pair for a in self.held.values() if a.finished)


EVENTS = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["finish", "leave", "late"])), max_size=120)


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 8), EVENTS)
def test_no_pair_gets_a_fourth_vote_and_all_get_three_whatever_raters_do(num_pairs, events):
    raters, left = Raters(num_pairs), {}
    for rater, deed in events:
        if deed == "late" and rater in left:
            raters.finish(rater, left.pop(rater))
            continue
        pair = raters.come(rater)
        if pair is not None and deed == "finish":
            assert raters.finish(rater, pair)
        elif pair is not None:
            left[rater] = pair
            raters.now += LEASE_SECONDS * 0.6
    assert max(raters.finished().values(), default=0) <= 3
    raters.now += 2 * LEASE_SECONDS
    for rater in ("x", "y", "z"):  # three who have time see to the rest
        while (pair := raters.come(rater)) is not None:
            assert raters.finish(rater, pair)
    assert raters.finished() == dict.fromkeys(raters.pairs, 3)


def test_a_rater_comes_back_to_the_pair_it_has_open():
    raters = Raters(5)
    assert raters.come("a") == raters.come("a")


def test_pairs_that_others_have_begun_come_first():
    raters = Raters(50)
    first = raters.come("a")
    raters.finish("a", first)
    assert raters.come("b") == first
    raters.finish("b", first)
    assert raters.come("c") == first


def test_a_place_held_too_long_goes_to_another_who_keeps_it():
    raters = Raters(1)
    for rater in ("a", "b", "c"):
        assert raters.come(rater) == "p0"
    assert raters.come("d") is None
    assert num_left(raters.pairs, raters.held.values(), "d") == 1
    raters.finish("a", "p0")
    raters.finish("b", "p0")
    raters.now += LEASE_SECONDS + 1
    assert raters.come("d") == "p0"
    assert not raters.finish("c", "p0")
    assert raters.finish("d", "p0")
    assert raters.finish("a", "p0")  # changes its answer
