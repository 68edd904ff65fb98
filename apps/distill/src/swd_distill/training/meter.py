"""FLOPs and bytes of what runs, operation by operation.

Not torch's `FlopCounterMode`, which follows modules too, and so neither takes a gradient within the loss (R1 on the
head) nor lets go of tensors; the formulas are its own.
"""

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class FlopMeter(TorchDispatchMode):
    """Count FLOPs, two a multiply-add."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.flops += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=output)
        return output


class Meter(FlopMeter):  # type: ignore[no-untyped-call]
    """Count FLOPs, and follow the bytes of all tensors that come and go, but for those of modules, to their `peak`."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        held = (tensor for module in modules for tensor in (*module.parameters(), *module.buffers()))
        self._known = {part.untyped_storage()._cdata for tensor in held for part in parts_of(tensor)}
        self.peak, self._now = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = super().__torch_dispatch__(func, types, args, kwargs)
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return output

    def _note(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self._now += storage.nbytes()
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size


def parts_of(tensor: Any) -> list[Tensor]:
    """Return what holds the numbers of a tensor: itself, or the parts of a quantised one."""
    state = getattr(tensor, "quant_state", None)  # of bitsandbytes
    if state is not None:
        return [tensor.data, state.absmax, *([state.state2.absmax] if state.nested else [])]
    if hasattr(tensor, "qdata"):  # of torchao
        names = (*tensor.tensor_data_names, *getattr(tensor, "optional_tensor_data_names", ()))
        return [part for name in names if (part := getattr(tensor, name)) is not None]
    return [tensor]
