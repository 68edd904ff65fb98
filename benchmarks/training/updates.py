"""Single updates of a trainer, at a stage that is asked for: each as often as is asked for, and no more."""

import time
from collections.abc import Iterator
from itertools import count
from typing import Any

from swd_distill.training.batches import STUDENT, Batch, Draw
from swd_distill.training.network import Metrics
from swd_distill.training.trainer import FIRST_FAKE, Trainer
from swd_schedules.devices import has_pinned_memory

FAKE = "fake"
UPDATES = {STUDENT: STUDENT, FAKE: FIRST_FAKE}


class Fed(Trainer):
    """A trainer whose batches lie ready in pinned memory, as behind a loader that keeps up."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._ready: dict[Draw, Batch] = {}

    def feed(self, kind: str, step: int) -> None:
        """Draw the batches of an update."""
        found = {draw: draw.batch(self.cache, self.schedule, self.recipe) for draw in self._draws(step, UPDATES[kind])}
        pins = has_pinned_memory(self.device)
        self._ready = {draw: batch.pinned() if pins else batch for draw, batch in found.items()}

    def _take(self, draw: Draw) -> Batch:
        return self._ready.pop(draw).to(self.device)


class Inline(Fed):
    """A trainer that makes each batch when it needs it, in its own thread: encodes, if its cache does."""

    def feed(self, kind: str, step: int) -> None:
        """Draw nothing yet."""

    def _take(self, draw: Draw) -> Batch:
        return draw.batch(self.cache, self.schedule, self.recipe).to(self.device)


def kinds(trainer: Trainer) -> dict[str, int]:
    """Return the kinds of updates, and how many of each an iteration has."""
    return {STUDENT: 1} | ({FAKE: trainer.recipe.fake_updates} if trainer.roles.fake else {})


def steps_at(trainer: Trainer, kind: str, stage: int) -> Iterator[int]:
    """Return the steps at which an update is of a stage; which one it is is drawn, a pure function of the step."""
    draws = (Draw(trainer.config.seed, step, UPDATES[kind], trainer.places[0]) for step in count())
    return (draw.step for draw in draws if draw.stage(trainer.schedule, trainer.recipe).index == stage)


def update(trainer: Fed, kind: str, step: int) -> Metrics:
    """Run an update."""
    trainer.feed(kind, step)
    return trainer.update_student(step) if kind == STUDENT else trainer.update_fake(step, UPDATES[kind])


def timed(trainer: Fed, kind: str, step: int) -> tuple[float, Metrics]:
    """Run an update; return its seconds too. It ends with the read of its numbers, so the device is done."""
    trainer.feed(kind, step)
    began = time.perf_counter()
    found = trainer.update_student(step) if kind == STUDENT else trainer.update_fake(step, UPDATES[kind])
    return time.perf_counter() - began, found
