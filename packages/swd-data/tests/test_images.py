import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageFile, features
from PIL.WebPImagePlugin import WebPImageFile

from swd_data import image_size, open_image, save_image

ORIENTATION = 0x0112
UP = np.kron(np.arange(12).reshape(4, 3), np.ones((16, 16))).astype(np.uint8)[..., None] * [20, 10, 5]
UP = UP.astype(np.uint8)  # 64 high, 48 wide, each of twelve fields another colour
SHOWN = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}
LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}, "TIFF deflate": {"compression": "tiff_deflate"}}
FORMATS = LOSSLESS | {"JPEG": {"quality": 95}} | ({"AVIF": {"quality": 95}} if features.check("avif") else {})


def stored(form, orientation):
    turned = SHOWN[{6: 8, 8: 6}.get(orientation, orientation)](UP)
    exif, file = Image.Exif(), BytesIO()
    exif[ORIENTATION] = orientation
    image = Image.fromarray(np.ascontiguousarray(turned))
    image.save(file, form.split()[0], exif=exif, **FORMATS[form])
    return file.getvalue()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("orientation", SHOWN)
def test_images_stand_upright(form, orientation):
    image = open_image(stored(form, orientation))
    assert (image.mode, image.size) == ("RGB", (48, 64))
    off = np.abs(np.asarray(image).astype(int) - UP)
    assert off.max() == 0 if form in LOSSLESS else np.median(off) <= 3


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("orientation", SHOWN)
def test_the_size_is_that_of_the_upright_image_and_nothing_is_decoded(form, orientation, monkeypatch):
    data = stored(form, orientation)

    def load(*_):
        raise AssertionError

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    monkeypatch.setattr(WebPImageFile, "load", load)
    assert image_size(data) == (48, 64)


@pytest.mark.parametrize("form", FORMATS)
def test_what_others_opened_stays_usable(form):
    with Image.open(BytesIO(stored(form, 6))) as opened:
        assert image_size(opened) == (48, 64)
        assert open_image(opened).size == (48, 64)
        assert image_size(opened) == (48, 64) or form.startswith("TIFF")


def test_exif_behind_the_pixels_counts(make_png):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    rows = b"".join(b"\0" + row.tobytes() for row in SHOWN[8](UP))
    data = make_png((64, 48), 8, 2, rows, behind=[(b"eXIf", exif.tobytes()[6:])])
    assert image_size(data) == (48, 64)
    assert np.array_equal(open_image(data), UP)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"])
def test_broken_exif_turns_nothing(form, exif):
    file = BytesIO()
    Image.fromarray(UP).save(file, form, exif=exif)
    assert open_image(file.getvalue()).size == image_size(file.getvalue()) == (48, 64)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_is_none_turns_nothing(orientation):
    exif, file = Image.Exif(), BytesIO()
    exif[ORIENTATION] = orientation
    Image.fromarray(UP).save(file, "JPEG", exif=exif)
    assert open_image(file.getvalue()).size == image_size(file.getvalue()) == (48, 64)


def test_sixteen_bits_of_grey_are_the_upper_eight(tmp_path):
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (8, 1))
    for file in ("a.png", "a.tiff", "a.ppm"):
        Image.fromarray(ramp).save(tmp_path / file)
        assert np.array_equal(np.asarray(open_image(tmp_path / file))[..., 1], ramp >> 8), file
    (tmp_path / "colour.ppm").write_bytes(b"P6 2 1 65535\n" + struct.pack(">6H", 0, 256, 65535, 4660, 22136, 255))
    found = np.asarray(open_image(tmp_path / "colour.ppm")).astype(int)
    assert np.abs(found - [[[0, 1, 255], [18, 86, 0]]]).max() <= 1  # Pillow rounds here


def test_sixteen_bits_of_colour_are_the_upper_eight(make_png):
    values = np.random.default_rng(0).integers(0, 65536, (8, 8, 3)).astype(">u2")
    data = make_png((8, 8), 16, 2, b"".join(b"\0" + row.tobytes() for row in values))
    assert np.array_equal(open_image(data), values >> 8)


@pytest.mark.parametrize(("dtype", "word"), [(np.float32, "floats"), (np.int32, "32-bit integers")])
def test_what_has_no_range_is_refused_by_name(tmp_path, refused, dtype, word):
    path = tmp_path / "a.tiff"
    Image.fromarray(np.ones((4, 4), dtype)).save(path)
    assert word in refused(path, open_image, path)
    assert word in refused("cell 3", open_image, path.read_bytes(), "cell 3")
    assert len(refused("bytes", open_image, path.read_bytes())) < 200


@pytest.mark.parametrize(
    ("mode", "form", "colour", "shown"),
    [
        ("CMYK", "TIFF", (0, 255, 255, 0), (255, 0, 0)),
        ("CMYK", "JPEG", (0, 255, 255, 0), (255, 0, 0)),
        ("1", "PNG", 1, (255, 255, 255)),
        ("L", "PNG", 7, (7, 7, 7)),
        ("P", "PNG", 0, (9, 8, 7)),
        ("P", "GIF", 0, (9, 8, 7)),
        ("YCbCr", "JPEG", (128, 128, 128), (128, 128, 128)),
    ],
)
def test_every_mode_becomes_rgb(mode, form, colour, shown):
    image, file = Image.new(mode, (8, 8), colour), BytesIO()
    if mode == "P":
        image.putpalette([9, 8, 7, 1, 2, 3])
    image.save(file, form)
    image = open_image(file.getvalue())
    assert (image.mode, image.getpixel((4, 4))) == ("RGB", shown)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_counts(form):
    first, *others = (Image.new("RGB", (8, 8), colour) for colour in ["red", "lime", "blue"])
    file, options = BytesIO(), {"lossless": True} if form == "WEBP" else {}
    first.save(file, form, save_all=True, append_images=others, **options)
    assert Image.open(BytesIO(file.getvalue())).n_frames == 3
    assert image_size(file.getvalue()) == (8, 8)
    assert open_image(file.getvalue()).getpixel((4, 4)) == (255, 0, 0)


def test_files_that_are_no_images_get_one_line_with_their_name(tmp_path, refused, make_png):
    good = make_png((8, 8), 8, 0, bytes(72))
    files = {
        "bomb.png": make_png((20000, 20000), 1, 0, bytes(20000 * 2501)),
        "chunk.png": good.replace(b"IDAT", b"ID\0T"),
        "text.png": make_png((1, 1), 8, 0, b"\0\0", [(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 24)))]),
        "late.png": make_png((1, 1), 8, 0, b"\0\0", behind=[(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 24)))]),
        "cut.png": good[:-30],
        "empty.png": b"",
        "words.png": b"a red circle\n",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "folder.png").mkdir()
    for name in [*files, "folder.png", "missing.png"]:
        refused(tmp_path / name, open_image, tmp_path / name)
        if name not in {"cut.png", "chunk.png"}:  # that they break off is seen as their pixels are decoded
            refused(tmp_path / name, image_size, tmp_path / name)


def test_images_are_written_whole_and_read_back(tmp_path):
    save_image(Image.fromarray(UP), tmp_path / "a.png")
    assert np.array_equal(open_image(tmp_path / "a.png"), UP)
    with pytest.raises(OSError, match=r"expected to write .*none/a.png"):
        save_image(Image.fromarray(UP), tmp_path / "none" / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
