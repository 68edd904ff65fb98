import json

import pytest

from swd_data import has_captions, metadata_of, read_pairs, read_samples, whole


def fill(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8", newline="")
    return folder


def pairs(samples):
    return [(sample.name, sample.prompt) for sample in samples]


@pytest.mark.parametrize("suffix", ["txt", "caption"])
def test_a_text_beside_each_image_is_its_caption(tmp_path, suffix):
    texts = {f"{i}__{suffix}": f"  prompt {i}\r\n\nof two lines \n" for i in (1, 2, 10)}
    fill(tmp_path, **texts, **{f"{i}__png": "" for i in (10, 2, 1)}, readme__txt="none", __2__png="", __2__txt="")
    wanted = [(f"{i}.png", f"prompt {i} of two lines") for i in (1, 2, 10)]
    assert has_captions(tmp_path, "images")
    assert pairs(read_pairs(tmp_path, "images")) == pairs(read_samples(tmp_path)) == wanted
    first = read_pairs(tmp_path, "images")[0]
    assert (first.path, first.where) == (tmp_path / "1.png", str(tmp_path / f"1.{suffix}"))
    assert not has_captions(tmp_path, "videos")


def test_captions_go_with_dotted_names_and_subfolders(tmp_path):
    fill(tmp_path / "a", cat_v1__5__png="", cat_v1__5__txt="a cat", clip__mp4="", clip__txt="a clip")
    assert pairs(read_pairs(tmp_path, "images")) == [("a/cat_v1.5.png", "a cat")]
    assert pairs(read_pairs(tmp_path, "videos")) == [("a/clip.mp4", "a clip")]


def test_the_image_without_a_caption_is_named_in_a_data_set_and_has_none_elsewhere(tmp_path, refused):
    fill(tmp_path, a__png="", a__TXT="a", b__png="")
    assert "expected b.txt beside" in refused(tmp_path / "b.png", read_pairs, tmp_path, kind="images")
    assert [sample.prompt for sample in read_samples(tmp_path)] == ["a", ""]


def test_captions_in_other_encodings_are_refused(tmp_path, refused):
    fill(tmp_path, a__png="")
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    assert "line 1 of" in refused(tmp_path / "a.txt", read_pairs, tmp_path, "images")
    (tmp_path / "a.txt").write_text("caf\xe9", encoding="utf-16")
    assert pairs(read_pairs(tmp_path, "images")) == [("a.png", "caf\xe9")]


def test_a_long_name_has_no_room_for_a_longer_suffix(tmp_path, refused):
    (tmp_path / ("a" * 251 + ".png")).write_bytes(b"")
    assert not has_captions(tmp_path, "images")
    refused(tmp_path, read_pairs, tmp_path, "images")


def test_metadata_gives_the_order_and_its_captions(tmp_path):
    rows = [("b.png", "second"), ("./a.png", ""), ("sub/c.png", " kept ")]
    lines = "".join(json.dumps({"file_name": name, "text": text}) + "\n" for name, text in rows)
    fill(tmp_path, metadata__jsonl=lines, a__png="", a__txt="beside")
    wanted = [("b.png", "second"), ("a.png", ""), ("sub/c.png", " kept ")]
    assert pairs(read_pairs(tmp_path, "images")) == wanted
    assert read_pairs(tmp_path, "images")[2].where == f"line 3 of {tmp_path / 'metadata.jsonl'}"
    assert metadata_of(tmp_path) == tmp_path / "metadata.jsonl"
    (tmp_path / "metadata.jsonl").unlink()
    fill(tmp_path, metadata__csv="File_Name;Caption\nb.png;a, b\n")
    assert pairs(read_pairs(tmp_path, "images")) == [("b.png", "a, b")]


@pytest.mark.parametrize(
    "row",
    [
        {"text": "a"},
        {"file_name": "", "text": "a"},
        {"file_name": "a.png"},
        {"file_name": "a.png", "text": 1},
        {"file_name": "../a.png", "text": "a"},
        {"file_name": "/a.png", "text": "a"},
        {"file_name": "a.png", "text": "\ud83d"},
        {"file_name": "\ud83d.png", "text": "a"},
        {},
    ],
)
def test_broken_rows_are_refused_with_their_line(tmp_path, refused, row):
    good = '{"file_name": "a.png", "text": "a"}\n'
    fill(tmp_path, metadata__jsonl=good + json.dumps(row) + "\n")
    assert "line 2 of" in refused(tmp_path / "metadata.jsonl", read_pairs, tmp_path, "images")


def test_folders_without_samples_get_a_line(tmp_path, refused):
    refused(tmp_path, read_pairs, tmp_path, "images")
    refused(tmp_path, read_samples, tmp_path)
    refused(tmp_path / "none", read_pairs, tmp_path / "none", "videos")
    assert not has_captions(tmp_path / "none", "images")
    fill(tmp_path, metadata__jsonl="\n")
    refused(tmp_path / "metadata.jsonl", read_pairs, tmp_path, "images")


def test_prompts_go_with_files_by_name_whatever_the_suffix(tmp_path):
    folder = fill(tmp_path / "out", a__png="", b__jpg="", c__5__png="")
    prompts = fill(tmp_path, p__csv="file_name,text\n./c.5,third\nb.webp,second\na.png,first\n") / "p.csv"
    wanted = [("a.png", "first"), ("b.jpg", "second"), ("c.5.png", "third")]
    assert pairs(read_samples(folder, prompts)) == wanted


def test_prompts_go_with_files_in_order(tmp_path, refused):
    folder = fill(tmp_path / "out", **{f"{i}__png": "" for i in (10, 9, 1, 2)})
    prompts = fill(tmp_path, p__txt="a\nb\n", q__txt="a\nb\nc\n", r__txt="\n")
    wanted = [("1.png", "a"), ("2.png", "a"), ("9.png", "b"), ("10.png", "b")]
    assert pairs(read_samples(folder, prompts / "p.txt")) == wanted
    assert "got 4" in refused(folder, read_samples, folder, prompts / "q.txt")
    refused(prompts / "r.txt", read_samples, folder, prompts / "r.txt")
    assert pairs(read_samples(folder)) == [(name, "") for name, _ in wanted]


@pytest.mark.parametrize("row", ['{"text": "a cat"}', '{"file_name": "", "text": "a cat"}'])
def test_one_row_without_a_name_does_not_let_the_others_names_be_ignored(tmp_path, refused, row):
    fill(tmp_path, cat__png="", dog__png="", owl__png="")
    rows = ['{"file_name": "owl.png", "text": "an owl"}', '{"file_name": "dog.png", "text": "a dog"}', row]
    (tmp_path / "prompts.jsonl").write_text("\n".join(rows))
    line = refused(tmp_path, read_samples, tmp_path, tmp_path / "prompts.jsonl")
    assert f"expected a file_name in row 3 of {tmp_path / 'prompts.jsonl'}, as other rows have, got none" in line


def test_names_that_do_not_fit_are_said(tmp_path, refused):
    folder = fill(tmp_path / "out", **{f"{i}__png": "" for i in range(12)})
    rows = "".join(f"{i},a\n" for i in range(7)) + f"{'9' * 5000},a\n"
    prompts = fill(tmp_path, p__csv="file_name,text\n" + rows) / "p.csv"
    assert "only in p.csv" in refused(prompts, read_samples, folder, prompts)
    prompts = fill(tmp_path, p__csv="file_name,text\n0,a\n") / "p.csv"
    assert "got 1, 2, 3 ... (11) only in out" in refused(prompts, read_samples, folder, prompts)
    prompts = fill(tmp_path, p__csv="file_name,text\n0,a\n0.png,b\n") / "p.csv"
    assert "got 0 twice" in refused(prompts, read_samples, folder, prompts)


def test_what_is_being_written_is_no_sample(tmp_path):
    fill(tmp_path, a__png="", a__txt="a")
    with whole(tmp_path / "b.png") as temporary:
        temporary.write_bytes(b"half")
        assert pairs(read_pairs(tmp_path, "images")) == pairs(read_samples(tmp_path)) == [("a.png", "a")]
