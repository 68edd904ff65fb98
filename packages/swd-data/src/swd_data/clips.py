"""Video files, or folders with one image a frame, as a player shows them: upright, at their own pace.

Needs PyAV for files (extra `swd-data[video]`).
"""

import struct
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from swd_data.errors import reading
from swd_data.files import whole
from swd_data.folders import IMAGES, list_files
from swd_data.images import WHITE, Colour, flatten, open_image

_LATE = Fraction(1, 1000)
"""Seconds by which a time stamp may be late: containers round them."""


def read_frames(
    path: Path, count: int, fps: float | int | None = None, *, background: Colour = WHITE
) -> list[Image.Image]:
    """Return the frames that a player shows at 0, 1 / fps, 2 / fps, ... seconds: `count` images of mode RGB.

    Without `fps` the first frames are taken, whatever their pace, as are those of a folder, which has none.

    Raises:
        ValueError: no video, or one that is too short; what it lacks is said.
    """
    if path.is_dir():
        return _of_folder(path, count, background)
    if fps is None:
        frames = [frame for _, frame in zip(range(count), _frames(path), strict=False)]
    else:
        frames = list(_at_times(path, [Fraction(i) / Fraction(fps).limit_denominator(1001) for i in range(count)]))
    if len(frames) < count:
        pace = f" at {fps:g} a second" if fps else ""
        raise ValueError(f"expected {count} frames{pace} in {path}, got {len(frames)}: leave it out, or ask for fewer")
    with _reading(path):
        return [_upright(frame, background) for frame in frames]


@dataclass(frozen=True)
class Clip:
    """A video file whose frames are decoded when they are asked for.

    Attributes:
        fps: Frames a second, on average.
    """

    path: Path
    fps: float
    num_frames: int

    @classmethod
    def open(cls, path: Path) -> "Clip":
        """Read how fast and how long a video is.

        Raises:
            ValueError: PyAV is missing, or the file is no video.
        """
        with _opened(path) as container:
            stream = container.streams.video[0]
            packets = sum(packet.size > 0 for packet in container.demux(stream))
            rate: Any = stream.average_rate
        if not (packets and rate):
            raise ValueError(f"expected a video in {path}, got {packets} frames at {rate} frames a second")
        return cls(path, float(rate), packets)

    def frames(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Return the frames of some indices, in that order, as uint8 (T, H, W, 3).

        Raises:
            ValueError: the file is damaged before the last of them.
        """
        last, wanted = max(indices), set(indices)
        with _reading(self.path):
            found = {
                index: np.asarray(_upright(frame))
                for index, frame in zip(range(last + 1), _frames(self.path), strict=False)
                if index in wanted
            }
        missing = wanted - found.keys()
        if missing:
            raise ValueError(f"expected {self.num_frames} frames in {self.path}, got none at index {min(missing)}")
        return np.stack([found[index] for index in indices])


def write_video(path: Path, frames: Sequence[Image.Image], fps: int, *, playable: bool = False) -> None:
    """Write an H.264 file, whole or not at all: nearly lossless for training, or in the form that every player knows.

    The latter is 4:2:0 with even sizes.
    """
    av = _av(path)
    with whole(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "18" if playable else "10"})
        width, height = (side - side % 2 if playable else side for side in frames[0].size)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p" if playable else "yuv444p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame.crop((0, 0, width, height)))))
        container.mux(stream.encode())


def _of_folder(path: Path, count: int, background: Colour) -> list[Image.Image]:
    files = list(list_files(path, IMAGES, deep=False).values())
    if len(files) < count:
        raise ValueError(f"expected {count} frames or more, got {len(files)} images in {path}")
    return [open_image(file, background=background) for file in files[:count]]


def _at_times(path: Path, times: Sequence[Fraction]) -> Iterator[Any]:
    """Yield the frame that is shown at each time after the first frame: the last that has begun."""
    waiting, shown, end, start = iter(times), None, Fraction(0), None
    wanted = next(waiting, None)
    for at, frame in _timed(path):
        start = at if start is None else start
        while shown is not None and wanted is not None and wanted + _LATE < at - start:
            yield shown
            wanted = next(waiting, None)
        if wanted is None:
            return
        shown = frame
        end = at - start + max(Fraction(frame.duration or 0) * Fraction(frame.time_base or 0), _LATE)
    while shown is not None and wanted is not None and wanted < end:
        yield shown
        wanted = next(waiting, None)


def _timed(path: Path) -> Iterator[tuple[Fraction, Any]]:
    """Yield the frames with the seconds at which they begin; where a file has none, at its rate."""
    with _opened(path) as container:
        stream = container.streams.video[0]
        rate = stream.guessed_rate or stream.average_rate
        step = 1 / Fraction(rate) if rate else Fraction(0)
        at = -step
        for frame in container.decode(stream):
            # AVI has times of decoding alone; frames come out in the order of being shown, at the same pace.
            stamp = frame.dts if container.format.name == "avi" else frame.pts
            at = at + step if stamp is None else stamp * Fraction(frame.time_base or 0)
            yield at, frame


def _frames(path: Path) -> Iterator[Any]:
    with _opened(path) as container:
        yield from container.decode(video=0)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file that has a video."""
    if not path.is_file():
        raise ValueError(f"expected a video, got {path}, which " + ("is none" if path.exists() else "does not exist"))
    av = _av(path)
    with _reading(path), av.open(str(path)) as container:
        if not container.streams.video:
            others = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            raise ValueError(f"expected a video in {path}, got {others} alone")
        if container.streams.video[0].codec_context is None:  # to decode it would crash PyAV before 18.1
            raise ValueError(f"expected a video in {path}, got one of a codec that PyAV does not know: convert it")
        yield container


def _reading(path: Path) -> AbstractContextManager[None]:
    """Turn what PyAV raises into one line."""
    return reading(path, "a video", _av(path).FFmpegError, IndexError, ValueError, ArithmeticError, MemoryError)


def _av(path: Path) -> Any:
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


def _upright(frame: Any, background: Colour = WHITE) -> Image.Image:
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
