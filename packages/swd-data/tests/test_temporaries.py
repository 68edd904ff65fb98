"""What stands beside a file while it is written: nobody's sample, nobody's link, and gone with its process."""

import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

import pytest

from swd_data import find_files, whole, whole_folder, write_text
from swd_data.whole import _host, _swept

HOST = _host()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def dead():
    """Give the number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def sweep(tmp_path):
    """Write to the folder as the next process would."""

    def call():
        _swept.clear()
        write_text(tmp_path / "next.txt", "text")
        return [name for name in names(tmp_path) if name != "next.txt"]

    return call


@pytest.mark.parametrize("name", ["a.png", "a.tmp.png", "noext", "é" * 120 + ".png", "a" * 251 + ".png"])
def test_a_temporary_is_no_sample_and_meets_none(tmp_path, name):
    path = tmp_path / name
    with whole(path) as temporary, whole(path) as another:
        assert temporary.name == another.name == name
        assert temporary.parent != another.parent
        assert temporary.parent.name.startswith(".")
        temporary.write_text("ours")
        another.write_text("ours")
        with pytest.raises(ValueError, match=r"expected images in .*, got none"):
            find_files(tmp_path, "images")
    assert names(tmp_path) == [name]


def test_a_temporary_is_not_written_through_a_link(tmp_path, monkeypatch):
    (tmp_path / "theirs").mkdir()
    theirs = tmp_path / "theirs" / "a.txt"
    theirs.write_text("theirs")
    monkeypatch.setattr(secrets, "token_hex", lambda size: "0" * 2 * size)
    with whole(tmp_path / "a.txt") as temporary:
        temporary.write_text("ours")
    temporary.parent.symlink_to(tmp_path / "theirs")
    (tmp_path / "a.txt").unlink()
    with pytest.raises(OSError, match=r"expected to write .*a.txt, got: .*exists"):
        write_text(tmp_path / "a.txt", "ours")
    assert theirs.read_text() == "theirs"


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path):
    (tmp_path / "theirs.txt").write_text("theirs")
    (tmp_path / "a.txt").symlink_to(tmp_path / "theirs.txt")
    write_text(tmp_path / "a.txt", "ours")
    assert [(tmp_path / name).read_text() for name in ("a.txt", "theirs.txt")] == ["ours", "theirs"]


def test_a_text_that_is_there_already_is_left_alone(tmp_path):
    write_text(tmp_path / "a.txt", "text")
    before = (tmp_path / "a.txt").stat()
    write_text(tmp_path / "a.txt", "text")
    assert (tmp_path / "a.txt").stat() == before
    write_text(tmp_path / "a.txt", "test")
    assert (tmp_path / "a.txt").read_text() == "test"


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are another matter there")
def test_a_mode_holds_whatever_was_there(tmp_path):
    (tmp_path / "a.txt").write_text("open to all")
    write_text(tmp_path / "a.txt", "secret", 0o600)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are another matter there")
def test_a_file_that_its_writer_kept_to_itself_is_as_any_other(tmp_path):
    (tmp_path / "any").touch()
    with whole(tmp_path / "a.safetensors") as temporary:
        os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "any").stat().st_mode


def test_what_dead_processes_left_is_removed_and_nothing_else(tmp_path, sweep, dead):
    kept = [
        f".a.png.{HOST}-{os.getpid()}-00000000.swd-tmp",  # of this process
        f".a.png.{HOST}-1-00000000.swd-tmp",  # of one that lives
        f".a.png.00000000-{dead}-00000000.swd-tmp",  # of another machine, of today
        f".a.png.{HOST}-{dead}-00000000.tmp",
        f"a.png.{HOST}-{dead}-00000000.swd-tmp",
        ".hidden",
        "a.tmp.png",
    ]
    stale = [
        f".a.png.{HOST}-{dead}-00000000.swd-tmp",
        f".noext.{HOST}-{dead}-ffffffff.swd-tmp",
        f".a.{HOST}-{dead}-1234abcd.swd-tmp",
    ]
    for name in kept + stale[:2]:
        (tmp_path / name).write_text("half")
    (tmp_path / stale[2]).mkdir()
    (tmp_path / stale[2] / "inside").write_text("half")
    assert sweep() == sorted(kept)


def test_what_another_machine_left_is_removed_after_a_day(tmp_path, sweep):
    left = tmp_path / ".a.png.00000000-1-00000000.swd-tmp"
    left.write_text("half")
    os.utime(left, (time.time() - 90_000,) * 2)
    assert sweep() == []


def test_a_stale_link_goes_and_what_it_leads_to_stays(tmp_path, sweep, dead):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "work").write_text("a night's work")
    (tmp_path / f".a.{HOST}-{dead}-00000000.swd-tmp").symlink_to(theirs)
    assert sweep() == ["theirs"]
    assert (theirs / "work").read_text() == "a night's work"


@pytest.mark.parametrize("name", ["a", "a.v1", "step-000010"])
def test_a_folder_that_was_to_be_replaced_comes_back_after_a_kill(tmp_path, name):
    """The process ends between the two renames: the old folder has left, the new one has not come."""
    code = f"""
import os
from pathlib import Path
from swd_data import whole_folder
path = Path({str(tmp_path / name)!r})
with whole_folder(path, "mark") as temporary:
    (temporary / "old").touch()
replace, calls = Path.replace, []
def once(self, target):
    if calls:
        os._exit(9)
    calls.append(target)
    return replace(self, target)
Path.replace = once
with whole_folder(path, "mark") as temporary:
    (temporary / "new").touch()
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert not (tmp_path / name).exists()
    assert len(names(tmp_path)) == 2
    _swept.clear()
    with whole_folder(tmp_path / "other", "mark"):
        pass
    assert names(tmp_path) == sorted([name, "other"])
    assert names(tmp_path / name) == ["mark", "old"]


@pytest.mark.parametrize("call", [1, 2])
def test_a_folder_stays_where_its_place_cannot_be_taken(tmp_path, monkeypatch, call):
    with whole_folder(tmp_path / "a", "mark") as temporary:
        (temporary / "old").touch()
    replace, calls = Path.replace, []

    def fails(self, target):
        calls.append(target)
        if len(calls) == call:
            raise PermissionError("no")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fails)

    def write():
        with whole_folder(tmp_path / "a", "mark") as temporary:
            (temporary / "new").touch()

    with pytest.raises(OSError, match="no"):
        write()
    assert (names(tmp_path), names(tmp_path / "a")) == (["a"], ["mark", "old"])
