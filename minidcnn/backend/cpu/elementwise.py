"""Sums, ReLU and joins on all cores.

NumPy's own elementwise functions are left alone: in pieces shared by two threads they were 0.5 to 1.0 times as fast.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from ..arrays import Array, inverse, is_channels_last, memory_order, nchw
from ..reference import Kernels
from .jit import fence, jit, stream
from .layout import images, plain, suits
from .memory import empty, streams
from .threads import parallel

LARGE = 1 << 14  # elements; what is smaller is left to NumPy
LANES = 512  # sums kept side by side


class CpuElementwise(Kernels):
    """Sums over pixels or over everything, ReLU and its gradient, channels joined."""

    def sum(self, x: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
        if x.ndim == 4 and set(axes) == {0, 2, 3} and suits(x):
            totals = _sums(images(x).reshape(-1, x.shape[1]))
            return totals.reshape(1, -1, 1, 1) if keepdims else totals
        if len(axes) == x.ndim and x.size >= LARGE and suits(x) and (order := memory_order(x)) is not None:
            return _sums(plain(x.transpose(order)).reshape(-1, 1)).reshape((1,) * x.ndim if keepdims else ())
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
        fits = axis == 1 and all(a.ndim == 4 and is_channels_last(a) for a in arrays) and suits(*arrays)
        if not fits or sum(a.size for a in arrays) < LARGE or len({(len(a), *a.shape[2:]) for a in arrays}) > 1:
            return super().concatenate(arrays, axis)
        sizes = [a.shape[1] for a in arrays]
        y = empty((first.size // sizes[0], sum(sizes)), first.dtype)
        parts = list(zip([images(a).reshape(len(y), -1) for a in arrays], itertools.accumulate(sizes, initial=0), strict=False))
        streamed = streams(y, *sizes)

        def join(start: int, stop: int) -> None:
            if len(parts) == 2:
                join_two(parts[0][0], parts[1][0], y, streamed, start, stop)
                return
            for part, at in parts:
                put_channels(part, y, at, start, stop)

        parallel(join, len(y), 2 * y.shape[1])
        return nchw(y.reshape(len(first), *first.shape[2:], -1))

    def channels(self, x: Array, start: int, stop: int) -> Array:
        n, c, h, w = x.shape
        if not suits(x) or start >= stop or not is_channels_last(x):
            return super().channels(x, start, stop)
        pixels, y = images(x).reshape(-1, c), empty((n, h, w, stop - start), x.dtype)
        flat, streamed = y.reshape(len(pixels), -1), streams(y, stop - start)
        parallel(lambda a, b: some_channels(pixels, flat, start, streamed, a, b), len(flat), flat.shape[1])
        return nchw(y)


@jit
def join_two(a: Array, b: Array, y: Array, streamed: bool, start: int, stop: int) -> None:
    """Rows `start` up to `stop` of y (P, C + D) = those of a (P, C) and b (P, D) side by side: y is written from front to back, once."""
    c = a.shape[1]
    for p in range(start, stop):
        first, second, left, right = a[p], b[p], y[p, :c], y[p, c:]
        if streamed:
            stream(first.ctypes.data, left.ctypes.data, first.nbytes // 4)
            stream(second.ctypes.data, right.ctypes.data, second.nbytes // 4)
            continue
        for k in range(left.size):
            left[k] = first[k]
        for k in range(right.size):
            right[k] = second[k]
    fence()


@jit
def some_channels(x: Array, y: Array, first: int, streamed: bool, start: int, stop: int) -> None:
    """y (P, C') = the columns of x (P, C) from `first` on, for rows `start` up to `stop`."""
    for p in range(start, stop):
        line, to = x[p, first : first + y.shape[1]], y[p]
        if streamed:
            stream(line.ctypes.data, to.ctypes.data, to.nbytes // 4)
            continue
        for k in range(to.size):
            to[k] = line[k]
    fence()


@jit
def put_channels(x: Array, y: Array, first: int, start: int, stop: int) -> None:
    """The columns of y (P, C) from `first` on = x (P, C'), for rows `start` up to `stop`: what undoes some_channels."""
    for p in range(start, stop):
        line, to = x[p], y[p, first : first + x.shape[1]]
        for k in range(line.size):
            to[k] = line[k]


def _sums(x: Array) -> Array:
    """x (P, C) -> sums (C,), added up in float64, in blocks cut by shape alone: the same for any number of threads."""
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
    totals: Array = np.empty(c, x.dtype)
    join_sums(sums.reshape(-1, c), x[whole:], totals)
    return totals


@jit
def join_sums(sums: Array, rest: Array, totals: Array) -> None:
    """totals (C,) = the sums of the rows of `sums` (S, C), in float64, and of `rest` (P, C)."""
    for k in range(totals.size):
        total = 0.0
        for s in range(sums.shape[0]):
            total += sums[s, k]
        for p in range(rest.shape[0]):
            total += rest[p, k]
        totals[k] = total


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
