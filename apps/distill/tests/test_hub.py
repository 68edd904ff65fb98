"""Data sets that `datasets` loads, on disk and as they come."""

import io
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from swd_distill.data import encode as encode_module, hub
from swd_distill.data.cache import Cache
from swd_distill.data.encode import fitting
from swd_distill.data.hub import _is_own

datasets = pytest.importorskip("datasets", reason="needs the extra swd-distill[datasets]")

NUM = 7
FORMS = ["pil", "bytes", "tar"]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    """Let `datasets` unpack below the test's folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(encode_module, "SHARD_SAMPLES", 2)


def _image(seed, width=64, height=64):
    pixels = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(pixels.to(torch.uint8).numpy())


def _png(image):
    image.save(file := io.BytesIO(), "png")
    return file.getvalue()


def _captions(num=NUM):
    return [f"caption {index % 5}" for index in range(num)]


def _write(folder, form, contents):
    """Write encoded images and captions as parquet, with columns of PIL images or plain bytes, or as a tar."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    pairs = list(zip(contents, _captions(len(contents)), strict=True))
    if form == "tar":
        with tarfile.open(folder / "0.tar", "w") as tar:
            for index, (content, text) in enumerate(pairs):
                for suffix, data in (("png", content), ("txt", text.encode())):
                    info = tarfile.TarInfo(f"{index:03d}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        return
    rows = datasets.Dataset.from_list([{"image": {"bytes": image, "path": None}, "caption": t} for image, t in pairs])
    if form == "pil":
        rows = rows.cast_column("image", datasets.Image())
    rows.to_parquet(folder / "0.parquet")


@pytest.fixture(scope="module")
def contents():
    return [_png(_image(index)) for index in range(NUM)]


@pytest.fixture
def expected(cli, argv, configure, tmp_path, contents):
    """Encode the same samples from an image folder."""
    folder = tmp_path / "folder"
    folder.mkdir()
    rows = ["file_name,text"]
    for index, (content, text) in enumerate(zip(contents, _captions(), strict=True)):
        (folder / f"{index}.png").write_bytes(content)
        rows.append(f"{index}.png,{text}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    cli(*argv("encode", tmp_path / "expected", "--data.images", folder))
    return Cache.open(tmp_path / "expected" / "cache", fitting(configure(tmp_path)))


def _assert_equal(found, expected, num=NUM):
    assert len(found) == num
    assert found.captions == expected.captions[:num]
    for size in ((8, 8), (16, 16)):
        torch.testing.assert_close(
            found.latents(range(num), size), expected.latents(range(num), size), rtol=0, atol=1e-5
        )
    for name, value in expected.cond(range(num)).items():
        torch.testing.assert_close(found.cond(range(num))[name], value, rtol=0, atol=1e-5)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_a_data_set_gives_the_cache_of_the_same_image_folder(
    cli, argv, configure, tmp_path, contents, expected, form, streaming
):
    _write(tmp_path / "data", form, contents)
    flags = ["--data.streaming", "--data.num-images", "100"] if streaming else []
    cli(*argv("encode", tmp_path / "run", "--data.images", tmp_path / "data", *flags))
    assert len(list((tmp_path / "run" / "cache").glob("shard-*"))) == 4
    _assert_equal(Cache.open(tmp_path / "run" / "cache", fitting(configure(tmp_path))), expected)


@pytest.mark.parametrize("num", [4, 5])
def test_a_stream_is_read_up_to_the_number_asked_for(cli, argv, configure, tmp_path, contents, expected, num):
    _write(tmp_path / "data", "bytes", contents)
    flags = ["--data.streaming", "--data.num-images", num]
    cli(*argv("encode", tmp_path / "run", "--data.images", tmp_path / "data", *flags))
    _assert_equal(Cache.open(tmp_path / "run" / "cache", fitting(configure(tmp_path))), expected, num)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_restart_decodes_no_image_of_a_finished_shard(
    cli, argv, configure, tmp_path, contents, expected, snapshot, streaming, monkeypatch
):
    data, cache = tmp_path / "data", tmp_path / "run" / "cache"
    opened, open_image = [], hub.open_image
    _write(data, "bytes", contents)
    flags = ["--data.streaming", "--data.num-images", "100"] if streaming else []
    args = argv("encode", tmp_path / "run", "--data.images", data, *flags)
    cli(*args)
    (cache / "shard-00002.safetensors").unlink()
    (cache / "manifest.json").unlink()
    before = snapshot(cache)
    monkeypatch.setattr(hub, "open_image", lambda *given, **how: (opened.append(1), open_image(*given, **how))[1])
    cli(*args)
    assert len(opened) == 2
    after = snapshot(cache)
    assert all(after[name] == item for name, item in before.items() if name.startswith("shard"))
    _assert_equal(Cache.open(cache, fitting(configure(tmp_path))), expected)


def test_a_table_whose_images_were_mended_is_encoded_again(cli, argv, tmp_path, contents):
    data, skipped = tmp_path / "data", tmp_path / "run" / "cache" / "skipped.jsonl"
    _write(data, "bytes", [b"no image", *contents[1:]])
    args = argv("encode", tmp_path / "run", "--data.images", data, "--data.max-bad", "0.5")
    cli(*args)
    assert skipped.is_file()
    _write(data, "bytes", contents)
    cli(*args)
    assert not skipped.exists()


def test_images_of_a_data_set_go_to_their_buckets(cli, argv, configure, tmp_path):
    sizes = [(64, 64), (64, 48), (70, 64), (56, 40)]
    _write(tmp_path / "data", "pil", [_png(_image(index, *size)) for index, size in enumerate(sizes)])
    schedule = "1000:8x8,602:12x12"
    flags = ("--schedule", schedule, "--data.buckets", "1:1", "4:3")
    cli(*argv("encode", tmp_path / "run", "--data.images", tmp_path / "data", *flags))
    config = configure(tmp_path)
    config = replace(config, data=replace(config.data, buckets=("1:1", "4:3")), schedule=schedule)
    cache = Cache.open(tmp_path / "run" / "cache", fitting(config))
    assert [among for _, among in cache.buckets] == [range(2), range(2, 4)]
    assert cache.captions == [f"caption {index}" for index in (0, 2, 1, 3)]
    assert cache.latents([2, 3], (10, 14)).shape == (2, 4, 10, 14)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [{"bytes": b"a", "path": None}], "words": ["a"]}, "image and text, prompt or caption"),
        ({"label": [1], "text": ["a"]}, "got label, text"),
        ({"image": [{"bytes": b"a", "path": None}], "text": [None]}, "expected a text in row 0 of"),
        ({"image": [{"bytes": b"a", "path": None}], "text": ["a"]}, "expected an image, got row 0 of"),
        (
            {"image": [None, {"bytes": _png(Image.new("RGB", (64, 64))), "path": None}], "text": ["a", "b"]},
            "expected an image, got none in row 0 of",
        ),
    ],
)
def test_a_data_set_without_images_or_texts_is_refused(refused, argv, tmp_path, columns, message):
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_dict(columns).to_parquet(tmp_path / "data" / "0.parquet")
    assert message in refused(argv("encode", tmp_path / "run", "--data.images", tmp_path / "data"), late=True)
    assert not list((tmp_path / "run").glob("cache/shard*"))


def test_what_datasets_cannot_load_is_refused(refused, argv, tmp_path):
    (tmp_path / "empty").mkdir()
    for images in (tmp_path / "empty", "owner/absent"):
        error = refused(argv("encode", tmp_path / "run", "--data.images", images), late=True)
        assert f"expected a data set that `datasets` loads, got {images}" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("named", ["private.png", "http://127.0.0.1:9/a.png", "hf://datasets/other/one@main/a.png"])
def test_rows_that_name_a_path_open_no_file_outside_and_no_address(refused, argv, tmp_path, contents, streaming, named):
    (tmp_path / "private.png").write_bytes(contents[0])
    named = named if "://" in named else str(tmp_path / named)
    rows = [{"image": {"bytes": content, "path": None}, "caption": "a"} for content in contents[1:]]
    rows.append({"image": {"bytes": None, "path": named}, "caption": "a"})
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "data" / "0.parquet")
    flags = ["--data.streaming", "--data.num-images", "100"] if streaming else []
    args = argv("encode", tmp_path / "run", "--data.images", tmp_path / "data", "--data.max-bad", "0", *flags)
    line = refused(args, late=True)
    assert f"expected an image of the data set in row {NUM - 1} of {tmp_path / 'data'}, got the path '{named}'" in line


def test_files_of_the_data_set_itself_are_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    own, data = ["data/a.png", "hub/datasets--a--b/blobs/c"], tmp_path / "data"
    assert all(_is_own(str(tmp_path / name), data) for name in own)
    assert not any(_is_own(str(tmp_path / name), data) for name in ("b.png", "data/../b.png", "hub/../b.png"))
    assert _is_own("hf://datasets/me/cats@abc/train/a.png", Path("me/cats"))
    assert not _is_own("hf://datasets/me/cats2@abc/a.png", Path("me/cats"))
