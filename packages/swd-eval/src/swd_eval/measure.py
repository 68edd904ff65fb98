"""A measure: one row of numbers for every image or video, from a model or from the pixels alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from torch import Tensor

Prepare = Callable[[Any], Any]
"""From a picture (RGB) or a `swd_data.Clip` to what the network takes; runs in threads."""
Run = Callable[[Sequence[Any], Sequence[str]], Tensor]
"""From what was prepared and its prompts to rows (B, K)."""


@dataclass(frozen=True)
class Measure:
    """What is computed for each image or video, and with what."""

    name: str
    about: dict[str, Any]
    """What a result must say of it: weights, preprocessing, dtype."""
    load: Callable[[], tuple[Prepare, Run]]
    """Opens the model; called only where samples are left to do."""
    dim: int
    fields: tuple[str, ...] = ()
    """Names of the numbers, where they are scores and not features."""


def require(extra: str, *modules: str) -> None:
    """Raise ValueError, in one line, if an extra of swd-eval is not installed."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise ValueError(f"expected the extra {extra}, got no module {missing[0]}: install swd-eval[{extra}]")
