"""The first change that CONTRIBUTING.md shows applies to the code as it is, and its test passes."""

import os
import shutil
import subprocess
import sys

from tests.docs.pages import ROOT, blocks_of


def test_the_first_change_applies_and_its_test_passes(tmp_path):
    (diff,) = (b for b in blocks_of((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")) if b.kind == "diff")
    package = tmp_path / "packages" / "swd-schedules"
    shutil.copytree(ROOT / "packages" / "swd-schedules", package, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=diff.text, text=True, check=True)
    code = """
import pytest, swd_schedules, sys
assert swd_schedules.__file__.startswith(sys.argv[1]), swd_schedules.__file__
assert swd_schedules.presets.resolve("tiny-4,catmull-rom").upscaler == "catmull-rom"
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", ".", "tests/test_resize.py"]))
"""
    env = os.environ | {"PYTHONPATH": str(package / "src")}
    command = [sys.executable, "-c", code, str(package)]
    done = subprocess.run(command, cwd=package, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
