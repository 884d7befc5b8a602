"""Reductions: sums are adjoint to broadcasts; maxima gather."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..autograd import Function, Gradient
from ..backend import Array, kernels_of
from ..operators import register
from ..tensor import Tensor
from .common import BroadcastTo, axes_of, axis, of_tensor, rounded, wide
from .elementwise import as_floating, exp, where
from .shape import reshape


@dataclass(frozen=True)
class Sum(Function):
    """x summed over `axes`, which are kept as axes of size 1 or not; the adjoint of BroadcastTo."""

    axes: tuple[int, ...]
    source: tuple[int, ...]
    keepdim: bool

    def forward(self, x: Array) -> Array:
        return kernels_of(x).sum(x, self.axes, self.keepdim)

    def vjp(self, g: Tensor, *_: Tensor) -> tuple[Gradient, ...]:
        kept = tuple(1 if i in self.axes else n for i, n in enumerate(self.source))
        return (BroadcastTo(self.source, kept)(reshape(g, kept)),)


@dataclass(frozen=True)
class Extremum(Function):
    """The maximum over `axes`, or the minimum, kept as axes of size 1; equals share the gradient evenly, as in PyTorch's amax."""

    axes: tuple[int, ...]
    largest: bool
    needs_inputs = (0,)
    needs_outputs = (0,)

    def forward(self, x: Array) -> Array:
        return x.max(axis=self.axes, keepdims=True) if self.largest else x.min(axis=self.axes, keepdims=True)  # type: ignore[no-any-return]

    def vjp(self, g: Tensor, x: Tensor, y: Tensor) -> tuple[Gradient, ...]:
        winners = (x._array == y._array).astype(x.dtype)
        return (g * Tensor.wrap(winners / kernels_of(winners).sum(winners, self.axes, keepdims=True)),)


@dataclass(frozen=True)
class LogSumExp(Function):
    """log(sum(exp(x))) over `axes`, kept as axes of size 1; the derivative is the softmax, all 0 where every x is -inf."""

    axes: tuple[int, ...]
    needs_inputs = (0,)
    needs_outputs = (0,)

    def forward(self, x: Array) -> Array:
        kernels = kernels_of(x)
        xp = kernels.xp
        top = x.max(axis=self.axes, keepdims=True)
        shift = xp.where(xp.isfinite(top), top, x.dtype.type(0))
        total = kernels.sum(xp.exp(x - shift), self.axes, keepdims=True)
        return xp.where(total == 0, -xp.inf, xp.log(xp.where(total == 0, x.dtype.type(1), total)) + shift).astype(x.dtype)  # type: ignore[no-any-return]

    def vjp(self, g: Tensor, x: Tensor, y: Tensor) -> tuple[Gradient, ...]:
        some = Tensor.wrap(y._array != -math.inf)  # true of NaN, which must not be hidden
        return (g * exp(x - where(some, y, 0.0)),)


def _without(x: Tensor, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    """Drop reduced axes of size 1 unless they are to be kept."""
    return x if keepdim else reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in axes))


@of_tensor
def sum(x: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """Sum over `dim` (all axes if None). Integers and booleans are summed as int64. ValueError for a dim out of range or named twice."""
    axes = axes_of("sum", dim, x.ndim)
    return Sum(axes, x.shape, keepdim)(x)


@of_tensor
def mean(x: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """Mean over `dim` (all axes if None). ValueError if there is nothing to average."""
    axes = axes_of("mean", dim, x.ndim)
    count = math.prod(x.shape[i] for i in axes)
    if not count:
        raise ValueError(f"mean: shape {x.shape} has no elements over dim {dim}")
    return rounded(sum(wide(x), dim, keepdim) / count, x)


@of_tensor
def var(x: Tensor, dim: int | Sequence[int] | None = None, correction: int = 1, keepdim: bool = False) -> Tensor:
    """Variance over `dim`, with divisor (count - correction) as in PyTorch. ValueError if there are no more elements than `correction`."""
    axes = axes_of("var", dim, x.ndim)
    count = math.prod(x.shape[i] for i in axes)
    if count <= correction:
        raise ValueError(f"var: {count} elements over dim {dim} are too few for correction {correction}; use correction=0")
    centred = wide(x) - mean(wide(x), dim, keepdim=True)
    return rounded(sum(centred * centred, dim, keepdim) / (count - correction), x)


@of_tensor
def amax(x: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """Maximum over `dim`; equal maxima share the gradient. ValueError if there is nothing to choose from."""
    return _extremum("amax", x, dim, keepdim, True)


@of_tensor
def amin(x: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """Minimum over `dim`; equal minima share the gradient. ValueError if there is nothing to choose from."""
    return _extremum("amin", x, dim, keepdim, False)


def _extremum(name: str, x: Tensor, dim: int | Sequence[int] | None, keepdim: bool, largest: bool) -> Tensor:
    axes = axes_of(name, dim, x.ndim)
    if not math.prod(x.shape[i] for i in axes):
        raise ValueError(f"{name}: shape {x.shape} has no elements over dim {dim}")
    return _without(Extremum(axes, largest)(x), axes, keepdim)


@of_tensor
def logsumexp(x: Tensor, dim: int | Sequence[int], keepdim: bool = False) -> Tensor:
    """log(sum(exp(x))) over `dim`, without overflow: the maximum is taken out first. float32 for integers.

    ValueError if there is nothing to sum.
    """
    axes = axes_of("logsumexp", dim, x.ndim)
    if not math.prod(x.shape[i] for i in axes):
        raise ValueError(f"logsumexp: shape {x.shape} has no elements over dim {dim}")
    x = as_floating(x)
    return _without(rounded(LogSumExp(axes)(wide(x)), x), axes, keepdim)


@of_tensor
def argmax(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Index of the first largest element along `dim`, of the flattened tensor if None; int64, without gradient. ValueError if there is none."""
    axes = tuple(range(x.ndim)) if dim is None else (axis("argmax", dim, x.ndim),)[: x.ndim]
    if not math.prod(x.shape[i] for i in axes):
        raise ValueError(f"argmax: shape {x.shape} has no elements over dim {dim}")
    array: Any = x._array.argmax(axis=None if dim is None or not axes else axes[0])
    index = Tensor.wrap(array)
    return reshape(index, tuple(1 if i in axes else n for i, n in enumerate(x.shape))) if keepdim else index


register(sum=sum, mean=mean, argmax=argmax)
