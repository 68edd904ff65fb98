from collections import Counter
from itertools import product
from math import comb, sqrt

import pytest

from swd_eval.study.pairs import Key, Pair
from swd_eval.study.tally import first_image_votes, majority, tally
from swd_eval.study.votes import Answer


def make_key(num_pairs, num_runs=2):
    pairs = [
        Pair(f"{other}-{index}", "prompt", f"{index}", (0, other) if index % 2 else (other, 0), ("m", "n"))
        for other in range(1, num_runs)
        for index in range(num_pairs)
    ]
    return Key("study", "image", 0, tuple("ABCD"[:num_runs]), tuple(pairs))


def vote_for(key, pair, run, raters="xyz"):
    """Let all raters choose a run of a pair, or none."""
    answer = 0 if run is None else pair.runs.index(run) + 1
    return [Answer(rater, pair.id, "defects", answer) for rater in raters]


def defects(key, answers, other="B"):
    (result,) = [r for r in tally(key, answers) if r.criterion == "defects" and r.other == other]
    return result


def test_a_majority_of_three_decides_and_one_of_each_is_a_tie():
    for answers in product((0, 1, 2), repeat=3):
        counts = Counter(answers)
        expected = 0 if len(counts) == 3 else max(counts, key=counts.get)
        assert majority(answers) == expected
    assert [majority(a) for a in ([1, 1, 2], [2, 0, 2], [0, 0, 1], [1, 2, 0])] == [1, 2, 0, 0]


@pytest.mark.parametrize(("wins", "ties", "losses"), [(7, 2, 1), (3, 0, 3), (0, 5, 0), (0, 0, 9), (12, 1, 4)])
def test_shares_intervals_and_the_sign_test_are_the_closed_forms(wins, ties, losses):
    n = wins + ties + losses
    key = make_key(n)
    outcomes = [0] * wins + [None] * ties + [1] * losses
    answers = [v for pair, run in zip(key.pairs, outcomes, strict=True) for v in vote_for(key, pair, run)]
    result = defects(key, answers)
    assert (result.wins, result.ties, result.losses, result.num_pairs) == (wins, ties, losses, n)
    z = 1.959963984540054
    for count, found in ((wins, result.win_interval), (ties, result.tie_interval), (losses, result.loss_interval)):
        p = count / n
        centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        assert found == pytest.approx((centre - half, centre + half), abs=1e-12)
    decided = wins + losses
    tail = sum(comb(decided, k) for k in range(min(wins, losses) + 1)) / 2**decided
    assert result.p_value == pytest.approx(min(1, 2 * tail))


def test_only_the_first_three_raters_count_and_pairs_with_fewer_are_left_out():
    key = make_key(3)
    answers = vote_for(key, key.pairs[0], 0, "xyz") + vote_for(key, key.pairs[0], 1, "uvw")
    answers += vote_for(key, key.pairs[1], 1, "xy")
    result = defects(key, answers)
    assert (result.wins, result.ties, result.losses, result.incomplete) == (1, 0, 0, 2)


def test_each_other_run_is_counted_by_itself():
    key = make_key(4, num_runs=3)
    answers = [v for pair in key.pairs for v in vote_for(key, pair, 0 if 1 in pair.runs else 2)]
    assert (defects(key, answers, "B").wins, defects(key, answers, "B").losses) == (4, 0)
    assert (defects(key, answers, "C").wins, defects(key, answers, "C").losses) == (0, 4)


def test_a_study_without_votes_claims_nothing():
    result = defects(make_key(5), [])
    assert (result.num_pairs, result.incomplete, result.p_value, result.alpha) == (0, 5, 1.0, None)
    assert result.win_interval == (0.0, 1.0)


def test_alpha_is_krippendorffs():
    key = make_key(6)
    table = [(1, 1, 1), (1, 1, 2), (2, 2, 2), (0, 0, 0), (0, 1, 2), (2, 2, 1)]
    answers = [
        Answer(rater, pair.id, "defects", answer)
        for pair, row in zip(key.pairs, table, strict=True)
        for rater, answer in zip("xyz", row, strict=True)
    ]
    # By hand: alpha = 1 - D_o / D_e, from pairs of unequal answers within a pair of images, and within all 18.
    within = sum(sum(a != b for a in row for b in row) / 2 for row in table)
    counts = Counter(answer for row in table for answer in row)
    expected = sum(counts[a] * counts[b] for a in counts for b in counts if a != b) / 17
    assert defects(key, answers).alpha == pytest.approx(1 - within / expected)


def test_raters_who_agree_have_alpha_one_even_if_a_model_always_wins():
    key = make_key(10)
    assert defects(key, [v for pair in key.pairs for v in vote_for(key, pair, 0)]).alpha == pytest.approx(1)


def test_votes_for_a_side_are_counted():
    key = make_key(4)
    answers = [v for pair in key.pairs for v in vote_for(key, pair, 0)] + vote_for(key, key.pairs[0], None)
    assert first_image_votes(answers) == (6, 12)
