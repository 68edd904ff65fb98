import json
from contextlib import closing

import pytest
from PIL import Image

from swd_eval.cli import main
from swd_eval.study.criteria import CRITERIA
from swd_eval.study.pairs import Key
from swd_eval.study.votes import Vote, Votes

RATERS = ("local-1", "local-2", "local-3")


def write_votes(folder, path, choose, raters=RATERS[:1]):
    """Write what the page without a server saves."""
    key = Key.read(folder)
    rows = [
        {"study": key.study, "rater": rater, "pair": pair.id, "criterion": criterion.id}
        | {"answer": choose(pair, criterion.id), "id": f"{rater}-{pair.id}-{criterion.id}"}
        for rater in raters
        for pair in key.pairs
        for criterion in CRITERIA
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def test_from_saved_votes_to_a_table_numbers_and_a_chart(make_study, tmp_path, capsys):
    folder = make_study(10)
    files = [tmp_path / f"votes-{rater}.jsonl" for rater in RATERS]
    for rater, file in zip(RATERS, files, strict=True):
        write_votes(folder, file, lambda pair, c: 0 if c == "defects" else pair.runs.index(0) + 1, [rater])
    for expected in ("120 new votes of 3 raters, 0 known before", "0 new votes of 3 raters, 120 known before"):
        main(["study", "import", str(folder), *map(str, files)])
        lines = capsys.readouterr().out.splitlines()
        assert lines == [*(f"{f}: 40 votes of '{r}'" for f, r in zip(files, RATERS, strict=True)), expected]
    main(["study", "report", str(folder), "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    table = (tmp_path / "out/table.md").read_text()
    assert table in printed
    assert "| model-1 | Relevance | 10 | 100 [72, 100] | 0 [0, 28] | 0 [0, 28] | 0.002 | 1.00 | 0 |" in table
    assert "| model-1 | Defects | 10 | 0 [0, 28] | 100 [72, 100] | 0 [0, 28] | 1.000 | - | 0 |" in table
    assert "Image 1 was chosen in 50% of 90 choices" in table
    numbers = json.loads((tmp_path / "out/results.json").read_text())
    assert (numbers["run"], numbers["raters"], numbers["votes"]) == ("model-0", 3, 120)
    assert [row["wins"] for row in numbers["results"]] == [10, 0, 10, 10]
    with Image.open(tmp_path / "out/preferences.png") as chart:
        assert len(chart.convert("RGB").getcolors(1 << 20)) > 10
    assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == [
        "preferences.png",
        "results.json",
        "table.md",
    ]


def test_votes_are_imported_all_or_none(make_study, tmp_path, capsys):
    folder = make_study(2)
    path = tmp_path / "votes.jsonl"
    rows = write_votes(folder, path, lambda pair, c: 1)
    lines = path.read_text().splitlines()
    broken = {
        "line 3": [*lines[:2], "{", *lines[3:]],
        "those of another, another study, in line 1 of": [json.dumps(rows[0] | {"study": "another study"})],
        "expected pairs of the study": [json.dumps(rows[0] | {"pair": "unknown"})],
        "an answer of 0, 1 or 2": [lines[0], json.dumps(rows[1] | {"answer": 5})],
        "another vote came under the id": [lines[0], json.dumps(rows[0] | {"answer": 2})],
    }
    for message, text in broken.items():
        path.write_text("\n".join(text))
        with pytest.raises(SystemExit, match="2"):
            main(["study", "import", str(folder), str(path)])
        assert message in capsys.readouterr().err
    with closing(Votes(folder / "votes.sqlite", [])) as votes:
        assert votes.answers() == []


def test_imported_votes_take_the_places_of_served_ones(make_study, tmp_path):
    folder = make_study(1)
    (pair,) = Key.read(folder).pairs
    with closing(Votes(folder / "votes.sqlite", [pair.id])) as votes:
        votes.take([Vote(f"{r}-{c.id}", r, pair.id, c.id, 1) for r in ("rater-1", "rater-2") for c in CRITERIA])
        assert votes.stand("a")["pair"] == pair.id
        assert votes.stand("b") == {"pair": None, "left": 1, "wait": True}


def test_a_users_error_is_one_line_and_exit_code_2(tmp_path, capsys):
    serve = ["serve", str(tmp_path)]
    for command in (
        ["report", str(tmp_path)],
        serve,
        [*serve, "--port", "99999"],
        ["build", "--out", str(tmp_path / "new")],
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["study", *command])
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith("swd-eval: error: expected ")
        assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
