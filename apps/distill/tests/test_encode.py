import json
import sys
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from swd_distill.data import encode as encode_module, imagefolder
from swd_distill.data.cache import Cache
from swd_distill.data.encode import fitting
from swd_distill.data.encoder import Encoder
from swd_distill.data.samples import to_pixels
from swd_distill.presets import PRESETS
from swd_models import load_latents

SIZES = [(8, 8), (10, 10), (12, 12), (16, 16)]


def _noise(width, height, seed=0):
    pixels = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    return Image.fromarray(pixels.numpy())


def _pixels(images):
    """Turn images into numbers in [-1, 1], in NumPy."""
    return (
        torch.from_numpy(np.stack([np.asarray(image, np.float32) for image in images]).transpose(0, 3, 1, 2)) / 127.5
        - 1
    )


def _encode_by_hand(images, size):
    """Average the pixels under each new one, then encode."""
    latents = load_latents("embedded")
    with torch.no_grad():
        return latents.encode(interpolate(_pixels(images), (size[0] * 4, size[1] * 4), mode="area"))


@pytest.fixture
def folder(tmp_path):
    """Make an image folder of a user: three images, two of them larger than needed."""
    path = tmp_path / "mine"
    (path / "sub").mkdir(parents=True)
    for name, size in {"a.png": (64, 64), "sub/b.png": (128, 64), "c.png": (96, 192)}.items():
        _noise(*size).save(path / name)
    return path


def _write_jsonl(folder, names=("a.png", "sub/b.png", "c.png")):
    rows = (json.dumps({"file_name": name, "text": f"image, {name}"}) for name in names)
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize("size", SIZES)
def test_latents_of_every_size_are_those_of_the_downscaled_pixels(finished, open_cache, size):
    images = [Image.open(finished / "images" / f"{i:06d}.png") for i in range(6)]
    torch.testing.assert_close(open_cache().latents(range(6), size), _encode_by_hand(images, size), rtol=0, atol=1e-4)


def test_text_is_that_of_the_stock_pipeline(open_cache, stock_pipe):
    cache, pipe = open_cache(), stock_pipe()
    for prompts, found in ((cache.captions[:6], cache.cond(range(6))), ([""], cache.uncond)):
        with torch.no_grad():
            embeds, _, pooled, _ = pipe.encode_prompt(
                prompts, None, None, do_classifier_free_guidance=False, max_sequence_length=0
            )
        assert found.keys() == {"prompt_embeds", "pooled_prompt_embeds"}
        torch.testing.assert_close(found["prompt_embeds"], embeds, rtol=0, atol=1e-4)
        torch.testing.assert_close(found["pooled_prompt_embeds"], pooled, rtol=0, atol=1e-4)


def test_the_cache_reads_any_samples_in_any_order(open_cache):
    cache = open_cache()
    assert len(cache) == 6
    whole = cache.latents(range(6), (12, 12))
    assert torch.equal(cache.latents([4, 1, 4], (12, 12)), whole[[4, 1, 4]])


def test_finished_shards_are_kept_and_missing_ones_made_the_same(
    monkeypatch, cli, argv, finished, copied, configure, snapshot
):
    monkeypatch.setattr(encode_module, "SHARD_SAMPLES", 4)
    for path in (copied / "cache").iterdir():
        path.unlink()
    cli(*argv("encode", copied))
    before = snapshot(copied / "cache")
    assert sorted(before) == [
        "index.safetensors", "manifest.json", "settings.json", "shard-00000.safetensors", "shard-00001.safetensors",
        "text-00000.safetensors", "text-00001.safetensors", "uncond.safetensors",
    ]  # fmt: skip
    (copied / "cache" / "shard-00001.safetensors").unlink()
    (copied / "cache" / "text-00000.safetensors").unlink()
    cli(*argv("encode", copied))
    after = snapshot(copied / "cache")
    for name in ("shard-00000.safetensors", "text-00001.safetensors"):
        assert after[name] == before[name]
    assert {name: item[0] for name, item in after.items()} == {name: item[0] for name, item in before.items()}
    cache = Cache.open(copied / "cache", fitting(configure(copied)))
    whole = Cache.open(finished / "cache", fitting(configure(finished)))
    torch.testing.assert_close(
        cache.latents([5, 0, 3, 4], (8, 8)), whole.latents([5, 0, 3, 4], (8, 8)), rtol=0, atol=1e-4
    )


def test_two_processes_make_the_cache_of_one(monkeypatch, two_workers, cli, argv, finished, tmp_path):
    monkeypatch.setattr(encode_module, "SHARD_SAMPLES", 2)
    images, threads = ("--data.images", finished / "images"), torch.get_num_threads()
    torch.set_num_threads(1)  # as the two have: more of them round otherwise
    try:
        cli(*argv("encode", tmp_path / "one", *images))
    finally:
        torch.set_num_threads(threads)
    errors = two_workers(
        argv("encode", tmp_path / "two", *images), "import swd_distill.data.encode as e; e.SHARD_SAMPLES = 2"
    )
    assert "4/4" in errors[0]  # the first and the third of three shards
    assert "4/4" not in errors[1]
    for path in (tmp_path / "one" / "cache").iterdir():
        assert (tmp_path / "two" / "cache" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_cache_of_the_former_format_is_refused(refused, argv, copied, snapshot):
    for name in ("manifest.json", "settings.json"):
        path = copied / "cache" / name
        found = json.loads(path.read_text())
        del found.get("settings", found)["format"]
        path.write_text(json.dumps(found))
    before = snapshot(copied)
    assert "made for format 2, got one made for null" in refused(argv("train", copied))
    assert "made with format 2, got one without format" in refused(argv("encode", copied))
    assert snapshot(copied) == before


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_an_image_folder_of_ones_own_is_scaled_and_cropped(cli, argv, folder, configure, tmp_path, kind):
    if kind == "jsonl":
        _write_jsonl(folder)
    else:
        (folder / "metadata.csv").write_text('file_name,text\na.png,"image, a"\nsub/b.png,b\nc.png,c\n')
    cli(*argv("encode", tmp_path / "run", "--data.images", folder))
    assert not (tmp_path / "run" / "images").exists()
    cache = Cache.open(tmp_path / "run" / "cache", fitting(configure(tmp_path)))
    assert len(cache) == 3
    assert cache.captions[0] == ("image, a.png" if kind == "jsonl" else "image, a")
    reduced = Image.open(folder / "c.png").resize((64, 128), Image.Resampling.LANCZOS)
    expected = [
        Image.open(folder / "a.png"),
        Image.open(folder / "sub" / "b.png").crop((32, 0, 96, 64)),
        reduced.crop((0, 32, 64, 96)),
    ]
    for size in SIZES:
        torch.testing.assert_close(cache.latents(range(3), size), _encode_by_hand(expected, size), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("width", "height"), [(64, 48), (60, 200)])
def test_an_image_that_would_be_enlarged_is_refused(refused, argv, folder, tmp_path, width, height):
    _noise(width, height).save(folder / "small.png")
    _write_jsonl(folder, ("a.png", "small.png"))
    error = refused(argv("encode", tmp_path / "run", "--data.images", folder), late=True)
    assert f"expected at least 64x64 pixels in {folder}/small.png, got {width}x{height}" in error
    assert not list((tmp_path / "run" / "cache").glob("shard*"))


def test_a_file_that_is_no_image_is_refused(refused, argv, folder, tmp_path):
    (folder / "text.png").write_text("no image")
    _write_jsonl(folder, ("a.png", "text.png"))
    error = refused(argv("encode", tmp_path / "run", "--data.images", folder), late=True)
    assert f"expected an image, got {folder}/text.png" in error


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metadata.jsonl", "", "expected at least one sample"),
        ("metadata.jsonl", '{"file_name": "a.png"}', "expected a text, prompt or caption in line 1"),
        ("metadata.jsonl", '{"file_name": "a.png", "text": "a"}\n[1]', "line 2"),
        ("metadata.jsonl", '{"file_name": "a.png", "te', "expected JSON in line 1"),
        ("metadata.csv", "file_name,label\na.png,a\n", "expected a column named text or prompt or caption"),
        ("metadata.csv", "file_name,text\na.png,a,b\n", "expected 2 field(s) split at ',' in line 2"),
    ],
)
def test_bad_metadata_is_refused_and_the_line_named(refused, argv, folder, tmp_path, name, text, message):
    (folder / name).write_text(text)
    assert message in refused(argv("encode", tmp_path / "run", "--data.images", folder))
    assert not (tmp_path / "run").exists()


def test_other_images_in_the_same_folder_are_refused(refused, argv, copied, snapshot):
    path = copied / "images" / "metadata.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:5]))
    before = snapshot(copied)
    assert "another --out" in refused(argv("encode", copied))
    assert snapshot(copied) == before


def test_a_folder_without_metadata_needs_the_extra_and_one_line_says_so(monkeypatch, refused, argv, folder, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)  # as if it were not installed
    error = refused(argv("encode", tmp_path / "run", "--data.images", folder))
    assert f"expected metadata.jsonl or metadata.csv in {folder}" in error
    assert "pip install 'swd-distill[datasets]'" in error
    assert not (tmp_path / "run").exists()


def test_a_cache_without_its_index_gets_it_again(cli, argv, copied):
    index = copied / "cache" / "index.safetensors"
    before = index.read_bytes()
    index.unlink()
    cli(*argv("encode", copied))
    assert index.read_bytes() == before


def test_bytes_go_to_the_device_and_the_autoencoder_sees_the_same_numbers_in_float32(monkeypatch):
    monkeypatch.setattr("swd_distill.data.encoder.device_and_dtype", lambda: (torch.device("cpu"), torch.bfloat16))
    encoder, images = Encoder(PRESETS["tiny"]), [_noise(64, 64, seed) for seed in range(2)]
    pixels = encoder.stack([to_pixels([image], (64, 64), "noise") for image in images])
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (2, 3, 64, 64))
    assert (encoder.dtype, encoder.latents.vae.dtype) == (torch.bfloat16, torch.float32)
    seen = []
    monkeypatch.setattr(encoder.latents, "encode", lambda values: (seen.append(values), torch.zeros(2, 4, 8, 8))[1])
    encoder.encode(pixels, [(16, 16)])
    assert seen[0].dtype == torch.float32
    assert torch.equal(seen[0], _pixels(images))


def test_the_next_batch_is_read_and_the_last_shard_written_while_one_is_encoded(
    monkeypatch, cli, argv, finished, tmp_path
):
    monkeypatch.setattr(encode_module, "SHARD_SAMPLES", 4)
    open_one, encode, write = imagefolder.open_image, Encoder.encode, encode_module.write_tensors
    read, started, encoded = threading.Semaphore(0), threading.Event(), []

    def encode_late(self, pixels, sizes):
        encoded.append(len(pixels))
        if len(encoded) == 1:  # of four samples in two batches
            assert all(read.acquire(timeout=30) for _ in range(4))
        if len(encoded) == 3:  # the second shard
            started.set()
        return encode(self, pixels, sizes)

    def write_late(path, *args):
        assert path.name != "shard-00000.safetensors" or started.wait(30)
        write(path, *args)

    def open_and_tell(path, **options):
        read.release()
        return open_one(path, **options)

    monkeypatch.setattr(imagefolder, "open_image", open_and_tell)
    monkeypatch.setattr(Encoder, "encode", encode_late)
    monkeypatch.setattr(encode_module, "write_tensors", write_late)
    cli(*argv("encode", tmp_path, "--data.images", finished / "images", "--data.batch", "2"))
    assert encoded == [2, 2, 2]
    assert (tmp_path / "cache" / "manifest.json").is_file()


def test_a_shard_that_cannot_be_written_ends_the_run_and_is_made_by_the_next(
    monkeypatch, cli, refused, argv, copied, snapshot
):
    for path in (copied / "cache").iterdir():
        path.unlink()
    with monkeypatch.context() as patched:

        def fail(*_):
            raise OSError("no space left on device")

        patched.setattr(encode_module, "write_tensors", fail)
        assert "no space left on device" in refused(argv("encode", copied), late=True)
    assert not list((copied / "cache").glob("shard*"))
    assert not (copied / "cache" / "manifest.json").exists()
    cli(*argv("encode", copied))
    assert (copied / "cache" / "manifest.json").is_file()
