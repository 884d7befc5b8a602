"""Arrays and their memory: which library an array belongs to, and the channels-last layout.

Everything is NCHW to the reader; in memory activations are channels-last, an NCHW view of NHWC memory. So a whole pixel is one run of
memory: im2col copies runs, matrix products need no transposes and kernels vectorise over channels.
"""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]  #: a NumPy array or, where the backend is CuPy, a CuPy array of the same shape and dtype


def is_cupy(array: object) -> bool:
    """Whether `array` is a CuPy array, asked without importing CuPy."""
    kind = type(array)
    return kind is not np.ndarray and kind.__module__.partition(".")[0] == "cupy"


def nhwc(x: Array) -> Array:
    """The (N, H, W, C) view of an (N, C, H, W) array."""
    return x.transpose(0, 2, 3, 1)


def nchw(x: Array) -> Array:
    """The (N, C, H, W) view of an (N, H, W, C) array."""
    return x.transpose(0, 3, 1, 2)


def empty_images(xp: ModuleType, shape: tuple[int, ...], dtype: Any) -> Array:
    """Uninitialised (N, C, H, W) images in channels-last memory."""
    n, c, h, w = shape
    return nchw(xp.empty((n, h, w, c), dtype))


def zero_images(xp: ModuleType, shape: tuple[int, ...], dtype: Any) -> Array:
    """(N, C, H, W) zeros in channels-last memory."""
    n, c, h, w = shape
    return nchw(xp.zeros((n, h, w, c), dtype))


def memory_order(x: Array) -> tuple[int, ...] | None:
    """The permutation of axes under which `x` lies in C order, slowest axis first, or None if no permutation does that."""
    if x.flags.c_contiguous:
        return tuple(range(x.ndim))
    return _order(x.shape, x.strides, x.itemsize)


@lru_cache(1024)
def _order(shape: tuple[int, ...], strides: tuple[int, ...], run: int) -> tuple[int, ...] | None:
    """The same, of numbers `run` bytes apart."""
    order = tuple(sorted(range(len(shape)), key=lambda axis: (-abs(strides[axis]), axis)))
    for axis in reversed(order):
        if shape[axis] > 1 and strides[axis] != run:
            return None
        run *= shape[axis]
    return order


def inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation that undoes `order`."""
    return tuple(sorted(range(len(order)), key=order.__getitem__))


def in_memory_order(x: Array, copy: Any) -> Array:
    """copy(x) in the memory order of `x`, by a `copy` that gives arrays in C order."""
    order = memory_order(x)
    return copy(x) if order is None else copy(x.transpose(order)).transpose(inverse(order))  # type: ignore[no-any-return]


def is_channels_last(x: Array) -> bool:
    """Whether the (N, C, H, W) array `x` lies in NHWC memory without gaps."""
    return bool(nhwc(x).flags.c_contiguous)


def float_dtype(dtype: Any) -> bool:
    """Whether `dtype` is a floating-point dtype, the only kind that carries gradients."""
    return bool(np.dtype(dtype).kind == "f")
