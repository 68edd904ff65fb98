"""Checks, as CI runs them: `uv run nox`; one of them: `uv run nox -s lint`."""

import os
import re
import sys
from datetime import date
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "none"  # the two below: what uv makes exact hides no removed dependency

ROOT = Path(__file__).parent
MEMBERS = {path.parent.name: path.parent for path in sorted(ROOT.glob("*/*/src"))}
SOURCES = [str((path / "src").relative_to(ROOT)) for path in MEMBERS.values()]
PACKAGES = [name.replace("-", "_") for name, path in MEMBERS.items() if path.parent.name == "packages"]
WORKSPACE, MEMBER = ROOT / ".nox" / "workspace", ROOT / ".nox" / "member"
WHEELS: dict[str, Path] = {}
UV = os.environ.get("UV", "uv")

# Tests in parallel, a thread each: tiny networks gain nothing from more.
PARALLEL = ("--numprocesses=logical", "--maxprocesses=4", "--dist=worksteal")
EVERY = "slow or not slow"
TYPED = f"--jaxtyping-packages={','.join(PACKAGES)},beartype.beartype"
# Bytecode is kept, whatever the machine says: without it each process of a test compiles torch and diffusers again.
TESTING = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": None}


@nox.session
def lint(session: nox.Session) -> None:
    """Style, import layers, and that each member declares what it imports."""
    _run(session, "ruff", "check")
    _run(session, "ruff", "format", "--check")
    _run(session, "lint-imports", PYTHONPATH=os.pathsep.join(SOURCES))
    for path in MEMBERS.values():
        with session.chdir(path):
            _run(session, "deptry", "src")


@nox.session
def types(session: nox.Session) -> None:
    """Strict types of all sources."""
    _run(session, "mypy", *SOURCES, "noxfile.py", "docs/hooks.py")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site into build/site: no link leads nowhere, no name of the API is missing."""
    _run(session, "mkdocs", "build", "--quiet", NO_MKDOCS_2_WARNING="1")


@nox.session
@nox.parametrize("package", list(MEMBERS), ids=list(MEMBERS))
def tests(session: nox.Session, package: str) -> None:
    """Test one member alone: its wheel, its declared dependencies at the locked versions, and pytest, slow tests too.

    A package also checks its shapes and types as it runs, and that its own tests cover it.
    """
    name = MEMBERS[package].name if package.startswith("swd-") else f"swd-{package}"
    _isolate(session, name)
    config = str(ROOT / "pyproject.toml")
    module = name.replace("-", "_")
    checks = [TYPED, f"--cov={module}", f"--cov-config={config}"] if module in PACKAGES else []
    env = {"PATH": os.pathsep.join((str(MEMBER / "bin"), os.environ["PATH"])), "VIRTUAL_ENV": str(MEMBER)}
    command = (str(MEMBER / "bin" / "pytest"), *PARALLEL, "-m", EVERY, "-c", config, *checks, "tests", *session.posargs)
    with session.chdir(MEMBERS[package]):
        session.run(*command, env=TESTING | env, external=True)


@nox.session
def workspace(session: nox.Session) -> None:
    """Test what takes several members: oracles of other libraries, properties, benchmarks; shapes at run time."""
    _run(session, "pytest", *PARALLEL, TYPED, "tests", *session.posargs, **TESTING)


@nox.session(default=False)
def slow(session: nox.Session) -> None:
    """Run only the tests that take minutes, which the members' runs have too: kills at many instants."""
    _run(session, "pytest", *PARALLEL, "-m", "slow", "apps", *session.posargs, **TESTING)


@nox.session(default=False)
def fuzz(session: nox.Session) -> None:
    """Try files and bodies of strangers for ten minutes on two cores, from random seeds."""
    _run(session, "pytest", *PARALLEL, "tests/fuzz", *session.posargs, **TESTING, SWD_FUZZ_SECONDS="80")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Time sampling, training and what both take beyond their networks, in short, on what this machine has."""
    out = session.create_tmp()
    _run(session, "python", "-m", "benchmarks.latency", "--runs", "3", "--out", out)
    _run(session, "python", "-m", "benchmarks.overhead", "--runs", "3", "--out", out)
    _run(session, "python", "-m", "benchmarks.training", "--repeats", "1", "--out", out)


@nox.session(default=False)
def gpu(session: nox.Session) -> None:
    """Measure a GPU for nine minutes, the next call goes on; without one, run the same code on tiny models in two."""
    _run(session, "python", "-m", "benchmarks.gpu", *session.posargs)


@nox.session(default=False)
def version(session: nox.Session) -> None:
    """Give all members a version, and ask each for siblings of it: `uv run nox -s version -- 0.3.0`."""
    number = " ".join(session.posargs)
    if not re.fullmatch(r"\d+\.\d+\.\d+", number):
        session.error(f"expected a version such as 0.3.0, got {number!r}: uv run nox -s version -- 0.3.0")
    series = ".".join(number.split(".")[:2]) + ".0"
    for path in (ROOT, *MEMBERS.values(), ROOT / "apps" / "comfyui"):
        file, own = path / "pyproject.toml", f"swd-{path.name.removeprefix('swd-')}"
        text = re.sub(r'^version = ".*"', f'version = "{number}"', file.read_text(), count=1, flags=re.MULTILINE)
        if path in MEMBERS.values():
            text = re.sub(rf'"(?!{own}\b)(swd-\w+(?:\[[^]]*\])?)(?:~=[\d.]+)?"', rf'"\1~={series}"', text)
        file.write_text(text)
    citation = ROOT / "CITATION.cff"
    lines = {"version": number, "date-released": str(date.today())}
    text = citation.read_text()
    for name, value in lines.items():
        text = re.sub(rf"^{name}: .*", f"{name}: {value}", text, flags=re.MULTILINE)
    citation.write_text(text)
    session.run(UV, "lock", external=True)


def _run(session: nox.Session, *command: str, **env: str | None) -> None:
    """Run a command in the one environment of all that needs no isolation, first made exactly what the lock says."""
    env |= {"UV_PROJECT_ENVIRONMENT": str(WORKSPACE), "VIRTUAL_ENV": None}
    options = ("--project", str(ROOT), "--python", sys.executable, "--locked", "--exact")
    session.run(UV, "run", *options, *command, env=env, external=True)


def _isolate(session: nox.Session, name: str) -> None:
    """Make an environment of a member: what it declares at the locked versions, wheels of the tree, nothing else.

    All members have theirs in one place, one after the other: what two of them need is compiled to bytecode once.
    """
    # Wheels, not paths: `uv pip install packages/X` may take a stale build of a sibling from the cache.
    wheels, lines = _build_wheels(session), _export(session, name)
    members = {name, *(_member_name(line) for line in lines if _is_member(line))}
    third_party = [line for line in lines if not _is_member(line)]
    requirements = Path(session.create_tmp()) / "requirements.txt"
    requirements.write_text("\n".join([*third_party, *(str(wheels[member]) for member in sorted(members))]) + "\n")
    session.run(UV, "pip", "sync", "--python", str(MEMBER), str(requirements), external=True, silent=True)


def _export(session: nox.Session, name: str) -> list[str]:
    command = [UV, "export", "--locked", "--package", name, "--group", "test", "--no-hashes", "--no-annotate"]
    text = session.run(*command, "--no-header", "--no-editable", external=True, silent=True)
    return [line for line in str(text).splitlines() if line and not line.startswith(("#", "Resolved"))]


def _is_member(line: str) -> bool:
    return line.startswith("./")


def _member_name(line: str) -> str:
    folder = ROOT / line.split(";")[0].strip()
    found = re.search(r'^name = "(.+)"', (folder / "pyproject.toml").read_text(), re.MULTILINE)
    assert found
    return found[1]


def _build_wheels(session: nox.Session) -> dict[str, Path]:
    """Build every member's wheel from the tree, and begin their environment, once a call of nox."""
    if not WHEELS:
        out = Path(session.cache_dir) / "wheels"
        for old in out.glob("*"):
            old.unlink()
        session.run(UV, "build", "--all-packages", "--wheel", "--out-dir", str(out), external=True, silent=True)
        session.run(UV, "venv", "--clear", "--python", sys.executable, str(MEMBER), external=True, silent=True)
        WHEELS.update({path.name.split("-")[0].replace("_", "-"): path.resolve() for path in out.glob("*.whl")})
    return WHEELS
