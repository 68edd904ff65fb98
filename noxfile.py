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
WHEELS: dict[str, Path] = {}
UV = os.environ.get("UV", "uv")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, import layers, and that each member declares what it imports."""
    _sync(session, "--only-group", "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", env={"PYTHONPATH": os.pathsep.join(SOURCES)})
    for path in MEMBERS.values():
        with session.chdir(path):
            session.run("deptry", "src")


@nox.session
def types(session: nox.Session) -> None:
    """Strict types of all sources."""
    _sync(session, "--group", "types")
    session.run("mypy", *SOURCES, "noxfile.py")


@nox.session
@nox.parametrize("package", list(MEMBERS), ids=list(MEMBERS))
def tests(session: nox.Session, package: str) -> None:
    """Test one member alone: its wheel, its declared dependencies at the locked versions, and pytest."""
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
    with session.chdir(MEMBERS[package]):
        session.run("pytest", "--import-mode=importlib", "-c", str(ROOT / "pyproject.toml"), "tests", *session.posargs)


@nox.session
def workspace(session: nox.Session) -> None:
    """Test the packages together: oracles of other libraries, shapes at run time, and coverage."""
    _sync(session, "--group", "test")
    packages = [path for path in MEMBERS.values() if path.parent.name == "packages"]
    modules = ",".join(path.name.replace("-", "_") for path in packages)
    session.run(
        "pytest",
        f"--jaxtyping-packages={modules},beartype.beartype",
        "--cov",
        "--cov-report=term",
        *(str(path / "tests") for path in packages),
        "tests",
        *session.posargs,
    )


@nox.session
def slow(session: nox.Session) -> None:
    """Run the tests that take minutes: kills at many instants."""
    _sync(session, "--group", "test")
    session.run("pytest", "-m", "slow", "apps", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Time sampling, training and what both take beyond their networks, in short, on what this machine has."""
    _sync(session, "--group", "benchmarks")
    out = session.create_tmp()
    session.run("python", "-m", "benchmarks.latency", "--runs", "3", "--out", out)
    session.run("python", "-m", "benchmarks.overhead", "--runs", "3", "--out", out)
    session.run("python", "-m", "benchmarks.training", "--repeats", "1", "--out", out)


@nox.session(default=False)
def gpu(session: nox.Session) -> None:
    """Measure a GPU in nine minutes; without one, run the same code on tiny models in two."""
    _sync(session, "--group", "benchmarks")
    session.run("python", "-m", "benchmarks.gpu", *session.posargs)


def _sync(session: nox.Session, *groups: str) -> None:
    environment = {"UV_PROJECT_ENVIRONMENT": session.virtualenv.location}
    session.run_install(
        UV, "sync", "--locked", "--no-default-groups", *groups, env=environment, external=True, silent=True
    )


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
