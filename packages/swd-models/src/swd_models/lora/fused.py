"""Adapters of layers that are rows of one layer in another tool's model: cut apart, and joined."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Adapter(NamedTuple):
    """Factors (rank, in) and (out, rank), and the alpha, if it has one: it adds alpha / rank B A."""

    down: Tensor
    up: Tensor
    alpha: float | None


def cut(whole: Adapter, widths: Sequence[int]) -> list[Adapter | None]:
    """Return the adapter of each layer, of so many rows; None for one that adds nothing in a whole that was joined.

    All share the rank of the whole, unless `join` made it: then each has its own part of the rank.
    """
    down, up, alpha = whole
    rows, count = torch.split(up, list(widths)), len(widths)
    rank, rest = divmod(len(down), count)
    columns = [range(rank * i, rank * (i + 1)) for i in range(count)]
    if rest or any(
        bool(row[:, [c for c in range(len(down)) if c not in own]].any())
        for row, own in zip(rows, columns, strict=True)
    ):
        return [Adapter(down, row, alpha) for row in rows]
    own_alpha = None if alpha is None else alpha / count
    return [
        _without_zeros(Adapter(down[own.start : own.stop], row[:, own.start : own.stop], own_alpha))
        for row, own in zip(rows, columns, strict=True)
    ]


def _without_zeros(part: Adapter) -> Adapter | None:
    """Return an adapter without the ranks at its end that add nothing, as strong as before; None if all are so."""
    down, up, alpha = part
    used = (down.flatten(1).any(1) | up.transpose(0, 1).flatten(1).any(1)).nonzero()
    if not len(used):
        return None
    rank = int(used.max()) + 1
    return Adapter(down[:rank], up[:, :rank], None if alpha is None else alpha * (rank / len(down)))


def join(parts: Sequence[Adapter | None], widths: Sequence[int]) -> Adapter:
    """Return one adapter that computes what those of several layers do, side by side; None adds nothing.

    Each has its part of the rank: the largest of theirs.
    """
    present = [part for part in parts if part is not None]
    if len(parts) == len(present) == 1:
        return present[0]
    rank, like = max(len(part.down) for part in present), present[0]
    scales = [(len(part.down) if part.alpha is None else part.alpha) / len(part.down) for part in present]
    down = like.down.new_zeros(rank * len(parts), *like.down.shape[1:])
    up = like.up.new_zeros(sum(widths), rank * len(parts))
    row, rest = 0, iter(scales)
    for i, (part, width) in enumerate(zip(parts, widths, strict=True)):
        if part is not None:
            own = len(part.down)
            down[rank * i : rank * i + own] = part.down
            up[row : row + width, rank * i : rank * i + own] = part.up * (next(rest) / scales[0])
        row += width
    return Adapter(down, up, scales[0] * rank * len(parts))
