"""Figure 6 of the paper for any study: bars of wins, ties and losses."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from swd_eval.study.criteria import CRITERIA
from swd_eval.study.tally import Result

WIN, TIE, LOSS = "#3b6fb6", "#c9c9c6", "#e8842c"


def plot_preferences(run: str, results: Sequence[Result]) -> Figure:
    """Draw a panel for each other run, a bar for each criterion; a star marks p < .05."""
    others = list(dict.fromkeys(result.other for result in results))
    height = 0.9 + 1.75 * len(others)
    figure = Figure(figsize=(7.2, height), layout="constrained", dpi=150)
    panels = figure.subplots(len(others), 1, squeeze=False, sharex=True)[:, 0]
    for axes, other in zip(panels, others, strict=True):
        _panel(axes, [result for result in results if result.other == other])
        axes.set_title(f"{run} vs {other}", fontsize=10, loc="left")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, title="* p < 0.05, sign test")
    return figure


def _panel(axes: Axes, results: Sequence[Result]) -> None:
    names = {criterion.id: criterion.name for criterion in CRITERIA}
    left = [0.0] * len(results)
    rows = range(len(results))
    for label, colour in (("win", WIN), ("tie", TIE), ("loss", LOSS)):
        counts = [{"win": r.wins, "tie": r.ties, "loss": r.losses}[label] for r in results]
        shares = [100 * count / max(r.num_pairs, 1) for count, r in zip(counts, results, strict=True)]
        bars = axes.barh(rows, shares, left=left, color=colour, label=label, height=0.72)
        texts = [f"{share:.0f}" if share >= 4 else "" for share in shares]
        axes.bar_label(bars, texts, label_type="center", color="black" if label != "win" else "white", fontsize=9)
        left = [a + b for a, b in zip(left, shares, strict=True)]
    axes.set_yticks(rows, [names[r.criterion] + ("*" if r.p_value < 0.05 else "") for r in results])
    axes.set(xlim=(0, 100), xticks=[])
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
