"""Trainable parameters with their optimiser: gradients add up over shares and processes, then one step."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from swd_distill.config import Training
from swd_distill.devices import processes, sum_over_processes
from swd_losses import LossTerms
from swd_schedules.devices import has_fused_adamw

Metrics = dict[str, float]


class Network:
    """Parameters, AdamW, and (`ema` above 0) an average of the parameters over the updates."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        training: Training,
        ema: float = 0.0,
        *,
        scaled: bool = False,
    ) -> None:
        """Take parameters; the loss is `scaled` where gradients pass through float16."""
        self.parameters: list[Tensor] = list(parameters)
        self.lr, self.training, self.ema = lr, training, ema
        device = self.parameters[0].device
        small = training.optimizer == "adamw-8bit"
        self._skips_itself = not small and has_fused_adamw(device)
        adamw = _adamw_8bit() if small else partial(torch.optim.AdamW, fused=self._skips_itself)
        self.optimizer = adamw(self.parameters, lr=lr, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8)
        self.scaler = torch.amp.GradScaler(device.type, enabled=scaled)
        self.average = [parameter.detach().clone() for parameter in self.parameters] if ema else []
        self.skips_in_a_row, self.skips = 0, 0

    def descend(
        self,
        shares: Sequence[Callable[[], LossTerms]],
        step: int,
        meter: AbstractContextManager[object] = nullcontext(),  # noqa: B008, which has no state
    ) -> dict[str, Tensor]:
        """Update by the mean gradient of all shares of all processes; return the mean parts, and the `norm`.

        Losses and gradients are computed under `meter`. The gradient reaches no other network. One that is not finite
        is skipped. The numbers stay on the device: to read one of them would wait for it. `note` is told the norm.
        """
        for group in self.optimizer.param_groups:
            lr = self.lr * lr_ratio(step, self.training)
            group["lr"] = group["lr"].fill_(lr) if isinstance(group["lr"], Tensor) else lr  # torchao's is a tensor
        count = len(shares) * processes().num_processes
        parts: dict[str, Tensor] = {}
        with meter:
            for share in shares:  # one graph at a time
                terms = share()
                torch.autograd.backward(self.scaler.scale(terms.total / count), inputs=self.parameters)
                for name, part in terms.parts.items():
                    parts[name] = parts.get(name, 0) + part / count
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        sum_over_processes(gradients)
        sum_over_processes(list(parts.values()))
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.training.clip)
        self._step(norm)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            decay = min(self.ema, (1 + step) / (10 + step))  # at first it follows: it starts at nothing learnt
            weight = (1 - decay) * torch.isfinite(norm)  # a skipped update moves nothing
            with torch.no_grad():
                for average, parameter in zip(self.average, self.parameters, strict=True):
                    average.lerp_(parameter, weight.to(average.dtype))
        return parts | {"norm": norm}

    def _step(self, norm: Tensor) -> None:
        """Step if the norm is finite: the fused optimiser finds that out on the device, any other must be told."""
        if self._skips_itself:
            self.optimizer.found_inf = 1 - torch.isfinite(norm).float()  # type: ignore[attr-defined]
            self.optimizer.step()
        elif math.isfinite(float(norm)):
            self.optimizer.step()

    def note(self, norm: float, step: int) -> int:
        """Count the update of a step whose norm was not finite; return how many were skipped so far.

        Raises:
            ValueError: `max_skips` in a row were not finite.
        """
        if math.isfinite(norm):
            self.skips_in_a_row = 0
            return self.skips
        self.skips_in_a_row, self.skips = self.skips_in_a_row + 1, self.skips + 1
        if self.skips_in_a_row == self.training.max_skips:
            raise ValueError(
                f"expected finite gradients, got {self.skips_in_a_row} updates in a row without, up to step "
                f"{step + 1}: train again with a lower --training.lr and another --out"
            )
        return self.skips

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the average in the parameters' place for a while; without one, change nothing."""
        kept = [parameter.data for parameter in self.parameters]
        for parameter, average in zip(self.parameters, self.average or kept, strict=True):
            parameter.data = average
        try:
            yield
        finally:
            for parameter, data in zip(self.parameters, kept, strict=True):
                parameter.data = data


def _adamw_8bit() -> Callable[..., torch.optim.Optimizer]:
    try:
        from torchao.optim import AdamW8bit
    except ImportError as error:
        raise ValueError(
            "expected torchao for --training.optimizer adamw-8bit, got none: pip install 'swd-distill[8bit]'"
        ) from error
    return AdamW8bit  # type: ignore[no-any-return]


def lr_ratio(step: int, training: Training) -> float:
    """Return the share of the learning rate at a step: warm-up, then constant or cosine."""
    rise = min(1.0, (step + 1) / training.warmup) if training.warmup else 1.0
    return rise * (0.5 * (1 + math.cos(math.pi * step / training.iterations)) if training.decay else 1.0)
