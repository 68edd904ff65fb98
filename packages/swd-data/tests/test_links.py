"""Names that texts and folders give lead to files within the folder, and nowhere else."""

import json

import pytest
from PIL import Image

from swd_data import find_files, list_files, read_pairs, read_samples
from swd_data.folders import inside_of


@pytest.fixture
def folder(tmp_path):
    """Make a data set, and a picture outside it."""
    data = tmp_path / "data"
    (data / "deep").mkdir(parents=True)
    for path in (data / "a.png", data / "deep" / "b.png", tmp_path / "private.png"):
        Image.new("RGB", (8, 8)).save(path)
    return data


def describe(folder, *names):
    rows = (json.dumps({"file_name": name, "text": "a cat"}) + "\n" for name in names)
    (folder / "metadata.jsonl").write_text("".join(rows))


@pytest.mark.parametrize(
    "name", ["../private.png", "deep/../../private.png", "/etc/hostname", "./../private.png", "a\0"]
)
def test_names_that_lead_out_are_refused(folder, name):
    describe(folder, "a.png", name)
    with pytest.raises(ValueError, match=r"expected a name within the folder in line 2 of .*metadata.jsonl"):
        read_pairs(folder, "images")


@pytest.mark.parametrize("target", ["../private.png", "/etc/hostname", "../none.png"])
def test_links_that_lead_out_are_refused(folder, target, monkeypatch):
    (folder / "link.png").symlink_to(target)
    describe(folder, "link.png")
    with pytest.raises(ValueError, match=r"expected files within .*data, got .*link.png, which leads to /"):
        read_pairs(folder, "images")
    (folder / "metadata.jsonl").unlink()
    if target != "../none.png":  # a link to nothing is no file
        for read in (find_files, read_samples):
            with pytest.raises(ValueError, match="SWD_FOLLOW_LINKS=1"):
                read(folder, kind="images")
    monkeypatch.setenv("SWD_FOLLOW_LINKS", "1")
    assert ("link.png" in find_files(folder, "images")) == (target != "../none.png")


def test_captions_beside_images_lead_nowhere_either(folder, tmp_path):
    (tmp_path / "secret.txt").write_text("a password")
    (folder / "a.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(ValueError, match="expected files within"):
        read_pairs(folder, "images")


def test_a_linked_folder_is_not_gone_through(folder, tmp_path):
    (tmp_path / "album").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "album" / "c.png")
    (folder / "linked").symlink_to(tmp_path / "album")
    assert list(find_files(folder, "images")) == ["a.png", "deep/b.png"]
    with pytest.raises(ValueError, match="expected files within"):
        inside_of(folder, "linked/c.png", "a list")


def test_links_within_the_folder_are_followed_and_the_folder_may_be_one(folder, tmp_path):
    (folder / "deep" / "c.png").symlink_to("../a.png")
    (tmp_path / "here").symlink_to(folder)
    assert list(find_files(tmp_path / "here", "images")) == ["a.png", "deep/b.png", "deep/c.png"]
    assert inside_of(tmp_path / "here", "deep/c.png", "a list").is_file()


def test_a_snapshot_in_the_hubs_cache_is_made_of_links(tmp_path):
    repository = tmp_path / "hub" / "datasets--someone--cats"
    snapshot = repository / "snapshots" / "0123" / "train"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    Image.new("RGB", (8, 8)).save(repository / "blobs" / "abc", "PNG")
    (snapshot / "a.png").symlink_to("../../../blobs/abc")
    assert list(list_files(snapshot, {".png"})) == ["a.png"]
    Image.new("RGB", (8, 8)).save(tmp_path / "hub" / "other.png")
    (snapshot / "b.png").symlink_to("../../../../other.png")
    with pytest.raises(ValueError, match=r"b.png"):
        list_files(snapshot, {".png"})
