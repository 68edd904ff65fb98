"""torch.compile, block by block: each kind once for every shape, instead of a whole model again and again."""

from collections.abc import Iterable

import torch
from torch import nn


def compile_layers(layers: Iterable[nn.Module], backend: str, versions: int) -> None:
    """Compile each block by itself, in place; shapes are static, and a kind of block may have so many versions."""
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, versions)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, 4 * versions)
    for layer in layers:
        layer.compile(backend=backend, dynamic=False)
