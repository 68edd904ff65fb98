"""Rules of the repository that no linter knows."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MEMBERS = sorted(path.parent for path in ROOT.glob("*/*/pyproject.toml"))


def test_no_source_file_is_over_300_lines():
    sources = [path for member in MEMBERS for path in member.glob("src/**/*.py")]
    assert sources
    long = {str(path.relative_to(ROOT)): n for path in sources if (n := len(path.read_text().splitlines())) > 300}
    assert long == {}


@pytest.mark.parametrize("member", MEMBERS, ids=[member.name for member in MEMBERS])
def test_every_member_is_typed_documented_and_tested(member):
    assert len(list(member.glob("src/*/py.typed"))) == 1
    assert len((member / "README.md").read_text().splitlines()) > 5
    assert list(member.glob("tests/test_*.py"))
