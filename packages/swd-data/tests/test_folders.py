import os
import random
import sys

import pytest
from hypothesis import given, settings, strategies as st

from swd_data import find_files, list_files, natural, save_image, stem, whole
from swd_data.folders import IMAGES, inside

CLUTTER = [
    "._1.png",
    ".hidden.png",
    "__MACOSX/1.png",
    "__MACOSX/._1.png",
    ".ipynb_checkpoints/1-checkpoint.png",
    "@eaDir/1.png",
    "thumbnails/1.png",
    "deep/.thumbnails/1.png",
    "Thumbs.db",
    "desktop.ini",
]


def fill(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_clutter_is_no_sample_and_order_is_natural(tmp_path):
    names = ["1.png", "2.PNG", "10.jpg", "a/1.webp", "a/b/2.tif"]
    fill(tmp_path, [*reversed(names), *CLUTTER, "readme.txt", "clip.mp4"])
    (tmp_path / "folder.png").mkdir()
    assert list(find_files(tmp_path, "images")) == names
    assert list(find_files(tmp_path, "images", deep=False)) == names[:3]
    assert list(find_files(tmp_path, "videos")) == ["clip.mp4"]
    assert list_files(tmp_path, {".txt"}) == {"readme.txt": tmp_path / "readme.txt"}


def test_clutter_above_the_folder_does_not_matter(tmp_path):
    fill(tmp_path, [".cache/thumbnails/1.png"])
    assert list(find_files(tmp_path / ".cache" / "thumbnails", "images")) == ["1.png"]


def test_natural_order():
    names = ["", "0", "00", "1", "01", "1.png", "01.png", "2", "9a", "10", "10a", "010a", "a", "a1", "a2", "a10", "b"]
    shuffled = random.Random(0).sample(names, len(names))
    assert sorted(shuffled, key=natural) == sorted(names, key=natural)
    assert [name for name in sorted(shuffled, key=natural) if name[:1] == "a"] == ["a", "a1", "a2", "a10"]
    assert sorted(["10.png", "9.png", "1.png"], key=natural) == ["1.png", "9.png", "10.png"]
    assert len({tuple(natural(name)) for name in names}) == len(names)
    natural("9" * 10000)  # more digits than Python turns into an integer


@settings(derandomize=True, max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 10**30), unique=True))
def test_numbers_sort_as_numbers(numbers):
    names = sorted((f"frame {number}.png" for number in numbers), key=natural)
    assert names == [f"frame {number}.png" for number in sorted(numbers)]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("cat_v1.5", "cat_v1.5"),
        ("cat_v1.5.png", "cat_v1.5"),
        ("a/b.JPEG", "a/b"),
        ("clip.mp4", "clip"),
        ("a.b.c", "a.b.c"),
        ("a.png.png", "a.png"),
        ("a.txt", "a.txt"),
        (".png", ".png"),
        ("", ""),
    ],
)
def test_only_suffixes_of_images_and_videos_are_cut(name, wanted):
    assert stem(name) == wanted


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.png", "a/../../b.png", "a\0.png", "\ud83d.png"])
def test_names_that_lead_out_are_refused(name, refused):
    refused("line 3 of a.csv", inside, name, "line 3 of a.csv")


def test_names_are_returned_in_their_shortest_form():
    assert [inside(name, "") for name in ["./a.png", "a//b.png", "a/./b.png", "a..png"]] == [
        "a.png",
        "a/b.png",
        "a/b.png",
        "a..png",
    ]


def test_folders_without_samples_get_a_line(tmp_path, refused):
    fill(tmp_path, ["readme.txt"])
    assert "expected images" in refused(tmp_path, find_files, tmp_path, "images")
    assert "expected videos" in refused(tmp_path, find_files, tmp_path, "videos")
    assert "does not exist" in refused(tmp_path / "none", find_files, tmp_path / "none", "images")
    assert "expected a folder" in refused(tmp_path / "readme.txt", list_files, tmp_path / "readme.txt", IMAGES)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_file_names_that_are_no_unicode_are_refused(tmp_path, refused):
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")
    assert "\\udce9" in refused(tmp_path, find_files, tmp_path, "images")


def test_what_is_being_written_is_no_sample(tmp_path):
    image = pytest.importorskip("PIL.Image").new("RGB", (4, 4))
    save_image(image, tmp_path / "a.png")
    with whole(tmp_path / "b.png") as temporary:
        save_image(image, temporary)
        assert temporary.suffix == ".png"
        assert list(find_files(tmp_path, "images")) == ["a.png"]
    assert list(find_files(tmp_path, "images")) == ["a.png", "b.png"]


PARTS = st.sampled_from(["a", "B", "1", "02", "10", ".git", "__MACOSX", "é", "a b", "@eaDir", "x.y"])
FOLDERS = st.lists(PARTS, max_size=3).map("/".join)
TREES = st.sets(st.tuples(FOLDERS, PARTS, st.sampled_from([".png", ".JPG", ".txt", ".mp4", ""])), max_size=12)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(TREES)
def test_any_tree_gives_its_images_once_and_in_order(tmp_path_factory, tree):
    folder = tmp_path_factory.mktemp("tree")
    names = {f"{parent}/{name}_{suffix}".lstrip("/"): (f"{parent}/{name}", suffix) for parent, name, suffix in tree}
    fill(folder, names)
    found = list(list_files(folder, IMAGES))
    hidden = {".git", "__MACOSX", "@eaDir"}
    assert set(found) == {
        name
        for name, (path, suffix) in names.items()
        if suffix in {".png", ".JPG"}
        and not path.rpartition("/")[2].startswith(".")
        and not hidden & set(name.split("/"))
    }
    assert found == sorted(found, key=natural)
