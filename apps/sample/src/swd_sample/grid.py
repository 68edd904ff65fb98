"""Pictures for people: samples side by side, named."""

import textwrap
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from swd_models.parts import Media

CELL, MARGIN, TEXT = 160, 8, 13


def grid(rows: Mapping[str, Sequence[Media]], captions: Sequence[str], cell: int = CELL) -> Image.Image:
    """Lay out one row a name and one column a caption; images are fitted into cells of `cell` px.

    A row of videos is shown as three: their first, middle and last frames.
    """
    stills = _stills(rows)
    font = ImageFont.load_default(TEXT)
    lines = [textwrap.wrap(caption, int(cell / (0.55 * TEXT))) for caption in captions]
    head = MARGIN + (TEXT + 3) * max((len(wrapped) for wrapped in lines), default=0)
    left = max((int(font.getlength(name)) for name in stills), default=0) + 2 * MARGIN if any(stills) else MARGIN
    step = cell + MARGIN
    canvas = Image.new("RGB", (left + step * len(captions), head + step * len(stills)), "white")
    pen = ImageDraw.Draw(canvas)
    for column, wrapped in enumerate(lines):
        pen.multiline_text((left + column * step, MARGIN // 2), "\n".join(wrapped), "black", font, spacing=3)
    for row, (name, images) in enumerate(stills.items()):
        pen.text((MARGIN, head + row * step + cell // 2), name, "black", font, anchor="lm")
        for column, image in enumerate(images):
            canvas.paste(_fit(image, cell), (left + column * step, head + row * step))
    return canvas


def grid_of(media: Sequence[Media], captions: Sequence[str]) -> Media:
    """Lay out samples side by side, none reduced: an image of images, or a video of videos."""
    stills = [item for item in media if not isinstance(item, list)]
    frames = [stills] if stills else list(zip(*media, strict=True))
    cell = max(CELL, *(max(image.size) for image in frames[0]))
    grids = [grid({"": images}, captions, cell) for images in frames]
    return grids[0] if stills else grids


def _stills(rows: Mapping[str, Sequence[Media]]) -> dict[str, list[Image.Image]]:
    """Turn each row of videos into three rows of frames."""
    stills: dict[str, list[Image.Image]] = {}
    for name, media in rows.items():
        videos = [item for item in media if isinstance(item, list)]
        if not videos:
            stills[name] = [item for item in media if not isinstance(item, list)]
            continue
        last = min(map(len, videos)) - 1
        for frame in sorted({0, last // 2, last}):
            stills[f"{name} frame {frame}".strip()] = [video[frame] for video in videos]
    return stills


def _fit(image: Image.Image, cell: int) -> Image.Image:
    ratio = cell / max(image.size)
    size = (round(image.width * ratio), round(image.height * ratio))
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC if ratio > 1 else Image.Resampling.LANCZOS)
