"""What an iteration is made of, and what each part costs."""

from collections.abc import Mapping
from dataclasses import dataclass

from swd_distill.config import Config
from swd_distill.planning.roofline import Work, join, repeat
from swd_distill.training.batches import STUDENT, intervals

ROLES = ("teacher", "student", "fake")


@dataclass(frozen=True)
class Piece:
    """One part of an iteration, run for a share of a batch.

    Attributes:
        flops: Of the whole share, two a multiply-add.
        passes: By role, forwards and backwards of its blocks over their number, for each sample: the F of the README.
        peak: Most bytes of tensors at one time, weights apart.
        work: Its operations, for a roofline.
    """

    flops: int
    passes: Mapping[str, float]
    peak: int
    work: Work = ()


@dataclass(frozen=True)
class StageCost:
    """An iteration's pieces at one size, run for a share of a batch.

    "forward" is the teacher's; "rollout", "fake" and "student" are passes, the student's losses have their names.
    """

    share: int
    pieces: Mapping[str, Piece]

    @property
    def forward(self) -> float:
        """Return the FLOPs of one forward of the teacher for one sample."""
        return self.pieces["forward"].flops / self.share

    def times(self, config: Config) -> dict[str, int]:
        """Return how often each piece runs in an iteration of a config, which may drop losses."""
        updates = config.recipe.fake_updates if config.needs_fake else 0
        rollouts = min(updates, 1) if config.training.reuse_rollout else updates
        losses = dict.fromkeys(intervals(config.recipe, STUDENT), 1)
        times = {"rollout": rollouts, "fake": updates, "student": 1, **losses}
        return {name: count for name, count in times.items() if count}

    def flops(self, config: Config) -> float:
        """Return the FLOPs of an iteration for one sample."""
        return sum(count * self.pieces[name].flops for name, count in self.times(config).items()) / self.share

    def work(self, config: Config) -> Work:
        """Return the operations of an iteration."""
        return join(*(repeat(self.pieces[name].work, count) for name, count in self.times(config).items()))

    def passes(self, config: Config) -> dict[str, float]:
        """Return an iteration's forwards and backwards by role."""
        total: dict[str, float] = dict.fromkeys(ROLES, 0.0)
        for name, count in self.times(config).items():
            for role, passes in self.pieces[name].passes.items():
                total[role] += count * passes
        return total

    def peak(self, config: Config) -> int:
        """Return the most bytes of tensors in an iteration of the share, weights and optimisers apart."""
        times = self.times(config)
        losses = max(self.pieces[name].peak for name in intervals(config.recipe, STUDENT))
        fake = self.pieces["fake"].peak if "fake" in times else 0
        return max(self.pieces["student"].peak + losses, fake)  # the student's graph stays, those of its losses go
