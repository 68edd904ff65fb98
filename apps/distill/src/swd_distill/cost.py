"""What an iteration costs, counted: the trainer's own code runs on tensors without data."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from swd_distill.batches import STUDENT, Batch, intervals
from swd_distill.cache import Cache
from swd_distill.config import Config
from swd_distill.meter import Meter
from swd_distill.trainer import FIRST_FAKE, Trainer
from swd_models import Roles, share_base
from swd_models.loading import cond_shapes, empty_denoiser
from swd_schedules import Stage

ROLES = ("teacher", "student", "fake")


@dataclass(frozen=True)
class Piece:
    """One part of an iteration, run for a share of a batch.

    Attributes:
        flops: Of the whole share, two a multiply-add.
        passes: By role, forwards and backwards of its blocks over their number, for each sample: the F of the README.
        peak: Most bytes of tensors at one time, weights apart.
    """

    flops: int
    passes: Mapping[str, float]
    peak: int


@dataclass(frozen=True)
class StageCost:
    """An iteration's pieces at one size: "rollout", "fake" and "student" passes, and the student's losses by name."""

    share: int
    forward_flops: int
    """Of one forward of the teacher for the whole share."""
    pieces: Mapping[str, Piece]

    @property
    def forward(self) -> float:
        """Return the FLOPs of one forward of the teacher for one sample."""
        return self.forward_flops / self.share

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


class Counted:
    """A trainer over weights without data, and what its pieces cost at any size."""

    def __init__(self, config: Config) -> None:
        self.config, self._mode = config, FakeTensorMode()
        self._cond = cond_shapes(config.model)
        teacher = empty_denoiser(config.model)
        if config.training.gradient_checkpointing:
            teacher.backbone.enable_gradient_checkpointing()
        with torch.device("meta"):
            teacher = teacher.to(torch.bfloat16)
            roles = share_base(teacher, config.training.rank, fake=config.needs_fake)
            head = config.recipe.head(teacher.num_features) if config.recipe.gan_weight else None
        self.roles, self.head = roles, head
        with self._mode:
            _without_data(_modules(roles, head))
            uncond = {name: torch.zeros(1, *shape) for name, shape in self._cond.items()}
            # Batches are given to it, none is drawn.
            self._trainer = Trainer(config, cast(Cache, SimpleNamespace(uncond=uncond)), roles, head)

    def parameters(self) -> dict[str, int]:
        """Return numbers of parameters: "base", which is held once, and trainable ones of "student" and "fake"."""
        networks = self._trainer.networks
        trained = {name: sum(p.numel() for p in network.parameters) for name, network in networks.items()}
        return {"base": sum(p.numel() for p in self.roles.teacher.parameters())} | trained

    def at(self, size: Sequence[int], share: int = 1) -> StageCost:
        """Count the pieces for a share of a batch at one size."""
        with self._mode:
            found = {name: self._measure(run, share) for name, run in self._pieces(size, share).items()}
        return StageCost(share, found.pop("forward").flops, found)

    def _pieces(self, size: Sequence[int], share: int) -> dict[str, Callable[[], object]]:
        trainer, teacher = self._trainer, self.roles.teacher
        stage = replace(trainer.schedule.stages[-1], target=tuple(size))
        batch, fake_batch = self._batch(stage, STUDENT, share), self._batch(stage, FIRST_FAKE, share)
        sigma, x0 = torch.zeros(share), torch.zeros_like(batch.real)
        pieces: dict[str, Callable[[], object]] = {
            "forward": lambda: _no_grad(lambda: teacher(batch.real, sigma, batch.cond)),
            "rollout": lambda: _no_grad(lambda: trainer.generate(fake_batch)),
            "student": lambda: _backward(trainer.generate(batch).sum(), trainer.student.parameters),
        }
        if self.config.needs_fake:
            pieces["fake"] = lambda: _backward(trainer.fake_terms(fake_batch, x0).total, trainer.fake.parameters)
        return pieces | {name: partial(trainer.slope, name, x0, batch) for name in batch.sigma}

    def _measure(self, run: Callable[[], object], share: int) -> Piece:
        with _passes(self.roles, share) as passes, Meter(_modules(self.roles, self.head)) as meter:
            run()
        return Piece(meter.flops, dict(passes), meter.peak)

    def _batch(self, stage: Stage, update: str, share: int) -> Batch:
        names = intervals(self.config.recipe, update)
        real = torch.zeros(share, self.roles.teacher.num_channels, *stage.target)
        cond = {name: torch.zeros(share, *shape) for name, shape in self._cond.items()}
        sigma = {name: torch.zeros(share) for name in names}
        return Batch(stage, real, real, cond, dict.fromkeys(("input", *names), real), sigma)


def _no_grad(run: Callable[[], object]) -> None:
    with torch.no_grad():
        run()


def _backward(total: Tensor, parameters: Sequence[Tensor]) -> None:
    torch.autograd.grad(total, list(parameters), allow_unused=True)


def _modules(roles: Roles, head: nn.Module | None) -> list[nn.Module]:
    return [module for module in (roles.teacher, roles.student, roles.fake, head) if module is not None]


def _without_data(modules: Sequence[nn.Module]) -> None:
    """Put tensors of the CPU, without data, in the place of meta ones, where attention is not what a GPU computes."""
    made: dict[int, tuple[Tensor, Tensor]] = {}
    for module in modules:
        for part in module.modules():
            for store in (part._parameters, part._buffers):
                for name, tensor in store.items():
                    if tensor is None:
                        continue
                    if id(tensor) not in made:
                        like: Tensor = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
                        if isinstance(tensor, nn.Parameter):
                            like = nn.Parameter(like, tensor.requires_grad)
                        made[id(tensor)] = like, tensor  # which keeps its id from being given away
                    store[name] = made[id(tensor)][0]  # type: ignore[assignment]


@contextmanager
def _passes(roles: Roles, share: int) -> Iterator[Counter[str]]:
    """Count forwards of the blocks of each role, recomputed ones too, and backwards, in shares of all its blocks."""
    counts: Counter[str] = Counter()
    denoisers = {role: getattr(roles, role) for role in ROLES if getattr(roles, role)}
    with ExitStack() as hooks:
        for role, denoiser in denoisers.items():

            def count(batch: int, role: str = role, weight: float = 1 / len(denoiser.layers) / share) -> None:
                counts[role] += batch * weight  # type: ignore[assignment]

            for layer in denoiser.layers:
                hooks.callback(layer.register_forward_pre_hook(partial(_at_forward, count)).remove)
                hooks.callback(layer.register_forward_hook(partial(_at_backward, count)).remove)
        yield counts


def _at_forward(count: Callable[[int], None], layer: nn.Module, args: tuple[Any, ...]) -> None:
    count(len(args[0]))


def _at_backward(count: Callable[[int], None], layer: nn.Module, args: Any, output: Any) -> None:
    counted: list[bool] = []

    def once(gradient: Tensor) -> None:
        if not counted:
            counted.append(True)
            count(len(gradient))

    for tensor in tree_leaves(output):
        if isinstance(tensor, Tensor) and tensor.requires_grad:
            tensor.register_hook(once)  # type: ignore[no-untyped-call]
