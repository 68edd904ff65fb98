import json

import pytest

import swd_data.claims
from swd_data import check_own, claim, own


def names(folder):
    return sorted(path.name for path in folder.glob("[!.]*"))


def write(folder, *files):
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        (folder / name).write_text("a night's work")


def test_our_files_may_be_written_again_and_others_never(tmp_path):
    out = tmp_path / "deep" / "out"
    own(out, ["table.md", "results.json"])
    write(out, "table.md", "results.json", "theirs.txt", "chart.png")
    own(out, ["results.json", "table.md"])
    with pytest.raises(ValueError, match=r"expected a folder without chart.png, got .*out, whose .* did not write"):
        own(out, ["table.md", "chart.png"])
    own(out, ["new.md"])
    assert check_own(out, ["table.md", "new.md"]) == {"table.md", "results.json", "new.md"}
    with pytest.raises(ValueError, match=r"theirs.txt"):
        check_own(out, ["theirs.txt"])
    assert (out / "theirs.txt").read_text() == "a night's work"


def test_nothing_is_made_of_a_folder_that_is_only_looked_at(tmp_path):
    assert check_own(tmp_path / "none", ["a"]) == set()
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dead link"])
def test_whatever_is_in_the_way_is_not_ours(tmp_path, kind):
    write(tmp_path / "theirs", "work")
    match kind:
        case "file":
            (tmp_path / "lora").write_text("")
        case "folder":
            write(tmp_path / "lora", "work")
        case "link":
            (tmp_path / "lora").symlink_to(tmp_path / "theirs")
        case "dead link":
            (tmp_path / "lora").symlink_to(tmp_path / "none")
    with pytest.raises(ValueError, match="expected a folder without lora"):
        own(tmp_path, ["lora"])


def test_an_empty_folder_or_a_link_to_one_is_not_in_the_way(tmp_path):
    """A run whose checkpoints shall go to another disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "disk")
    claim(tmp_path / "run" / "config.json", {"a": 1}, "a run", writes=["checkpoints"])


def test_a_file_as_out_is_one_line(tmp_path):
    (tmp_path / "out").write_text("theirs")
    with pytest.raises(ValueError, match=r"expected a folder as --out, got .*out, which is a file"):
        own(tmp_path / "out", ["a"])


def test_a_list_that_was_harmed_makes_nothing_ours(tmp_path):
    write(tmp_path, "table.md")
    for text in ('{"table.md": 1}', "[1, null]", '"table.md"'):
        (tmp_path / ".swd-files.json").write_text(text)
        with pytest.raises(ValueError, match=r"table.md"):
            own(tmp_path, ["table.md"])


def test_a_claim_takes_a_folder_that_is_empty_or_has_none_of_its_names(tmp_path):
    claim(tmp_path / "new" / "settings.json", {"a": 1}, "work")
    assert json.loads((tmp_path / "new" / "settings.json").read_text()) == {"a": 1}
    write(tmp_path / "images", "000000.png")
    with pytest.raises(ValueError, match=r"expected a folder without 000000.png, got .*images"):
        claim(tmp_path / "images" / "settings.json", {"a": 1}, "images")
    claim(tmp_path / "images" / "settings.json", {"a": 1}, "results", writes=["table.md"])
    assert names(tmp_path / "images") == ["000000.png", "settings.json"]
    write(tmp_path / "images", "table.md")
    claim(tmp_path / "images" / "settings.json", {"a": 1}, "results", writes=["table.md"])  # its own now


def test_a_claim_that_another_process_makes_in_between_is_compared(tmp_path, monkeypatch):
    """All processes of a launch claim a folder at once."""
    path = tmp_path / "cache" / "settings.json"
    check = swd_data.claims._check_free

    def later(folder, names):
        write(folder, "shard-00000.safetensors")
        path.write_text('{"a": 1}')
        check(folder, names)

    monkeypatch.setattr(swd_data.claims, "_check_free", later)
    claim(path, {"a": 1}, "a cache")
    path.unlink()
    with pytest.raises(ValueError, match="made with a 2, got a 1"):
        claim(path, {"a": 2}, "a cache")
