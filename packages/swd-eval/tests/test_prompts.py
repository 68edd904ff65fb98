import json

import pytest

from swd_data import find_files, read_samples


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    (images / "deep").mkdir(parents=True)
    for name in ("10.png", "2.JPG", "deep/1.5.webp", "notes.md"):
        (images / name).write_bytes(b"")
    return images


def prompts_of(samples):
    return {sample.name: sample.prompt for sample in samples}


def test_images_are_found_at_any_depth_in_natural_order(folder):
    assert list(find_files(folder, "images")) == ["2.JPG", "10.png", "deep/1.5.webp"]


def test_videos_are_found_beside_images_and_have_prompts_of_their_own(folder, tmp_path):
    for name in ("10.mp4", "2.webm"):
        (folder / name).write_bytes(b"")
    assert list(find_files(folder, "videos")) == ["2.webm", "10.mp4"]
    (tmp_path / "p.csv").write_text("file_name,text\n2.mp4,two\n10.mp4,ten\n")
    assert prompts_of(read_samples(folder, tmp_path / "p.csv", "videos")) == {"2.webm": "two", "10.mp4": "ten"}


BY_NAME = {"2": "two", "10": "ten", "deep/1.5": "deep"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.csv", "file_name,caption\n10.jpg,ten\n2.png,two\ndeep/1.5.png,deep\n"),
        ("p.csv", '\ufeffimage,captions\n2.png,two\n10.jpg,ten\ndeep/1.5.jpg," deep "\n'),
        ("p.jsonl", "".join(json.dumps({"file_name": f"{k}.png", "text": v}) + "\n" for k, v in BY_NAME.items())),
        ("p.jsonl", "".join(json.dumps({"image": k, "captions": [v, "other"]}) + "\n" for k, v in BY_NAME.items())),
        ("p.json", json.dumps({k: {"category": "any", "prompt": v} for k, v in BY_NAME.items()})),
        ("p.json", json.dumps([{"name": k, "prompt": v} for k, v in BY_NAME.items()])),
        ("p.txt", "two\nten\ndeep\n"),
        ("p.csv", "prompt\ntwo\nten\ndeep\n"),
    ],
)
def test_prompts_of_every_kind_find_their_images(folder, tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    samples = read_samples(folder, tmp_path / name)
    assert prompts_of(samples) == {"2.JPG": "two", "10.png": "ten", "deep/1.5.webp": "deep"}


def test_prompts_come_from_parquet(folder, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    write_table(pyarrow.table({"id": [1, 2, 3], "caption": ["two", "ten", "deep"]}), tmp_path / "p.parquet")
    assert list(prompts_of(read_samples(folder, tmp_path / "p.parquet")).values()) == ["two", "ten", "deep"]


def test_a_folder_brings_its_own_metadata_or_none(folder):
    assert set(prompts_of(read_samples(folder)).values()) == {""}
    (folder / "metadata.csv").write_text("file_name,text\n2.JPG,two\n10.png,ten\ndeep/1.5.webp,deep\n")
    assert prompts_of(read_samples(folder))["10.png"] == "ten"


def test_several_images_in_a_row_belong_to_one_prompt(folder, tmp_path):
    (folder / "11.png").write_bytes(b"")
    (tmp_path / "two.txt").write_text("a cat\na dog\n")
    assert list(prompts_of(read_samples(folder, tmp_path / "two.txt")).values()) == ["a cat"] * 2 + ["a dog"] * 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.txt", "one\ntwo\n", "expected 2 images .* got 3"),
        ("p.txt", "one\n\nthree\n", "expected 2 images .* got 3"),
        ("p.csv", "a,b\n1,2\n", "expected a column named text or .* in the first line of .*p.csv, got a, b"),
        ("p.csv", "text\n", "got none"),
        ("p.jsonl", "{text}\n", "expected JSON"),
        ("p.jsonl", "[1]\n", "expected a JSON object in line 1"),
        ("p.csv", "file_name,text\n2.png,a\n10.png,b\n", r"got deep/1.5 \(1\) only in images"),
        ("p.csv", "file_name,text\n2.png,a\n10.png,b\ndeep/1.5.png,c\nx.png,d\n", r"got x \(1\) only in p.csv"),
        ("p.csv", "file_name,text\n2.png,a\n2.jpg,b\ndeep/1.5.png,c\n", "each name once"),
        ("p.xml", "<a/>", "expected a file of .txt, .csv"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(folder, tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_samples(folder, tmp_path / name)


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected images in"):
        read_samples(tmp_path)
    with pytest.raises(ValueError, match="expected videos in"):
        read_samples(tmp_path, kind="videos")
    with pytest.raises(ValueError, match=r"expected a folder, got .*absent"):
        read_samples(tmp_path / "absent")
