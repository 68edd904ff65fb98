"""What is published: a folder that stock diffusers runs by the card's own text, and the hub's client in between."""

import json
import re
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from swd_distill import publish as publishing
from swd_distill.card import LICENCES, Facts, card, stock_snippet
from swd_distill.presets import PRESETS
from swd_models import load_denoiser, save_lora, share_base
from swd_models.adapters import adapter_parameters
from swd_models.loading import experts_of
from swd_sample import SwDPipeline
from swd_sample.media import to_media
from swd_schedules import ScaleSchedule, sample_scalewise


@pytest.fixture(scope="module")
def published(finished, tmp_path_factory, cli):
    out = tmp_path_factory.mktemp("published") / "hub"
    printed = cli("publish", str(finished), "--to", str(out), "--samples", "2")
    assert printed == f"LoRA, card and samples in {out}: nothing was uploaded\n"
    return out


def _snippets(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_the_folder_has_the_lora_in_both_forms_the_card_and_its_samples(published):
    files = {str(path.relative_to(published)) for path in published.rglob("*") if path.is_file()}
    assert files == {
        ".swd-published", "README.md", "comfyui_lora.safetensors", "pytorch_lora_weights.safetensors",
        "samples/0.png", "samples/1.png",
    }  # fmt: skip
    loaded = ModelCard.load(published / "README.md")
    data = loaded.data
    assert (data.license, data.pipeline_tag, data.library_name) == ("apache-2.0", "text-to-image", "diffusers")
    assert {"lora", "template:diffusion-lora"} <= set(data.tags)
    assert [each["output"]["url"] for each in data.to_dict()["widget"]] == ["samples/0.png", "samples/1.png"]
    text = loaded.text
    assert "<Gallery />" in text
    assert "| 4 | 602.2 | 16x16 | 64x64 |" in text
    assert "- losses: 1 MMD\n- 3 iterations of 2 samples" in text


def test_no_path_of_this_machine_is_in_it(published, finished):
    text = (published / "README.md").read_text()
    assert str(finished) not in text
    assert str(finished.parent) not in text
    assert "/home" not in text


def test_a_user_without_a_home_may_publish(published, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/"))
    publishing._check_card(published / "README.md", finished)
    card = tmp_path / "README.md"
    card.write_text(f"{(published / 'README.md').read_text()}{tmp_path}")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    with pytest.raises(ValueError, match="without paths of this machine"):
        publishing._check_card(card, finished)


@torch.no_grad()
def test_the_cards_snippet_samples_scalewise_with_diffusers_alone(published, finished):
    text = (published / "README.md").read_text()
    stock, ours = _snippets(text)
    assert "swd_sample" not in stock
    name = json.dumps(f"OWNER/{finished.name}")
    assert stock.count(name) == ours.count(name) == 1
    found = {}
    exec(stock.replace(name, json.dumps(str(published))), found)
    exec(ours.replace(name, json.dumps(str(published))), found)
    pipe = SwDPipeline.from_run(finished)
    (prompt,) = re.findall(r"pipe\(\[(.*)\], seed", ours)
    cond = pipe.text([json.loads(prompt)])
    torch.manual_seed(0)
    x0 = sample_scalewise(partial(pipe.denoiser.denoise, cond=cond), pipe.schedule, (1, pipe.denoiser.num_channels))
    expected = to_media(pipe.latents.decode(x0))[0]
    difference = np.asarray(found["image"]).astype(int) - np.asarray(expected).astype(int)
    assert np.abs(difference).max() <= 2
    assert found["sample"].tobytes() == pipe([json.loads(prompt)], seed=0)[0].tobytes()


def test_samples_that_are_there_are_taken(finished, tmp_path, cli):
    images = tmp_path / "samples"
    images.mkdir()
    Image.new("RGB", (8, 8), "red").save(images / "a.png")
    (images / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "text": "a red square"}) + "\n")
    text = cli("publish", str(finished), "ann/red", "--to", str(tmp_path / "o"), "--images", str(images), "--dry-run")
    assert "text: a red square" in text
    assert "# ann/red" in text
    assert "nothing was uploaded" in text
    assert Image.open(tmp_path / "o" / "samples" / "0.png").getpixel((0, 0)) == (255, 0, 0)


def test_metrics_and_loras_of_the_run_are_told(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    for step, value in ((2, 9.0), (3, 1.25)):
        folder = run / "evaluation" / f"step-{step:06d}"
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps({"numbers": [{"metric": "kid-lite0", "value": value}]}))
    config = json.loads((run / "config.json").read_text())
    config |= {"teacher_lora": ["/secret/place/style.safetensors:0.5"], "init_lora": "ann/first"}
    (run / "config.json").write_text(json.dumps(config))
    metrics = publishing.metrics_of(run)
    assert metrics == {"kid-lite0": 1.25}
    (run / "evaluation" / "step-000003").rename(run / "evaluation" / "step-000001")
    assert publishing.metrics_of(run) == {}  # what was measured before it was trained on is not the LoRA's
    scales = PRESETS["tiny"].scales
    facts = Facts("n", None, "embedded", "P", ("mit", ""), scales, [], (64, 64), {}, [], [], metrics, config)
    text = card(facts)
    assert "| kid-lite0 | 1.25 |" in text
    assert "merged into the teacher: style.safetensors:0.5" in text
    assert "where the student began: ann/first" in text
    assert "secret" not in text


class Hub:
    """The hub's client, as far as it is asked."""

    def __init__(self, there=(), fails=None):
        self.there, self.fails, self.calls = set(there), fails, []

    def _call(self, name, *args, **options):
        self.calls.append(name)
        if name == self.fails:
            raise ConnectionError("no route\nto host")

    def __getattr__(self, name):
        return partial(self._call, name)

    def repo_exists(self, repo):
        self._call("repo_exists")
        return repo in self.there

    def upload_folder(self, *, repo_id, folder_path, commit_message, ignore_patterns):
        self._call("upload_folder")
        self.uploaded = sorted(path.name for path in folder_path.iterdir() if path.name not in ignore_patterns)


@pytest.fixture
def hub(monkeypatch):
    def install(**options):
        made = Hub(**options)
        monkeypatch.setattr("huggingface_hub.HfApi", lambda: made)
        monkeypatch.setattr(ModelCard, "validate", lambda self, repo_type: made._call("validate"))
        return made

    return install


def test_the_folder_goes_to_the_hub_in_one_commit_after_the_card_is_validated(finished, tmp_path, cli, hub):
    api = hub()
    printed = cli("publish", str(finished), "ann/circles", "--to", str(tmp_path / "o"), "--samples", "1", "--private")
    assert printed == "https://huggingface.co/ann/circles\n"
    assert api.calls == ["whoami", "repo_exists", "validate", "create_repo", "upload_folder"]
    assert api.uploaded == ["README.md", "comfyui_lora.safetensors", "pytorch_lora_weights.safetensors", "samples"]


@pytest.mark.parametrize(
    ("options", "flags", "line"),
    [
        ({"fails": "whoami"}, [], "got ConnectionError (no route to host): log in with `hf auth login`"),
        ({"there": ["ann/circles"]}, [], "expected a new repository, got ann/circles, which is there: pass --update"),
        ({"fails": "validate"}, [], "nothing of it is in the repository"),
        ({"fails": "upload_folder"}, [], "nothing of it is in the repository"),
        ({"there": ["ann/circles"], "fails": "create_repo"}, ["--update"], "the folder is whole in"),
    ],
)
def test_what_the_hub_refuses_is_one_line_and_nothing_is_called_done(
    finished, tmp_path, refused, hub, options, flags, line
):
    api = hub(**options)
    argv = ["publish", str(finished), "ann/circles", "--to", str(tmp_path / "o"), "--samples", "0", *flags]
    assert line in refused(argv)
    assert (tmp_path / "o").exists() == ("validate" in api.calls)


@pytest.mark.parametrize(
    ("change", "argv", "line"),
    [
        ({}, ["circles"], "expected OWNER/NAME as the repository, got 'circles'"),
        ({}, ["--samples", "-1"], "expected --samples of at least 0, got -1"),
        ({"model": "/some/fine-tune"}, [], "expected --base-model OWNER/NAME, for the run's model is a folder of this"),
        ({"model": "ann/base"}, [], "expected --licence for ann/base, whose licence is not known here"),
    ],
)
def test_what_a_card_cannot_do_without_is_one_line(finished, tmp_path, refused, change, argv, line):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | change))
    assert line in refused(["publish", str(run), *argv])
    assert not (run / "export").exists()


def test_a_run_that_is_not_done_is_one_line(finished, tmp_path, refused):
    shutil.copy(finished / "config.json", tmp_path / "config.json")
    assert "expected a run that is done" in refused(["publish", str(tmp_path)])


@pytest.mark.parametrize(
    ("name", "pipeline", "options"),
    [
        ("sd35-medium", "StableDiffusion3Pipeline", {"max_sequence_length": 256, "guidance_scale": 1.0}),
        ("flux", "FluxPipeline", {"max_sequence_length": 512, "guidance_scale": 4.5}),
    ],
)
def test_the_page_on_diffusers_has_the_snippets_of_presets(name, pipeline, options):
    preset, page = PRESETS[name], Path(__file__).parents[3] / "docs" / "diffusers.md"
    facts = Facts(
        "OWNER/NAME", preset.model, preset.model, pipeline, LICENCES[preset.model], preset.scales, [], (1024, 1024),
        options, [], [], {}, {},
    )  # fmt: skip
    assert stock_snippet(facts) in page.read_text()


@pytest.mark.parametrize(
    ("pipeline", "schedule", "with_file"),
    [
        ("StableDiffusion3Pipeline", "1000:8,896:16", False),
        ("FluxPipeline", "1000:8,896:16", True),  # whose latents are packed
        ("StableDiffusion3Pipeline", "1000:10x14,896:14x18", True),  # the sides grow by different factors
    ],
)
def test_what_diffusers_scheduler_does_not_have_takes_the_file(pipeline, schedule, with_file):
    scales = ScaleSchedule.parse(schedule)
    facts = Facts("n", "a/b", "a/b", pipeline, ("mit", ""), scales, [], (128, 128), {}, [], [], {}, {})
    assert ("from scalewise import sample" in stock_snippet(facts)) == with_file
    assert ("FlowMatchLCMScheduler" in stock_snippet(facts)) != with_file
    scales = replace(scales, upscaler="dct")
    assert stock_snippet(replace(facts, schedule=scales)) is None


@pytest.mark.parametrize("name", ["tiny-flux", "tiny-sdxl", "tiny-wan22-a14b"])
def test_the_card_of_other_families_samples_with_the_file_beside_it(name, tmp_path, cli, monkeypatch):
    preset, run, out = PRESETS[name], tmp_path / "run", tmp_path / "hub"
    experts = experts_of(preset.model)
    for expert in experts:
        student = share_base(load_denoiser(preset.model, expert=expert if expert.name else None), 2, fake=False).student
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in adapter_parameters(student):
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        save_lora(student, run / "lora" / expert.name, schedule=preset.scales)
    (run / "config.json").write_text(json.dumps(preset.to_json(), default=str))
    (tmp_path / "prompts.txt").write_text("a big red cat\n")
    cli("publish", str(run), "--to", str(out), "--samples", "1", "--prompts", str(tmp_path / "prompts.txt"))
    stock, ours = _snippets((out / "README.md").read_text())
    assert "swd_" not in (out / "scalewise.py").read_text().split('"""')[2]  # its code
    assert stock.count("weight_name=") == sum(bool(expert.name) for expert in experts)  # diffusers guesses wrong
    monkeypatch.syspath_prepend(out)
    monkeypatch.delitem(sys.modules, "scalewise", raising=False)
    found, lora = {}, json.dumps(str(out))
    exec(stock.replace('"OWNER/run"', lora), found)
    exec(ours.replace('"OWNER/run"', lora), found)
    media = [
        each if isinstance(each, list) else [each]
        for each in (found.get("frames", found.get("image")), found["sample"])
    ]
    one, other = (np.stack([np.asarray(frame, int) for frame in frames]) for frames in media)
    assert np.abs(one - other).max() <= 1


def test_every_full_size_preset_has_a_licence():
    models = {preset.model for name, preset in PRESETS.items() if not name.startswith("tiny")}
    assert models == set(LICENCES)
