import csv
import io
import json

import pytest
from hypothesis import HealthCheck, given, reject, settings, strategies as st

from swd_data import output_names, read_pairs, read_prompts, read_rows, read_samples

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), max_size=12)
TRICKY = st.text(st.sampled_from("ab,;\t|\"'\n\r\u2028 \\é\U0001f98a"), max_size=12)
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be", "utf-32-be"])
COLUMNS = [("file_name", "text"), ("Prompt ", "id", "seed"), ("id", "Caption", "width px"), ("text",)]
fixed = settings(derandomize=True, max_examples=100, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("properties")


def put(path, text, encoding):
    mark = "\ufeff" if encoding.endswith("-be") else ""
    path.write_bytes((mark + text).encode(encoding))
    return path


def named(columns, cells):
    return {column.strip().casefold(): cell for column, cell in zip(columns, cells, strict=True)}


@st.composite
def tables(draw):
    """Draw a table and its text as Python's csv writes it, where its own reader finds the same in it."""
    columns = draw(st.sampled_from(COLUMNS))
    dialect = draw(st.sampled_from(["excel", "excel-tab", "unix", *",;\t|"]))
    options = {"delimiter": dialect} if len(dialect) == 1 else {"dialect": dialect}
    if len(dialect) == 1:
        options["quoting"] = draw(
            st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC, csv.QUOTE_NONE])
        )
        options["lineterminator"] = draw(st.sampled_from(["\n", "\r\n", "\r", "\n\n"]))
    rows = draw(st.lists(st.tuples(*[TEXT | TRICKY] * len(columns)), max_size=4))
    file = io.StringIO(newline="")
    try:
        csv.writer(file, **options).writerows([columns, *rows])
    except csv.Error:  # without quotes it cannot be written
        reject()
    delimiter = "\t" if dialect == "excel-tab" else dialect if len(dialect) == 1 else ","
    found = csv.reader(io.StringIO(file.getvalue(), newline=""), delimiter=delimiter, strict=True)
    try:
        same = [tuple(cells) for cells in found if cells] == [columns, *rows]
    except csv.Error:
        reject()
    if not same or (len(columns) == 1 and delimiter not in ",\t"):  # one column has no delimiter that could be found
        reject()
    return columns, rows, file.getvalue(), ".tsv" if delimiter == "\t" else ".csv"


@fixed
@given(tables(), ENCODINGS)
def test_what_csv_writes_is_read_back(folder, table, encoding):
    columns, rows, text, suffix = table
    path = put(folder / f"a{suffix}", text, encoding)
    assert [row for _, row in read_rows(path)] == [named(columns, cells) for cells in rows]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT, st.lists, max_leaves=4
)
ROWS = st.lists(st.dictionaries(st.sampled_from(["text", "file_name", "id", "a b"]), VALUES, min_size=1), max_size=4)


@fixed
@given(ROWS, ENCODINGS, st.booleans(), st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_what_json_writes_is_read_back(folder, rows, encoding, ascii_only, end):
    lines = [json.dumps(row, ensure_ascii=ascii_only) for row in rows]
    path = put(folder / "a.jsonl", end.join(lines) + end, encoding)
    assert [row for _, row in read_rows(path)] == rows
    if rows:
        path = put(folder / "a.json", json.dumps(rows, ensure_ascii=ascii_only, indent=1), encoding)
        assert read_rows(path) == list(enumerate(rows, start=1))
        by_name = {f"{index}.png": row for index, row in enumerate(rows)}
        path = put(folder / "b.json", json.dumps(by_name, ensure_ascii=ascii_only), encoding)
        assert [row for _, row in read_rows(path)] == [{"file_name": name} | row for name, row in by_name.items()]


@fixed
@given(st.lists(TEXT), ENCODINGS, st.sampled_from(["\n", "\r\n", "\r"]))
def test_lines_are_read_back(folder, lines, encoding, end):
    lines = [line.replace("\n", "").replace("\r", "") for line in lines]
    path = put(folder / "a.txt", end.join(lines), encoding)
    wanted = [(number, {"text": line.strip()}) for number, line in enumerate(lines, start=1) if line.strip()]
    assert read_rows(path) == wanted


STRUCTURE = st.sampled_from(
    [
        "text",
        "file_name",
        "prompt",
        "a.png",
        "../b",
        "1e999",
        "9" * 5000,
        "[" * 3000,
        "null",
        "\\ud83d",
        *'{}[]",:;\t|\n\r\\ ',
    ]
)
BYTES = st.one_of(
    st.binary(max_size=60),
    st.lists(STRUCTURE, max_size=14).map(lambda parts: "".join(parts).encode()),
    st.lists(STRUCTURE, max_size=9).map(lambda parts: ("\ufeff" + "".join(parts)).encode("utf-16-le")),
    st.tuples(
        st.sampled_from([b"text\n", b"id;text\n", b'{"text": "a"}\n', b"[", b'{"', b"\xff\xfe"]), st.binary()
    ).map(b"".join),
)


@settings(fixed, max_examples=250)
@given(BYTES, st.sampled_from([".txt", ".csv", ".tsv", ".jsonl", ".json"]))
def test_any_bytes_are_prompts_or_a_line(folder, attempt, data, suffix):
    path = folder / f"any{suffix}"
    path.write_bytes(data)
    prompts = attempt(path, read_prompts, path)
    assert prompts is None or all(prompt.strip() == prompt != "" and prompt.encode() for prompt in prompts)
    names = attempt(path, output_names, path)
    assert names is None or len(set(names)) == len(names)


@settings(fixed, max_examples=100)
@given(BYTES, st.sampled_from(["metadata.jsonl", "metadata.csv"]))
def test_any_metadata_are_samples_or_a_line(tmp_path_factory, attempt, data, name):
    folder = tmp_path_factory.getbasetemp() / "any" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.png").write_bytes(b"")
    (folder / name).write_bytes(data)
    attempt(folder / name, read_pairs, folder, "images")
    attempt(folder, read_samples, folder)


@settings(fixed, max_examples=60)
@given(st.binary(max_size=40))
def test_any_bytes_are_no_parquet(folder, attempt, data):
    pytest.importorskip("pyarrow")
    path = folder / "any.parquet"
    path.write_bytes(b"PAR1" + data + b"PAR1")
    assert attempt(path, read_prompts, path) is None
