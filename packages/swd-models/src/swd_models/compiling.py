"""torch.compile, block by block: each kind of block once for every case, instead of a whole model again and again."""

from collections.abc import Iterable

import torch
from torch import nn


def compile_layers(layers: Iterable[nn.Module], backend: str, versions: int, *, dynamic: bool = False) -> int:
    """Compile each block by itself, in place; return the most compilations that there will be.

    Blocks of one kind share what is compiled. A kind may have so many `versions`: after that it runs as it is.

    Args:
        layers: Blocks.
        backend: Of torch.compile.
        versions: Of a kind: one for each shape, and for each way to run it (with gradients, with adapters).
        dynamic: Let one version serve all shapes: a little slower than one for each.
    """
    layers = list(layers)
    bound = versions * len({_kind(layer) for layer in layers})
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, bound)  # kinds of one class count together
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, bound)
    for layer in layers:
        layer.compile(backend=backend, dynamic=dynamic)
    return bound


def check_backend(backend: str | None) -> None:
    """Raise ValueError for a name that torch.compile does not know."""
    if backend is not None and backend not in torch._dynamo.list_backends(None):
        raise ValueError(f"expected a backend of {', '.join(torch._dynamo.list_backends(None))}, got {backend!r}")


def compiling(backend: str, bound: int) -> str:
    """Return the line that says what will take its time."""
    return f"blocks are compiled by {backend} when they are met, {bound} times at most"


def _kind(layer: nn.Module) -> tuple[object, ...]:
    # Z-Image's blocks that refine the image are as the others, but for what they are given: its ids tell.
    refines = getattr(layer, "layer_id", 0) >= 1000
    return type(layer), refines, *((name, tuple(tensor.shape)) for name, tensor in layer.named_parameters())
