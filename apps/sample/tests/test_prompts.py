import json

import pytest

from swd_sample.prompts import read_file_names, read_prompts


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.txt", "a red circle\n\n  a blue square, left  \n"),
        ("p.jsonl", '{"text": "a red circle"}\n\n{"prompt": " a blue square, left", "id": 3}\n'),
        ("p.jsonl", '{"caption": "a red circle"}\n{"text": "", "caption": "a blue square, left"}'),
        ("p.csv", 'id,prompt\n1,a red circle\n2,"a blue square, left"\n'),
    ],
)
def test_prompts_are_read_from_every_form(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_prompts(tmp_path / name) == ["a red circle", "a blue square, left"]


def test_prompts_in_other_alphabets_are_kept(tmp_path):
    (tmp_path / "p.txt").write_text("круг\n円\n", encoding="utf-8")
    assert read_prompts(tmp_path / "p.txt") == ["круг", "円"]


def test_a_line_separator_inside_a_json_string_is_no_new_line(tmp_path):
    row = json.dumps({"text": "a\u2028b"}, ensure_ascii=False)
    (tmp_path / "p.jsonl").write_text(row, encoding="utf-8")
    assert read_prompts(tmp_path / "p.jsonl") == ["a\u2028b"]


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    (tmp_path / "p.csv").write_text("text\na red circle\n", encoding="utf-8-sig")
    (tmp_path / "p.txt").write_text("a red circle\n", encoding="utf-8-sig")
    assert read_prompts(tmp_path / "p.csv") == read_prompts(tmp_path / "p.txt") == ["a red circle"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.txt", b"\n \n", "expected at least one prompt in .*p.txt"),
        ("p.csv", b"prompt\n", "expected at least one prompt in .*p.csv"),
        ("p.txt", b"\xff\xfe", "expected UTF-8 text in .*p.txt, got byte 0"),
        ("p.parquet", b"a", "expected prompts in a .txt, .jsonl, .csv file"),
        ("p.jsonl", b'{"text": "a"}\n{"text": "b"', r"expected JSON in line 2 of .*p.jsonl, got '\{\"text\": \"b\"'"),
        ("p.jsonl", b'{"text": "a"}\n\n{"words": "b"}', "in line 3 of"),
        ("p.jsonl", b'"a"', "in line 1 of"),
        ("p.jsonl", b'{"text": 7}', "in line 1 of"),
        ("p.csv", b"prompt\na\n\n \n", "in line"),
        ("p.csv", b"words\na\n", "in line 2 of"),
    ],
)
def test_a_bad_file_is_refused_and_its_line_named(tmp_path, name, text, message):
    (tmp_path / name).write_bytes(text)
    with pytest.raises(ValueError, match=message):
        read_prompts(tmp_path / name)


def test_an_absent_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="which does not exist"):
        read_prompts(tmp_path / "p.txt")


def test_file_names_of_prompts_are_kept_without_their_suffix(tmp_path):
    (tmp_path / "p.csv").write_text("file_name,text\n00001/samples/0003.png,a cat\na.b.jpg,a dog\n")
    assert read_file_names(tmp_path / "p.csv") == ["00001/samples/0003", "a.b"]
    (tmp_path / "p.jsonl").write_text('{"text": "a cat"}\n')
    (tmp_path / "p.txt").write_text("a cat\n")
    assert read_file_names(tmp_path / "p.jsonl") is read_file_names(tmp_path / "p.txt") is None


@pytest.mark.parametrize(
    ("second", "got"),
    [
        ('{"text": "b"}', "in line 2 of .*, got None"),
        ('{"file_name": "../b.png", "text": "b"}', r"got '\.\./b\.png'"),
        ('{"file_name": "/b.png", "text": "b"}', "got '/b.png'"),
        ('{"file_name": "a.jpg", "text": "b"}', "got that of line 1 again"),
    ],
)
def test_file_names_that_are_no_use_are_refused(tmp_path, second, got):
    (tmp_path / "p.jsonl").write_text('{"file_name": "a.png", "text": "a"}\n' + second)
    with pytest.raises(ValueError, match=got):
        read_file_names(tmp_path / "p.jsonl")
