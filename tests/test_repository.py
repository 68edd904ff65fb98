"""Rules of the repository that no linter knows."""

import json
import re
import subprocess
import tomllib
from collections import Counter
from itertools import chain
from pathlib import Path
from statistics import median

import pytest
import torch
from jaxtyping import TypeCheckError

from benchmarks.studies import summary
from swd_losses import linear_mmd

ROOT = Path(__file__).parents[1]
MEMBERS = sorted(path.parent for path in ROOT.glob("*/*/src"))


def test_no_source_file_is_over_300_lines():
    sources = [path for member in MEMBERS for path in member.glob("src/**/*.py")]
    assert sources
    long = {str(path.relative_to(ROOT)): n for path in sources if (n := len(path.read_text().splitlines())) > 300}
    assert long == {}


def test_no_folder_of_sources_has_more_than_16_modules_and_files_are_short():
    sources = [
        path for top in (*MEMBERS, ROOT / "benchmarks") for path in top.rglob("*.py") if "tests" not in path.parts
    ]
    folders = Counter(path.parent for path in sources)
    assert {str(folder.relative_to(ROOT)): n for folder, n in folders.items() if n > 16} == {}
    assert median(len(path.read_text().splitlines()) for path in sources) < 120


def test_every_folder_of_sources_is_a_package_and_none_is_ignored_by_git():
    folders = {path.parent for member in MEMBERS for path in member.glob("src/**/*.py")}
    assert [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").is_file()] == []
    names = [str((folder / "new.py").relative_to(ROOT)) for folder in folders]
    ignored = subprocess.run(["git", "check-ignore", *names], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ignored.stdout == ""


def test_all_members_have_one_version_and_ask_for_siblings_of_it():
    files = [path / "pyproject.toml" for path in (ROOT, *MEMBERS, ROOT / "apps" / "comfyui")]
    projects = [tomllib.loads(file.read_text(encoding="utf-8"))["project"] for file in files]
    version = projects[0]["version"]
    assert {project["version"] for project in projects} == {version}
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    series = ".".join(version.split(".")[:2])
    for project in projects[1:]:
        needed = chain(project.get("dependencies", []), *project.get("optional-dependencies", {}).values())
        siblings = [each for each in needed if each.startswith("swd-") and not each.startswith(project["name"])]
        assert [each for each in siblings if not each.endswith(f"~={series}.0")] == []


def test_swd_data_alone_opens_images_clips_and_tables():
    opens = re.compile(r"Image\.open\(|av\.open\(|csv\.(reader|DictReader)")
    sources = [path for member in MEMBERS if member.name != "swd-data" for path in member.glob("src/**/*.py")]
    assert [str(path.relative_to(ROOT)) for path in sources if opens.search(path.read_text())] == []


@pytest.mark.parametrize("member", MEMBERS, ids=[member.name for member in MEMBERS])
def test_every_member_is_typed_documented_and_tested(member):
    assert len(list(member.glob("src/*/py.typed"))) == 1
    assert len((member / "README.md").read_text().splitlines()) > 5
    assert list(member.glob("tests/test_*.py"))


def test_the_page_of_results_has_the_verdicts_and_readme_and_it_the_numbers_of_the_pages():
    text, readme = (path.read_text(encoding="utf-8") for path in (summary.PAGE, ROOT / "README.md"))
    assert summary.updated(text) == text
    numbers = [re.findall(r"\.\d{3} ± \.\d{3}", each.split("## Students")[-1]) for each in (text, readme)]
    page = (summary.RESULTS / "students.md").read_text(encoding="utf-8")
    assert [len(each) for each in numbers] == [6, 3]
    assert [number for number in (*numbers[0], *numbers[1]) if f"0{number.replace('± ', '± 0')}" not in page] == []


@pytest.mark.parametrize(
    ("row", "stage"), {"SD3.5 Medium": "sd3", "FLUX": "flux", "Wan2.1 1.3B": "wan", "SDXL": "sdxl"}.items()
)
def test_the_seconds_of_the_readme_are_those_of_the_records(row, stage):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    cells = re.search(rf"^\| {re.escape(row)} \|(.*)\|$", readme, re.MULTILINE)[1].split("|")
    plain, compiled = (
        json.loads((summary.RESULTS / "gpu" / f"latency-{stage}{kind}.json").read_text(encoding="utf-8"))["rows"]
        for kind in ("", "-compiled")
    )
    scale, full = (plain[name]["s an image"] for name in ("scale-4", "full-4"))
    measured = [scale, full, scale / full, *(compiled[name]["s an image"] for name in compiled if name == "scale-4")]
    said = [cells[i].strip() for i in (0, 1, 2, 4)]
    assert len(measured) == sum(map(bool, said))
    for text, value in zip(said, measured, strict=False):
        assert f"{value:.{len(text.partition('.')[2])}f}".lstrip("0") == text


def test_a_run_with_types_checks_them_in_each_of_its_processes(request):
    if not request.config.getoption("--jaxtyping-packages"):
        pytest.skip("no types in this run")
    with pytest.raises(TypeCheckError):
        linear_mmd(torch.ones(2, 3), torch.ones(2, 3))
