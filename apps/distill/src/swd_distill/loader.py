"""Batches ahead of their use: the next ones are read and drawn in a thread while the device computes."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from swd_distill.batches import Batch, Draw


class Loader:
    """Read draws; `waited` counts the seconds in which a batch that was asked for was not there yet."""

    def __init__(self, read: Callable[[Draw], Batch], device: torch.device) -> None:
        self._read, self._device = read, device
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._coming: dict[Draw, Future[Batch]] = {}
        self.waited = 0.0

    def take(self, draw: Draw, then: Sequence[Draw] = ()) -> Batch:
        """Return a batch on the device, and start on those that are taken next."""
        wanted = [draw, *then]
        self._coming = {each: self._coming.get(each) or self._pool.submit(self._read, each) for each in wanted}
        began = time.perf_counter()
        batch = self._coming.pop(draw).result()
        self.waited += time.perf_counter() - began
        return batch.to(self._device)
