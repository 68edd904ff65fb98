"""Pictures for people: samples side by side, named."""

import textwrap
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

CELL, MARGIN, TEXT = 160, 8, 13


def grid(rows: Mapping[str, Sequence[Image.Image]], captions: Sequence[str]) -> Image.Image:
    """Lay out one row a name and one column a caption; small images are enlarged, large ones reduced."""
    font = ImageFont.load_default(TEXT)
    lines = [textwrap.wrap(caption, CELL // (TEXT // 2)) for caption in captions]
    head = MARGIN + (TEXT + 3) * max((len(wrapped) for wrapped in lines), default=0)
    left = max((int(font.getlength(name)) for name in rows), default=0) + 2 * MARGIN if any(rows) else MARGIN
    step = CELL + MARGIN
    canvas = Image.new("RGB", (left + step * len(captions), head + step * len(rows)), "white")
    pen = ImageDraw.Draw(canvas)
    for column, wrapped in enumerate(lines):
        pen.multiline_text((left + column * step, MARGIN // 2), "\n".join(wrapped), "black", font, spacing=3)
    for row, (name, images) in enumerate(rows.items()):
        pen.text((MARGIN, head + row * step + CELL // 2), name, "black", font, anchor="lm")
        for column, image in enumerate(images):
            canvas.paste(_fit(image), (left + column * step, head + row * step))
    return canvas


def _fit(image: Image.Image) -> Image.Image:
    ratio = CELL / max(image.size)
    size = (round(image.width * ratio), round(image.height * ratio))
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC if ratio > 1 else Image.Resampling.LANCZOS)
