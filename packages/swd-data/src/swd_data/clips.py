"""Video files, or folders with one image a frame, as a player shows them: upright, at their own pace.

Needs PyAV for files (extra `swd-data[video]`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from swd_data.decoding import frames_of, need_av, opened, reading_clip, timed_frames, upright
from swd_data.folders import IMAGES, list_files
from swd_data.images import WHITE, Colour, open_image
from swd_data.whole import whole

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
        frames = [frame for _, frame in zip(range(count), frames_of(path), strict=False)]
    else:
        frames = list(_at_times(path, [Fraction(i) / Fraction(fps).limit_denominator(1001) for i in range(count)]))
    if len(frames) < count:
        pace = f" at {fps:g} a second" if fps else ""
        raise ValueError(f"expected {count} frames{pace} in {path}, got {len(frames)}: leave it out, or ask for fewer")
    with reading_clip(path):
        return [upright(frame, background) for frame in frames]


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
        with opened(path) as container:
            stream = container.streams.video[0]
            # Those that an edit list leaves out, as a phone's trim does, are there and are not shown.
            packets = sum(packet.size > 0 and not packet.is_discard for packet in container.demux(stream))
            rate: Any = stream.average_rate
        if not (packets and rate):
            found = "frames without a rate" if packets else "no frames"
            raise ValueError(f"expected a video in {path}, got {found}: convert it to .mp4, or leave it out")
        return cls(path, float(rate), packets)

    def every(self) -> Iterator[NDArray[np.uint8]]:
        """Yield all frames in turn, as uint8 (H, W, 3): a long clip need not be held whole.

        Raises:
            ValueError: the file is damaged before the last of them.
        """
        count = 0
        with reading_clip(self.path):
            for frame in islice(frames_of(self.path), self.num_frames):
                yield np.asarray(upright(frame))
                count += 1
        if count < self.num_frames:
            raise ValueError(f"expected {self.num_frames} frames in {self.path}, got none at index {count}")

    def frames(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Return the frames of some indices, in that order, as uint8 (T, H, W, 3).

        Raises:
            ValueError: the file is damaged before the last of them.
        """
        last, wanted = max(indices), set(indices)
        with reading_clip(self.path):
            found = {
                index: np.asarray(upright(frame))
                for index, frame in zip(range(last + 1), frames_of(self.path), strict=False)
                if index in wanted
            }
        missing = wanted - found.keys()
        if missing:
            raise ValueError(f"expected {self.num_frames} frames in {self.path}, got none at index {min(missing)}")
        return np.stack([found[index] for index in indices])


def write_video(path: Path, frames: Iterable[Image.Image], fps: int | Fraction, *, playable: bool = False) -> None:
    """Write an H.264 file, whole or not at all: nearly lossless for training, or in the form that every player knows.

    The latter is 4:2:0 with even sizes.
    """
    av = need_av(path)
    with whole(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "18" if playable else "10"})
        every = iter(frames)
        first = next(every)
        width, height = (side - side % 2 if playable else side for side in first.size)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p" if playable else "yuv444p"
        for frame in chain([first], every):
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
    for at, frame in timed_frames(path):
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
