"""Work beside the device: samples are read before they are asked for, and files written while the next is computed."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

THREADS = min(8, os.cpu_count() or 1)
"""Of those that decode or write files: both let other threads run meanwhile."""

T = TypeVar("T")
R = TypeVar("R")


def ahead(items: Iterable[T], read: Callable[[T], R], depth: int) -> Generator[R, None, None]:
    """Read items in threads, so many ahead of the one that is taken; yield results in order.

    The items themselves come from one thread, for streams only go forward. An error is raised at its place in the
    order. Threads end with the iterator: close it where it may not be used up.
    """
    iterator, end = iter(items), object()

    def read_one(coming: Future[Any]) -> Any:
        item = coming.result()
        return end if item is end else read(item)

    with ThreadPoolExecutor(1, "items") as one, ThreadPoolExecutor(THREADS, "ahead") as many:
        try:
            waiting = deque(many.submit(read_one, one.submit(next, iterator, end)) for _ in range(depth))
            while (result := waiting.popleft().result()) is not end:
                waiting.append(many.submit(read_one, one.submit(next, iterator, end)))
                yield result
        finally:
            for pool in (one, many):
                pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def behind(threads: int, limit: int) -> Iterator[Callable[..., None]]:
    """Give a function that runs calls in threads; it waits while so many are not done.

    All are done at the end. An error of a call is raised by a later one, or at the end.
    """
    running: deque[Future[Any]] = deque()

    def run(call: Callable[..., Any], *args: Any) -> None:
        while running and (len(running) >= limit or running[0].done()):
            running.popleft().result()
        running.append(pool.submit(call, *args))

    with ThreadPoolExecutor(threads, "behind") as pool:
        yield run
        for each in running:
            each.result()
