"""Rearrangements. All are linear; each stands beside its adjoint: permute and its inverse, slice and place, cat and split, take and add."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autograd import Function, Gradient
from ..backend import Array, inverse, kernels_of
from ..operators import register
from ..tensor import Tensor, raw
from ..window import integer, integers, listed
from .common import BroadcastTo, axes_of, axis, cast, check_backend, of_tensor, result_dtype


@dataclass(frozen=True)
class Reshape(Function):
    """The same elements, row-major, in another shape; the adjoint reshapes back."""

    shape: tuple[int, ...]
    source: tuple[int, ...]
    view = True

    def forward(self, x: Array) -> Array:
        return x.reshape(self.shape)

    def vjp(self, g: Tensor, *_: Tensor) -> tuple[Gradient, ...]:
        return (Reshape(self.source, self.shape)(g),)


@dataclass(frozen=True)
class Permute(Function):
    """Axes in another order; the adjoint is the inverse permutation."""

    dims: tuple[int, ...]
    view = True

    def forward(self, x: Array) -> Array:
        return x.transpose(self.dims)

    def vjp(self, g: Tensor, *_: Tensor) -> tuple[Gradient, ...]:
        return (Permute(inverse(self.dims))(g),)


@dataclass(frozen=True, eq=False)
class Index(Function):
    """x[index]; with an advanced index a gather, with slices a crop. The adjoint of Place."""

    index: Any
    source: tuple[int, ...]
    view = True  # but for advanced indices

    def forward(self, x: Array) -> Array:
        part: Array = x[self.index]
        if isinstance(part, np.generic):  # of one number NumPy makes a view only with dots behind
            part = x[(*(self.index if isinstance(self.index, tuple) else (self.index,)), ...)]
        return part

    def vjp(self, g: Tensor, *_: Tensor) -> tuple[Gradient, ...]:
        return (Place(self.index, self.source)(g),)

    def parts(self) -> list[Any]:
        """The index in full: a part for each axis of the source, slices where it says none, and None where there is a new axis."""
        items = list(self.index) if isinstance(self.index, tuple) else [self.index]
        used = sum(i is not None and i is not Ellipsis for i in items)
        at = next((k for k, i in enumerate(items) if i is Ellipsis), len(items))
        items[at : at + 1] = [slice(None)] * (len(self.source) - used)
        return items


@dataclass(frozen=True, eq=False)
class Place(Function):
    """y put at `index` into zeros of `shape`, added where indices repeat: scatter-add, the adjoint of Index."""

    index: Any
    shape: tuple[int, ...]

    def forward(self, y: Array) -> Array:
        return kernels_of(y).place(y, self.index, self.shape)

    def vjp(self, g: Tensor, *_: Tensor) -> tuple[Gradient, ...]:
        return (Index(self.index, self.shape)(g),)


@dataclass(frozen=True)
class Cat(Function):
    """Arrays joined along an axis; the adjoint cuts the parts out again."""

    dim: int
    sizes: tuple[int, ...]

    def forward(self, *xs: Array) -> Array:
        return kernels_of(xs[0]).concatenate(xs, self.dim)

    def vjp(self, g: Tensor, *_: Tensor) -> tuple[Gradient, ...]:
        starts = itertools.accumulate(self.sizes, initial=0)
        if self.dim == 1 and g.ndim == 4:
            return tuple(lambda a=a, b=b: _part(g, a, b) for a, b in itertools.pairwise(starts))
        before = (slice(None),) * self.dim
        return tuple(Index((*before, slice(a, b)), g.shape)(g) for a, b in itertools.pairwise(starts))


@dataclass(frozen=True)
class Channels(Function):
    """Channels start .. stop of x (N, C, H, W), in memory of their own: who reads them more than once reads whole cache lines."""

    start: int
    stop: int
    shape: tuple[int, ...]

    def forward(self, x: Array) -> Array:
        return kernels_of(x).channels(x, self.start, self.stop)

    def vjp(self, g: Tensor, *_: Tensor) -> tuple[Gradient, ...]:
        return (Place((slice(None), slice(self.start, self.stop)), self.shape)(g),)


def _part(g: Tensor, start: int, stop: int) -> Tensor:
    part = Channels(start, stop, g.shape)(g)
    part._owned = part._node is None  # nobody else has seen it
    return part


@of_tensor
def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
    """The same elements in row-major order in `shape`; one entry may be -1. ValueError if the counts differ."""
    shape = integers(shape, "reshape: shape")
    known = math.prod(n for n in shape if n != -1)
    if shape.count(-1) == 1 and known and x.size % known == 0:
        shape = tuple(x.size // known if n == -1 else n for n in shape)
    if min(shape, default=0) < 0 or math.prod(shape) != x.size:
        raise ValueError(f"reshape: {x.size} elements of shape {x.shape} do not fill shape {shape}")
    return x if shape == x.shape else Reshape(shape, x.shape)(x)


def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Axes start_dim .. end_dim joined into one, row-major. ValueError if start_dim comes after end_dim."""
    check_backend("flatten", x)
    start, end = axis("flatten", start_dim, x.ndim), axis("flatten", end_dim, x.ndim)
    if start > end:
        raise ValueError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim} for a tensor of {x.ndim} axes")
    return reshape(x, (*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]))


@of_tensor
def permute(x: Tensor, dims: Sequence[int]) -> Tensor:
    """Axes in the order `dims`. ValueError if `dims` is not a permutation."""
    axes = axes_of("permute", dims, x.ndim)
    if len(axes) != x.ndim:
        raise ValueError(f"permute: {len(axes)} dims {axes} for a tensor of {x.ndim} axes; name every axis once")
    return Permute(axes)(x)


@of_tensor
def transpose(x: Tensor, dim0: int, dim1: int) -> Tensor:
    """Axes dim0 and dim1 exchanged. ValueError if one is out of range."""
    order = list(range(x.ndim))
    i, j = axis("transpose", dim0, x.ndim), axis("transpose", dim1, x.ndim)
    if i != j:
        order[i], order[j] = order[j], order[i]
    return Permute(tuple(order))(x)


@of_tensor
def squeeze(x: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Without axes of size 1: all of them, or those among `dim`. ValueError if one is out of range or named twice."""
    drop = axes_of("squeeze", dim, x.ndim)
    return reshape(x, tuple(n for i, n in enumerate(x.shape) if not (i in drop and n == 1)))


@of_tensor
def unsqueeze(x: Tensor, dim: int) -> Tensor:
    """With a new axis of size 1 at position `dim`. ValueError if it is out of range."""
    i = axis("unsqueeze", dim, x.ndim + 1)
    return reshape(x, (*x.shape[:i], 1, *x.shape[i:]))


@of_tensor
def flip(x: Tensor, dims: int | Sequence[int]) -> Tensor:
    """Reversed along `dims`; its own adjoint. ValueError if one is out of range or named twice."""
    axes = axes_of("flip", dims, x.ndim)
    return Index(tuple(slice(None, None, -1) if i in axes else slice(None) for i in range(x.ndim)), x.shape)(x)


@of_tensor
def broadcast_to(x: Tensor, shape: Sequence[int]) -> Tensor:
    """x repeated along missing axes and axes of size 1. ValueError if `shape` does not fit."""
    shape = integers(shape, "broadcast_to: shape")
    try:
        fits = np.broadcast_shapes(x.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"broadcast_to: shape {x.shape} does not broadcast to {shape}; axes must be equal or 1, counted from the last")
    return BroadcastTo(shape, x.shape)(x)


def cat(tensors: Iterable[Tensor], dim: int = 0) -> Tensor:
    """Tensors joined along `dim`. ValueError unless all other axes agree."""
    tensors = tuple(tensors)
    if not tensors:
        raise ValueError("cat: give at least one tensor")
    check_backend("cat", *tensors)
    first = tensors[0]
    if not first.ndim:
        raise ValueError("cat: tensors without axes cannot be joined; use stack")
    i = axis("cat", dim, first.ndim)
    for n, t in enumerate(tensors[1:], 1):
        if t.ndim != first.ndim or any(a != b for j, (a, b) in enumerate(zip(t.shape, first.shape, strict=True)) if j != i):
            raise ValueError(f"cat: tensor {n} has shape {t.shape}, tensor 0 has {first.shape}; all axes but dim {i} must agree")
    dtype = result_dtype(*tensors)
    return Cat(i, tuple(t.shape[i] for t in tensors))(*(cast(t, dtype) for t in tensors))


def stack(tensors: Iterable[Tensor], dim: int = 0) -> Tensor:
    """Equally shaped tensors side by side along a new axis `dim`. ValueError for none, or for other shapes."""
    tensors = tuple(tensors)
    if not tensors:
        raise ValueError("stack: give at least one tensor")
    check_backend("stack", *tensors)
    for n, t in enumerate(tensors):
        if t.shape != tensors[0].shape:
            raise ValueError(f"stack: tensor {n} has shape {t.shape}, tensor 0 has {tensors[0].shape}; shapes must be equal")
    return cat([unsqueeze(t, dim) for t in tensors], dim)


@of_tensor
def split(x: Tensor, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """x cut along `dim` into parts of `split_size` (the last may be smaller) or of the sizes listed. ValueError for a size below 1 and for a
    list that does not add up."""
    if not x.ndim:
        raise ValueError("split: a tensor without axes cannot be cut")
    i = axis("split", dim, x.ndim)
    n = x.shape[i]
    if listed(split_size) is None:
        part = integer(split_size, "split: split_size", 1)
        sizes = [min(part, n - at) for at in range(0, n, part)] or [0]
    else:
        sizes = list(integers(split_size, "split: sizes"))
        if min(sizes, default=0) < 0:
            raise ValueError(f"split: sizes {sizes} include a negative one")
        if sum(sizes) != n:
            raise ValueError(f"split: sizes {sizes} add up to {sum(sizes)}, but dim {i} has {n}")
    ends = np.cumsum(sizes).tolist()
    before = (slice(None),) * i
    return tuple(Index((*before, slice(end - m, end)), x.shape)(x) for end, m in zip(ends, sizes, strict=True))


@of_tensor
def getitem(x: Tensor, index: Any) -> Tensor:
    """x[index] by NumPy's rules: integers, slices, ..., None, boolean masks and integer arrays or tensors. IndexError if out of range."""
    return Index(_frozen(index, x), x.shape)(x)


def _frozen(index: Any, x: Tensor) -> Any:
    """`index` with the arrays in it copied, to where x lives: their owner may change them before the backward pass."""
    if isinstance(index, tuple):
        return tuple(_frozen(i, x) for i in index)
    index = raw(index)
    if isinstance(index, list) and not index:
        return np.zeros(0, np.int64)  # by itself NumPy would take it for floats
    return kernels_of(x._array).xp.array(index) if isinstance(index, list) or hasattr(index, "dtype") else index


register(reshape=reshape, permute=permute, transpose=transpose, getitem=getitem)
