"""Frames of a video file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from swd_eval.measure import require


@dataclass(frozen=True)
class Video:
    """A video file whose frames are decoded when they are asked for."""

    path: Path
    fps: float
    """Frames a second, on average."""
    num_frames: int

    @classmethod
    def open(cls, path: Path) -> "Video":
        """Read how fast and how long a video is.

        Raises:
            ValueError: the extra is missing, or the file is no video.
        """
        require("video", "av")
        import av

        try:
            with av.open(path) as container:
                if not container.streams.video:
                    raise ValueError(f"expected a video in {path}, got a file without one")
                stream = container.streams.video[0]
                packets = sum(packet.size > 0 for packet in container.demux(stream))
                rate: Any = stream.average_rate
        except av.FFmpegError as error:
            raise ValueError(f"expected a video in {path}, got what FFmpeg cannot read: {error}") from None
        if not (packets and rate):
            raise ValueError(f"expected a video in {path}, got {packets} frames at {rate} frames a second")
        return cls(path, float(rate), packets)

    def frames(self, indices: Sequence[int]) -> Tensor:
        """Return the frames of some indices, in that order, as uint8 (T, H, W, 3).

        Raises:
            ValueError: the file is damaged before the last of them.
        """
        import av

        wanted, found = set(indices), {}
        try:
            with av.open(self.path) as container:
                for index, frame in enumerate(container.decode(video=0)):
                    if index in wanted:
                        found[index] = torch.from_numpy(np.asarray(frame.to_ndarray(format="rgb24")))
                    if index >= max(wanted):
                        break
        except av.FFmpegError as error:
            raise ValueError(f"expected a video in {self.path}, got what FFmpeg cannot decode: {error}") from None
        if len(found) < len(wanted):
            missing = min(wanted - found.keys())
            raise ValueError(f"expected {self.num_frames} frames in {self.path}, got none at index {missing}")
        return torch.stack([found[index] for index in indices])
