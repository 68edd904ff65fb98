import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from swd_data import Skipped


def rows(skipped):
    return [json.loads(line) for line in skipped.path.read_text(encoding="utf-8").splitlines()]


def test_bad_samples_are_listed_and_counted_once(tmp_path):
    skipped = Skipped(tmp_path / "new" / "skipped.jsonl", total=100, share=0.02)
    assert (len(skipped), skipped.path.exists()) == (0, False)
    skipped.add("a.png", ValueError("expected an image,\n got é"))
    skipped.add("a.png", ValueError("again"))
    skipped.add("b.png", EOFError())
    assert rows(skipped) == [
        {"file_name": "a.png", "reason": "expected an image, got é"},
        {"file_name": "b.png", "reason": "EOFError"},
    ]
    assert str(skipped) == f"2 of 100 samples are bad and left out: see {skipped.path}"


def test_more_than_the_share_are_too_many(tmp_path, refused):
    skipped = Skipped(tmp_path / "skipped.jsonl", total=100, share=0.01)
    skipped.add("a.png", ValueError("expected an image, got a.png"))
    line = refused(skipped.path, skipped.add, "b.png", ValueError("expected an image, got b.png"))
    assert "at most 0.01 of 100 samples to be bad, got 2" in line
    assert line.endswith("the first: expected an image, got a.png")
    assert len(rows(skipped)) == 2


def test_none_may_be_bad_where_the_share_is_zero(tmp_path, refused):
    skipped = Skipped(tmp_path / "skipped.jsonl", total=100, share=0)
    assert refused("a.png", skipped.add, "a.png", ValueError("expected an image, got a.png")) == (
        "expected an image, got a.png"
    )
    assert len(rows(skipped)) == 1


def test_all_may_be_bad_where_the_share_is_one(tmp_path):
    skipped = Skipped(tmp_path / "skipped.jsonl", total=3, share=1)
    for name in "abc":
        skipped.add(name, ValueError("bad"))
    assert len(skipped) == 3


def test_names_that_are_no_unicode_are_listed(tmp_path):
    skipped = Skipped(tmp_path / "skipped.jsonl", total=1, share=1)
    skipped.add(os.fsdecode(b"caf\xe9.png"), ValueError("half \ud83d"))
    assert rows(skipped) == [{"file_name": "caf\\udce9.png", "reason": "half \\ud83d"}]


def test_threads_share_it(tmp_path):
    skipped = Skipped(tmp_path / "skipped.jsonl", total=40, share=1)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: skipped.add(f"{i}.png", ValueError("bad")), range(40)))
    assert {row["file_name"] for row in rows(skipped)} == {f"{i}.png" for i in range(40)}
    assert [path.name for path in tmp_path.iterdir()] == ["skipped.jsonl"]


def test_a_list_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    skipped = Skipped(tmp_path / "file" / "skipped.jsonl", total=1, share=1)
    with pytest.raises(OSError, match="file"):
        skipped.add("a.png", ValueError("bad"))
