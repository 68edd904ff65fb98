"""The one rule of shapes: tensors that are compared have the same, or broadcasting would pair them in silence."""

from torch import Tensor

__all__ = ["same_shape"]


def same_shape(**tensors: Tensor) -> None:
    """Hold tensors to one shape.

    Raises:
        ValueError: shapes that differ, by the names.
    """
    if len({tensor.shape for tensor in tensors.values()}) > 1:
        found = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"expected tensors of one shape, got {found}")
