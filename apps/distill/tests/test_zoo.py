"""A table of LoRAs, from run folders, published folders and cards of the hub."""

import json
import shutil

import pytest

from swd_distill import zoo as zoo_module
from swd_distill.zoo import entry


@pytest.fixture
def measured(finished, tmp_path):
    """A run that was evaluated."""
    run = tmp_path / "circles"
    shutil.copytree(finished, run)
    (run / "evaluation" / "step-000003").mkdir(parents=True)
    numbers = {"numbers": [{"metric": "kid-lite0", "value": 1.25}]}
    (run / "evaluation" / "step-000003" / "results.json").write_text(json.dumps(numbers))
    return run


def test_a_run_and_what_was_published_of_it_say_the_same(measured, tmp_path, cli):
    cli("publish", str(measured), "ann/circles", "--to", str(tmp_path / "hub"), "--samples", "0", "--dry-run")
    of_run, of_card = entry(str(measured)), entry(str(tmp_path / "hub"))
    assert of_run.steps == of_card.steps == "4: 8x8, 10x10, 12x12, 16x16"
    assert of_run.made == of_card.made == "1 MMD; 3 iterations"
    assert of_run.measured == of_card.measured == "kid-lite0 1.25"
    assert of_run.licence == of_card.licence == "apache-2.0"
    assert (of_run.name, of_card.name) == ("`circles`", "[ann/circles](https://huggingface.co/ann/circles)")
    assert of_run.base == "`embedded` of swd-models"


def test_the_command_prints_the_table_or_writes_it(finished, tmp_path, cli):
    printed = cli("zoo", str(finished), str(finished))
    lines = printed.splitlines()
    assert len(lines) == 4
    assert {line.count("|") for line in lines} == {7}
    assert cli("zoo", str(finished), "--out", str(tmp_path / "zoo.md")) == f"1 LoRA(s) in {tmp_path / 'zoo.md'}\n"
    assert (tmp_path / "zoo.md").read_text().splitlines() == lines[:3]


def test_a_card_of_the_hub_is_read_from_its_client(measured, tmp_path, cli, monkeypatch):
    out = tmp_path / "hub"
    cli("publish", str(measured), "ann/circles", "--to", str(out), "--samples", "0", "--base-model", "ann/base",
        "--licence", "mit", "--dry-run")  # fmt: skip
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repo, name: str(out / name))
    monkeypatch.setattr("swd_models.lora.files.download", lambda text, names: out)
    found = entry("ann/circles")
    assert found.base == "[ann/base](https://huggingface.co/ann/base)"
    assert (found.licence, found.steps) == ("mit", "4: 8x8, 10x10, 12x12, 16x16")


def test_someone_elses_card_says_what_it_says(tmp_path, finished):
    shutil.copy(finished / "lora" / "pytorch_lora_weights.safetensors", tmp_path)
    (tmp_path / "README.md").write_text(
        "---\nlicense: other\nlicense_name: my|own\nbase_model: [ann/base]\n---\n# Mine\n"
    )
    found = entry(str(tmp_path))
    assert (found.name, found.licence, found.made, found.measured) == ("`Mine`", "my|own", "not said", "nothing")
    assert "my own" in str(found)


def test_a_card_of_two_experts_on_the_hub_takes_the_steps_of_the_first(finished, tmp_path, monkeypatch):
    shutil.copytree(finished / "lora", tmp_path / "high-noise")

    def download(text, names):
        path = tmp_path / text.split("/", 2)[2] if text.count("/") > 1 else tmp_path
        if not path.is_file():
            raise ValueError(f"expected one weights file in {text}, got none")
        return path

    monkeypatch.setattr("swd_models.lora.files.download", download)
    assert zoo_module._steps("ann/experts").startswith("4: 8x8")
    monkeypatch.setattr("swd_models.lora.files.download", lambda text, names: download("a/b/c", names))
    assert zoo_module._steps("ann/none") == "not said"


@pytest.mark.parametrize(
    ("card", "line"),
    [
        ("---\na: [\n---\n# Mine\n", "whose head cannot be read"),
        ("---\nlicense: mit\n---\n\n## Measured\n\n| a | - |\n| b | 2026-01 |\n| kid | 1.5 |\n", ""),
    ],
)
def test_what_others_write_into_cards_breaks_nothing(tmp_path, finished, card, line):
    shutil.copy(finished / "lora" / "pytorch_lora_weights.safetensors", tmp_path)
    (tmp_path / "README.md").write_text(card)
    if line:
        with pytest.raises(ValueError, match=line):
            entry(str(tmp_path))
    else:
        assert entry(str(tmp_path)).measured == "kid 1.5"


def test_a_licence_of_its_own_is_called_by_its_name(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    config = json.loads((run / "config.json").read_text()) | {"model": "black-forest-labs/FLUX.1-dev"}
    (run / "config.json").write_text(json.dumps(config))
    assert entry(str(run)).licence == "flux-1-dev-non-commercial-license"


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ([], "expected run folders, published folders or OWNER/NAME of the hub, got none"),
        (["nowhere/at/all"], "expected a run folder, a published folder or OWNER/NAME of the hub, got nowhere/at/all"),
        (["ann/none"], "expected a card of ann/none on the hub, got none"),
    ],
)
def test_what_is_no_lora_is_one_line(argv, line, refused):
    assert line in refused(["zoo", *argv])


def test_a_zoo_of_two_experts_takes_the_steps_of_the_first(tmp_path, finished):
    for name in ("high-noise", "low-noise"):
        shutil.copytree(finished / "lora", tmp_path / name)
    assert zoo_module._steps(tmp_path).startswith("4: 8x8")
