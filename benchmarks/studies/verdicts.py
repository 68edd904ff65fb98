"""Claims judged by seeds: a 95 % interval of the paired difference tells, or leaves them open."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import t

from benchmarks.studies.records import Record


def verdict(text: str, one: Sequence[Record], other: Sequence[Record], margin: float = 0.0) -> str:
    """Return a row of the table of verdicts: whether one is better than the other, or as good to within the margin.

    Records are those of seeds 0, 1 and so on; where one has more of them than the other, the surplus is left out.
    """
    mean, half = difference(*_columns("all_right", one, other))
    within = f", margin {margin:g}" if margin else ""
    kid, kid_half = difference(*_columns("kid x 1000", one, other))
    return f"| {text} | {mean:+.3f} ± {half:.3f}{within} | {judge(mean, half, margin)} | {kid:+.2f} ± {kid_half:.2f} |"


def _columns(column: str, *rows: Sequence[Record]) -> list[list[float]]:
    num = min(map(len, rows))
    return [[record["scores"][column] for record in records[:num]] for records in rows]


def difference(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """Return the mean difference of paired values, one a seed, and half of its 95 % interval (Student's t)."""
    each = np.subtract(one, other)
    num = len(each)
    half = float(t.ppf(0.975, num - 1) * each.std(ddof=1) / math.sqrt(num)) if num > 1 else math.inf
    return float(each.mean()), half


def judge(mean: float, half: float, margin: float = 0.0) -> str:
    """Say what an interval around a mean difference tells of "better", or of "as good to within the margin".

    An interval below zero says that the one is worse; where it holds minus the margin, whether by more is open.
    """
    low, high = mean - half, mean + half
    if low > -margin:
        return "reproduced"
    if high < -margin:
        return "not reproduced"
    return f"worse, by {-high:.3f} to {-low:.3f}" if high < 0 else "undecided at this size"
