"""What Tensor's operators do: functions of functional/, which lie above and are registered here, also in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .backend import Array, is_cupy
from .recording import is_grad_enabled

if TYPE_CHECKING:
    from .tensor import Operand, Tensor

RANK = {"b": 0, "i": 1, "u": 1, "f": 2}  # kinds of dtypes: the highest decides

_OPS: dict[str, Callable[..., Tensor]] = {}


def register(**functions: Callable[..., Tensor]) -> None:
    """Give Tensor its operators; functional/ calls this, as it lies above."""
    _OPS.update(functions)


def registered(name: str) -> Callable[..., Tensor]:
    """The function of this name. The first one that is asked for loads functional/."""
    if name not in _OPS:
        from importlib import import_module

        import_module("minidcnn.functional")
    return _OPS[name]


def recorded(tensor: Tensor, value: Any) -> bool:
    """Whether a function of the two would be recorded in a graph."""
    return is_grad_enabled() and (tensor.requires_grad or bool(getattr(value, "requires_grad", False)))


def in_place(name: str, tensor: Tensor, value: Operand) -> Tensor:
    """`tensor += value` and its like, see Tensor. ValueError and TypeError for a shape and a dtype that would have to change, as in PyTorch."""
    graph = recorded(tensor, value)
    if graph and tensor.requires_grad and tensor.is_leaf:
        raise RuntimeError(
            f"{name}: a leaf that requires gradients cannot be changed in place while they are recorded; write inside no_grad(), or make a "
            f"new tensor: y = x + 1, not x += 1"
        )
    result = registered(name)(tensor, value)
    if result.shape != tensor.shape:
        raise ValueError(
            f"{name}: a result of shape {result.shape} does not fit into a tensor of {tensor.shape}; make a new tensor instead"
        )
    if RANK[result.dtype.kind] > RANK[tensor.dtype.kind]:
        raise TypeError(f"{name}: a result of {result.dtype} does not fit into a tensor of {tensor.dtype}; make a new tensor instead")
    if graph:
        return result.astype(tensor.dtype)
    array = tensor._array
    if writable(array):
        array[...] = result._array
    else:
        tensor._array = result._array.astype(array.dtype, copy=False)  # memory of its own
    tensor.changed()
    return tensor


def writable(array: Array) -> bool:
    """Whether every number has a place of its own, and may be changed there: not so in broadcasts and read-only views."""
    repeated = 0 in array.strides and any(n > 1 and not step for n, step in zip(array.shape, array.strides, strict=True))
    return not repeated and (is_cupy(array) or bool(array.flags.writeable))
