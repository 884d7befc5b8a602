"""What the function files share: operands to tensors of one dtype, one shape, one backend."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ..autograd import Function, Gradient
from ..backend import HALF, Array, is_cupy, kernels_of, sum_dtype, to_backend
from ..operators import RANK, register
from ..tensor import Operand, Tensor, not_a_tensor, real_dtype
from ..window import integer, listed

F = TypeVar("F", bound=Callable[..., Any])


def of_tensor(function: F) -> F:
    """A decorator: TypeError where the first argument of `function`, called x, is no Tensor."""

    @functools.wraps(function)
    def checked(x: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(x, Tensor):
            raise not_a_tensor(function.__name__, x)
        return function(x, *args, **kwargs)

    return checked  # type: ignore[return-value]


def as_tensor(value: Operand, like: Tensor | None = None) -> Tensor:
    """`value` as a Tensor; a Python number takes the dtype of `like`, so that it never promotes (int tensors promote to float32 for floats)."""
    if isinstance(value, Tensor):
        return value
    if like is not None and isinstance(value, bool | int | float | np.generic):
        kind = like.dtype
        if isinstance(value, float | np.floating) and kind.kind in "iub":
            kind = np.dtype(np.float32)
        elif kind.kind == "b" and not isinstance(value, bool | np.bool_):
            kind = np.dtype(np.int64)
        return Tensor.wrap(kernels_of(like._array).scalar(fitting(value, kind), kind))
    return Tensor(value)  # of an array a copy: its owner may change it before the backward pass


def fitting(number: Any, dtype: Any) -> Any:
    """`number` itself. ValueError if an integer dtype, or that of booleans, cannot hold it."""
    if dtype.kind in "biu":
        low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        if not low <= number <= high:
            raise ValueError(f"the number {number} does not fit a tensor of {dtype}, {low} to {high}; cast the tensor with .astype()")
    return number


def operands(name: str, *values: Operand) -> list[Tensor]:
    """Operands of an elementwise function as tensors of one backend, dtype and shape, by the rules of NumPy broadcasting.

    ValueError if the shapes do not broadcast, TypeError if tensors live on different backends.
    """
    like = next((v for v in values if isinstance(v, Tensor)), None)
    tensors = [as_tensor(v, like) for v in values]
    check_backend(name, *tensors)
    dtype = result_dtype(*tensors)
    return together(name, *(cast(t, dtype) for t in tensors))


def together(name: str, *tensors: Tensor) -> list[Tensor]:
    """Tensors of one shape by the rules of NumPy broadcasting. ValueError if there is none."""
    different = dict.fromkeys(t.shape for t in tensors)
    if len(different) == 1:
        return list(tensors)
    try:
        shape = np.broadcast_shapes(*different)
    except ValueError:
        shapes = " and ".join(map(str, different))
        raise ValueError(f"{name}: shapes {shapes} do not broadcast; axes must be equal or 1, counted from the last") from None
    return [t if t.shape == shape else BroadcastTo(shape, t.shape)(t) for t in tensors]


def result_dtype(*tensors: Tensor) -> Any:
    """The dtype of a result by PyTorch's rules: floats outrank integers of any width, and tensors with axes those without."""
    if len({t.dtype for t in tensors}) == 1:
        return tensors[0].dtype
    top = max(RANK[t.dtype.kind] for t in tensors)
    highest = [t for t in tensors if RANK[t.dtype.kind] == top]
    return np.result_type(*(t.dtype for t in [t for t in highest if t.ndim] or highest))


def mixed(x: Any, *parameters: Tensor | None) -> tuple[Any, ...]:
    """float32 parameters as float16 where x is that, everything else as it is: the one rule of mixed precision.

    Weights keep the digits that small steps need, and images decide what is computed in. The gradient of a weight goes back to float32.
    """
    if not isinstance(x, Tensor) or x.dtype != HALF:
        return parameters
    return tuple(cast(p, HALF) if p is not None and p.dtype == sum_dtype(HALF) else p for p in parameters)


def wide(x: Tensor) -> Tensor:
    """x, or if it is float16 the same in float32: for what is added up and not kept."""
    return cast(x, sum_dtype(x.dtype))


def rounded(y: Tensor, x: Tensor) -> Tensor:
    """y, in float16 if x is that: a result of what was `wide`."""
    return cast(y, HALF) if x.dtype == HALF else y


def check_backend(name: str, *tensors: Tensor) -> None:
    """TypeError unless all are tensors, on one backend."""
    try:
        first = tensors[0]._array
        apart = [t for t in tensors if type(t._array) is not type(first) and is_cupy(t._array) != is_cupy(first)]
    except AttributeError:
        raise not_a_tensor(name, *tensors) from None
    if apart:
        places = ", ".join(t.backend for t in tensors)
        raise TypeError(f"{name}: the tensors live on different backends ({places}); move one with .to()")


def axes_of(name: str, dim: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """`dim` as a tuple of non-negative axes; all axes for None. ValueError if one is out of range or named twice."""
    dims = range(ndim) if dim is None else listed(dim)
    axes = tuple(axis(name, d, ndim) for d in ((dim,) if dims is None else dims))
    if len(set(axes)) < len(axes):
        raise ValueError(f"{name}: dim {dim} names an axis twice")
    return axes if ndim else ()


def axis(name: str, dim: int, ndim: int) -> int:
    """`dim` as a non-negative axis. ValueError if it is out of range."""
    dim, axes = integer(dim, f"{name}: dim"), max(ndim, 1)  # a tensor without axes counts as having one, as in PyTorch
    if not -axes <= dim < axes:
        raise ValueError(f"{name}: dim {dim} is out of range for a tensor of {ndim} axes ({-axes} to {axes - 1})")
    return dim % axes


# -- linear pairs that everything else stands on -----------------------------------------------------------------------


@dataclass(frozen=True)
class Cast(Function):
    """x in another floating dtype; the adjoint casts back."""

    dtype: Any
    source: Any

    def forward(self, x: Array) -> Array:
        return kernels_of(x).map(lambda a: a.astype(self.dtype), x)

    def vjp(self, g: Tensor, *_: Tensor) -> tuple[Gradient, ...]:
        return (Cast(self.source, self.dtype)(g),)


def cast(x: Tensor, dtype: Any) -> Tensor:
    """x in `dtype`; without gradient if either dtype is not floating."""
    dtype = real_dtype("astype", dtype)
    if dtype == x.dtype:
        return x
    if dtype.kind != "f" or x.dtype.kind != "f":
        return Tensor.wrap(kernels_of(x._array).map(lambda a: a.astype(dtype), x._array))
    return Cast(dtype, x.dtype)(x)


@dataclass(frozen=True)
class Move(Function):
    """x on another backend; the adjoint moves back."""

    backend: str
    source: str

    def forward(self, x: Array) -> Array:
        return to_backend(x, self.backend)

    def vjp(self, g: Tensor, *_: Tensor) -> tuple[Gradient, ...]:
        return (Move(self.source, self.backend)(g),)


def move(x: Tensor, backend: str) -> Tensor:
    """x on `backend`, "numpy" or "cupy"."""
    return x if x.backend == backend else Move(backend, x.backend)(x)


@dataclass(frozen=True)
class BroadcastTo(Function):
    """x repeated along missing axes and axes of size 1, without a copy; the adjoint of SumTo."""

    shape: tuple[int, ...]
    source: tuple[int, ...]
    view = True

    def forward(self, x: Array) -> Array:
        return kernels_of(x).xp.broadcast_to(x, self.shape)  # type: ignore[no-any-return]

    def vjp(self, g: Tensor, *_: Tensor) -> tuple[Gradient, ...]:
        return (SumTo(self.source, self.shape)(g),)


@dataclass(frozen=True)
class SumTo(Function):
    """x summed over the axes along which an array of `shape` would be broadcast to x's; the adjoint of BroadcastTo."""

    shape: tuple[int, ...]
    source: tuple[int, ...]

    def forward(self, x: Array) -> Array:
        extra = x.ndim - len(self.shape)
        axes = tuple(i for i in range(x.ndim) if i < extra or (self.shape[i - extra] == 1 and x.shape[i] != 1))
        return kernels_of(x).sum(x, axes).reshape(self.shape)

    def vjp(self, g: Tensor, *_: Tensor) -> tuple[Gradient, ...]:
        return (BroadcastTo(self.source, self.shape)(g),)


register(cast=cast, move=move)
