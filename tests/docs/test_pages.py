"""Every command and snippet of the site and of the READMEs is run, page by page, each in a folder of its own.

Commands run as they stand, in short: what samples, generates or trains is told to do little of it.
"""

import io
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from importlib import import_module

import pytest

from tests.docs.pages import PAGES, REASONS, ROOT, blocks_of, given

LITTLE = {
    "--data.num-images": "8", "--data.teacher-steps": "2", "--data.batch": "8", "--training.iterations": "3",
    "--training.batch": "2", "--training.rank": "2",
}  # fmt: skip
MODULES = {name: name.replace("-", "_") for name in ("swd-distill", "swd-sample", "swd-spectral", "swd-eval")}
PROMPTS = [f"a big {color} circle at the left, {ground} background"
           for color in ("red", "blue", "green") for ground in ("white", "black", "yellow")]  # fmt: skip


def run(line):
    """Run a command line as a shell and its entry point would; return what it printed."""
    words = shlex.split(line, comments=True)
    if words[:2] == ["uv", "run"]:
        words = words[2:]
    while words and words[0] in ("--group", "--extra"):
        words = words[2:]
    name, *args = words
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed), redirect_stderr(printed):
        try:
            if name in MODULES:
                patch.setattr(sys, "argv", [name, *args, *_little(name, args)])
                import_module(f"{MODULES[name]}.cli").main()
            elif name == "python" and args[0] == "-m" and args[1] in MODULES.values():
                return run(shlex.join([args[1].replace("_", "-"), *args[2:]]))
            elif name == "python" and args[0] == "-m":
                patch.setattr(sys, "argv", args[1:])
                runpy.run_module(args[1], run_name="__main__", alter_sys=True)
            elif name == "python":
                patch.setattr(sys, "argv", args)
                runpy.run_path(args[0], run_name="__main__")
            else:
                done = subprocess.run(["bash", "-euc", line], capture_output=True, text=True, check=False)
                printed.write(done.stdout + done.stderr)
                assert done.returncode == 0, f"{line}\n{printed.getvalue()}"
            code = 0
        except SystemExit as end:
            code = end.code
    assert code in (None, 0), f"{line}\n{printed.getvalue()}"
    return printed.getvalue()


def _little(name, args):
    if name != "swd-distill" or args[0] not in ("run", "generate", "encode", "train") or "--help" in args:
        return []
    return [word for flag, value in LITTLE.items() if flag not in args for word in (flag, value)]


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """Return what makes a thing that a page is given; each is made once."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")

    def make(name):
        path = folder / name
        if not path.exists():
            with chdir(folder):
                if name.startswith("runs/tiny"):
                    run(f"swd-distill run {path.name}")
                elif name == "photographs":
                    run("python -m benchmarks.photographs photographs")
                else:
                    raise ValueError(f"expected what a page may be given, got {name}")
        return path

    return make


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_tells_to_type_works(page, things, tmp_path, monkeypatch):
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = [block for block in blocks_of(text) if block.kind in ("sh", "python") and block.reason is None]
    if not blocks:
        pytest.skip("nothing to type")
    for name in ("packages", "apps", "benchmarks", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in given(text):
        source, target = things(name), tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copyfile(source, target)
    monkeypatch.chdir(tmp_path)
    space = {"__name__": "page"}
    for block in blocks:
        if block.kind == "python":
            exec(compile("\n" * block.line + block.text, page, "exec"), space)
        else:
            for command in block.commands:
                run(command)


@pytest.mark.parametrize("page", PAGES)
def test_what_is_not_run_says_why(page):
    for block in blocks_of((ROOT / page).read_text(encoding="utf-8")):
        place = f"{page}:{block.line}"
        assert block.kind in ("sh", "python", "text", "diff", "json"), f"{place}: {block.kind or 'no kind'}"
        if block.reason is None or block.reason in REASONS:
            continue
        test = re.fullmatch(r"(\S+\.py) does", block.reason)
        assert test, f"{place}: {block.reason}"
        code = (ROOT / test[1]).read_text(encoding="utf-8")
        assert page.rpartition("/")[2] in code or "PAGES" in code, f"{place}: {test[1]} knows nothing of it"


@pytest.mark.parametrize("page", PAGES)
def test_what_is_not_run_has_flags_that_are_there(page):
    for block in blocks_of((ROOT / page).read_text(encoding="utf-8")):
        if block.kind != "sh" or block.reason is None:
            continue
        for command in block.commands:
            words = shlex.split(command, comments=True)
            start = next((i for i, word in enumerate(words) if word in OURS or word.startswith("benchmarks.")), None)
            if start is not None:
                flags = {word for word in words[start:] if word.startswith("--")}
                text = run(shlex.join([*_command(words[start:]), "--help"]))
                assert [flag for flag in flags if flag not in text] == [], f"{page}:{block.line}: {command}"


OURS = {*MODULES, *MODULES.values()}


def _command(words):
    """Return what lists the flags of a command: its name, and that of what it is told to do."""
    name, *rest = words
    if name.startswith("benchmarks."):
        return ["python", "-m", name]
    name, told = name.replace("_", "-"), [word for word in rest[:2] if re.fullmatch("[a-z]+", word)]
    two = name == "swd-eval" and told and told[0] in ("study", "geneval", "vbench")
    return [name, *told[: 0 if name == "swd-sample" else 2 if two else 1]]


def test_pages_are_found_and_a_command_that_fails_is_seen(tmp_path, monkeypatch):
    assert len(PAGES) > 30
    monkeypatch.chdir(tmp_path)
    for line in ("swd-distill run nonsense", "cat nothing", "python -m benchmarks.cards --nonsense"):
        with pytest.raises(AssertionError):
            run(line)


def test_no_page_has_code_without_a_fence():
    loose = re.compile(r"(?:^|\n)\n    (?:uv|swd-\w+|pip|python|accelerate|torchrun|git) ")
    texts = {
        page: re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL) for page in PAGES
    }
    assert [page for page, text in texts.items() if loose.search(text)] == []
