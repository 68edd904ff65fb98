"""What a command answers before any work, it answers without the libraries that take seconds to import."""

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "diffusers", "transformers", "peft", "scipy", "matplotlib"}
HELP = [
    "swd_distill.cli",
    *(f"swd_distill.cli {command}" for command in ("run", "generate", "encode", "train", "plan", "export", "publish")),
    "swd_distill.cli zoo",
    "swd_distill.cli run flux",
    "swd_sample.cli",
    "swd_spectral.cli",
    *(f"swd_spectral.cli {command}" for command in ("analyze", "design", "check")),
    "swd_eval.cli",
    *(f"swd_eval.cli {command}" for command in ("images", "videos", "report", "study", "geneval", "vbench")),
]
DRY_RUNS = """
import json, sys
from swd_distill.cli import main
from swd_distill.presets import PRESETS
for name in PRESETS:
    main(["run", name, "--data.prompts", sys.argv[1], "--out", sys.argv[2], "--dry-run"])
"""
IMPORTED = "\nimport json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"


def imported(code, *args):
    """Run code in a process of its own; return what it printed, and the packages that it imported."""
    done = subprocess.run([sys.executable, "-c", code + IMPORTED, *args], capture_output=True, text=True, check=True)
    *printed, names = done.stdout.splitlines()
    assert done.stderr == ""
    return printed, set(json.loads(names))


@pytest.mark.parametrize("command", HELP)
def test_help_needs_no_torch(command):
    module, *args = command.split()
    code = (
        f"import sys\nfrom {module} import main\nsys.argv = {['x', *args, '--help']}\ntry: main()\nexcept SystemExit: 0"
    )
    printed, names = imported(code)
    assert any("--help" in line for line in printed)
    assert names & HEAVY == set()


def test_a_dry_run_of_every_preset_needs_no_model_library_and_says_nothing_else(tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle, white background\n")  # in words that the embedded teachers know
    printed, names = imported(DRY_RUNS, str(prompts), str(tmp_path / "run"))
    assert sum(line.startswith("stages: ") for line in printed) > 20
    assert names & {"diffusers", "transformers", "peft", "torchao", "bitsandbytes"} == set()
    assert not (tmp_path / "run").exists()
