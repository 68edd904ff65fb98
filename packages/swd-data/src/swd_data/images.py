"""Images as they look: upright, over a background, 8 bits a channel, whatever the file holds.

Colour profiles are not applied: numbers are taken as sRGB, as every other trainer takes them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from swd_data.errors import reading
from swd_data.whole import write_whole

Colour = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "TIFF", "AVIF", "GIF", "PPM")
"""What Pillow may take a file for, whatever it is called. Of others some start programs: EPS Ghostscript."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(source: Path | bytes | Image.Image, name: str = "", *, background: Colour = WHITE) -> Image.Image:
    """Return an image of mode RGB as a viewer shows it: turned by its EXIF, transparency over `background`.

    `source` is a file, the bytes of one, or what Pillow has opened. 16 bits become 8 by dropping the lower ones, as
    Pillow does in colour. Of several frames the first counts. `name` is what messages call it.

    Raises:
        ValueError: no image, a broken one, one of too many pixels, or of floats or 32-bit integers.
    """
    with _opened(source, name) as image:
        kind, colour_key = image.format or "", _colour_key(image)
        image.load()
        if colour_key is not None:
            image.info["transparency"] = colour_key
        turn = _TURNS.get(_orientation(image))
        upright = image if turn is None else image.transpose(turn)
        return flatten(_eight_bits(upright, kind, _what(source, name)), background)


def image_size(source: Path | bytes | Image.Image, name: str = "") -> tuple[int, int]:
    """Return width and height of an image as it looks, that is turned; its pixels are not decoded.

    Raises:
        ValueError: no image.
    """
    with _opened(source, name) as image:
        width, height = _stored_size(image)
        if isinstance(image, PngImageFile) and image.tile:  # not decoded yet
            _read_chunks(image, image is source)
        return (height, width) if _orientation(image) > 4 else (width, height)


def save_image(image: Image.Image, path: Path, **options: Any) -> None:
    """Write an image, whole or not at all; PNG at compress level 1: a quarter of the time for a tenth more bytes."""
    write_whole(path, lambda temporary: image.save(temporary, **{"compress_level": 1} | options))


def fit_image(image: Image.Image, height: int, width: int, name: str) -> NDArray[np.uint8]:
    """Shrink an image to cover `height` x `width` pixels and cut the middle out: uint8 (height, width, 3).

    Raises:
        ValueError: it would have to be enlarged.
    """
    if image.height < height or image.width < width:
        raise ValueError(
            f"expected at least {width}x{height} pixels in {name}, got {image.width}x{image.height}: leave it out, or "
            "take a larger copy"
        )
    ratio = max(height / image.height, width / image.width)
    if ratio < 1:
        image = image.resize((round(image.width * ratio), round(image.height * ratio)), Image.Resampling.LANCZOS)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return np.array(image.crop((left, top, left + width, top + height)))


def flatten(image: Image.Image, background: Colour = WHITE) -> Image.Image:
    """Lay an image of any 8-bit mode over a colour."""
    if not image.has_transparency_data:
        return image.convert("RGB")  # a copy too: the file is closed
    above = image.convert("RGBA")
    below = Image.new("RGBA", above.size, (*background, 255))
    return Image.alpha_composite(below, above).convert("RGB")


def _what(source: Path | bytes | Image.Image, name: str) -> str:
    if isinstance(source, Image.Image):
        return name or str(getattr(source, "filename", "") or source)
    return name or (f"{len(source)} bytes" if isinstance(source, bytes) else str(source))


@cache
def _formats() -> tuple[str, ...]:
    """Return those of the formats that this Pillow was built with."""
    Image.init()
    return tuple(form for form in FORMATS if form in Image.OPEN)


@contextmanager
def _opened(source: Path | bytes | Image.Image, name: str) -> Iterator[Image.Image]:
    """Open an image; turn what Pillow raises for broken ones into one line, there and inside the block."""
    with reading(_what(source, name), "an image", Exception):  # nearly anything: SyntaxError, KeyError, struct.error
        if isinstance(source, Image.Image):
            yield source
            return
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=_formats()) as image:
            yield image


def _orientation(image: Image.Image) -> int:
    """Return how EXIF says that an image is turned, 1 to 8; EXIF that cannot be read turns nothing, as in viewers."""
    try:
        # Not that of the format: PNG decodes all pixels to look for EXIF behind them.
        found = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
    return found if found in range(1, 9) else 1


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Return the size before any turn: Pillow has turned that of a TIFF already."""
    if isinstance(image, TiffImageFile) and image.tile:  # not decoded yet: then the pixels are turned too
        tags = image.tag_v2
        return int(tags[ExifTags.Base.ImageWidth]), int(tags[ExifTags.Base.ImageLength])
    return image.size


def _read_chunks(image: PngImageFile, keep: bool) -> None:
    """Read the chunks behind the pixels: EXIF may stand there. To `keep` what others have opened, decode it."""
    if keep:
        image.load()
        return
    image.load_prepare()
    image.load_end()


def _colour_key(image: Image.Image) -> int | tuple[int, ...] | None:
    """Return the transparent colour of a PNG in the numbers of its decoded pixels, where Pillow leaves the file's."""
    key = image.info.get("transparency")
    if not isinstance(image, PngImageFile) or not image.tile or isinstance(key, bytes) or key is None:
        return None
    match image.tile[0][3]:
        case "1":
            return 255 if key else 0
        case "L;2":
            return int(key) * 85
        case "L;4":
            return int(key) * 17
        case "RGB;16B":  # of 16 bits Pillow keeps the upper 8; colours that differ below them meet
            return tuple(each >> 8 for each in key)
    return None


def _eight_bits(image: Image.Image, kind: str, name: str) -> Image.Image:
    """Return an image of 8 bits a channel; its transparent grey, if it has one, as an alpha channel."""
    if image.mode == "F":
        raise ValueError(f"expected an image of 8 or 16 bits, got floats in {name}: convert it, its range is not known")
    if image.mode == "I" and kind not in {"PNG", "PPM"}:
        raise ValueError(f"expected an image of 8 or 16 bits, got 32-bit integers in {name}: convert it")
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image).astype(np.int64)
    grey = Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8))
    hidden = image.info.get("transparency")
    if not isinstance(hidden, int):
        return grey
    return Image.merge("LA", (grey, Image.fromarray(np.where(values == hidden, 0, 255).astype(np.uint8))))
