"""Batches ahead of their use: the next ones are read and drawn in a thread while the device computes."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from swd_distill.training.batches import Batch, Draw
from swd_schedules.devices import has_pinned_memory


class Loader:
    """Read draws; `waited` counts the seconds in which a batch that was asked for was not there yet."""

    def __init__(self, read: Callable[[Draw], Batch], device: torch.device) -> None:
        self._read, self._device, self._pins = read, device, has_pinned_memory(device)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._coming: dict[Draw, Future[Batch]] = {}
        self.waited = 0.0

    def take(self, draw: Draw, then: Sequence[Draw] = ()) -> Batch:
        """Return a batch on the device, and start on those that are taken next."""
        wanted = [draw, *then]
        self._coming = {each: self._coming.get(each) or self._pool.submit(self._prepare, each) for each in wanted}
        began = time.perf_counter()
        batch = self._coming.pop(draw).result()
        self.waited += time.perf_counter() - began
        return batch.to(self._device)

    def send(self, batch: Batch) -> Batch:
        """Return a batch that was not read here on the device."""
        return (batch.pinned() if self._pins else batch).to(self._device)

    def _prepare(self, draw: Draw) -> Batch:
        batch = self._read(draw)
        return batch.pinned() if self._pins else batch
