"""Who sees which pair: each pair goes to three raters, none to a fourth, and no rater sees one twice."""

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from swd_eval.study.criteria import VOTES_PER_PAIR

LEASE_SECONDS = 900.0


@dataclass(frozen=True)
class Assignment:
    """A pair given to a rater, who holds a place in it until `expires` or, once finished, for good."""

    pair: str
    rater: str
    expires: float
    finished: bool


def may_answer(assignments: Collection[Assignment], pair: str, rater: str, now: float) -> bool:
    """Tell whether a rater has a place in a pair: a finished one, or one that no three others took meanwhile."""
    mine = next((a for a in assignments if (a.pair, a.rater) == (pair, rater)), None)
    return mine is not None and (mine.finished or _taken(assignments, rater, now)[pair] < VOTES_PER_PAIR)


def choose(pairs: Sequence[str], assignments: Collection[Assignment], rater: str, now: float) -> str | None:
    """Return the pair that a rater has open, or else a new one; None if no pair has a place.

    Pairs that others have begun come first, so that a study stopped early has many with three votes; each rater meets
    them in an order of its own.
    """
    taken, mine = _taken(assignments, rater, now), {a.pair: a for a in assignments if a.rater == rater}
    places = [pair for pair in pairs if taken[pair] < VOTES_PER_PAIR]
    begun = next((pair for pair in places if pair in mine and not mine[pair].finished), None)
    if begun is not None:
        return begun
    return min((pair for pair in places if pair not in mine), key=lambda pair: _rank(taken, pair, rater), default=None)


def num_left(pairs: Sequence[str], assignments: Collection[Assignment], rater: str) -> int:
    """Return how many pairs still need votes that this rater has not finished: more than it will be given."""
    finished = Counter(a.pair for a in assignments if a.finished)
    mine = {a.pair for a in assignments if a.rater == rater and a.finished}
    return sum(finished[pair] < VOTES_PER_PAIR and pair not in mine for pair in pairs)


def _taken(assignments: Collection[Assignment], rater: str, now: float) -> Counter[str]:
    """Count the places that others hold."""
    return Counter(a.pair for a in assignments if a.rater != rater and (a.finished or a.expires > now))


def _rank(taken: Counter[str], pair: str, rater: str) -> tuple[bool, bytes]:
    return taken[pair] == 0, hashlib.sha256(f"{rater} {pair}".encode()).digest()
