"""What people bring, through the commands that read it: each is what one sees, or one line."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from swd_data import write_video
from swd_distill.data import encode as encode_module
from swd_distill.data.cache import Cache
from swd_distill.data.encode import fitting
from swd_distill.data.live import Live

TEXT = "a red circle left of a blue square, green background"
SIDE = 64


def scene(width=SIDE, height=SIDE):
    image = Image.new("RGB", (width, height), (30, 160, 60))
    draw = ImageDraw.Draw(image)
    draw.ellipse((6, 6, 36, 36), fill=(220, 30, 30))
    draw.rectangle((width - 24, height - 24, width - 6, height - 6), fill=(30, 30, 220))
    return image


def turned(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    scene(64, 96).transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)


def hidden(path):
    """Save a circle over nothing, below which cyan is hidden."""
    pixels = np.zeros((SIDE, SIDE, 4), np.uint8)
    pixels[..., :3] = (0, 255, 255)
    image = Image.fromarray(pixels)
    ImageDraw.Draw(image).ellipse((16, 16, 48, 48), fill=(220, 30, 30, 255))
    image.save(path)


def shown(path):
    image = Image.new("RGB", (SIDE, SIDE), "white")
    ImageDraw.Draw(image).ellipse((16, 16, 48, 48), fill=(220, 30, 30))
    image.save(path)


RAMP = np.tile(np.linspace(0, 65535, SIDE).astype(np.uint16), (SIDE, 1))
ALIKE = {
    "turned": (turned, lambda path: scene(64, 96).save(path)),
    "transparent": (hidden, shown),
    "16 bits": (
        lambda path: Image.fromarray(RAMP).save(path),
        lambda path: Image.fromarray((RAMP >> 8).astype(np.uint8)).save(path),
    ),
    "palette": (
        lambda path: scene().quantize(8, dither=Image.Dither.NONE).save(path),
        lambda path: scene().quantize(8, dither=Image.Dither.NONE).convert("RGB").save(path),
    ),
    "containers": (
        lambda path: scene().save(path.with_suffix(".webp"), lossless=True),
        lambda path: scene().save(path),
    ),
}


@pytest.fixture
def encoded_of(cli, argv, configure, tmp_path):
    """Encode a folder; give its cache."""

    def call(folder, *flags):
        out = tmp_path / "runs" / folder.name
        cli(*argv("encode", out, "--data.images", folder, *flags))
        return Cache.open(out / "cache", fitting(configure(out)))

    return call


def describe(folder, *names, text=TEXT):
    rows = [json.dumps({"file_name": name, "text": text}) for name in names]
    (folder / "metadata.jsonl").write_text("".join(f"{row}\n" for row in rows))


@pytest.mark.parametrize("kind", list(ALIKE))
def test_pictures_that_look_the_same_have_the_same_latents(encoded_of, tmp_path, kind):
    caches = []
    for name, save in zip(("one", "other"), ALIKE[kind], strict=True):
        folder = tmp_path / name
        folder.mkdir()
        save(folder / "a.png")
        describe(folder, next(folder.iterdir()).name)
        caches.append(encoded_of(folder))
    one, other = (cache.latents([0], (16, 16)) for cache in caches)
    assert torch.equal(one, other)
    assert one.std() > 0.1


def test_a_background_may_be_chosen_and_belongs_to_the_cache(encoded_of, refused, argv, tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    hidden(folder / "a.png")
    describe(folder, "a.png")
    black = encoded_of(folder, "--data.background", "black")
    other = tmp_path / "white"
    folder.rename(other)
    assert not torch.equal(black.latents([0], (16, 16)), encoded_of(other).latents([0], (16, 16)))
    out = tmp_path / "runs" / "one"
    assert "made without background, got background" in refused(argv("encode", out, "--data.images", other))
    assert "expected --data.background" in refused(argv("encode", out, "--data.background", "no colour"))


def test_captions_may_stand_beside_their_images_and_clutter_is_none(encoded_of, tmp_path):
    folder = tmp_path / "kohya"
    (folder / "__MACOSX").mkdir(parents=True)
    for name in ("10", "2", "1"):
        scene().save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"number {name}\n")
    (folder / "._1.png").write_bytes(b"\0\5\x16\7 resource fork")
    (folder / "__MACOSX" / "x.png").write_bytes(b"nothing")
    assert encoded_of(folder).captions == ["number 1", "number 2", "number 10"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_metadata_in_other_encodings_and_dialects_is_read(encoded_of, tmp_path, encoding):
    folder = tmp_path / "mine"
    folder.mkdir()
    scene().save(folder / "a.png")
    with (folder / "metadata.csv").open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=";").writerows([["File_Name", " Text"], ["a.png", "artist\u2019s\u2028circle"]])
    assert encoded_of(folder).captions == ["artist\u2019s\u2028circle"]


@pytest.mark.parametrize("command", ["encode", "train"])
def test_metadata_in_an_unknown_encoding_is_one_line(refused, argv, tmp_path, command):
    folder = tmp_path / "mine"
    folder.mkdir()
    scene().save(folder / "a.png")
    rows = '{"file_name": "a.png", "text": "a"}\n{"file_name": "a.png", "text": "the artist\u2019s circle"}\n'
    (folder / "metadata.jsonl").write_bytes(rows.encode("cp1252"))
    flags = ["--data.on-the-fly"] if command == "train" else []
    line = refused(argv(command, tmp_path / "run", "--data.images", folder, *flags))
    assert f"got byte 0x92 in line 2 of {folder}/metadata.jsonl: save it as UTF-8" in line


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("ragged.csv", b"text\na red circle, a cross\n", "expected 1 field(s) split at ',' in line 2 of"),
        ("quotes.csv", b'text\n"a red circle\na cross\n', "in the record of line 2"),
        ("surrogate.jsonl", b'{"text": "half \\ud83d an emoji"}', "got half a character"),
        ("cp1252.txt", b"one\nthe artist\x92s circle", "got byte 0x92 in line 2 of"),
        ("list.json", b"[1, 2]", "expected a list of JSON objects"),
    ],
)
@pytest.mark.parametrize("flag", ["--data.prompts", "--evaluation.prompts"])
def test_prompts_that_cannot_be_read_are_one_line_at_the_start(refused, argv, tmp_path, name, text, message, flag):
    (tmp_path / name).write_bytes(text)
    more = ["--evaluation.metrics", "diagnostics"] if flag == "--evaluation.prompts" else []
    line = refused(argv("run", tmp_path / "run", flag, tmp_path / name, *more))
    assert message in line
    assert name in line
    assert not (tmp_path / "run").exists()


@pytest.fixture
def hundred(tmp_path):
    """Make a folder of 120 samples, of which the second is broken."""
    folder = tmp_path / "many"
    folder.mkdir()
    scene().save(folder / "a.png")
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:60])
    describe(folder, "a.png", "b.png", *["a.png"] * 118)
    return folder


def test_a_bad_sample_is_left_out_and_listed(encoded_of, refused, argv, hundred, tmp_path):
    cache = encoded_of(hundred, "--data.batch", "32")
    assert len(cache) == 119
    listed = tmp_path / "runs" / "many" / "cache" / "skipped.jsonl"
    (row,) = map(json.loads, listed.read_text().splitlines())
    assert row["file_name"] == str(hundred / "b.png")
    assert "expected an image" in row["reason"]
    assert len(encoded_of(hundred, "--data.batch", "32")) == 119  # which does nothing
    out = tmp_path / "none may"
    line = refused(argv("encode", out, "--data.images", hundred, "--data.max-bad", "0"), late=True)
    assert f"expected an image, got {hundred / 'b.png'}" in line


def test_more_than_the_share_stop_the_work(monkeypatch, refused, argv, hundred, tmp_path):
    monkeypatch.setattr(encode_module, "SHARD_SAMPLES", 60)
    describe(hundred, "a.png", "b.png", *["a.png"] * 60, "c.png", *["a.png"] * 57)
    line = refused(argv("encode", tmp_path / "run", "--data.images", hundred, "--data.batch", "32"), late=True)
    assert "expected at most 0.01 of 120 samples to be bad, got 2, listed in" in line
    rows = (tmp_path / "run" / "cache" / "skipped.jsonl").read_text().splitlines()
    assert "c.png of line 63" in json.loads(rows[1])["reason"]


def test_on_the_fly_another_takes_the_place_of_a_bad_one(configure, hundred, tmp_path):
    config = configure(tmp_path / "run")
    live = Live(replace(config, data=replace(config.data, images=hundred, on_the_fly=True)))
    expected = live.latents([2], (8, 8))
    assert torch.equal(live.latents([1], (8, 8)), expected)
    assert (tmp_path / "run" / "skipped.jsonl").is_file()


def test_clips_are_read_at_the_models_pace(cli, tmp_path):
    """48 frames a second become the 16 that Wan knows: the same clip has the same latents."""

    def clip(fps, num):
        frames = []
        for i in range(num):
            image = Image.new("RGB", (96, 64), (20, 120, 40))
            x = 10 + 40 * i / fps
            ImageDraw.Draw(image).rectangle((x, 20, x + 16, 44), fill=(230, 20, 20))
            frames.append(image)
        return frames

    found = {}
    for fps in (16, 48):
        folder = tmp_path / str(fps)
        folder.mkdir()
        write_video(folder / "a.mp4", clip(fps, 2 * fps), fps)
        describe(folder, "a.mp4")
        out = tmp_path / f"run-{fps}"
        cli("encode", "tiny-wan", "--out", str(out), "--data.images", str(folder))
        (shard,) = (out / "cache").glob("shard-*.safetensors")
        found[fps] = max(load_file(shard).values(), key=lambda value: value.numel())
    near = (found[16] - found[48]).abs().mean()
    moved = (found[16][:, :, 1:] - found[16][:, :, :-1]).abs().mean()
    assert near < 0.3 * moved  # what is left is the codec's


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--training.lr", "-1"], "expected --training.lr of at least 0, got -1"),
        (["--training.lr", "nan"], "expected --training.lr of at least 0, got nan"),
        (["--training.lr", "0"], "expected --training.lr above 0"),
        (["--training.warmup", "-1"], "expected --training.warmup"),
        (["--recipe.dmd-weight", "inf"], "expected --recipe.dmd-weight of at least 0, got inf"),
        (["--data.teacher-guidance", "nan"], "expected --data.teacher-guidance"),
        (["--seed", str(2**70)], "expected --seed of at least 0 and below 2^63"),
        (["--seed", "-1"], "expected --seed"),
        (["--data.max-bad", "1"], "expected --data.max-bad below 1"),
        (["--recipe.mmd-kernel", "rbf", "--recipe.rbf-bandwidth", "0"], "expected --recipe.rbf-bandwidth above 0"),
        (["--schedule", "1.0:8,0.6:16"], "1000"),
    ],
)
def test_numbers_that_cannot_be_are_refused_before_any_work(refused, argv, tmp_path, flags, message):
    assert message in refused(argv("run", tmp_path / "run", *flags))
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_trained_longer_as_one_that_was_planned_so(cli, refused, argv, encoded, tmp_path):
    """Without decay of the learning rate, two iterations more are those of a run of four."""
    flags = ("--training.no-decay", "--training.rank", "4", "--training.sample-every", "9")
    longer = tmp_path / "longer"
    shutil.copytree(encoded, longer)
    cli(*argv("train", encoded, *flags, "--training.iterations", "4"))
    for iterations in ("2", "4"):
        cli(*argv("train", longer, *flags, "--training.iterations", iterations))
    one, other = (load_file(run / "lora" / "pytorch_lora_weights.safetensors") for run in (encoded, longer))
    assert all(torch.equal(one[name], other[name]) for name in one)
    config = json.loads((longer / "config.json").read_text())
    assert config["training"]["iterations"] == 4
    assert "iterations 3, got training.iterations 4" in refused(
        argv("train", longer, *flags, "--training.iterations", "3")
    )


def test_a_run_whose_rate_has_fallen_is_not_trained_longer_but_another_begins_as_its_lora(cli, refused, argv, encoded):
    cli(*argv("train", encoded, "--training.decay"))
    line = refused(argv("train", encoded, "--training.decay", "--training.iterations", "6"))
    assert "expected --training.iterations 3 for the run in" in line
    assert f"start another from its LoRA, with --init-lora {encoded / 'lora'} and another --out" in line


def test_a_mended_sample_comes_back_and_no_caption_is_shifted(encoded_of, hundred, tmp_path):
    """The second of 120 has a caption of its own: without it, and with it again, each sample has its text."""
    rows = [json.loads(row) for row in (hundred / "metadata.jsonl").read_text().splitlines()]
    rows[1]["text"], rows[2]["text"] = "a small blue cross, white background", "a big green square, white background"
    (hundred / "metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    first = encoded_of(hundred, "--data.batch", "32")
    assert first.captions[:3] == [TEXT, rows[2]["text"], TEXT]
    without = first.cond([1])
    shutil.copy(hundred / "a.png", hundred / "b.png")
    again = encoded_of(hundred, "--data.batch", "32")
    assert len(again) == 120
    assert again.captions[:3] == [TEXT, rows[1]["text"], rows[2]["text"]]
    for name, value in again.cond([2]).items():
        torch.testing.assert_close(value, without[name], rtol=0, atol=1e-4)
    assert not torch.equal(again.cond([1])["prompt_embeds"], again.cond([2])["prompt_embeds"])
    assert not (tmp_path / "runs" / "many" / "cache" / "skipped.jsonl").exists()


def test_samples_that_stay_too_small_do_not_let_a_cache_be_made_again(encoded_of, hundred, snapshot, tmp_path):
    Image.new("RGB", (32, 32)).save(hundred / "b.png")
    encoded_of(hundred, "--data.batch", "32")
    before = snapshot(tmp_path / "runs" / "many" / "cache")
    assert len(encoded_of(hundred, "--data.batch", "32")) == 119
    after = snapshot(tmp_path / "runs" / "many" / "cache")
    assert {name: of for name, of in after.items() if name != "skipped.jsonl"} == {
        name: of for name, of in before.items() if name != "skipped.jsonl"
    }


def test_other_images_under_the_same_names_are_encoded_again(encoded_of, tmp_path):
    found = []
    for number, size in enumerate((64, 96)):
        folder = tmp_path / str(number)
        folder.mkdir()
        scene().resize((size, size)).save(folder / "a.png")
        describe(folder, "a.png")
        found.append(encoded_of(folder).latents([0], (16, 16)))
    assert not torch.equal(*found)


def test_a_stricter_share_is_asked_of_a_finished_cache_too(encoded_of, refused, argv, hundred, tmp_path):
    encoded_of(hundred, "--data.batch", "32")
    out = tmp_path / "runs" / "many"
    line = refused(argv("encode", out, "--data.images", hundred, "--data.max-bad", "0"), late=True)
    assert f"expected an image, got {hundred / 'b.png'}" in line


def test_captions_may_be_empty(encoded_of, tmp_path):
    folder = tmp_path / "mute"
    folder.mkdir()
    scene().save(folder / "a.png")
    describe(folder, "a.png", text="")
    assert encoded_of(folder).captions == [""]
