"""Sums, ReLU and joins on all cores.

NumPy's own elementwise functions are left alone: in pieces shared by two threads they were 0.5 to 1.0 times as fast.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..arrays import Array, inverse, is_channels_last, memory_order, nchw
from ..reference import Kernels
from .jit import jit
from .layout import FLOATS, images, plain, suits
from .memory import empty
from .threads import parallel

LARGE = 1 << 14  # elements; what is smaller is left to NumPy
LANES = 512  # sums kept side by side


class CpuElementwise(Kernels):
    """Sums over pixels or over everything, ReLU and its gradient, channels joined."""

    def sum(self, x: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
        order = memory_order(x)
        if x.dtype not in FLOATS or x.size < LARGE or order is None:
            return super().sum(x, axes, keepdims)
        if len(axes) == x.ndim:
            total = np.asarray(_sums(plain(x.transpose(order)).reshape(-1, 1)).astype(x.dtype)[0])
            return total.reshape((1,) * x.ndim if keepdims else ())
        if x.ndim == 4 and set(axes) == {0, 2, 3}:
            c = x.shape[1]
            totals = _sums(images(x).reshape(-1, c)).astype(x.dtype)
            return totals.reshape(1, c, 1, 1) if keepdims else totals
        return super().sum(x, axes, keepdims)

    def relu(self, x: Array) -> Array:
        order = memory_order(x)
        if not suits(x) or x.size < LARGE or order is None:
            return super().relu(x)
        moved = plain(x.transpose(order))
        flat, y = moved.reshape(-1), empty(x.shape, x.dtype).reshape(-1)
        parallel(lambda a, b: relu(flat, y, a, b), x.size, 1)
        return y.reshape(moved.shape).transpose(inverse(order))

    def relu_grad(self, g: Array, y: Array) -> Array:
        order = memory_order(y)
        if not suits(g, y) or y.size < LARGE or order is None or g.shape != y.shape:
            return super().relu_grad(g, y)
        moved = plain(y.transpose(order))
        flat, gradient, x = moved.reshape(-1), plain(g.transpose(order)).reshape(-1), empty(y.shape, y.dtype).reshape(-1)
        parallel(lambda a, b: relu_grad(gradient, flat, x, a, b), y.size, 1)
        return x.reshape(moved.shape).transpose(inverse(order))

    def concatenate(self, arrays: Sequence[Array], axis: int) -> Array:
        first = arrays[0]
        sizes = [a.shape[1] for a in arrays if a.ndim == 4]
        fits = first.ndim == 4 and axis == 1 and len(sizes) == len(arrays) and sum(sizes) * first[:, :1].size >= LARGE
        if not fits or not suits(*arrays) or any(a.shape[2:] != first.shape[2:] or len(a) != len(first) for a in arrays):
            return super().concatenate(arrays, axis)
        if not all(is_channels_last(a) for a in arrays):
            return super().concatenate(arrays, axis)
        y = empty((first[:, 0].size, sum(sizes)), first.dtype)
        parts = list(zip([images(a).reshape(len(y), -1) for a in arrays], np.cumsum([0, *sizes]).tolist(), strict=False))

        def join(start: int, stop: int) -> None:
            for part, at in parts:
                y[start:stop, at : at + part.shape[1]] = part[start:stop]

        parallel(join, len(y), 2 * y.shape[1])
        return nchw(y.reshape(len(first), *first.shape[2:], -1))

    def channels(self, x: Array, start: int, stop: int) -> Array:
        n, c, h, w = x.shape
        if not suits(x) or start >= stop or not is_channels_last(x):
            return super().channels(x, start, stop)
        pixels, y = images(x).reshape(-1, c), empty((n, h, w, stop - start), x.dtype)
        flat = y.reshape(len(pixels), -1)
        parallel(lambda a, b: some_channels(pixels, flat, start, a, b), len(flat), flat.shape[1])
        return nchw(y)


@jit
def some_channels(x: Array, y: Array, first: int, start: int, stop: int) -> None:
    """y (P, C') = the columns of x (P, C) from `first` on, for rows `start` up to `stop`."""
    for p in range(start, stop):
        line, to = x[p, first : first + y.shape[1]], y[p]
        for k in range(to.size):
            to[k] = line[k]


def _sums(x: Array) -> Array:
    """x (P, C) -> sums (C,) in float64, of blocks cut by shape alone: the same for any number of threads."""
    pixels, c = x.shape
    folded = max(1, LANES // c)  # pixels side by side in a row of the kernel: it runs along rows
    whole = pixels // folded * folded
    lines = x[:whole].reshape(-1, folded * c)
    step = max(1, (1 << 16) // lines.shape[1])
    blocks = -(-len(lines) // step)
    sums = np.empty((blocks, lines.shape[1]))

    def work(start: int, stop: int) -> None:
        for i in range(start, stop):
            sum_lines(lines[i * step : (i + 1) * step], sums[i])

    parallel(work, blocks, step * lines.shape[1])
    total: Array = sums.reshape(-1, c).sum(axis=0) + x[whole:].sum(axis=0, dtype=np.float64)
    return total


@jit
def sum_lines(x: Array, sums: Array) -> None:
    """sums (L,) = the sum of the rows of x (P, L)."""
    for k in range(sums.size):
        sums[k] = 0
    for p in range(x.shape[0]):
        line = x[p]
        for k in range(sums.size):
            sums[k] += line[k]


@jit
def relu(x: Array, y: Array, start: int, stop: int) -> None:
    """y = max(x, 0), NaN stays NaN, from `start` up to `stop`."""
    source, to, zero = x[start:stop], y[start:stop], x.dtype.type(0)
    for k in range(to.size):
        value = source[k]
        to[k] = zero if value <= zero else value


@jit
def relu_grad(g: Array, y: Array, x: Array, start: int, stop: int) -> None:
    """x = g where y > 0, else 0, from `start` up to `stop`."""
    source, gate, to, zero = g[start:stop], y[start:stop], x[start:stop], g.dtype.type(0)
    for k in range(to.size):
        value = source[k]
        to[k] = value if gate[k] > zero else zero
