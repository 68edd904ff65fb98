"""From votes to results: majority of three, wins and losses with intervals, a sign test, agreement."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from nltk.metrics.agreement import AnnotationTask  # type: ignore[import-untyped]
from scipy.stats import binomtest

from swd_eval.study.criteria import CRITERIA, TIE, VOTES_PER_PAIR
from swd_eval.study.pairs import Key
from swd_eval.study.votes import Answer


@dataclass(frozen=True)
class Result:
    """How the first run fared against another by one criterion, over the pairs with three votes."""

    other: str
    criterion: str
    wins: int
    ties: int
    losses: int
    incomplete: int
    """Pairs with fewer than three votes, which are left out."""
    win_interval: tuple[float, float]
    tie_interval: tuple[float, float]
    loss_interval: tuple[float, float]
    """95 % Wilson intervals of the three shares."""
    p_value: float
    """Two-sided sign test of wins against losses; ties do not count."""
    alpha: float | None
    """Krippendorff's alpha of the raters' answers (1: all agree, 0: as by chance); None where all answers are one."""

    @property
    def num_pairs(self) -> int:
        """Pairs that count."""
        return self.wins + self.ties + self.losses


def majority(answers: Sequence[int]) -> int:
    """Return the answer of more than half; a tie if there is none, as of 1, 2 and 0."""
    answer, count = Counter(answers).most_common(1)[0]
    return answer if 2 * count > len(answers) else TIE


def tally(key: Key, answers: Sequence[Answer]) -> list[Result]:
    """Return a result for each other run and criterion. Only the first three raters of a question count."""
    given: dict[tuple[str, str], list[Answer]] = defaultdict(list)
    for answer in answers:
        given[answer.pair, answer.criterion].append(answer)
    counted = {question: found[:VOTES_PER_PAIR] for question, found in given.items() if len(found) >= VOTES_PER_PAIR}
    return [_compare(key, other, criterion.id, counted) for other in range(1, len(key.runs)) for criterion in CRITERIA]


def first_image_votes(answers: Sequence[Answer]) -> tuple[int, int]:
    """Return the votes for image 1 and all that chose an image: near a half unless raters favour a side."""
    chosen = Counter(answer.answer for answer in answers if answer.answer != TIE)
    return chosen[1], chosen.total()


def _compare(key: Key, other: int, criterion: str, counted: dict[tuple[str, str], list[Answer]]) -> Result:
    pairs = [pair for pair in key.pairs if other in pair.runs]
    groups = {pair: counted[pair.id, criterion] for pair in pairs if (pair.id, criterion) in counted}
    outcomes: Counter[int | None] = Counter()
    for pair, found in groups.items():
        answer = majority([vote.answer for vote in found])
        outcomes[pair.runs[answer - 1] if answer != TIE else None] += 1
    wins, ties, losses = outcomes[0], outcomes[None], outcomes[other]
    win, tie, loss = (_interval(count, len(groups)) for count in (wins, ties, losses))
    p_value = float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    alpha = _alpha([vote for found in groups.values() for vote in found])
    return Result(
        key.runs[other], criterion, wins, ties, losses, len(pairs) - len(groups), win, tie, loss, p_value, alpha
    )


def _interval(count: int, total: int) -> tuple[float, float]:
    if not total:
        return 0.0, 1.0
    low, high = binomtest(count, total).proportion_ci(method="wilson")
    return float(low), float(high)


def _alpha(votes: Sequence[Answer]) -> float | None:
    """Return alpha of the answers as given: sides are balanced, so that a model that often wins does not lower it."""
    if len({vote.answer for vote in votes}) < 2:
        return None
    return float(AnnotationTask([(vote.rater, vote.pair, vote.answer) for vote in votes]).alpha())
