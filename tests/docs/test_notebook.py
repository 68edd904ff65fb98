"""The notebook runs from top to bottom, in short; what it shows was made by the code beside it."""

import json
import re

import matplotlib as mpl

from tests.docs.pages import ROOT

CELLS = json.loads((ROOT / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def test_its_cells_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    assert re.match(r"IMAGES, UPDATES = \d+, \d+", CODE[0])
    space = {"__name__": "notebook"}
    for number, cell in enumerate(CODE):
        exec(compile(cell if number else "IMAGES, UPDATES = 16, 4", f"cell {number}", "exec"), space)
    assert len(space["history"]) == 4
    assert set(space["rows"]) == {"teacher, 28 steps", "student, 4"}


def test_it_was_run_as_it_stands_and_shows_nothing_of_the_machine():
    outputs = [output for cell in CELLS for output in cell.get("outputs", [])]
    assert [cell["execution_count"] for cell in CELLS if cell["cell_type"] == "code"] == [*range(1, len(CODE) + 1)]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 4
    assert [output for output in outputs if output["output_type"] == "error"] == []
    assert not re.search(r"site-packages|\.venv|Warning", json.dumps(outputs))
