"""Seconds on a named GPU from what an operation computes and moves (Williams et al. 2009), operation by operation.

An operation takes as long as its arithmetic, its memory traffic or its launch, whichever is longest. Nothing here was
timed: peaks and bandwidths are the makers', the shares of them that are reached are stated below.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log2
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from swd_distill.training.meter import Meter

REACHED_PEAK, REACHED_BANDWIDTH = 0.66, 0.84
"""Of a data sheet's numbers, by large matrix products and by long copies."""
KERNEL_SECONDS, HOST_SECONDS = 2.5e-6, 6e-6
"""The shortest kernel, and what the host takes to ask for one; a device that is faster waits."""
GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """A device by its data sheet: dense TFLOP/s in bfloat16 and in TF32 (matrix products of float32), TB/s, GiB."""

    half: float
    single: float
    bandwidth: float
    memory: float
    source: str

    def seconds(self, work: "Work", share: int) -> Counter[str]:
        """Return the seconds of a share of a batch by what limits them: compute, memory, launch or host."""
        limits: Counter[str] = Counter()
        for ops in work:
            peak = self.half if ops.half else self.single
            times = {
                "compute": ops.flops * share / (peak * 1e12 * REACHED_PEAK),
                "memory": (ops.fixed + ops.each * share) / (self.bandwidth * 1e12 * REACHED_BANDWIDTH),
                "launch": KERNEL_SECONDS,
            }
            limit = max(times, key=times.__getitem__)
            limits[limit] += ops.count * times[limit]  # type: ignore[assignment]
        asked = HOST_SECONDS * sum(ops.count for ops in work)
        limits["host"] = max(0.0, asked - limits.total())  # type: ignore[assignment]
        return limits


GPUS = {
    "a100": Gpu(312, 156, 2.039, 80, "NVIDIA A100 80GB SXM data sheet"),
    "h100": Gpu(989, 494, 3.35, 80, "NVIDIA H100 SXM data sheet, without sparsity"),
    "h200": Gpu(989, 494, 4.8, 141, "NVIDIA H200 SXM data sheet, without sparsity"),
    "l40s": Gpu(362, 183, 0.864, 48, "NVIDIA L40S data sheet, without sparsity"),
    "rtx4090": Gpu(165, 83, 1.008, 24, "NVIDIA Ada architecture white paper, float32 accumulation, without sparsity"),
    "rtx4080": Gpu(97, 49, 0.717, 16, "NVIDIA Ada architecture white paper, float32 accumulation, without sparsity"),
    "rtx5090": Gpu(209, 105, 1.792, 32, "NVIDIA Blackwell RTX white paper, float32 accumulation, without sparsity"),
    "mi300x": Gpu(1307, 654, 5.3, 192, "AMD Instinct MI300X data sheet, without sparsity"),
}


_OTHERS = ("pcie", "nvl", "max-q", "laptop", "mig", "gh200", "gb200")
"""In the name of a device: a slower card of the same name, a part of one, or another."""


def sheet_of(device: str) -> str | None:
    """Return the name of a device's data sheet, by the name that torch has for it; None where it is not known."""
    plain = device.lower().replace(" ", "")
    if any(other in plain for other in _OTHERS):
        return None
    return next((name for name in GPUS if name in plain), None)


@dataclass(frozen=True)
class Ops:
    """Operations alike: how many, in half precision or not, and of each: FLOPs and bytes.

    Attributes:
        flops: For each sample.
        fixed: Bytes of weights, whatever the number of samples.
        each: Bytes for each sample.
    """

    count: int
    half: bool
    flops: float
    fixed: float
    each: float


Work = tuple[Ops, ...]


class Recorder(Meter):  # type: ignore[no-untyped-call]
    """Note what each operation of a share of a batch computes and moves; `work` is that, alike ones together."""

    def __init__(self, modules: Sequence[nn.Module], share: int) -> None:
        super().__init__(modules)
        self._share, self._weights = share, frozenset(self._known)
        self._found: list[Ops] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = self.flops
        output = super().__torch_dispatch__(func, types, args, kwargs)
        if _is_kernel(func):
            self._record(self.flops - before, (args, kwargs, output))
        return output

    def _record(self, flops: int, touched: Any) -> None:
        fixed = each = 0
        tensors = [leaf for leaf in tree_leaves(touched) if isinstance(leaf, Tensor)]
        for tensor in tensors:
            if tensor.untyped_storage()._cdata in self._weights:
                fixed += _bytes(tensor)
            else:
                each += _bytes(tensor)
        half = any(tensor.is_floating_point() and tensor.itemsize < 4 for tensor in tensors)
        self._found.append(Ops(1, half, flops / self._share, fixed, each / self._share))

    @property
    def work(self) -> Work:
        """Return the operations, those that compute nothing by sizes within a factor of sqrt(2)."""
        groups: dict[tuple[Any, ...], list[Ops]] = {}
        for ops in self._found:
            groups.setdefault(_kind(ops), []).append(ops)
        return tuple(_mean(alike) for alike in groups.values())


def join(*works: Work) -> Work:
    """Join works."""
    return tuple(ops for work in works for ops in work)


def repeat(work: Work, count: float) -> Work:
    """Repeat a work; a count need not be whole, where it is a mean."""
    return tuple(replace(ops, count=ops.count * count) for ops in work)  # type: ignore[arg-type]


def _kind(ops: Ops) -> tuple[Any, ...]:
    if ops.flops:
        return ops.half, ops.flops, ops.fixed, ops.each
    return ops.half, *(round(2 * log2(size + 1)) for size in (ops.fixed, ops.each))


def _mean(alike: Sequence[Ops]) -> Ops:
    count, first = len(alike), alike[0]
    fixed, each = (sum(getattr(ops, name) for ops in alike) / count for name in ("fixed", "each"))
    return Ops(count, first.half, first.flops, round(fixed), round(each))


def _is_kernel(func: Any) -> bool:
    """Tell whether an operation of ATen starts a kernel: views and empty tensors do not."""
    name, returns = func._overloadpacket.__name__, func._schema.returns
    is_view = any(value.alias_info is not None and not value.alias_info.is_write for value in returns)
    is_empty = name.startswith(("empty", "new_empty"))
    return not (is_view or is_empty or name in {"_unsafe_view", "_local_scalar_dense"} or func.namespace == "prim")


def _bytes(tensor: Tensor) -> int:
    """Return the bytes that are touched: of an expanded tensor no more than there are."""
    return min(tensor.numel() * tensor.itemsize, tensor.untyped_storage().nbytes())
