"""A LoRA apart from a model: its tensors, and how strongly each layer takes them."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from peft import LoraConfig
from torch import Tensor

from swd_schedules import ScaleSchedule

Value = TypeVar("Value", bound=Hashable)


@dataclass(frozen=True)
class Lora:
    """Adapters apart from a model: tensors `LAYER.lora_A.weight` (rank, in) and `LAYER.lora_B.weight` (out, rank).

    A layer adds `scale B A x`, with scale = alpha / rank, or alpha / sqrt(rank) of an rsLoRA (arXiv 2312.03732).
    """

    state: dict[str, Tensor]
    alpha: float
    schedule: ScaleSchedule | None = None
    alphas: Mapping[str, float] = field(default_factory=dict)
    """Of the layers whose alpha is another one."""
    rslora: bool = False
    notes: Mapping[str, str] = field(default_factory=dict)
    """What else its file says of itself, under names that begin with `swd_`: over which model it was made."""

    @classmethod
    def of(
        cls,
        state: dict[str, Tensor],
        alphas: Mapping[str, float],
        schedule: ScaleSchedule | None,
        rslora: bool,
        notes: Mapping[str, str],
    ) -> "Lora":
        """Build it from the alpha of every layer: the most common becomes the one that needs no mention."""
        common = _most_common(alphas)
        others = {key: value for key, value in alphas.items() if value != common}
        return cls(state, common, schedule, others, rslora, notes)

    def weighted(self, weight: float) -> "Lora":
        """Return one that counts `weight` times as much."""
        alphas = {layer: weight * alpha for layer, alpha in self.alphas.items()}
        return replace(self, alpha=weight * self.alpha, alphas=alphas)

    @property
    def layers(self) -> list[str]:
        """Return the names of the layers that have adapters."""
        return sorted({key.rpartition(".lora_")[0] for key in self.state})

    @property
    def ranks(self) -> dict[str, int]:
        """Return the rank of each layer."""
        return {layer: self.state[f"{layer}.lora_A.weight"].shape[0] for layer in self.layers}

    @property
    def scales(self) -> dict[str, float]:
        """Return what each layer's product is multiplied by."""
        root = math.sqrt if self.rslora else float
        return {layer: self.alphas.get(layer, self.alpha) / root(rank) for layer, rank in self.ranks.items()}

    def config(self) -> LoraConfig:
        """Return PEFT's config of just these layers: a list would be taken for suffixes, which may match others."""
        ranks, alphas = self.ranks, {layer: self.alphas.get(layer, self.alpha) for layer in self.layers}
        rank = _most_common(ranks)
        return LoraConfig(
            r=rank,
            lora_alpha=_whole(self.alpha),
            rank_pattern=_pattern(ranks, rank),
            alpha_pattern=_pattern({layer: _whole(alpha) for layer, alpha in alphas.items()}, _whole(self.alpha)),
            use_rslora=self.rslora,
            target_modules="|".join(map(re.escape, self.layers)),
            init_lora_weights="gaussian",
        )


def _most_common(values: Mapping[str, Value]) -> Value:
    return Counter(values.values()).most_common(1)[0][0]


def _pattern(values: Mapping[str, Value], default: Value) -> dict[str, Value]:
    """Return PEFT's pattern of the layers that differ, by whole names: one expression for all of a value.

    PEFT tries every pattern on every layer, and Python forgets expressions beyond 512: one for each of SDXL's layers
    takes half a minute.
    """
    groups = defaultdict(list)
    for layer, value in values.items():
        if value != default:
            groups[value].append(re.escape(layer))
    return {f"^(?:{'|'.join(layers)})": value for value, layers in groups.items()}


def _whole(value: float) -> int | float:
    return int(value) if value == int(value) else value
