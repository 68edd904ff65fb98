"""What CONTRIBUTING.md says of a release: one command gives all members a version, and refuses what is none."""

import re
import shutil
import subprocess
import sys

import pytest

from tests.docs.pages import ROOT


@pytest.fixture
def tree(tmp_path):
    """Copy what the command changes."""
    files = [*ROOT.glob("*/*/pyproject.toml"), *ROOT.glob("*/*/src/*/__init__.py")]
    for path in (*files, *(ROOT / name for name in ("pyproject.toml", "noxfile.py", "CITATION.cff"))):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return tmp_path


def version(tree, *args):
    command = [sys.executable, "-m", "nox", "-s", "version", "--", *args]
    return subprocess.run(
        command, cwd=tree, env={"PATH": "", "UV": "true"}, capture_output=True, text=True, check=False
    )


def test_all_members_get_the_version_and_ask_for_siblings_of_it(tree):
    done = version(tree, "3.4.5")
    texts = {path: path.read_text() for path in tree.glob("*/*/pyproject.toml")}
    assert len(texts) == 9
    assert all('\nversion = "3.4.5"\n' in text for text in texts.values()), done.stdout + done.stderr
    asked = {each for text in texts.values() for each in re.findall(r'"(swd-[\w\[\],-]+~=[\d.]+)"', text)}
    assert "swd-data[video,parquet]~=3.4.0" in asked
    assert {each.rpartition("~=")[2] for each in asked} == {"3.4.0"}
    assert "\nversion: 3.4.5\n" in (tree / "CITATION.cff").read_text()


@pytest.mark.parametrize("args", [[], ["v1.2.3"], ["1.2.3rc1"], ["1.2.3", "1.2.4"]])
def test_what_is_no_version_changes_nothing(tree, args):
    before = {path: path.read_text() for path in tree.glob("*/*/pyproject.toml")}
    done = version(tree, *args)
    assert done.returncode == 1
    assert "expected a version such as 0.3.0" in done.stdout + done.stderr
    assert {path: path.read_text() for path in before} == before
