"""Video files as PyAV decodes them: when each frame begins, and which way is up."""

import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

from PIL import Image

from swd_data.errors import reading
from swd_data.images import WHITE, Colour, flatten
from swd_data.texts import missing

MAX_PIXELS = 2**26
"""Of a frame: 8K has half as many."""
OPTIONS = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,h264,hevc,m4v,flv,asf,ogg",
    "protocol_whitelist": "file",
}
"""What FFmpeg may take a file for, whatever it is called: playlists and scripts open other files and addresses."""


def timed_frames(path: Path) -> Iterator[tuple[Fraction, Any]]:
    """Yield the frames with the seconds at which they begin; where a file has none, at its rate."""
    with opened(path) as container:
        stream = container.streams.video[0]
        rate = stream.guessed_rate or stream.average_rate
        step = 1 / Fraction(rate) if rate else Fraction(0)
        at = -step
        for frame in container.decode(stream):
            # AVI has times of decoding alone; frames come out in the order of being shown, at the same pace.
            stamp = frame.dts if container.format.name == "avi" else frame.pts
            at = at + step if stamp is None else stamp * Fraction(frame.time_base or 0)
            yield at, frame


def frames_of(path: Path) -> Iterator[Any]:
    """Yield the frames in the order in which they are shown."""
    with opened(path) as container:
        yield from container.decode(video=0)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a file that has a video."""
    if not path.is_file():
        raise ValueError(f"expected a video, got {path}, which {missing(path)}")
    av = need_av(path)
    with reading_clip(path), av.open(str(path), options=OPTIONS) as container:
        if not container.streams.video:
            others = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            raise ValueError(f"expected a video in {path}, got {others} alone")
        codec = container.streams.video[0].codec_context
        if codec is not None and codec.width * codec.height > MAX_PIXELS:
            raise ValueError(
                f"expected at most {MAX_PIXELS} pixels a frame, got {codec.width}x{codec.height} in {path}"
            )
        if codec is None:  # to decode it would crash PyAV before 18.1
            raise ValueError(f"expected a video in {path}, got one of a codec that PyAV does not know: convert it")
        yield container


def is_playable(path: Path) -> bool:
    """Tell whether every browser plays an MP4: H.264 in 4:2:0. HEVC, as phones have it, and 4:4:4 some do not."""
    with opened(path) as container:
        codec = container.streams.video[0].codec_context
        return codec.name == "h264" and codec.pix_fmt in {"yuv420p", "yuvj420p"}


def reading_clip(path: Path) -> AbstractContextManager[None]:
    """Turn what PyAV raises into one line."""
    return reading(path, "a video", need_av(path).FFmpegError, IndexError, ValueError, ArithmeticError, MemoryError)


def need_av(path: Path) -> Any:
    """Return PyAV, or say how to get it."""
    try:
        import av  # takes a second, and images need none of it
    except ImportError as error:
        raise ValueError(f"expected PyAV for {path}, got none: pip install 'swd-data[video]'") from error
    return av


_TURNS = {  # by the signs a, b, c, d of a display matrix: (x, y) is shown at (a x + c y, b x + d y)
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
}


def upright(frame: Any, background: Colour = WHITE) -> Image.Image:
    """Turn a frame as its display matrix says: phones film lying down, and some mirrored."""
    image: Image.Image = frame.to_image()
    if any(component.is_alpha for component in frame.format.components):
        image = flatten(Image.fromarray(frame.to_ndarray(format="rgba")), background)
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix))
    scale = max(abs(a), abs(b), 1)
    turn = _TURNS.get((round(a / scale), round(b / scale), round(c / scale), round(d / scale)))
    return image if turn is None else image.transpose(turn)
