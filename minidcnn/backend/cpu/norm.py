"""Batch norm in as few passes as the data allow: one for the statistics, one to normalise, two for the gradient.

Images are rows of pixels by channels; blocks of rows are cut by shape alone and added up in float64, so results do not depend on the
number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array
from ..reference import Kernels
from .jit import fence, jit, stream
from .layout import plain, suits
from .memory import empty, streams
from .threads import parallel

BLOCK = 1 << 15  # elements that are gone through at a time
LANES = 256  # sums kept side by side: pixels with fewer channels are taken several at once


class CpuNorm(Kernels):
    """Batch norm: statistics, the affine map that uses them, and its gradient with them."""

    def batch_norm_stats(self, x: Array) -> tuple[Array, Array]:
        if not suits(x) or x.ndim < 2:
            return super().batch_norm_stats(x)
        lines = _lines(x)
        count, length = lines.shape
        step, blocks = _blocks(count, length)
        of_blocks, stats = np.empty((2, blocks, length)), np.empty((2, x.shape[1]))
        parallel(lambda a, b: block_stats(lines, step, of_blocks, a, b), blocks, 2 * step * length)
        join_stats(of_blocks, count, step, stats)
        return stats[0], stats[1]

    def batch_norm_track(
        self, mean: Array, variance: Array, count: int, eps: float, momentum: Any, running_mean: Array | None, running_var: Array | None
    ) -> Array:
        running = [v for v in (running_mean, running_var) if v is not None and v.flags.carray]
        if len(running) < 2 or not suits(*running):
            return super().batch_norm_track(mean, variance, count, eps, momentum, running_mean, running_var)
        rstd = np.empty_like(variance)
        track(mean, variance, count, float(eps), float(momentum), running[0], running[1], rstd)
        return rstd

    def batch_norm_apply(self, x: Array, mean: Array, rstd: Array, weight: Array, bias: Array, relu: bool = False) -> Array:
        if not suits(x, weight, bias) or x.ndim < 2:
            return super().batch_norm_apply(x, mean, rstd, weight, bias, relu)
        lines = _lines(x)
        (count, length), kind = lines.shape, x.dtype
        y, of = empty((count, length), kind), np.empty((3, length), kind)
        coefficients(plain(mean), plain(rstd), plain(weight), plain(bias), of)
        center, scale, offset = of
        least, streamed = kind.type(0 if relu else -np.inf), streams(y, length)
        parallel(lambda a, b: normalize(lines, y, center, scale, offset, least, streamed, a, b), count, length)
        return _images(y, x)

    def batch_norm_grad(
        self, g: Array, x: Array, mean: Array, rstd: Array, weight: Array, gate: Array | None = None
    ) -> tuple[Array, Array, Array]:
        if not suits(g, x, weight, gate) or x.ndim < 2:
            return super().batch_norm_grad(g, x, mean, rstd, weight, gate)
        slopes, lines, kind, gated = _lines(g), _lines(x), x.dtype, gate is not None
        count, length = lines.shape
        step, blocks = _blocks(count, length)
        of, sums, dx = np.empty((6, length), kind), np.empty((2, blocks, length)), empty((count, length), kind)
        coefficients(plain(mean), plain(rstd), plain(weight), plain(weight if gate is None else gate), of)
        parallel(lambda a, b: gradient_sums(slopes, lines, of, gated, step, sums, a, b), blocks, 2 * step * length)
        dweight, dbias = np.empty_like(weight), np.empty_like(weight)
        join_gradient(sums, count, dweight, dbias, of)
        streamed = streams(dx, length)
        parallel(lambda a, b: gradient(slopes, lines, dx, of, gated, streamed, a, b), count, 2 * length)
        return _images(dx, x), dweight, dbias


def _lines(x: Array) -> Array:
    """x (N, C, ...) -> (lines, L), a view of channels-last images, else a copy, with as many pixels in a line as divide their number and
    fit LANES: loops run along lines."""
    c = x.shape[1]
    pixels, fit = x.size // c, max(1, LANES // c)
    folded = min(1 << fit.bit_length() - 1, pixels & -pixels)  # powers of two: the largest that fits, and the largest that divides
    return plain(x.transpose(0, *range(2, x.ndim), 1)).reshape(-1, folded * c)


def _blocks(count: int, length: int) -> tuple[int, int]:
    """Lines in a block, and blocks."""
    step = max(1, BLOCK // length)
    return step, -(-count // step)


def _images(lines: Array, like: Array) -> Array:
    """Lines back in the shape of `like` (N, C, ...), in channels-last memory."""
    shape = (like.shape[0], *like.shape[2:], like.shape[1])
    return lines.reshape(shape).transpose(0, -1, *range(1, like.ndim - 1))


# What follows works on a few numbers for each channel, or on all; for so few, NumPy's calls would take longer than the work.


@jit
def coefficients(mean: Array, rstd: Array, weight: Array, bias: Array, of: Array) -> None:
    """of (3 or more, L): the mean, scale = rstd weight, and the bias of each column of lines, then rstd; each (C,), repeated."""
    c = mean.size
    for k in range(of.shape[1]):
        i = k % c
        of[0, k], of[1, k], of[2, k] = mean[i], rstd[i] * weight[i], bias[i]
        if of.shape[0] > 3:
            of[3, k] = rstd[i]


@jit
def block_stats(x: Array, step: int, stats: Array, start: int, stop: int) -> None:
    """stats (2, blocks, L): per column the mean of a block of `step` lines of x, and the sum of squared distances to it."""
    for block in range(start, stop):
        first, last = block * step, min(x.shape[0], (block + 1) * step)
        center, spread = stats[0, block], stats[1, block]
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
def join_stats(of_blocks: Array, count: int, step: int, stats: Array) -> None:
    """stats (2, C): mean and variance, from those of blocks (2, blocks, L) of `count` lines (Chan, Golub & LeVeque 1979)."""
    c, (_, blocks, length) = stats.shape[1], of_blocks.shape
    pixels = count * (length // c)
    stats[...] = 0
    for block in range(blocks):
        lines = min(step, count - block * step)
        for k in range(length):
            stats[0, k % c] += of_blocks[0, block, k] * lines
    for i in range(c):
        stats[0, i] /= pixels
    for block in range(blocks):
        lines = min(step, count - block * step)
        for k in range(length):
            d = of_blocks[0, block, k] - stats[0, k % c]
            stats[1, k % c] += of_blocks[1, block, k] + lines * (d * d)
    for i in range(c):
        stats[1, i] /= pixels


@jit
def track(
    mean: Array, variance: Array, count: int, eps: float, momentum: float, running_mean: Array, running_var: Array, rstd: Array
) -> None:
    """As batch_norm_track has it, all (C,)."""
    for i in range(rstd.size):
        root = np.sqrt(variance[i] + eps)
        rstd[i] = 1 / root
        running_mean[i] = (1 - momentum) * running_mean[i] + momentum * mean[i]
        running_var[i] = (1 - momentum) * running_var[i] + momentum * (variance[i] * (count / (count - 1)))


@jit
def normalize(x: Array, y: Array, mean: Array, scale: Array, bias: Array, least: float, streamed: bool, start: int, stop: int) -> None:
    """y (P, L) = (x - mean) scale + bias but at least `least`, for lines `start` up to `stop`."""
    held = np.empty(x.shape[1], x.dtype)  # a line on its way past the caches
    for p in range(start, stop):
        line, to = x[p], held if streamed else y[p]
        for k in range(to.size):
            value = (line[k] - mean[k]) * scale[k] + bias[k]
            to[k] = least if value <= least else value  # NaN stays
        if streamed:
            stream(held.ctypes.data, y[p].ctypes.data, held.nbytes // 4)
    fence()


@jit
def gradient_sums(g: Array, x: Array, of: Array, gated: bool, step: int, sums: Array, start: int, stop: int) -> None:
    """sums (2, blocks, L): per column the sums over a block of g and of g z, with z = (x - mean) rstd.

    `gated`: g counts as 0 where (x - mean) scale + bias is not above 0.
    """
    mean, scale, bias, rstd, zero = of[0], of[1], of[2], of[3], g.dtype.type(0)
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
def join_gradient(sums: Array, count: int, dweight: Array, dbias: Array, of: Array) -> None:
    """dweight, dbias (C,) = the sums over blocks (2, blocks, L) of `count` lines; of (6, L): behind what is there, dbias and dweight by pixel."""
    c, (_, blocks, length) = dbias.size, sums.shape
    pixels = count * (length // c)
    for i in range(c):
        one, by_z = 0.0, 0.0
        for block in range(blocks):
            for k in range(i, length, c):
                one += sums[0, block, k]
                by_z += sums[1, block, k]
        dbias[i], dweight[i] = one, by_z
        for k in range(i, length, c):
            of[4, k], of[5, k] = one / pixels, by_z / pixels


@jit
def gradient(g: Array, x: Array, dx: Array, of: Array, gated: bool, streamed: bool, start: int, stop: int) -> None:
    """dx (P, L) = scale (g - b - z w), for lines `start` up to `stop`; `gated` as above."""
    mean, scale, bias, rstd, b, w, zero = of[0], of[1], of[2], of[3], of[4], of[5], g.dtype.type(0)
    held = np.empty(x.shape[1], x.dtype)  # as in normalize
    for p in range(start, stop):
        slope, line, to = g[p], x[p], held if streamed else dx[p]
        for k in range(to.size):
            far = line[k] - mean[k]
            s = slope[k] if not gated or far * scale[k] + bias[k] > zero else zero
            to[k] = scale[k] * (s - b[k] - far * rstd[k] * w[k])
        if streamed:
            stream(held.ctypes.data, dx[p].ctypes.data, held.nbytes // 4)
    fence()
