"""Adapters of layers that are rows of one layer in another tool's model: cut apart, and joined."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Factors(NamedTuple):
    """Of an adapter: (rank, in) and (out, rank)."""

    down: Tensor
    up: Tensor


def cut(whole: Factors, widths: Sequence[int]) -> list[Factors | None]:
    """Return the factors of each layer, of so many rows; None for one that adds nothing in a whole that was joined.

    All share the rank of the whole, unless `join` made it: then each has its own part of the rank.
    """
    down, up = whole
    rows, count = torch.split(up, list(widths)), len(widths)
    rank, rest = divmod(len(down), count)
    columns = [slice(rank * i, rank * (i + 1)) for i in range(count)]
    if rest or not _is_joined(rows, columns):
        return [Factors(down.clone(), row) for row in rows]  # safetensors writes no tensor under two names
    return [_without_zeros(Factors(down[own], row[:, own])) for row, own in zip(rows, columns, strict=True)]


def _is_joined(rows: Sequence[Tensor], columns: Sequence[slice]) -> bool:
    """Tell whether rows have numbers in columns of their own alone; without any number they are of no kind."""
    numbers = [row.float().count_nonzero() for row in rows]
    own = [row[:, part].float().count_nonzero() for row, part in zip(rows, columns, strict=True)]
    return bool(sum(numbers) > 0) and all(bool(a == b) for a, b in zip(numbers, own, strict=True))


def _without_zeros(part: Factors) -> Factors | None:
    """Return factors without the ranks at their end that add nothing; None if all are so."""
    used = part.down.float().flatten(1).any(1) | part.up.float().transpose(0, 1).flatten(1).any(1)
    rank = int(used.nonzero().max()) + 1 if used.any() else 0
    return Factors(part.down[:rank], part.up[:, :rank]) if rank else None


def join(parts: Sequence[Factors | None], scales: Sequence[float], widths: Sequence[int]) -> tuple[Factors, float]:
    """Return the factors that compute what those of several layers do, side by side, and their scale.

    None adds nothing. Each part has as much of the rank as the largest of them. The scale is that of the first: where
    another differs, the ratio is in its factor, which then is float32.
    """
    present = [(part, scale) for part, scale in zip(parts, scales, strict=True) if part is not None]
    like, common = present[0]
    if len(parts) == 1:
        return like, common
    rank = max(len(part.down) for part, _ in present)
    dtype = like.up.dtype if all(scale == common for _, scale in present) else torch.float32
    down = torch.zeros(rank * len(parts), *like.down.shape[1:], dtype=like.down.dtype)
    up = torch.zeros(sum(widths), rank * len(parts), *like.up.shape[2:], dtype=dtype)
    row = 0
    for i, (part, scale, width) in enumerate(zip(parts, scales, widths, strict=True)):
        if part is not None:
            own = slice(rank * i, rank * i + len(part.down))
            down[own] = part.down
            up[row : row + width, own] = part.up if scale == common else part.up.float() * (scale / common)
        row += width
    return Factors(down, up), common
