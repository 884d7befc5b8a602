"""Reductions: sums are adjoint to broadcasts; maxima gather."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..autograd import Function, Gradient
from ..backend import Array, kernels_of
from ..tensor import Tensor, register
from .common import BroadcastTo, Cast, axes_of
from .elementwise import exp, log
from .shape import reshape


@dataclass(frozen=True)
class Sum(Function):
    """x summed over `axes`, kept as axes of size 1; the adjoint of BroadcastTo."""

    axes: tuple[int, ...]
    source: tuple[int, ...]

    def forward(self, x: Array) -> Array:
        return kernels_of(x).sum(x, self.axes, keepdims=True)

    def vjp(self, g: Tensor, *_: Tensor) -> tuple[Gradient, ...]:
        return (BroadcastTo(self.source, g.shape)(g),)


@dataclass(frozen=True)
class Extremum(Function):
    """The maximum over `axes`, kept as axes of size 1; equal maxima share the gradient evenly, as in PyTorch's amax."""

    axes: tuple[int, ...]
    needs_inputs = (0,)
    needs_outputs = (0,)

    def forward(self, x: Array) -> Array:
        return x.max(axis=self.axes, keepdims=True)  # type: ignore[no-any-return]

    def vjp(self, g: Tensor, x: Tensor, y: Tensor) -> tuple[Gradient, ...]:
        winners = (x._array == y._array).astype(x.dtype)
        return (g * Tensor.wrap(winners / winners.sum(axis=self.axes, keepdims=True)),)


def _without(x: Tensor, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    """Drop reduced axes of size 1 unless they are to be kept."""
    return x if keepdim else reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in axes))


def sum(x: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """Sum over `dim` (all axes if None). Integers and booleans are summed as int64."""
    axes = axes_of("sum", dim, x.ndim)
    return _without(Sum(axes, x.shape)(x), axes, keepdim)


def mean(x: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """Mean over `dim` (all axes if None). ValueError if there is nothing to average."""
    axes = axes_of("mean", dim, x.ndim)
    count = math.prod(x.shape[i] for i in axes)
    if not count:
        raise ValueError(f"mean: shape {x.shape} has no elements over dim {dim}")
    return sum(x, dim, keepdim) * (1 / count)


def var(x: Tensor, dim: int | Sequence[int] | None = None, correction: int = 1, keepdim: bool = False) -> Tensor:
    """Variance over `dim`, with divisor (count - correction) as in PyTorch."""
    axes = axes_of("var", dim, x.ndim)
    count = math.prod(x.shape[i] for i in axes)
    if count <= correction:
        raise ValueError(f"var: {count} elements over dim {dim} are too few for correction {correction}; use correction=0")
    centred = x - mean(x, dim, keepdim=True)
    return sum(centred * centred, dim, keepdim) * (1 / (count - correction))


def amax(x: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """Maximum over `dim`; equal maxima share the gradient."""
    axes = axes_of("amax", dim, x.ndim)
    return _without(Extremum(axes)(x), axes, keepdim)


def amin(x: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """Minimum over `dim`; equal minima share the gradient."""
    return -amax(-x, dim, keepdim)


def logsumexp(x: Tensor, dim: int | Sequence[int], keepdim: bool = False) -> Tensor:
    """log(sum(exp(x))) over `dim`, without overflow: the maximum is taken out first."""
    axes = axes_of("logsumexp", dim, x.ndim)
    top = x._array.max(axis=axes, keepdims=True)
    shift = Tensor.wrap(np.nan_to_num(top, neginf=0.0, posinf=0.0) if isinstance(top, np.ndarray) else kernels_of(top).xp.nan_to_num(top, neginf=0.0, posinf=0.0))
    return _without(log(sum(exp(x - shift), dim, keepdim=True)) + shift, axes, keepdim)


def cumulative_dtype(x: Tensor) -> Tensor:
    """x in float64 if it is float32: for sums that must not lose digits."""
    return Cast(np.dtype(np.float64), x.dtype)(x) if x.dtype == np.float32 else x


register(sum=sum, mean=mean)
