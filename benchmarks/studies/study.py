"""What a study is: students of one teacher beside each other, and the claims that their scores decide."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from swd_distill.config import Config, Data

SEEDS = (0, 1, 2)
STUDENT = "student, "
"""Begins the name of a student's row."""


@dataclass(frozen=True)
class Claim:
    """That one row is better than another, or as good to within `margin` of the share that is all right."""

    text: str
    better: str
    worse: str
    margin: float = 0.0

    @property
    def row(self) -> str:
        """Return the row of the one."""
        return f"{STUDENT}{self.better}"

    @property
    def other(self) -> str:
        """Return the row of the other."""
        return f"{STUDENT}{self.worse}"


@dataclass(frozen=True)
class Study:
    """What is compared: a teacher's students by the names of their records, the first of them its base."""

    page: str
    title: str
    students: Mapping[str, Config]
    claims: tuple[Claim, ...] = ()
    repeats: int = 1
    """Samples of a prompt: more of them where there are few prompts."""
    seeds: Mapping[str, int] = field(default_factory=dict)
    """How many seeds students have whose claims three do not decide."""
    looks: bool = False
    """Whether records tell power by frequency and the spread over seeds too: of scenes."""
    advice: str = ""
    """What to do by it, and for what it holds."""

    @property
    def base(self) -> Config:
        """Return the preset whose schedule and guidance the references have too."""
        return next(iter(self.students.values()))

    def most_data(self, prompts: Path | None) -> Data:
        """Return the data settings of the student that sees the most samples of these prompts."""
        alike = [student.data for student in self.students.values() if student.data.prompts == prompts]
        return max(alike, key=lambda data: data.num_images)
