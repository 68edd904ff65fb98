"""Counter-based randomness: every draw is a pure function of the seed and the names of what it is for.

So a resumed run needs no generator state, and 2 processes x 2 samples draw what 1 x 4 draws.
"""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor


def stream(seed: int, *key: int | str) -> torch.Generator:
    """Return a generator for one purpose, for example `stream(seed, step, update, "noise", sample)`."""
    digest = hashlib.blake2b(repr((seed, *key)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def normal(seed: int, *key: int | str, samples: Iterable[int], shape: tuple[int, ...]) -> Tensor:
    """Draw standard normal noise (B, *shape), each sample from a stream of its own."""
    return torch.stack([torch.randn(shape, generator=stream(seed, *key, sample)) for sample in samples])


def uniform(seed: int, *key: int | str, samples: Iterable[int]) -> Tensor:
    """Draw numbers in [0, 1), one a sample."""
    return torch.cat([torch.rand(1, generator=stream(seed, *key, sample)) for sample in samples])


def integer(high: int, seed: int, *key: int | str) -> int:
    """Draw a whole number below `high`."""
    return int(torch.randint(high, (1,), generator=stream(seed, *key)))
