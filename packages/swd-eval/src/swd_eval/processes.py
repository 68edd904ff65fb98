"""The processes of one launch (`accelerate launch`, `torchrun`), which share the samples of a run."""

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any


class ElsewhereError(ValueError):
    """Something failed in another process of the launch; this is its line."""


def is_main() -> bool:
    """Tell whether this process speaks to the user."""
    return int(os.environ.get("RANK", "0")) == 0


def place() -> tuple[int, int]:
    """Return the index of this process, and how many there are."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0, 1
    state = _state()
    return state.process_index, state.num_processes


@contextmanager
def together() -> Iterator[None]:
    """Do this in all processes, and wait until it is done in all.

    Raises:
        ElsewhereError: in another process something failed, or that process is gone.
    """
    _, number = place()
    if number == 1:
        yield
        return
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    reports = _exchange(str(failure) or type(failure).__name__ if failure else "")
    if failure:
        raise failure
    if any(reports):
        raise ElsewhereError(next(filter(None, reports)))


def _exchange(report: str) -> list[str]:
    """Send a text to all processes and wait for theirs: the n-th calls of all belong together, wherever they are."""
    from accelerate.utils import gather_object

    try:
        reports: list[str] = gather_object([report])
    except RuntimeError:  # gloo's, for a connection that is closed
        return ["expected all processes of the launch to the end, got one that is gone: start again, it goes on"]
    return reports


@cache
def _state() -> Any:
    """Join the others. By gloo also on GPUs: only texts are sent, and who waits leaves the GPU alone."""
    from swd_eval.devices import find_device
    from swd_eval.measure import require

    require("multi", "accelerate")
    from accelerate import PartialState

    state = PartialState(cpu=find_device() == "cpu", backend="gloo", timeout=timedelta(days=1))
    atexit.register(state.destroy_process_group)
    return state
