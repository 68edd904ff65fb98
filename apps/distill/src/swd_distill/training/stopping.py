"""Stop between two steps: SIGTERM and SIGINT ask for it, and what is running is finished and saved first."""

import signal
from types import FrameType, TracebackType
from typing import Self

import torch

from swd_distill.devices import processes, sum_over_processes

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopping:
    """While it is entered, note the signals instead of dying by them; a second Ctrl-C does kill.

    A second SIGTERM does not: under a launcher, a worker may get its own and the launcher's.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.signal = device, 0

    def __enter__(self) -> Self:
        self._before = [signal.signal(number, self._note) for number in SIGNALS]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in zip(SIGNALS, self._before, strict=True):
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)

    def asked(self) -> bool:
        """Tell whether any process was signalled: they stop at the same step."""
        if processes().num_processes == 1:
            return bool(self.signal)
        flag = torch.tensor(float(self.signal), device=self.device)
        sum_over_processes([flag])
        return bool(flag)
