"""Three paths as new users walk them, command by command, from one folder: none of the stumbles that were seen once."""

import contextlib
import json
import re
import sys
from importlib import import_module

import pytest
from PIL import Image

from swd_data import typed

PROMPT = "a big red circle left of a small blue cross, green background"
FEW = ("--data.num-images", "6", "--data.teacher-steps", "1", "--data.batch", "6", "--training.iterations", "2",
       "--training.batch", "2", "--training.rank", "2")  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Make the folder of one user: twenty prompts of their own."""
    folder = tmp_path_factory.mktemp("evening")
    (folder / "prompts.txt").write_text("".join(f"a big red circle at the left, prompt {i}\n" for i in range(20)))
    return folder


@pytest.fixture
def run(place, monkeypatch, capfd):
    """Run a command line as its entry point does; return what it printed, its errors too."""
    monkeypatch.chdir(place)

    def call(text, *more):
        name, *args = [*text.split(), *more]
        module = {"swd-distill": "swd_distill", "swd-sample": "swd_sample"}.get(name, name.replace("-", "_"))
        monkeypatch.setattr(sys, "argv", [name, *args])
        capfd.readouterr()
        with contextlib.suppress(SystemExit):  # what it prints tells
            import_module(f"{module}.cli").main()
        found = capfd.readouterr()
        return found.out + found.err

    return call


def test_own_prompts_and_one_card(run, place):
    plan = run("swd-distill plan flux --gpus 1 --memory 24")
    assert "32.7 are held whatever the batch, 22.2 of them the base; --training.base int8" in plan  # row 1
    assert "generate" in plan
    dry = run("swd-distill run flux --data.prompts prompts.txt --dry-run")  # rows 3, 4
    assert dry.startswith("1,000 images of 20 prompt(s), 50 of each")
    assert re.search(r"generate [\d.]+ h, encode [\d.]+ h, train [\d.]+ h", dry)
    assert "the full loss takes 7.6 times as long as MMD alone" in dry
    assert "GiB of cache" in dry
    assert dry.index("stages:") < dry.index("{")
    assert "none.txt, which does not exist" in run("swd-distill run flux --data.prompts none.txt --dry-run")
    assert "expected a yes to work of" in run("swd-distill run flux --data.prompts prompts.txt")
    assert not (place / "runs").exists()
    assert "--training.iterations" in run("swd-distill run --help")  # row 15
    done = run("swd-distill run tiny --data.prompts prompts.txt", *FEW)
    assert "done: see runs/tiny/samples/comparison.png\nLoRA: runs/tiny/lora\ntry: " in done
    assert f"try: {typed('swd-sample', 'runs/tiny')} '" in done
    assert "already done" in run("swd-distill run tiny --data.prompts prompts.txt", *FEW)
    prompts = (place / "prompts.txt").read_text()
    (place / "prompts.txt").write_text(prompts.replace("left, prompt 3", "right, prompt 3"))
    assert "expected images" in run("swd-distill run tiny --data.prompts prompts.txt", *FEW)  # not those of before
    (place / "prompts.txt").write_text(prompts)
    assert "--data.buckets 1:1 4:3: choose others" in run("swd-distill run tiny --data.buckets 1:1 4:3")  # row 12
    tried = run("swd-distill run tiny-flux --data.prompts prompts.txt", *FEW)  # row 16
    assert "random-flux is tiny and random" in tried
    assert tried.count("was truncated") <= 2  # each encoder says it once


def test_a_lora_and_an_evaluation(run, place):
    if not (place / "runs" / "tiny").exists():
        run("swd-distill run tiny --data.prompts prompts.txt", *FEW)
    printed = run("swd-sample runs/tiny --stages --num-images-per-prompt 2 --seed 3 --device cpu", PROMPT)  # row 14
    assert printed.startswith("sample.png: 2 image(s)")
    assert Image.open(place / "sample.png").height > 4 * 64
    assert "this LoRA was trained with" in run("swd-sample runs/tiny --steps 2", PROMPT)  # row 13
    assert "expected samples, got the run runs/tiny" in run("swd-eval images runs/tiny --out eval")  # row 6
    (place / "few.txt").write_text(f"{PROMPT}\na small blue cross, white background\n")
    drawn = run("swd-sample runs/tiny --prompts-file few.txt --out runs/tiny/student")
    assert "2 image(s), 2 of them new" in drawn
    measured = run("swd-eval images runs/tiny --ref runs/tiny --out eval --metrics diagnostics --device cpu")
    assert "wrote eval" in measured
    assert json.loads((place / "eval" / "results.json").read_text())["num_images"] == 2
    assert "perhaps fid-swd" in run("swd-eval images runs/tiny --out eval --metrics fid")  # row 19
    run("swd-sample runs/tiny --prompts-file few.txt --seed 9 --out other")
    assert "2 pairs of tiny against other" in run("swd-eval study build runs/tiny other --out study")
    analyzed = run("swd-spectral analyze runs/tiny --timesteps 800")
    assert "numbers: runs/spectrum/runs/tiny/spectrum.json\n" in analyzed
    for source, full in {"runs/tiny": "16x16", "flux": "32x32"}.items():  # row 10
        given = [] if source == "runs/tiny" else ["--full", full]
        designed = run(f"swd-spectral design {source} --steps 2", *given)
        schedule = re.search(r"--schedule (\S+)", designed)[1]
        assert run(f"swd-spectral check {schedule} {source}").startswith("t=1000")
    assert "nothing was uploaded" in run("swd-distill publish runs/tiny me/lora --dry-run")


def test_a_model_that_is_not_supported_is_told_so_at_once(run, place):  # row 9
    other = place / "other-model"
    other.mkdir()
    (other / "model_index.json").write_text(json.dumps({"_class_name": "KolorsPipeline"}))
    printed = run(f"swd-distill run flux --model {other} --data.prompts prompts.txt --dry-run")
    assert "expected a pipeline of StableDiffusion3Pipeline, FluxPipeline" in printed
    assert "got KolorsPipeline" in printed


def test_a_pipeline_is_called_as_diffusers_are(run, place):  # row 5
    from swd_sample import SwDPipeline

    if not (place / "runs" / "tiny").exists():
        run("swd-distill run tiny --data.prompts prompts.txt", *FEW)
    pipe = SwDPipeline.from_run(place / "runs" / "tiny")
    assert len(pipe(PROMPT)) == 1
    assert len(pipe("")) == 1  # the unconditional one, as in diffusers
    with pytest.raises(ValueError, match="expected a prompt, or several, as text, got none"):
        pipe([])
