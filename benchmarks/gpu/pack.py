"""What a bare machine without network lacks to run `benchmarks.gpu`: wheels, beside the tree.

`uv run python -m benchmarks.gpu.pack` fills build/gpu: wheels of the locked versions, and run.sh, which unpacks them
and runs a command with them and the members' sources on its path. Carry it with the tree, in its place; there:
`sh build/gpu/run.sh python3 -m benchmarks.gpu --minutes 9`, or `... python3 -m pytest -m gpu` with the two test_gpu.py.
"""

import argparse
import os
import re
import subprocess
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

from benchmarks.provenance import COMMIT, ROOT, commit
from swd_data import whole_folder

PLATFORMS = ("--platform", "any", "--platform", "manylinux_2_24_x86_64")
EXTRAS = (("swd-models", "quantized"),)
OTHERS = re.compile(r"/lib\w+_(cuda(?!130)|rocm|xpu)\w*\.so$")
"""Libraries for what the machine has not: it has CUDA 13.0. With them bitsandbytes is too large to carry."""
LIMIT = 64 * 2**20
"""Bytes that are carried, the tree included."""
SOURCES = "find packages apps benchmarks -name '*.py' | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -c1-16"
"""Prints a hash of all sources: records name the commit that was packed."""
PYTHON = "3.12"
HAS = (
    *("torch", "numpy", "pillow", "scipy", "scikit-image", "matplotlib", "tensorboard", "pytest", "jaxtyping"),
    *("transformers", "tokenizers", "safetensors", "huggingface-hub", "peft", "accelerate", "filelock", "packaging"),
    "pyarrow",
    *("protobuf", "pyyaml", "regex", "requests", "tqdm", "typing-extensions", "zipp"),
)
"""Distributions that the machine has, and with each what it needs."""


@dataclass(frozen=True)
class Wheel:
    """A wheel of uv.lock for any Python 3."""

    name: str
    version: str
    hash: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version} --hash={self.hash}"


def lacking(lock: Mapping[str, Any], has: Collection[str] = HAS) -> tuple[list[Wheel], list[str]]:
    """Return the wheels that the members need and the machine lacks, and what of it is no pure wheel.

    What the machine has is not looked into: it brings its own needs, in its own versions.
    """
    packages = {package["name"]: package for package in lock["package"]}  # of several versions the last, the newest
    members = {name for name, package in packages.items() if "editable" in package["source"]}
    ahead, seen = [*((name, "") for name in members), *EXTRAS], set()
    while ahead:
        each = ahead.pop()
        if each not in seen and each[0] not in has:
            seen.add(each)
            ahead += _needs(packages[each[0]], each[1])
    names = {name for name, _ in seen} - members
    wheels = {name: _pure(packages[name]) for name in sorted(names)}
    return [wheel for wheel in wheels.values() if wheel], [name for name, wheel in wheels.items() if wheel is None]


def _needs(package: Mapping[str, Any], extra: str) -> list[tuple[str, str]]:
    """Return what a distribution, or an extra of it, needs: names with "" or an extra."""
    needs = package.get("optional-dependencies", {}).get(extra, []) if extra else package.get("dependencies", [])
    return [(need["name"], each) for need in needs for each in ("", *need.get("extra", []))]


def _pure(package: Mapping[str, Any]) -> Wheel | None:
    for wheel in package.get("wheels", []):
        if re.search(r"-py3-none-(any|manylinux\w*_x86_64)\.whl$", wheel["url"]):
            return Wheel(package["name"], package["version"], wheel["hash"])
    return None


def download(wheels: Sequence[Wheel], folder: Path) -> None:
    """Download wheels, with their checksums."""
    folder.mkdir(parents=True)
    listed = folder / "requirements.txt"
    listed.write_text("".join(f"{wheel}\n" for wheel in wheels))
    command = [os.environ.get("UV", "uv"), "tool", "run", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    only = ["--only-binary=:all:", "--python-version", PYTHON, *PLATFORMS]
    subprocess.run([*command, *only, "--dest", folder, "--requirement", listed], check=True)
    listed.unlink()
    for wheel in folder.iterdir():
        trim(wheel)


def trim(wheel: Path) -> None:
    """Drop a wheel's libraries for other accelerators than the machine's."""
    with ZipFile(wheel) as whole:
        kept = {name: whole.read(name) for name in whole.namelist() if not OTHERS.search(name)}
    with ZipFile(wheel, "w", ZIP_DEFLATED) as smaller:
        for name, content in kept.items():
            smaller.writestr(name, content)


def script(folder: Path) -> str:
    """Return run.sh for a folder of the tree."""
    sources = ":".join(f"$root/{path.relative_to(ROOT)}" for path in sorted(ROOT.glob("*/*/src")))
    return f"""#!/bin/sh
# Runs a command, by default the measurement, with the wheels beside this file and the members' sources on its path.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/{os.path.relpath(ROOT, folder)}" && pwd)
site=$(mktemp -d)
for wheel in "$here"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$site"; done
found=$(cd "$root" && {SOURCES})
[ "$found" = "{_sources()}" ] || {{ echo "expected the sources that were packed, got others: pack again" >&2; exit 2; }}
export PYTHONPATH="{sources}:$site" HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1 {COMMIT}={commit()}
[ $# -gt 0 ] || set -- python3 -m benchmarks.gpu
cd "$root"
exec "$@"
"""


def _sources() -> str:
    return subprocess.run(SOURCES, cwd=ROOT, shell=True, capture_output=True, text=True, check=True).stdout.strip()


def carried(folder: Path) -> int:
    """Return the bytes of the tree, without what git ignores, and of a folder that it does.

    Raises:
        ValueError: more than the limit.
    """
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    files = {ROOT / name for name in names if name} | set(folder.rglob("*"))
    size = sum(path.stat().st_size for path in files if path.is_file())
    if size > LIMIT:
        raise ValueError(f"expected at most {LIMIT / 2**20:.0f} MiB of tree and wheels, got {size / 2**20:.1f}")
    return size


def main(argv: Sequence[str] | None = None) -> None:
    """Lay the folder out anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu", help="a folder of the tree")
    parser.add_argument("--has", nargs="*", default=[], metavar="NAME", help="distributions that the machine has too")
    args = parser.parse_args(argv)
    out = args.out.resolve()
    wheels, others = lacking(tomllib.loads((ROOT / "uv.lock").read_text()), {*HAS, *args.has})
    with whole_folder(out, "run.sh") as temporary:
        download(wheels, temporary / "wheels")
        (temporary / "run.sh").write_text(script(out))
    print("\n".join(f"{wheel.name} {wheel.version}" for wheel in wheels))
    print(f"left out, for no pure wheel: {', '.join(others) or 'nothing'}")
    print(f"{carried(out) / 2**20:.1f} MiB with the tree, of {LIMIT / 2**20:.0f}")


if __name__ == "__main__":
    main()
