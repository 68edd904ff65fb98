"""What an iteration costs, counted: the trainer's own code runs on tensors without data."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import chain
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from swd_distill.config import Config
from swd_distill.data.cache import Cache
from swd_distill.planning.fused import fused_norms
from swd_distill.planning.pieces import ROLES, Piece, StageCost
from swd_distill.planning.roofline import Recorder
from swd_distill.training.batches import STUDENT, Batch, intervals
from swd_distill.training.trainer import FIRST_FAKE, Trainer
from swd_models import Denoiser, Roles, share_base
from swd_models.loading import cond_shapes, empty_denoiser, experts_of
from swd_models.quantized import quantised_layers
from swd_schedules import Stage


class Counted:
    """A trainer over weights without data, and what its pieces cost at any size.

    As on a GPU, unless `on_gpu` is off: the CPU takes norms apart and keeps more of them for backward.
    """

    def __init__(
        self, config: Config, cond: Mapping[str, tuple[int, ...]] | None = None, *, on_gpu: bool = True
    ) -> None:
        """Take a config, and the shapes of a prompt's embeddings where they are known: else they may cost encoders."""
        self.config, self._mode = config, FakeTensorMode()
        self._norms = fused_norms if on_gpu else nullcontext
        self._cond = cond or cond_shapes(config.model, config.data.text_tokens)
        teacher = empty_denoiser(config.model)
        with torch.device("meta"):
            teacher = _half(teacher) if on_gpu else teacher
            roles = share_base(teacher, config.training.rank, fake=config.needs_fake)
            head = config.recipe.head(teacher.num_features) if config.recipe.gan_weight else None
        self.roles, self.head = roles, head
        with self._mode:
            without_data(_modules(roles, head))
            uncond = {name: torch.zeros(1, *shape) for name, shape in self._cond.items()}
            # Batches are given to it, none is drawn.
            self._trainer = Trainer(config, cast(Cache, SimpleNamespace(uncond=uncond)), roles, head)

    def parameters(self) -> dict[str, int]:
        """Return numbers of parameters: those of `base_parameters`, and trainable ones of "student" and "fake"."""
        networks = self._trainer.networks
        trained = {name: sum(p.numel() for p in network.parameters) for name, network in networks.items()}
        return base_parameters(self.roles.teacher) | trained

    @property
    def facts(self) -> dict[str, int]:
        """Return what a plan asks of a model: `channels` of latents, numbers of a prompt's `text`, `passes` a step.

        And of one of two experts the `boundary` between them, a timestep.
        """
        teacher, text = self.roles.teacher, sum(math.prod(shape) for shape in self._cond.values())
        facts = {"channels": teacher.num_channels, "text": text, "passes": 2 if teacher.guidance is None else 1}
        first, *others = experts_of(self.config.model)
        return facts | ({"boundary": round(1000 * first.levels[0])} if others else {})

    @property
    def num_blocks(self) -> int:
        """Return the number of blocks, all of which may be recomputed in backward."""
        return len(self.roles.teacher.layers)

    def at(self, size: Sequence[int], share: int = 1, *, checkpointed: int = 0) -> StageCost:
        """Count the pieces for a share of a batch at one size, so many blocks being recomputed in backward."""
        for role in (self.roles.teacher, self.roles.student, self.roles.fake):
            if role is not None:
                role.checkpoint(checkpointed)
        with self._mode:
            pieces = {name: self._measure(run, share) for name, run in self._pieces(size, share).items()}
        return StageCost(share, pieces)

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
        modules = _modules(self.roles, self.head)
        with self._norms(), _passes(self.roles, share) as passes, Recorder(modules, share) as recorder:
            run()
        return Piece(recorder.flops, dict(passes), recorder.peak, recorder.work)

    def _batch(self, stage: Stage, update: str, share: int) -> Batch:
        names = intervals(self.config.recipe, update)
        real = torch.zeros(share, self.roles.teacher.num_channels, *stage.target)
        cond = {name: torch.zeros(share, *shape) for name, shape in self._cond.items()}
        sigma = {name: torch.zeros(share) for name in names}
        return Batch(stage, real, real, cond, dict.fromkeys(("input", *names), real), sigma)


def base_parameters(denoiser: Denoiser) -> dict[str, int]:
    """Return the parameters of a "base", held once, and of its layers that can be "quantised": "largest", "rows"."""
    layers = [denoiser.backbone.get_submodule(name) for name in quantised_layers(denoiser)]
    weights = [layer.in_features * layer.out_features for layer in layers]
    return {
        "base": sum(parameter.numel() for parameter in denoiser.parameters()),
        "quantised": sum(weights),
        "largest": max(weights),
        "rows": sum(layer.out_features for layer in layers),
    }


def count_forward(module: nn.Module, run: Callable[[], object]) -> Piece:
    """Count what a module of the meta device does for one sample, called by `run`, which makes its inputs."""
    with FakeTensorMode():
        without_data([module])
        with fused_norms(), torch.no_grad(), Recorder([module], 1) as recorder:
            run()
    return Piece(recorder.flops, {}, recorder.peak, recorder.work)


def _half(denoiser: Denoiser) -> Denoiser:
    """Cast to bfloat16 what a loader would: not what a family keeps in float32."""
    keep = set(denoiser.backbone._keep_in_fp32_modules or ())
    for name, tensor in chain(denoiser.named_parameters(), denoiser.named_buffers()):
        if tensor.is_floating_point() and not keep & set(name.split(".")):
            tensor.data = tensor.data.to(torch.bfloat16)
    return denoiser


def _no_grad(run: Callable[[], object]) -> None:
    with torch.no_grad():
        run()


def _backward(total: Tensor, parameters: Sequence[Tensor]) -> None:
    torch.autograd.grad(total, list(parameters), allow_unused=True)


def _modules(roles: Roles, head: nn.Module | None) -> list[nn.Module]:
    return [module for module in (roles.teacher, roles.student, roles.fake, head) if module is not None]


def without_data(modules: Sequence[nn.Module]) -> None:
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
