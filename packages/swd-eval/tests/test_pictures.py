"""Two pictures that look the same are the same to every number, and what is no picture is not counted."""

import io
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from swd_eval.cli import main
from swd_eval.study.build import build_study
from swd_eval.study.pairs import Key

TEXT = "a red circle left of a blue square, green background"
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}  # fmt: skip
"""How a picture is stored that this orientation sets upright."""


def scene(width=64, height=96):
    image = Image.new("RGB", (width, height), (30, 160, 60))
    draw = ImageDraw.Draw(image)
    draw.ellipse((6, 6, 36, 36), fill=(220, 30, 30))
    draw.rectangle((width - 24, height - 24, width - 6, height - 6), fill=(30, 30, 220))
    return image


def tagged(path, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    scene().transpose(TURNS[orientation]).save(path, exif=exif)


def circle(path, hidden):
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[..., :3] = hidden
    image = Image.fromarray(pixels)
    ImageDraw.Draw(image).ellipse((16, 16, 48, 48), fill=(220, 30, 30, 255))
    image.save(path)


def palette(path):
    image = Image.new("P", (64, 64), 0)
    image.putpalette([0, 255, 255, 220, 30, 30])
    ImageDraw.Draw(image).ellipse((16, 16, 48, 48), fill=1)
    image.save(path, transparency=0)


def opaque(path):
    image = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(image).ellipse((16, 16, 48, 48), fill=(220, 30, 30))
    image.save(path)


RAMP = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
EIGHT = (RAMP >> 8).astype(np.uint8)
PAIRS = {
    "orientations": (lambda folder: [tagged(folder / f"{turn}.png", turn) for turn in TURNS],
                     lambda folder: [scene().save(folder / f"{turn}.png") for turn in TURNS]),
    "containers": (lambda folder: [scene().save(folder / f"{name}.{name}", lossless=True) for name in ("webp", "tiff")],
                   lambda folder: [scene().save(folder / f"{name}.png") for name in ("webp", "tiff")]),
    "hidden": (lambda folder: [circle(folder / f"{n}.png", (0, 200 * n, 200 * n)) for n in range(2)],
               lambda folder: [opaque(folder / f"{n}.png") for n in range(2)]),
    "palettes": (lambda folder: [palette(folder / f"{n}.png") for n in range(2)],
                 lambda folder: [opaque(folder / f"{n}.png") for n in range(2)]),
    "depths": (lambda folder: [Image.fromarray(RAMP).save(folder / f"{n}.png") for n in range(2)],
               lambda folder: [Image.fromarray(EIGHT).save(folder / f"{n}.png") for n in range(2)]),
}  # fmt: skip


def run(*argv):
    main(["images", *map(str, argv), "--device", "cpu"])


def numbers(folder):
    found = json.loads((folder / "results.json").read_text())["numbers"]
    return {each["metric"]: each["value"] for each in found}


@pytest.mark.parametrize("pair", PAIRS)
def test_pictures_that_look_the_same_are_at_no_distance(tmp_path, pair):
    pytest.importorskip("efficientnet_lite_pytorch")
    for name, write in zip(("as-stored", "as-seen"), PAIRS[pair], strict=True):
        (tmp_path / name).mkdir()
        write(tmp_path / name)
    run(
        tmp_path / "as-stored",
        "--ref",
        tmp_path / "as-seen",
        "--out",
        tmp_path / "out",
        "--metrics",
        "fd-lite0",
        "diagnostics",
    )
    found = numbers(tmp_path / "out")
    assert found["fd-lite0"] == pytest.approx(0, abs=1e-4)
    assert found["spectrum-distance"] == found["brightness-drift"] == found["saturation-drift"] == 0


def test_a_picture_on_its_side_is_at_a_distance(tmp_path):
    pytest.importorskip("efficientnet_lite_pytorch")
    for name, turn in (("a", Image.Transpose.ROTATE_90), ("b", None)):
        (tmp_path / name).mkdir()
        for index in range(2):
            (scene().transpose(turn) if turn is not None else scene()).save(tmp_path / name / f"{index}.png")
    run(tmp_path / "a", "--ref", tmp_path / "b", "--out", tmp_path / "out", "--metrics", "fd-lite0")
    assert numbers(tmp_path / "out")["fd-lite0"] > 1


def clutter(folder):
    """Write what systems leave beside images."""
    for name in ("._0.png", "__MACOSX/0.png", ".ipynb_checkpoints/0-checkpoint.png", "@eaDir/0.png", "Thumbs.db"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\x00\x05\x16\x07 resource fork")


def test_files_that_are_no_samples_are_counted_nowhere(tmp_path, write_run):
    names = ["0", "1"]
    for name in ("fake", "real"):
        clutter(write_run(tmp_path / name, names, names))
    (tmp_path / "p.txt").write_text("a cat\na dog\n")
    argv = (tmp_path / "fake", "--ref", tmp_path / "real", "--metrics", "diagnostics", "--max-bad", "0")
    run(*argv, "--prompts", tmp_path / "p.txt", "--out", tmp_path / "out")
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (found["num_images"], found["num_prompts"], found["skipped"]) == (2, 2, [])
    assert found["numbers"][-1]["notes"]["reference n"] == 2
    build_study([tmp_path / "fake", tmp_path / "real"], tmp_path / "study", tmp_path / "p.txt")
    assert {pair.item for pair in Key.read(tmp_path / "study").pairs} == {"0", "1"}


def test_a_study_shows_pictures_as_they_look(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    tagged(tmp_path / "a" / "turned.png", 6)
    scene().save(tmp_path / "b" / "turned.png")
    circle(tmp_path / "a" / "hidden.png", (0, 255, 255))
    opaque(tmp_path / "b" / "hidden.png")
    for name in ("a", "b"):
        for file in ("turned", "hidden"):
            (tmp_path / name / f"{file}.txt").write_text(TEXT)
    build_study([tmp_path / "a", tmp_path / "b"], tmp_path / "study")
    pairs = Key.read(tmp_path / "study").pairs
    assert len(pairs) == 2
    for pair in pairs:
        assert pair.prompt == TEXT
        first, second = (np.asarray(Image.open(tmp_path / "study/public/media" / name)) for name in pair.media)
        assert np.array_equal(first, second)


def test_pictures_that_cannot_be_read_are_one_line_with_their_name(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    path, out = tmp_path / "run" / "a.png", tmp_path / "out"
    buffer = io.BytesIO()
    scene().save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[data.rindex(b"IDAT") + 2] = 0
    Image.new("1", (20000, 20000)).save(path)
    bomb = path.read_bytes()
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "float.tiff")
    for name, content in {"png": bytes(data), "bomb": bomb, "float": (tmp_path / "float.tiff").read_bytes()}.items():
        path.write_bytes(content)
        with pytest.raises(SystemExit) as stop:
            run(tmp_path / "run", "--out", out / name, "--metrics", "diagnostics")
        error = capsys.readouterr().err
        assert stop.value.code == 2
        assert error.count("\n") == 1
        assert str(path) in error
