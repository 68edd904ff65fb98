import csv
import errno
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from swd_data import open_image, read_frames, read_json, read_prompts, reading
from swd_data.errors import is_expected, is_of_a_library


class SafetensorError(Exception):
    """Looks as that of safetensors does, which need not be there."""


SafetensorError.__module__ = "safetensors_rust"


def raise_in(error, *also, what="a LoRA"):
    with reading(Path("a.safetensors"), what, *also):
        raise error


@pytest.mark.parametrize(
    "error", [SafetensorError("header\n too large"), OSError("cut"), UnicodeError("u"), csv.Error("c")]
)
def test_errors_of_libraries_name_the_file(refused, error):
    line = refused("a.safetensors", raise_in, error)
    assert line.startswith("expected a LoRA, got a.safetensors, which cannot be read: ")
    assert "header too large" in line or not isinstance(error, SafetensorError)
    with pytest.raises(ValueError, match="which cannot be read") as caught:
        raise_in(error)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ESTALE])
def test_a_fault_of_the_machine_says_nothing_about_the_file(tmp_path, monkeypatch, number):
    (tmp_path / "a.png").write_bytes(b"")

    def fail(*args, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(OSError, match=r"a\.png") as caught:
        open_image(tmp_path / "a.png")
    assert caught.value.errno == number


def test_other_errors_pass_unless_named(refused):
    for error in (KeyError("a"), ValueError("fault"), ValueError("expected a, got b")):
        with pytest.raises(type(error)) as caught:
            raise_in(error)
        assert caught.value is error
    refused("a.safetensors", raise_in, KeyError("a"), KeyError)
    with pytest.raises(ValueError, match=r"^expected a, got b$"):
        raise_in(ValueError("expected a, got b"), ValueError)


def test_real_errors_of_real_libraries(tmp_path, refused):
    for name, read in (("a.json", read_json), ("a.csv", read_prompts)):
        (tmp_path / name).write_bytes(b"\xff\xfe\xff")
        refused(tmp_path / name, read, tmp_path / name)
    (tmp_path / "a").write_bytes(b"words")
    av = pytest.importorskip("av")
    with pytest.raises(av.FFmpegError) as caught:
        av.open(str(tmp_path / "a"))
    assert is_of_a_library(caught.value)
    refused(tmp_path / "a", read_frames, tmp_path / "a", 1)
    assert not is_expected(caught.value)


def test_a_broken_safetensors_file_is_one_line(tmp_path, refused):
    safetensors = pytest.importorskip("safetensors")
    (tmp_path / "a.safetensors").write_bytes(b"\xff" * 20)

    def read():
        with reading(tmp_path / "a.safetensors", "a LoRA"), safetensors.safe_open(tmp_path / "a.safetensors", "numpy"):
            pass

    refused(tmp_path / "a.safetensors", read)


def test_an_extra_that_is_not_installed_is_named(tmp_path, refused, monkeypatch):
    for module in ("av", "pyarrow"):
        monkeypatch.setitem(sys.modules, module, None)
    for name, read, extra in (
        ("a.mp4", lambda path: read_frames(path, 1), "video"),
        ("a.parquet", read_prompts, "parquet"),
    ):
        (tmp_path / name).write_bytes(b"")
        assert refused(tmp_path / name, read, tmp_path / name).endswith(f": pip install 'swd-data[{extra}]'")
