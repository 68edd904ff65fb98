"""LoRAs of the hub: what the cache holds loads offline, and what is out of reach is one line."""

import pytest
import torch
from safetensors.torch import save_file

from swd_models.lora.files import FILES, find_lora
from swd_models.lora.loading import split_weight

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache as the hub's client writes it, without the hub."""
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def put(repository, *names):
        folder = cache / f"models--{repository.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs" / "main").write_text(COMMIT)
        for name in names:
            file = folder / "snapshots" / COMMIT / name
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file({"a": torch.ones(1)}, file)
        return folder / "snapshots" / COMMIT

    return put


def test_a_repository_gives_its_lora(hub):
    folder = hub("someone/lora", FILES["peft"])
    assert find_lora("someone/lora") == folder / FILES["peft"]
    other = hub("someone/style", "style.safetensors")
    assert find_lora("someone/style") == other / "style.safetensors"


def test_a_file_of_a_repository_is_named(hub):
    folder = hub("someone/many", "one.safetensors", "deep/two.safetensors")
    assert find_lora("someone/many/one.safetensors") == folder / "one.safetensors"
    assert find_lora("someone/many/deep/two.safetensors") == folder / "deep" / "two.safetensors"
    assert split_weight("someone/many/deep/two.safetensors:0.5") == ("someone/many/deep/two.safetensors", 0.5)


@pytest.mark.parametrize("name", ["nobody/nothing", "nobody/nothing/file.safetensors"])
def test_what_is_out_of_reach_is_one_line(hub, name):
    with pytest.raises(ValueError, match="neither here nor reachable") as error:
        find_lora(name)
    assert "\n" not in str(error.value)
    assert "hf auth login" in str(error.value)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["a.safetensors", "b.safetensors", "deep/c.safetensors"], "a.safetensors, b.safetensors"),
        (["README.md", "deep/c.safetensors"], "none"),
    ],
)
def test_several_files_must_be_named(hub, monkeypatch, files, found):
    hub("someone/many")
    (hub("someone/many") / "").mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda self, repository: files)
    with pytest.raises(ValueError, match=f"expected one weights file in someone/many, got {found}: name it"):
        find_lora("someone/many")


def test_a_path_is_no_hub_id(tmp_path, monkeypatch, hub):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some" / "folder").mkdir(parents=True)
    for text in ("some/folder", "loras/style.safetensors", "style", "/a/b", "./a/b", "a/b/c"):
        with pytest.raises(ValueError, match="expected a LoRA file, or a folder"):
            find_lora(text)
