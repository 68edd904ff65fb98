"""`swd-eval study report`: a table, its numbers as JSON, and a chart like figure 6 of the paper."""

from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from scipy.stats import binomtest

from swd_data import cell, own, write_json, write_text, write_whole
from swd_eval.study.criteria import CRITERIA
from swd_eval.study.pairs import VOTES, Key
from swd_eval.study.tally import Result, first_image_votes, tally
from swd_eval.study.votes import read_answers

NAMES = {criterion.id: criterion.name for criterion in CRITERIA}


def write_report(folder: Path, out: Path) -> str:
    """Write table.md, results.json and, with matplotlib, preferences.png; return the table."""
    key = Key.read(folder)
    answers = read_answers(folder / VOTES)
    results = tally(key, answers)
    first, chosen = first_image_votes(answers)
    side = binomtest(first, chosen).pvalue if chosen else 1.0
    table = render_table(key, results)
    if chosen:
        table += f"\nImage 1 was chosen in {first / chosen:.0%} of {chosen} choices (sign test: p = {_p(side)}).\n"
    numbers = {
        "study": key.study,
        "run": key.runs[0],
        "raters": len({answer.rater for answer in answers}),
        "votes": len(answers),
        "first_image": {"votes": first, "of": chosen, "p_value": float(side)},
        "results": [asdict(result) for result in results],
    }
    own(out, ["results.json", "table.md", "preferences.png"])
    write_json(out / "results.json", numbers)
    write_text(out / "table.md", table)
    return f"{table}\n{_chart(key.runs[0], results, out)}"


def _chart(run: str, results: Sequence[Result], out: Path) -> str:
    """Draw the chart if matplotlib is there; return what to tell the user."""
    if find_spec("matplotlib") is None:
        return f"wrote {out}\nno chart, for matplotlib is missing: install swd-eval[plot]"
    from swd_eval.study.plot import plot_preferences

    write_whole(out / "preferences.png", plot_preferences(run, results).savefig)
    return f"wrote {out}"


def render_table(key: Key, results: Sequence[Result]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        f"# {cell(key.runs[0])} against {', '.join(map(cell, key.runs[1:]))}",
        "",
        "Majority of three raters a pair; without a majority a tie. In brackets 95 % Wilson intervals; p: two-sided",
        "sign test of wins against losses, each on its own; alpha: Krippendorff's, of the raters.",
        "",
        "| against | criterion | pairs | win % | tie % | loss % | p | alpha | incomplete |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        parts = [
            cell(result.other),
            NAMES[result.criterion],
            str(result.num_pairs),
            _share(result.wins, result.num_pairs, result.win_interval),
            _share(result.ties, result.num_pairs, result.tie_interval),
            _share(result.losses, result.num_pairs, result.loss_interval),
            _p(result.p_value),
            "-" if result.alpha is None else f"{result.alpha:.2f}",
            str(result.incomplete),
        ]
        lines.append(f"| {' | '.join(parts)} |")
    return "\n".join(lines) + "\n"


def _share(count: int, total: int, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{100 * count / total:.0f} [{100 * low:.0f}, {100 * high:.0f}]" if total else "-"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"
