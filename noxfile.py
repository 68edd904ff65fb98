"""Checks, as CI runs them: `uv run nox`; one of them: `uv run nox -s lint`."""

import os
import re
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "never"  # a reused environment hides a removed dependency

ROOT = Path(__file__).parent
MEMBERS = {path.parent.name: path.parent for path in sorted(ROOT.glob("*/*/pyproject.toml"))}
SOURCES = [str((path / "src").relative_to(ROOT)) for path in MEMBERS.values()]
PACKAGES = [name.replace("-", "_") for name, path in MEMBERS.items() if path.parent.name == "packages"]
WHEELS: dict[str, Path] = {}
UV = os.environ.get("UV", "uv")

# Tests in parallel, a thread each: tiny networks gain nothing from more.
PYTEST = ("pytest", "--numprocesses=logical", "--maxprocesses=4", "--dist=worksteal")
TYPED = f"--jaxtyping-packages={','.join(PACKAGES)},beartype.beartype"
# Bytecode is kept, whatever the machine says: without it each process of a test compiles torch and diffusers again.
TESTING = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": None}


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Style, import layers, and that each member declares what it imports."""
    _run(session, "ruff", "check")
    _run(session, "ruff", "format", "--check")
    _run(session, "lint-imports", PYTHONPATH=os.pathsep.join(SOURCES))
    for path in MEMBERS.values():
        with session.chdir(path):
            _run(session, "deptry", "src")


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Strict types of all sources."""
    _run(session, "mypy", *SOURCES, "noxfile.py")


@nox.session
@nox.parametrize("package", list(MEMBERS), ids=list(MEMBERS))
def tests(session: nox.Session, package: str) -> None:
    """Test one member alone: its wheel, its declared dependencies at the locked versions, and pytest.

    A package also checks its shapes and types as it runs, and that its own tests cover it.
    """
    name = MEMBERS[package].name if package.startswith("swd-") else f"swd-{package}"
    lines = _export(session, name)
    third_party = [line for line in lines if not _is_member(line)]
    requirements = Path(session.create_tmp()) / "requirements.txt"
    requirements.write_text("\n".join(third_party) + "\n")
    session.install("-r", str(requirements))
    # Wheels, not paths: `uv pip install packages/X` may take a stale build of a sibling from the cache.
    wheels = _build_wheels(session)
    members = {name, *(_member_name(line) for line in lines if _is_member(line))}
    session.install("--no-deps", *(str(wheels[member]) for member in sorted(members)))
    config = str(ROOT / "pyproject.toml")
    module = name.replace("-", "_")
    checks = [TYPED, f"--cov={module}", f"--cov-config={config}"] if module in PACKAGES else []
    with session.chdir(MEMBERS[package]):
        session.run(*PYTEST, "-c", config, *checks, "tests", *session.posargs, env=TESTING)


@nox.session(venv_backend="none")
def workspace(session: nox.Session) -> None:
    """Test what takes several members: oracles of other libraries, properties, benchmarks; shapes at run time."""
    _run(session, *PYTEST, TYPED, "tests", *session.posargs, **TESTING)


@nox.session(venv_backend="none")
def slow(session: nox.Session) -> None:
    """Run the tests that take minutes: kills at many instants."""
    _run(session, *PYTEST, "-m", "slow", "apps", *session.posargs, **TESTING)


@nox.session(default=False, venv_backend="none")
def bench(session: nox.Session) -> None:
    """Time sampling, training and what both take beyond their networks, in short, on what this machine has."""
    out = session.create_tmp()
    _run(session, "python", "-m", "benchmarks.latency", "--runs", "3", "--out", out)
    _run(session, "python", "-m", "benchmarks.overhead", "--runs", "3", "--out", out)
    _run(session, "python", "-m", "benchmarks.training", "--repeats", "1", "--out", out)


@nox.session(default=False, venv_backend="none")
def gpu(session: nox.Session) -> None:
    """Measure a GPU in nine minutes; without one, run the same code on tiny models in two."""
    _run(session, "python", "-m", "benchmarks.gpu", *session.posargs)


def _run(session: nox.Session, *command: str, **env: str | None) -> None:
    """Run a command in the one environment of all that needs no isolation, first made exactly what the lock says."""
    env |= {"UV_PROJECT_ENVIRONMENT": str(ROOT / ".nox" / "workspace"), "VIRTUAL_ENV": None}
    session.run(UV, "run", "--project", str(ROOT), "--locked", "--exact", *command, env=env, external=True)


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
    """Build every member's wheel from the tree, once a call of nox."""
    if not WHEELS:
        out = Path(session.cache_dir) / "wheels"
        for old in out.glob("*"):
            old.unlink()
        session.run(UV, "build", "--all-packages", "--wheel", "--out-dir", str(out), external=True, silent=True)
        WHEELS.update({path.name.split("-")[0].replace("_", "-"): path for path in out.glob("*.whl")})
    return WHEELS
