"""Copy the verdicts of the studies' pages into the page of results, after the studies.

`uv run python -m benchmarks.studies.summary`.
"""

from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "results.md"
PAGES = ("schedules", "losses", "levers", "upscalers")
BEGIN, END = "<!-- verdicts, by benchmarks.studies.summary -->\n", "<!-- end of verdicts -->\n"


def verdicts() -> str:
    """Return one table of all claims that pages judge in the same columns, each linked to its page."""
    lines = ["| claim | all right: difference | verdict | kid x 1000: difference | |", "|---|---|---|---|---|"]
    for page in PAGES:
        text = (RESULTS / f"{page}.md").read_text(encoding="utf-8")
        table = text[text.index("| claim |") :].split("\n\n")[0].splitlines()[2:]
        lines += [f"{line} [{page}](../benchmarks/results/{page}.md) |" for line in table]
    return "\n".join(lines) + "\n"


def updated(text: str) -> str:
    """Return the page with the table of now between its marks."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{verdicts()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
