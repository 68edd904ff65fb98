"""What docs/install.md tells to type installs each member alone: from a git address by uv and by pip, and from wheels.

Third-party packages are those of this environment, by links: nothing of gigabytes is installed again.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, blocks_of
from tests.docs.test_pages import LITTLE

ADDRESS = "https://github.com/OWNER/swd"
TEXT = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
BLOCKS = [block for block in blocks_of(TEXT) if block.reason == "tests/docs/test_install.py does"]
COMMANDS = [command for block in BLOCKS for command in block.commands]
ALONE = {
    re.search(r"swd-\w+", command)[0]: command
    for command in COMMANDS
    if command.startswith("pip install") and ADDRESS in command
}
PLACES = (path.parent.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("*/*/src")))
MEMBERS = {f"swd-{place.rpartition('/')[2].removeprefix('swd-')}": place for place in PLACES}
UV = os.environ.get("UV", "uv")
CLEAN = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}


def do(*command, cwd=None, env=None):
    done = subprocess.run(command, cwd=cwd, env=CLEAN | (env or {}), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Commit the tree as it is into a bare repository; return its address."""
    work, bare = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("bare") / "swd"
    files = do("git", "ls-files", "-co", "--exclude-standard", "packages", "apps", "*.toml", "*.lock", cwd=ROOT)
    for name in files.splitlines():
        if (ROOT / name).is_file():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, work / name)
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "the tree"]):
        do("git", "-c", "user.name=x", "-c", "user.email=x@x", *command, cwd=work)
    do("git", "clone", "-q", "--bare", str(work), str(bare))
    return bare.as_uri()


@pytest.fixture(scope="module")
def third_party():
    """Make an environment with what is not of this workspace, by hard links; return its Python."""
    place = ROOT / "build" / f"install-{os.getpid()}"  # where links to this environment can be
    do(UV, "venv", "-q", "--seed", "--python", sys.executable, str(place))
    (site,) = (place / "lib").glob("*/site-packages")
    ours = re.compile(r"_?swd|__editable__|.*\.pth$")
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if ours.match(path.name) or (site / path.name).exists():
            continue
        if path.is_dir():
            shutil.copytree(path, site / path.name, symlinks=True, copy_function=os.link)
        else:
            os.link(path, site / path.name)
    yield place / "bin" / "python"
    shutil.rmtree(place)


@pytest.fixture
def environment(third_party):
    """Lend that environment without any member."""
    yield third_party
    do(UV, "pip", "uninstall", "-q", "--python", str(third_party), *MEMBERS)


def siblings(python):
    """Return which members are there, and that each can be imported."""
    found = "sorted(each.name for each in metadata.distributions() if each.name.startswith('swd-'))"
    code = f"from importlib import metadata; print(*{found})"
    names = do(str(python), "-c", code, cwd=python.parent).split()
    do(str(python), "-c", "; ".join(f"import {name.replace('-', '_')}" for name in names), cwd=python.parent)
    return names


def test_each_member_has_its_command():
    assert sorted(ALONE) == sorted(MEMBERS)


@pytest.mark.parametrize("member", MEMBERS)
def test_pip_installs_a_member_from_a_git_address(member, repository, environment):
    command = shlex.split(ALONE[member].replace(ADDRESS, repository))
    do(str(environment), "-m", *command, "--no-input", "--disable-pip-version-check")
    named = sorted(re.findall(r"(swd-\w+)(?:\[\w+\])? @", ALONE[member]))
    assert siblings(environment) == named


@pytest.mark.parametrize("member", MEMBERS)
def test_uv_installs_a_member_from_a_git_address_with_its_siblings(member, repository, environment):
    wanted = f"{member} @ git+{repository}#subdirectory={MEMBERS[member]}"
    do(UV, "pip", "install", "--python", str(environment), wanted)
    assert member in siblings(environment)


def test_uv_adds_members_to_a_project(repository, tmp_path):
    do(UV, "init", "-q", "--bare", "--name", "mine", str(tmp_path))
    added = [command for command in COMMANDS if command.startswith("uv add")]
    assert len(added) == len(MEMBERS)
    for command in added:
        do(UV, *shlex.split(command.replace(ADDRESS, repository))[1:], "--no-sync", cwd=tmp_path)
    lock = (tmp_path / "uv.lock").read_text()
    for member in ("swd-losses", "swd-distill", "swd-models", "swd-data", "swd-schedules", "swd-sample"):
        assert re.search(rf'name = "{member}"\nversion = ".*"\nsource = {{ git = ', lock)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """Build the wheels as the page tells; return a folder beside them, outside the clone."""
    place = tmp_path_factory.mktemp("elsewhere")
    (build,) = (command for command in COMMANDS if command.startswith("uv build"))
    do(UV, *shlex.split(build)[1:-1], str(place / "dist"), cwd=ROOT)
    assert len(list((place / "dist").glob("*.whl"))) == len(MEMBERS)
    return place


def test_from_wheels_each_member_is_imported_and_each_command_answers(wheels, environment):
    (install,) = (command for command in COMMANDS if command.startswith("pip install dist/"))
    do("bash", "-euc", f"{environment} -m {install}", cwd=wheels)
    assert siblings(environment) == sorted(MEMBERS)
    for command in ("swd-distill", "swd-sample", "swd-spectral", "swd-eval"):
        before = sum(os.times()[2:4])
        do(str(environment.with_name(command)), "--help", cwd=wheels)
        assert sum(os.times()[2:4]) - before < 2  # seconds of its own


def test_uvx_runs_a_command_from_wheels_outside_the_clone(wheels):
    (command,) = (command for command in COMMANDS if command.startswith("uvx"))
    lock = do(UV, "export", "--locked", "--no-hashes", "--no-emit-workspace", "--all-groups", "-q", cwd=ROOT)
    (wheels / "lock.txt").write_text(lock)
    little = shlex.join(word for pair in LITTLE.items() for word in pair)
    line = command.replace("uvx", f"{shlex.quote(UV)} tool run -c lock.txt", 1)
    printed = do("bash", "-euc", f"{line} {little}", cwd=wheels, env={"OMP_NUM_THREADS": "1"})
    assert "done: see runs/tiny/samples/comparison.png" in printed
    assert (wheels / "runs" / "tiny" / "lora" / "pytorch_lora_weights.safetensors").is_file()


def test_readmes_that_say_how_to_install_one_package_say_what_the_page_says():
    for page in PAGES:
        for block in blocks_of((ROOT / page).read_text(encoding="utf-8")):
            if block.reason == "tests/docs/test_install.py does":
                assert set(block.commands) <= set(COMMANDS), page
