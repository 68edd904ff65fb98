import json

import pytest

from swd_data import check_text, output_names, read_prompts, read_rows

PROMPTS = ["a red circle, left of; a | blue square", "the artist\u2019s \u201cred\u201d circle \U0001f98a"]
KINDS = {
    ".txt": "\n".join(PROMPTS),
    ".csv": 'text\n"' + PROMPTS[0] + '"\n"the artist\u2019s \u201cred\u201d circle \U0001f98a"\n',
    ".tsv": "id\ttext\n" + "".join(f"{i}\t{prompt}\n" for i, prompt in enumerate(PROMPTS)),
    ".jsonl": "".join(json.dumps({"text": prompt}, ensure_ascii=False) + "\n" for prompt in PROMPTS),
    ".json": json.dumps([{"prompt": prompt} for prompt in PROMPTS], ensure_ascii=False),
}


@pytest.fixture
def put(tmp_path):
    def write(name, data):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    return write


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-be"])
def test_every_kind_is_read_in_every_encoding(put, suffix, encoding):
    mark = "\ufeff" if encoding.endswith("-be") else ""
    assert read_prompts(put("a" + suffix, (mark + KINDS[suffix]).encode(encoding))) == PROMPTS


@pytest.mark.parametrize("suffix", KINDS)
def test_other_encodings_are_refused_with_file_and_line(put, refused, suffix):
    text = KINDS[suffix].replace("\U0001f98a", "")
    path = put("a" + suffix, text.encode("cp1252"))
    line = text[: text.index("\u2019")].count("\n") + 1
    assert f"got byte 0x92 in line {line} of {path}: save it as UTF-8" in refused(path, read_prompts, path)
    path = put("b" + suffix, text.encode("utf-16-le"))
    assert "in line 1 of" in refused(path, read_prompts, path)
    path = put("c" + suffix, b"\xef\xbb\xbf" + text.encode("cp1252"))
    assert f"got byte 0x92 in line {line} of" in refused(path, read_prompts, path)
    path = put("d" + suffix, KINDS[suffix].encode("utf-16")[:-1])
    assert "save it as UTF-8" in refused(path, read_prompts, path)


def test_the_line_of_a_strange_character_is_counted_in_characters(put, refused):
    path = put("a.txt", "\ufeff\u0a0a\u010a\nb".encode("utf-16-le") + b"\x00\xd8")
    assert "in line 2 of" in refused(path, read_prompts, path)


def test_lines_end_at_newlines_alone(put):
    text = "a\u2028b\r\nc\x0bd\x0ce\x85f\r\n\r\ng\rh\n  i  \n"
    assert read_prompts(put("a.txt", text)) == ["a\u2028b", "c\x0bd\x0ce\x85f", "g", "h", "i"]
    assert [number for number, _ in read_rows(put("a.txt", text))] == [1, 2, 4, 5, 6]
    lines = '{"text": "a\u2028b"}\r\n\n{"text": "c\x85d"}\n'
    assert read_rows(put("a.jsonl", lines)) == [(1, {"text": "a\u2028b"}), (3, {"text": "c\x85d"})]
    assert read_prompts(put("a.csv", "text\na\u2028b\r\nc\x85d\n")) == ["a\u2028b", "c\x85d"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_are_found(put, delimiter):
    table = "id;text\n1;a small green square\n2;a red circle\n".replace(";", delimiter)
    wanted = [(2, {"id": "1", "text": "a small green square"}), (3, {"id": "2", "text": "a red circle"})]
    assert read_rows(put("a.csv", table)) == wanted
    quoted = f'text{delimiter}id\n"a, b; c | d\te ""f"""{delimiter}1\n'
    assert read_prompts(put("b.csv", quoted)) == ['a, b; c | d\te "f"']


@pytest.mark.parametrize("header", ["Prompt", " prompt ", "PROMPT", '"Prompt"', "Text", "caption"])
def test_headers_count_without_case_and_spaces(put, header):
    assert read_prompts(put("a.csv", f"{header}\na small green square\n")) == ["a small green square"]
    name = header.strip('"')
    assert read_prompts(put("a.jsonl", json.dumps({name: "a small green square"}))) == ["a small green square"]


ADVICE = ": rename yours, or save prompts alone as .txt"


def test_a_wrong_header_lists_what_was_found(put, refused):
    path = put("a.csv", "id;words;Seed\n1;a;2\n")
    assert refused(path, read_prompts, path).endswith("got id, words, seed" + ADVICE)
    path = put("b.csv", '\n"a red\ncircle\n')
    assert refused(path, read_prompts, path).endswith('got "a red' + ADVICE)
    path = put("c.csv", '""\n')
    assert refused(path, read_prompts, path).endswith("got no name" + ADVICE)
    path = put("d.jsonl", '{"words": "a", "id": 1}\n')
    assert refused(path, read_prompts, path).endswith("got words, id: rename yours")


@pytest.mark.parametrize(
    ("table", "line", "got"),
    [
        ("text\na red circle, a blue cross, green background\na square\n", 2, "got 3: put texts"),
        ("id,text\n1,a\n\n2\n", 4, "got 1: put texts"),
        ('id,text\n1,"a\nb"\n2,c,d\n', 4, "got 3: put texts"),
        ('text\na\n"b\nc\n', 3, "unexpected end of data in the record of line 3"),
        ('text\na\n"b"c\n', 3, "in the record of line 3"),
    ],
    ids=["comma", "short", "after lines", "open", "behind"],
)
def test_ragged_rows_and_open_quotes_are_refused_with_their_line(put, refused, table, line, got):
    message = refused(put("a.csv", table), read_prompts, put("a.csv", table))
    assert f"line {line}" in message
    assert got in message


def test_columns_that_come_twice_are_refused(put, refused):
    path = put("a.csv", "text,id,Text \na,1,b\n")
    assert "'text' twice" in refused(path, read_prompts, path)


def test_one_column_of_a_tsv_may_hold_commas(put):
    assert read_prompts(put("a.tsv", "text\na red circle, a blue cross; green\n")) == [
        "a red circle, a blue cross; green"
    ]


def test_fields_have_no_limit(put):
    long = "red circle, " * 12000
    assert read_prompts(put("a.csv", f'text\n"{long}"\n')) == [long.strip()]
    assert read_prompts(put("a.jsonl", json.dumps({"text": long}))) == [long.strip()]


def test_json_is_a_list_or_objects_by_name(put, refused):
    assert read_prompts(put("a.json", '["a", {"caption": ["b", "c"]}]')) == ["a", "b"]
    found = read_rows(put("b.json", '{"x.png": {"Prompt": "a"}, "y.png": "b"}'))
    assert found == [(1, {"file_name": "x.png", "prompt": "a"}), (2, {"file_name": "y.png", "text": "b"})]
    for text in ("[]", "{}", "1", "[1]", '["a", null]', '["a"', '{"a": 1}', '[{"text": " "}]', '[{"text": [1]}]'):
        path = put("c.json", text)
        refused(path, read_prompts, path)


def test_parquet_is_a_table(tmp_path, put, refused):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"Caption": ["a\u2028b", "c"], "id": [1, 2], "file_name": ["x", "y"]}), path)
    assert read_rows(path) == [(1, {"caption": "a\u2028b", "file_name": "x"}), (2, {"caption": "c", "file_name": "y"})]
    for data in (b"", b"PAR1", b"words\n", path.read_bytes()[:-9], path.read_bytes()[:9] + path.read_bytes()[40:]):
        broken = put("b.parquet", data)
        refused(broken, read_prompts, broken)


@pytest.mark.parametrize("suffix", [*KINDS, ".parquet"])
def test_files_without_prompts_get_a_line(put, refused, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = put("a" + suffix, " \n\n" if suffix != ".json" else "")
    refused(path, read_prompts, path)
    path.unlink()
    assert "does not exist" in refused(path, read_prompts, path)
    path.mkdir()
    assert "is a folder" in refused(path, read_prompts, path)


def test_other_kinds_are_refused(put, refused):
    for name in ("a.md", "a", "a.xlsx"):
        path = put(name, "a\n")
        assert "expected a file of .txt" in refused(path, read_prompts, path)


def test_half_a_character_is_refused_at_the_start(put, refused):
    path = put("a.jsonl", '{"text": "a"}\n{"text": "half \\ud83d"}\n')
    assert "line 2 of" in refused(path, read_prompts, path)
    path = put("b.jsonl", '{"text": "a", "file_name": "\\ud83d"}\n')
    assert "line 1 of" in refused(path, output_names, path)
    assert check_text("\U0001f98a", "") == "\U0001f98a"


def test_names_of_output_files_keep_their_dots(put):
    path = put("a.csv", "file_name,text\ncat_v1.5,a\ndog.PNG,b\n./x/clip.mp4,c\nx//d.e,d\n")
    assert output_names(path) == ["cat_v1.5", "dog", "x/clip", "x/d.e"]
    assert output_names(put("a.txt", "a\n")) is None
    assert output_names(put("b.csv", "id,text\n1,a\n")) is None


def test_names_of_output_files_are_such_on_every_system(put, refused):
    for names in ("Cat.png cat.png", "caf\u00e9.png cafe\u0301.png"):  # one file on Windows and macOS
        one, other = names.split()
        path = put("c.csv", f"file_name,text\n{one},a\n{other},b\n")
        assert "which is that of line" in refused(path, output_names, path)
    for name in ("sub\\..\\..\\evil.png", "C:/t/evil.png", "a:b.png"):
        path = put("d.csv", f"file_name,text\n{name},a\n")
        assert "that every system can write" in refused(path, output_names, path)


@pytest.mark.parametrize(
    "names",
    [
        ["a.png", "a.jpg"],
        ["a", "./a.png"],
        ["a", "b//../c"],
        ["a", "/b"],
        ["a", ""],
        ["a", "."],
        ["a", ".b"],
        ["a", None],
    ],
)
def test_names_that_meet_lead_out_or_are_hidden_are_refused(put, refused, names):
    rows = [{"file_name": name, "text": "a"} if name is not None else {"text": "a"} for name in names]
    path = put("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert f"line 2 of {path}" in refused(path, output_names, path)


def test_a_column_of_images_is_not_read_for_its_names(tmp_path):
    """As data sets of the hub have them: bytes and a path, by the name that elsewhere is a file's."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    images = pa.array([{"bytes": b"\x89PNG", "path": "0.png"}, {"bytes": b"\x89PNG", "path": "1.png"}])
    parquet.write_table(pa.table({"image": images, "text": ["a", "b"]}), tmp_path / "a.parquet")
    assert read_rows(tmp_path / "a.parquet") == [(1, {"text": "a"}), (2, {"text": "b"})]
