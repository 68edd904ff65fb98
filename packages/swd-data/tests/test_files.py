import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from swd_data import (
    checksum,
    claim,
    read_json,
    read_object,
    read_text,
    whole,
    whole_folder,
    write_json,
    write_text,
    write_whole,
)


def write_half(file, error):
    file.write_text("half")
    raise error


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_whole_replaces_what_was_there(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with whole(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        assert (tmp_path / "a.txt").read_text() == "old"
        assert temporary.parent.parent == tmp_path
    assert (tmp_path / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("of torch")])
def test_whole_leaves_nothing_behind_and_names_the_file(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(OSError, match=r"expected to write .*a.txt, got: ") as caught:
        write_whole(tmp_path / "a.txt", lambda file: write_half(file, error))
    assert str(error) in str(caught.value)
    assert caught.value.__cause__ is error
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


@pytest.mark.parametrize(
    "error", [KeyError("a"), TypeError("fault"), ValueError("expected a, got b"), KeyboardInterrupt()]
)
def test_whole_lets_other_errors_through(tmp_path, error):
    with pytest.raises(type(error)) as caught:
        write_whole(tmp_path / "a.txt", lambda file: write_half(file, error))
    assert caught.value is error
    assert names(tmp_path) == []


def test_whole_names_the_file_where_there_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "none" / "a.txt", tmp_path / "file" / "a.txt", tmp_path / "folder"):
        with pytest.raises(OSError, match=f"expected to write {path}, got: "):
            write_text(path, "text")
    assert names(tmp_path) == ["file", "folder"]


def test_a_whole_folder_takes_the_place_of_one_of_its_kind(tmp_path):
    for name in ("old.txt", "new.txt"):
        with whole_folder(tmp_path / "a", ".mine") as temporary:
            (temporary / name).write_text(name)
            assert not (tmp_path / "a" / name).exists()
    assert (names(tmp_path), names(tmp_path / "a")) == (["a"], [".mine", "new.txt"])


@pytest.mark.parametrize("where", ["theirs", "link", "file", ".", ".."])
def test_a_whole_folder_never_takes_the_place_of_others_files(tmp_path, monkeypatch, where):
    theirs = tmp_path / "theirs" / "deep"
    theirs.mkdir(parents=True)
    (theirs / "work.txt").write_text("a night's work")
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    (tmp_path / "file").write_text("a file")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(theirs if where.startswith(".") else tmp_path)

    def write():
        with whole_folder(Path(where), ".mine") as temporary:
            (temporary / "new.txt").write_text("new")

    with pytest.raises(ValueError, match=r"expected a new .*folder, got "):
        write()
    assert sorted(tmp_path.rglob("*")) == before
    assert (theirs / "work.txt").read_text() == "a night's work"


@pytest.mark.parametrize("error", [OSError("full"), KeyError("fault")])
def test_a_whole_folder_leaves_nothing_behind(tmp_path, error):
    with whole_folder(tmp_path / "a", ".mine") as temporary:
        (temporary / "old.txt").write_text("old")

    def write():
        with whole_folder(tmp_path / "a", ".mine") as temporary:
            write_half(temporary / "new.txt", error)

    with pytest.raises(
        type(error), match=r"expected to write .*a, got: full" if isinstance(error, OSError) else "fault"
    ):
        write()
    assert (names(tmp_path), names(tmp_path / "a")) == (["a"], [".mine", "old.txt"])


def test_long_names_are_written(tmp_path):
    for name in ("é" * 120 + ".txt", "a" * 251 + ".txt"):
        write_text(tmp_path / name, "text")
        assert read_text(tmp_path / name) == "text"


def test_texts_keep_their_line_ends(tmp_path):
    write_text(tmp_path / "a.txt", "a\r\nb\nc\rd\u2028é")
    assert (tmp_path / "a.txt").read_bytes() == "a\r\nb\nc\rd\u2028é".encode()
    assert read_text(tmp_path / "a.txt") == "a\r\nb\nc\rd\u2028é"


def test_json_is_read_back(tmp_path):
    value = {"a": [1, 2.5, None, "é", {"b": True}]}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == read_object(tmp_path / "a.json") == value
    assert "é" in (tmp_path / "a.json").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert read_json(tmp_path / "a.json") == value


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b'{"a": }', b"[1] 2", b'{"a": 1' + b"0" * 5000 + b"}", b"[" * 100000, b"\xff", b"\0", b"'a'"],
    ids=["empty", "open", "gap", "more", "huge integer", "deep", "byte", "zero", "quotes"],
)
def test_broken_json_gets_a_line(tmp_path, refused, data):
    (tmp_path / "a.json").write_bytes(data)
    assert len(refused(tmp_path / "a.json", read_json, tmp_path / "a.json")) < 400
    refused(tmp_path / "a.json", read_object, tmp_path / "a.json", "settings")


def test_files_that_are_none_get_a_line(tmp_path, refused):
    assert "does not exist" in refused(tmp_path / "a", read_json, tmp_path / "a")
    assert "which is a folder" in refused(tmp_path, read_text, tmp_path)
    (tmp_path / "a").write_text("[1]")
    assert "expected settings in" in refused(tmp_path / "a", read_object, tmp_path / "a", "settings")


def test_checksum_is_sha256(tmp_path):
    (tmp_path / "a").write_bytes(bytes(range(256)) * 5000)
    assert checksum(tmp_path / "a") == hashlib.sha256(bytes(range(256)) * 5000).hexdigest()


def test_a_folder_knows_what_it_was_made_with(tmp_path, refused):
    path = tmp_path / "cache" / "settings.json"
    settings = {"model": "flux", "path": Path("x"), "sizes": (1, 2), "train": {"lr": 1e-4, "seed": 0}}
    claim(path, settings, "a cache")
    claim(path, settings, "a cache")
    assert json.loads(path.read_text())["train"] == {"lr": 1e-4, "seed": 0}
    other = settings | {"train": {"lr": 2e-4, "seed": 0}}
    line = refused(path.parent, claim, path, other, "a cache")
    assert "a cache" in line
    assert "train.lr 0.0002, got train.lr 0.0001" in line
    claim(path, other, "a cache", ignore={"train.lr"})
    refused(path.parent, claim, path, settings | {"new": 1}, "a cache")
    claim(path, settings | {"new": 1}, "a cache", before={})
    refused(path.parent, claim, path, {"model": "flux"}, "a cache")
    assert "the given model" in refused(path.parent, claim, path, settings | {"model": "m" * 99}, "a cache", {"none"})
    path.write_text("{")
    refused(path, claim, path, settings, "a cache")


def test_the_package_imports_no_extra():
    code = "import sys, swd_data; print(sorted({'av', 'pyarrow', 'torch'} & set(sys.modules)))"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == "[]"
