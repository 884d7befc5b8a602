"""Kernels that work out shapes instead of numbers: a network of any size runs on them in milliseconds and in no memory.

Every array they make is one zero seen as many (`broadcast_to`). They inherit the reference, so a kernel that is not overridden here still
gives the right shape, only slower; convolutions and matrix products also count their multiply-adds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from ..backend import Array, AxisMap, Kernels
from ..window import Pair, Window


class ShapeKernels(Kernels):
    """Results of the right shape and dtype without contents; `multiply_adds` counts those of the direct algorithm."""

    name = "shapes"

    def __init__(self, xp: ModuleType) -> None:
        super().__init__(xp)
        self.multiply_adds = 0

    def blank(self, shape: Sequence[int], dtype: Any) -> Array:
        """Zeros of `shape` in the memory of one."""
        return self.xp.broadcast_to(self.xp.zeros((), dtype), tuple(shape))  # type: ignore[no-any-return]

    def map(self, function: Callable[..., Array], *arrays: Array) -> Array:
        ones = (self.xp.ones((1,) * a.ndim, a.dtype) for a in arrays)
        return self.blank(np.broadcast_shapes(*(a.shape for a in arrays)), function(*ones).dtype)

    def matmul(self, a: Array, b: Array) -> Array:
        shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
        self.multiply_adds += math.prod(shape) * a.shape[-1]
        return self.blank(shape, np.result_type(a, b))

    def sum(self, x: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
        one = super().sum(self.xp.ones((1,) * x.ndim, x.dtype), axes, keepdims)
        kept = [1 if i in axes else n for i, n in enumerate(x.shape)] if keepdims else [n for i, n in enumerate(x.shape) if i not in axes]
        return self.blank(kept, one.dtype)

    def concatenate(self, arrays: Sequence[Array], axis: int) -> Array:
        shape = list(arrays[0].shape)
        shape[axis] = sum(a.shape[axis] for a in arrays)
        return self.blank(shape, arrays[0].dtype)

    def place(self, y: Array, index: Any, shape: tuple[int, ...]) -> Array:
        return self.blank(shape, y.dtype)

    def relu(self, x: Array) -> Array:
        return self.blank(x.shape, x.dtype)

    def dropout(self, x: Array, p: float, seed: int, shape: tuple[int, ...]) -> Array:
        return self.blank(x.shape, x.dtype)

    def batch_norm_stats(self, x: Array) -> tuple[Array, Array]:
        return self.xp.zeros(x.shape[1]), self.xp.ones(x.shape[1])

    def batch_norm_apply(self, x: Array, mean: Array, rstd: Array, weight: Array, bias: Array, relu: bool = False) -> Array:
        return self.blank(x.shape, x.dtype)

    def channel_sum(self, x: Array, before: int, after: int) -> Array:
        return self.blank(x.shape, x.dtype)

    def im2col(self, x: Array, window: Window, out: Pair) -> Array:
        return self.blank((*x.shape[:2], *window.kernel, *out), x.dtype)

    def col2im(self, cols: Array, window: Window, size: Pair) -> Array:
        return self.blank((*cols.shape[:2], *size), cols.dtype)

    def conv2d(self, x: Array, w: Array, bias: Array | None, window: Window, out: Pair, groups: int = 1) -> Array:
        self.multiply_adds += len(x) * out[0] * out[1] * w.size
        return self.blank((len(x), len(w), *out), x.dtype)

    def conv_transpose2d(self, y: Array, w: Array, bias: Array | None, window: Window, size: Pair, groups: int = 1) -> Array:
        self.multiply_adds += len(y) * y.shape[2] * y.shape[3] * w.size
        return self.blank((len(y), w.shape[1] * groups, *size), y.dtype)

    def max_pool2d(self, x: Array, window: Window, out: Pair) -> tuple[Array, Array]:
        shape = (*x.shape[:2], *out)
        return self.blank(shape, x.dtype), self.blank(shape, self.tap_dtype(window))

    def plane_indices(self, taps: Array, window: Window, size: Pair) -> Array:
        return self.blank(taps.shape, "int64")

    def gather(self, x: Array, indices: Array) -> Array:
        return self.blank(indices.shape, x.dtype)

    def scatter(self, y: Array, indices: Array, size: Pair) -> Array:
        return self.blank((*y.shape[:2], *size), y.dtype)

    def avg_pool2d(self, x: Array, window: Window, weight: Array) -> Array:
        return self.blank((*x.shape[:2], *weight.shape), x.dtype)

    def pad(self, x: Array, widths: tuple[Pair, ...], value: float = 0) -> Array:
        return self.blank([n + before + after for n, (before, after) in zip(x.shape, widths, strict=True)], x.dtype)

    def resample(self, x: Array, rows: AxisMap, columns: AxisMap) -> Array:
        return self.blank((*x.shape[:2], rows.outputs, columns.outputs), x.dtype)
