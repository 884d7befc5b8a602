"""Batch norm in as few passes as the data allow: one for the statistics, one to normalise, two for the gradient.

Images are rows of pixels by channels; blocks of rows are cut by shape alone and added up in float64, so results do not depend on the
number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array
from ..reference import Kernels
from .jit import jit
from .layout import plain, suits
from .memory import empty
from .threads import parallel

BLOCK = 1 << 15  # elements that are gone through at a time
LANES = 256  # sums kept side by side: pixels with fewer channels are taken several at once


class CpuNorm(Kernels):
    """Batch norm: statistics, the affine map that uses them, and its gradient with them."""

    def batch_norm_stats(self, x: Array) -> tuple[Array, Array]:
        if not suits(x) or x.ndim < 2:
            return super().batch_norm_stats(x)
        c, lines = x.shape[1], _lines(_pixels(x))
        step, blocks = _blocks(lines)
        means, squares = np.empty((blocks, lines.shape[1])), np.empty((blocks, lines.shape[1]))
        parallel(lambda a, b: block_stats(lines, step, means, squares, a, b), blocks, 2 * step * lines.shape[1])
        counts = np.minimum(step, len(lines) - np.arange(blocks) * step).reshape(-1, 1, 1)
        mean, square = means.reshape(blocks, -1, c), squares.reshape(blocks, -1, c)
        pixels = x.size // c
        total: Array = (mean * counts).sum((0, 1)) / pixels
        spread: Array = (square + counts * (mean - total) ** 2).sum((0, 1)) / pixels  # Chan, Golub & LeVeque 1979
        return total, spread

    def batch_norm_apply(self, x: Array, mean: Array, rstd: Array, weight: Array, bias: Array, relu: bool = False) -> Array:
        if not suits(x, weight, bias) or x.ndim < 2:
            return super().batch_norm_apply(x, mean, rstd, weight, bias, relu)
        lines = _lines(_pixels(x))
        y, folded = empty(lines.shape, lines.dtype), lines.shape[1] // x.shape[1]
        center, scale, offset = (_repeated(v, folded, x.dtype) for v in (mean, rstd * weight, bias))
        least = x.dtype.type(0 if relu else -np.inf)
        parallel(lambda a, b: normalize(lines, y, center, scale, offset, least, a, b), len(lines), lines.shape[1])
        return _images(y, x)

    def batch_norm_grad(
        self, g: Array, x: Array, mean: Array, rstd: Array, weight: Array, gate: Array | None = None
    ) -> tuple[Array, Array, Array]:
        if not suits(g, x, weight, gate) or x.ndim < 2:
            return super().batch_norm_grad(g, x, mean, rstd, weight, gate)
        kind, c, count = x.dtype, x.shape[1], x.size // x.shape[1]
        slopes, lines = _lines(_pixels(g)), _lines(_pixels(x))
        folded = lines.shape[1] // c
        at, spread, scale = (_repeated(v, folded, kind) for v in (mean, rstd, rstd * weight))
        offset, gated = scale if gate is None else _repeated(gate, folded, kind), gate is not None
        step, blocks = _blocks(lines)
        sums = np.empty((2, blocks, lines.shape[1]))
        parallel(
            lambda a, b: gradient_sums(slopes, lines, at, spread, scale, offset, gated, step, sums, a, b), blocks, 2 * step * lines.shape[1]
        )
        dbias, dweight = sums.reshape(2, -1, c).sum(1)
        by_one, by_z = (_repeated(v, folded, kind) for v in (dbias / count, dweight / count))
        dx = empty(lines.shape, lines.dtype)
        parallel(
            lambda a, b: gradient(slopes, lines, dx, at, spread, scale, offset, gated, by_one, by_z, a, b),
            len(lines),
            2 * lines.shape[1],
        )
        return _images(dx, x), dweight.astype(kind), dbias.astype(kind)


def _pixels(x: Array) -> Array:
    """x (N, C, ...) -> (pixels, C), a view of channels-last images, else a copy."""
    return plain(x.transpose(0, *range(2, x.ndim), 1)).reshape(-1, x.shape[1])


def _lines(pixels: Array) -> Array:
    """(pixels, C) -> (lines, L) with as many pixels in a line as divide their number and fit LANES: loops run along lines."""
    count, c = pixels.shape
    folded = 1
    while folded * 2 * c <= LANES and count % (folded * 2) == 0:
        folded *= 2
    return pixels.reshape(-1, folded * c)


def _blocks(lines: Array) -> tuple[int, int]:
    """Lines in a block, and blocks."""
    step = max(1, BLOCK // lines.shape[1])
    return step, -(-len(lines) // step)


def _images(lines: Array, like: Array) -> Array:
    """Lines back in the shape of `like` (N, C, ...), in channels-last memory."""
    shape = (like.shape[0], *like.shape[2:], like.shape[1])
    return lines.reshape(shape).transpose(0, -1, *range(1, like.ndim - 1))


def _repeated(v: Array, times: int, dtype: np.dtype[Any]) -> Array:
    """v (C,) `times` times one after the other, as `dtype`; np.tile takes ten times as long for so few numbers."""
    lines = np.empty((times, len(v)), dtype)
    lines[...] = v
    return lines.reshape(-1)


@jit
def block_stats(x: Array, step: int, mean: Array, square: Array, start: int, stop: int) -> None:
    """mean, square (blocks, L): per column the mean of a block of `step` lines of x, and the sum of squared distances to it."""
    for block in range(start, stop):
        first, last = block * step, min(x.shape[0], (block + 1) * step)
        center, spread = mean[block], square[block]
        for k in range(center.size):
            center[k] = 0
            spread[k] = 0
        for p in range(first, last):
            line = x[p]
            for k in range(center.size):
                center[k] += line[k]
        for k in range(center.size):
            center[k] /= last - first
        for p in range(first, last):
            line = x[p]
            for k in range(center.size):
                d = line[k] - center[k]
                spread[k] += d * d


@jit
def normalize(x: Array, y: Array, mean: Array, scale: Array, bias: Array, least: float, start: int, stop: int) -> None:
    """y (P, L) = (x - mean) scale + bias but at least `least`, for lines `start` up to `stop`."""
    for p in range(start, stop):
        line, to = x[p], y[p]
        for k in range(to.size):
            value = (line[k] - mean[k]) * scale[k] + bias[k]
            to[k] = least if value <= least else value  # NaN stays


@jit
def gradient_sums(
    g: Array, x: Array, mean: Array, rstd: Array, scale: Array, bias: Array, gated: bool, step: int, sums: Array, start: int, stop: int
) -> None:
    """sums (2, blocks, L): per column the sums over a block of g and of g z, with z = (x - mean) rstd.

    `gated`: g counts as 0 where (x - mean) scale + bias is not above 0.
    """
    zero = g.dtype.type(0)
    for block in range(start, stop):
        of_g, of_gz = sums[0, block], sums[1, block]
        for k in range(of_g.size):
            of_g[k] = 0
            of_gz[k] = 0
        for p in range(block * step, min(x.shape[0], (block + 1) * step)):
            slope, line = g[p], x[p]
            for k in range(of_g.size):
                far = line[k] - mean[k]
                s = slope[k] if not gated or far * scale[k] + bias[k] > zero else zero
                of_g[k] += s
                of_gz[k] += s * (far * rstd[k])


@jit
def gradient(
    g: Array, x: Array, dx: Array, mean: Array, rstd: Array, scale: Array, bias: Array, gated: bool, b: Array, w: Array, start: int, stop: int
) -> None:  # fmt: skip
    """dx (P, L) = scale (g - b - z w), for lines `start` up to `stop`; `gated` as above."""
    zero = g.dtype.type(0)
    for p in range(start, stop):
        slope, line, to = g[p], x[p], dx[p]
        for k in range(to.size):
            far = line[k] - mean[k]
            s = slope[k] if not gated or far * scale[k] + bias[k] > zero else zero
            to[k] = scale[k] * (s - b[k] - far * rstd[k] * w[k])
