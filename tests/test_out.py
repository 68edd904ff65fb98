"""Every command that writes, with --out at places that hold what is not its own: nothing of the user's is lost."""

import contextlib
import io
import json
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from swd_eval.cli import main as swd_eval
from swd_eval.geneval.score import TASKS
from swd_eval.vbench import DIMENSIONS
from swd_spectral.cli import main as swd_spectral

FEW = ("--data.num-images", "4", "--data.teacher-steps", "1", "--data.batch", "4",
       "--training.iterations", "1", "--training.batch", "2", "--training.rank", "2")  # fmt: skip


def swd_distill(args):
    from swd_distill.cli import main

    main(args)


def swd_sample(args):
    from swd_sample.cli import main

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["swd-sample", *args])
        main()


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Make what commands start from: a run of one iteration, images, results of VBench, a study."""
    base = tmp_path_factory.mktemp("sources")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        swd_distill(["run", "tiny", "--out", str(base / "run"), *FEW])
        for name in "ab":
            (base / name).mkdir()
            for i in range(4):
                Image.effect_noise((64, 64), 50 + i).convert("RGB").save(base / name / f"{i}.png")
                (base / name / f"{i}.txt").write_text(f"noise {i}")
        swd_eval(["study", "build", str(base / "a"), str(base / "b"), "--out", str(base / "study")])
    (base / "prompts.txt").write_text("a red circle\na blue cross\n")
    scores = {name: [0.5, []] for name in DIMENSIONS}
    (base / "vbench").mkdir()
    (base / "vbench" / "all_eval_results.json").write_text(json.dumps(scores))
    prompts = [{"prompt_en": "a wave", "dimension": [name]} for name in DIMENSIONS]
    (base / "vbench" / "prompts.json").write_text(json.dumps(prompts))
    assert TASKS
    return base


# What runs the command, its words before --out, and its source, which --out may be mistaken for.
COMMANDS = {
    "study build": (swd_eval, ["study", "build", "a", "b"], "a"),
    "study report": (swd_eval, ["study", "report", "study"], "study"),
    "images": (swd_eval, ["images", "a", "--metrics", "diagnostics", "--device", "cpu"], "a"),
    "geneval prepare": (swd_eval, ["geneval", "prepare"], None),
    "vbench prepare": (swd_eval, ["vbench", "prepare", "vbench/prompts.json"], "vbench"),
    "vbench collect": (swd_eval, ["vbench", "collect", "vbench"], "vbench"),
    "analyze": (swd_spectral, ["analyze", "a", "--model", "embedded"], "a"),
    "design": (swd_spectral, ["design", "flux", "--full", "64x64"], None),
    "export comfyui": (swd_distill, ["export", "run", "--to", "comfyui"], "run"),
    "export diffusers": (swd_distill, ["export", "run", "--to", "diffusers"], "run"),
    "export peft": (swd_distill, ["export", "run", "--to", "peft"], "run"),
    "export merged": (swd_distill, ["export", "run", "--to", "merged"], "run"),
    "sample": (swd_sample, ["run", "a red circle"], "run"),
    "sample a file": (swd_sample, ["run", "--prompts-file", "prompts.txt"], "run"),
    "generate": (swd_distill, ["generate", "tiny", *FEW], "run"),
    "encode": (swd_distill, ["encode", "tiny", "--data.images", "a", *FEW], "a"),
    "train": (swd_distill, ["train", "tiny", *FEW], "a"),
    "run": (swd_distill, ["run", "tiny", "--data.images", "a", *FEW], "a"),
}
SUFFIX = {"sample": ".png"}
PLACES = ["theirs", "source", "parent", "link", "file", "unwritable", "full"]
NAMES = (
    *("table.md", "results.json", "preferences.png", "spectrum.json", "spectrum.csv", "masking.png", "masking.svg"),
    *("report.txt", "smallest-sizes.json", "config.json", "generation.json", "settings.json", "sampling.json"),
    *("samples.jsonl", "videos.jsonl", "prompts.jsonl", "000000.png", "metrics.jsonl", "skipped.jsonl"),
    *("pytorch_lora_weights.safetensors", "comfyui_lora.safetensors", "adapter_model.safetensors"),
    *("adapter_config.json", "schedule.json", "key.json", "work.txt", "images/000000.png", "images/metadata.jsonl"),
    *("cache/shard-00000.safetensors", "lora/pytorch_lora_weights.safetensors", "checkpoints/step-000001/state.json"),
    *("samples/comparison.png", "transformer/config.json", "Diversity/a.mp4", "00000/metadata.jsonl"),
)


def state(folder):
    return {
        path.relative_to(folder): path.readlink() if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def ends(run, args, capsys):
    """Run a command to its end: with exit code 0, or with 2 and one line."""
    capsys.readouterr()
    code = None
    try:
        run([str(word) for word in args])
    except SystemExit as stopped:
        code = stopped.code
    lines = [line for line in capsys.readouterr().err.splitlines() if ": error: " in line or "Traceback" in line]
    assert (code, len(lines)) in [(None, 0), (2, 1)], lines
    return "".join(lines)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_of_the_users_is_lost(sources, tmp_path, monkeypatch, capsys, name, place):
    run, words, source = COMMANDS[name]
    home = tmp_path / "home"
    shutil.copytree(sources, home, symlinks=True)
    (home / "theirs").mkdir()
    for each in NAMES:
        path = home / "theirs" / each
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"a night's work on {each}")
    (home / "file").write_text("a night's work")
    (home / "link").symlink_to("theirs")
    monkeypatch.chdir(home)
    suffix = SUFFIX.get(name, "")
    out = {
        "theirs": Path("theirs") / f"000000{suffix}" if suffix else Path("theirs"),
        "source": Path(source or "."),
        "parent": Path(source or ".") / "..",
        "link": Path("link") / f"000000{suffix}" if suffix else Path("link"),
        "file": Path(f"file{suffix}") if suffix else Path("file"),
        "unwritable": Path(f"/proc/none{suffix}"),
        "full": Path(f"new{suffix}"),
    }[place]
    before = state(tmp_path)
    if place == "full":
        with full_disk():
            line = ends(run, [*words, "--out", out], capsys)
        assert line
    else:
        line = ends(run, [*words, "--out", out], capsys)
    if place in ("file", "unwritable") and not suffix:
        assert line
    after = state(tmp_path)
    replaced = (
        {out.resolve().relative_to(tmp_path.resolve())} if suffix and place != "unwritable" else set()
    )  # a file that is named is what the command writes
    changed = {path for path, value in before.items() if after.get(path) != value} - replaced
    assert not changed, line
    left = [path for path in after if "swd-tmp" in path.name or "swd-old" in path.name]
    assert not left


@contextlib.contextmanager
def full_disk():
    """Let no file grow beyond 100 bytes: as on a full disk, some of it is written first."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
