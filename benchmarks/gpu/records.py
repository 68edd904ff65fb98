"""A stage's record: made within what is left of the budget, written whatever happened, kept for the next call."""

import json
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeGuard

import torch

from benchmarks.gpu.devices import free
from benchmarks.gpu.setting import Rows, Setting
from benchmarks.gpu.stages import Stage
from benchmarks.provenance import commit, machine, provenance

Record = dict[str, Any]
DONE, FAILED, LATE, OUT = "done", "failed", "out of time", "not measured"
LOST = "device lost"
"""Marks a record after whose stage this process can compute on its device no more."""
AGAIN = 5.0
"""Seconds after which a stage whose time is up is told so once more."""


class OutOfTime(BaseException):
    """The budget is spent: no error, which something inside might take for one of its own."""


def read(path: Path) -> Record | None:
    """Return a stage's record, if there is one."""
    return json.loads(path.read_text()) if path.is_file() else None


def holds(record: Record | None) -> bool:
    """Tell whether a record is of this commit and this machine, and was not cut off; sources may change uncommitted."""
    here = (commit(), machine())
    return measured(record) and (record["commit"], record["machine"]) == here and not here[0].endswith("-dirty")


def measured(record: Record | None) -> TypeGuard[Record]:
    """Tell whether a record is of a stage that came to its end, or to an error."""
    return record is not None and record["ended"] in {DONE, FAILED}


def make(stage: Stage, setting: Setting, left: float) -> Record:
    """Measure a stage in the seconds that are left; note what it found even where it fails."""
    record = {"stage": stage.name, "title": stage.title, **provenance(setting.describe())}
    if left < stage.takes(setting):
        why = f"expected to take {stage.takes(setting):.0f} s, {max(0.0, left):.0f} s of the budget were left"
        return record | {"ended": OUT, "error": why, "seconds": 0.0, "rows": {}}
    rows: Rows = {}
    began = time.perf_counter()
    ended, error = _guarded(stage, setting, rows, left)
    record |= {"ended": ended, "error": error, "seconds": time.perf_counter() - began, "rows": rows}
    try:
        free()  # after the error is gone, whose frames held tensors
    except torch.AcceleratorError as fault:
        record |= {LOST: True, "ended": FAILED, "error": error or _line(fault)}
    return record


def _guarded(stage: Stage, setting: Setting, rows: Rows, left: float) -> tuple[str, str]:
    try:
        with _alarm(left):
            stage.measure(setting, rows)
    except OutOfTime:
        return LATE, f"stopped after {left:.0f} s: the budget was spent"
    except Exception as error:  # a stage that fails, out of memory too, must not end the others
        return FAILED, _line(error)
    return DONE, ""


def _line(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())[:400]
    return f"{type(error).__name__}: {text} ({Path(where.filename).name}:{where.lineno})"


def write(record: Record, path: Path) -> None:
    """Write a record, whole or not at all; what was measured before stays, beside an attempt that did not end well."""
    attempt, whole = path.with_suffix(".attempt.json"), record["ended"] == DONE
    if not whole and measured(read(path)):
        if record["ended"] == OUT:
            return
        path = attempt
    elif whole:
        attempt.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".tmp").write_text(json.dumps(record, indent=1) + "\n")
    path.with_suffix(".tmp").replace(path)


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` in what is done inside, if it takes longer, and again where that was lost."""

    def late(number: int, frame: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
