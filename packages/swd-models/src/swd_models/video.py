"""Video files to frames and back, with PyAV (extra `swd-models[video]`)."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from PIL import Image

FPS = 16  # of Wan2.1


def read_frames(path: Path, num_frames: int) -> list[Image.Image]:
    """Read the first frames of a video file, or of a folder with one image a frame, in the order of their names.

    Raises:
        ValueError: no video, or one with fewer frames.
    """
    frames = _read_folder(path, num_frames) if path.is_dir() else _read_file(path, num_frames)
    if len(frames) < num_frames:
        raise ValueError(f"expected {num_frames} frames or more, got {len(frames)} in {path}")
    return frames


def _read_file(path: Path, num_frames: int) -> list[Image.Image]:
    import av  # takes a second to import, and images need none of it

    try:
        with av.open(str(path)) as container:
            return [frame.to_image() for frame in islice(container.decode(video=0), num_frames)]
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"expected a video, got {path}, which cannot be read: {error}") from error


def _read_folder(path: Path, num_frames: int) -> list[Image.Image]:
    files = sorted(file for file in path.iterdir() if not file.name.startswith("."))[:num_frames]
    try:
        return [Image.open(file).convert("RGB") for file in files]
    except OSError as error:
        raise ValueError(f"expected one image a frame in {path}, got another file: {error}") from error


def write_video(path: Path, frames: Sequence[Image.Image], fps: int = FPS, *, playable: bool = False) -> None:
    """Write an H.264 file: nearly lossless for training, or in the form that every player knows (4:2:0, even sizes)."""
    import av

    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "18" if playable else "10"})
        width, height = (side - side % 2 if playable else side for side in frames[0].size)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p" if playable else "yuv444p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame.crop((0, 0, width, height)))))
        container.mux(stream.encode())
