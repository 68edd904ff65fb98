"""`swd-eval images --prompts` and `swd-eval study build --prompts` read the files that people have, and alike."""

import json

import pytest

from swd_eval.cli import main
from swd_eval.study.pairs import Key

TEXTS = ["the artist\u2019s red circle; blue", "line one\u2028line two"]
CSV = "Prompt ;id\n" + "".join(f'"{text}";{index}\n' for index, text in enumerate(TEXTS))
FILES = {
    "utf16.txt": "\n".join(TEXTS).encode("utf-16"),
    "marked.txt": "\n".join(TEXTS).encode("utf-8-sig"),
    "crlf.txt": "\r\n".join(TEXTS).encode(),
    "semicolon.csv": CSV.encode(),
    "tabs.tsv": CSV.replace('";', '"\t').replace("Prompt ;", "Prompt \t").encode(),
    "list.json": json.dumps(TEXTS).encode(),
    "objects.json": json.dumps([{"caption": text} for text in TEXTS]).encode(),
    "names.json": json.dumps({f"{index}.jpg": {"prompt": text} for index, text in enumerate(TEXTS)}).encode(),
    "lines.jsonl": "".join(json.dumps({"Text": text}, ensure_ascii=False) + "\n" for text in TEXTS).encode(),
}
BROKEN = {
    "cp1252.csv": ("text\nthe artist\u2019s circle\nb\n".encode("cp1252"), "in line 2 of"),
    "ragged.csv": (b"text\na red circle, a blue cross\nb\n", "got 2: put texts that hold it in quotes"),
    "quote.csv": (b'text\n"a red circle\nb\n', "expected a table in"),
    "half.jsonl": (b'{"text": "\\ud83d"}\n{"text": "b"}\n', "half a character"),
    "broken.json": (b'["a", ', "expected JSON in"),
    "three.txt": (b"a\nb\nc\n", "expected 3 images"),
}


@pytest.fixture
def runs(tmp_path, write_run):
    """Give two runs of two images, without prompts."""
    folders = [write_run(tmp_path / name, ["0", "1"], ["", ""], seed=seed) for seed, name in enumerate("ab")]
    for folder in folders:
        (folder / "metadata.jsonl").unlink()
    return folders


def read_by_images(runs, path, *given):
    main(["images", str(runs[0]), "--out", str(path), "--metrics", "diagnostics", "--device", "cpu", *map(str, given)])
    return {row["file_name"][0]: row["prompt"] for row in map(json.loads, (path / "samples.jsonl").open())}


def read_by_study(runs, path, *given):
    main(["study", "build", *map(str, runs), "--out", str(path), *map(str, given)])
    return {pair.item: pair.prompt for pair in Key.read(path).pairs}


@pytest.mark.parametrize("name", FILES)
def test_prompts_are_read_and_by_all_alike(runs, tmp_path, name):
    (tmp_path / name).write_bytes(FILES[name])
    given = ("--prompts", tmp_path / name)
    expected = {"0": TEXTS[0], "1": TEXTS[1]}
    assert read_by_images(runs, tmp_path / "images", *given) == expected
    assert read_by_study(runs, tmp_path / "study", *given) == expected


@pytest.mark.parametrize("name", BROKEN)
def test_prompts_that_are_broken_are_one_line_with_the_file(runs, tmp_path, capsys, name):
    content, message = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    for read in (read_by_images, read_by_study):
        with pytest.raises(SystemExit) as stop:
            read(runs, tmp_path / "out", "--prompts", tmp_path / name)
        error = capsys.readouterr().err
        assert stop.value.code == 2
        assert error.count("\n") == 1
        assert message in error
        assert name.replace("three.txt", "images") in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("beside", [".txt", ".caption", "metadata.csv"])
def test_captions_in_the_folder_are_prompts(runs, tmp_path, beside):
    expected = {"0": "a cat", "1": "a dog, asleep"}
    for folder in runs:
        if beside == "metadata.csv":
            (folder / beside).write_text('file_name,text\n1.png,"a dog, asleep"\n0.png,a cat\n')
            continue
        for name, text in expected.items():
            (folder / f"{name}{beside}").write_text(text)
    assert read_by_images(runs, tmp_path / "images") == expected
    assert read_by_study(runs, tmp_path / "study") == expected


def break_result(runs, tmp_path, name, content):
    out = tmp_path / "results"
    read_by_images(runs, out)
    (out / name).write_bytes(content)
    return out


@pytest.mark.parametrize(
    ("name", "content"),
    [("results.json", b"{"), ("results.json", b"[]"), ("results.json", b'{"results": []}'), ("samples.jsonl", b"{\n"),
     ("samples.jsonl", b'{"a": 1}\n'), ("samples.jsonl", b"")],
)  # fmt: skip
def test_results_that_are_broken_are_one_line_with_the_file(runs, tmp_path, capsys, name, content):
    out = break_result(runs, tmp_path, name, content)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["report", str(out), str(out)])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.count("\n") == 1
    assert str(out / name) in error


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tone.jsonl", b'{"brightness": "high"}\n'),
        ("tone.json", b"{"),
        ("spectrum.f32", b"123"),
        ("settings.json", b""),
    ],
)
def test_rows_that_are_broken_are_one_line_with_the_file(runs, tmp_path, capsys, name, content):
    out = break_result(runs, tmp_path, name, content)
    with pytest.raises(SystemExit) as stop:
        read_by_images(runs, out)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.count("\n") == 1
    assert str(out / name) in error


@pytest.mark.parametrize("content", [b"", b"[]", b'{"runs": 3}', b'{"pairs": [{}]}'])
def test_a_key_that_is_broken_is_one_line_with_the_file(tmp_path, capsys, content):
    (tmp_path / "key.json").write_bytes(content)
    with pytest.raises(SystemExit) as stop:
        main(["study", "report", str(tmp_path)])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.count("\n") == 1
    assert str(tmp_path / "key.json") in error
