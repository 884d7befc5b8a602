"""What all families of kernels share: elementwise work, sums and joins in memory order, matrix products, images in padded buffers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from ...window import Pair, Window
from ..arrays import Array, empty_images, inverse, memory_order, zero_images
from ..half import in_float32


class BaseKernels:
    """Kernels on one array module `xp`, which is NumPy or CuPy."""

    name = "reference"

    def __init__(self, xp: ModuleType) -> None:
        self.xp: Any = xp

    def map(self, function: Callable[..., Array], *arrays: Array) -> Array:
        """function(*arrays) for elementwise `function`, computed and returned in the memory order of the largest array.

        NumPy's ufuncs keep the order by themselves; CuPy's allocate C order and walk uncoalesced, so the axes are permuted around them.
        """
        if self.xp is np:
            return function(*arrays)
        leader = max(arrays, key=lambda a: a.size)
        order = memory_order(leader)
        if order is None or order == tuple(range(leader.ndim)) or any(a.ndim not in (0, leader.ndim) for a in arrays):
            return function(*arrays)
        result = function(*(a.transpose(order) if a.ndim else a for a in arrays))
        return result.transpose(inverse(order))

    @in_float32
    def matmul(self, a: Array, b: Array) -> Array:
        """a (..., M, K) @ b (..., K, N) -> (..., M, N), leading axes broadcast."""
        return a @ b

    def sum(self, x: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
        """Sum over `axes` in x's own dtype (int64 for integers); float16 and float32 are added up in float64 and rounded once."""
        total = x.sum(axis=axes, keepdims=keepdims, dtype="float64" if x.dtype.kind == "f" else "int64")
        return self.xp.asarray(total, x.dtype if x.dtype.kind == "f" else total.dtype)  # type: ignore[no-any-return]

    def concatenate(self, arrays: Sequence[Array], axis: int) -> Array:
        """Arrays joined along `axis`, in the memory order of the first."""
        if len(arrays) > 8 and self.xp is not np:  # CuPy uploads the addresses of more, which no recording may do
            return self.concatenate([self.concatenate(arrays[i : i + 8], axis) for i in range(0, len(arrays), 8)], axis)
        order = memory_order(arrays[0])
        if order is None or order == tuple(range(arrays[0].ndim)):
            return self.xp.concatenate(arrays, axis)  # type: ignore[no-any-return]
        joined = self.xp.concatenate([a.transpose(order) for a in arrays], order.index(axis))
        return joined.transpose(inverse(order))  # type: ignore[no-any-return]

    def channels(self, x: Array, start: int, stop: int) -> Array:
        """x (N, C, H, W) -> a copy of channels `start` up to `stop`, in channels-last memory."""
        n, _, h, w = x.shape
        y = empty_images(self.xp, (n, stop - start, h, w), x.dtype)
        y[...] = x[:, start:stop]
        return y

    @in_float32
    def place(self, y: Array, index: Any, shape: tuple[int, ...]) -> Array:
        """y at `index` in zeros of `shape`, added where an advanced index repeats; 4-D results lie in channels-last memory."""
        xp = self.xp
        out = zero_images(xp, shape, y.dtype) if len(shape) == 4 else xp.zeros(shape, y.dtype)
        parts = index if isinstance(index, tuple) else (index,)
        if all(isinstance(i, slice | int | np.integer) or i is None or i is Ellipsis for i in parts):
            out[index] = y
        else:
            xp.add.at(out, index, y)
        return out

    def relu(self, x: Array) -> Array:
        """max(x, 0); NaN stays NaN."""
        return self.map(lambda x: self.xp.maximum(x, x.dtype.type(0)), x)

    def relu_grad(self, g: Array, y: Array) -> Array:
        """g where y > 0, else 0: the derivative of ReLU at 0 is 0. `y` is the output of `relu`."""
        return self.map(lambda g, y: self.xp.where(y > 0, g, g.dtype.type(0)), g, y)

    def pad_images(self, x: Array, window: Window, out: Pair, value: float = 0) -> Array:
        """x (N, C, H, W) inside a buffer filled with `value` that holds all that `out` windows touch, in channels-last memory."""
        (n, c, h, w), (ph, pw) = x.shape, window.padding
        padded = empty_images(self.xp, (n, c, *window.buffer((h, w), out)), x.dtype)
        padded[...] = value
        padded[:, :, ph : ph + h, pw : pw + w] = x
        return padded
