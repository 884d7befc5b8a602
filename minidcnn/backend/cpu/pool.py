"""Pooling in one pass: no padded copy, all the taps of a window while its pixels are in the cache, threads over rows.

The loops run over channels inside, which lie side by side, so that they become vector code. They stay within 32 bits for that: an int
written as it is counts 64, and a float32 chosen against it would be widened to float64.
"""

from __future__ import annotations

import numpy as np

from ...window import Pair, Window
from ..arrays import Array, nchw
from ..reference import Kernels
from ..reference.pool import first_taps
from .columns import Geometry, geometry
from .jit import jit
from .layout import images, plain, rows, suits
from .memory import empty
from .threads import parallel

BESIDE = 2048  # numbers in sums that lie in the first cache beside what they are made of


class CpuPool(Kernels):
    """Max-pool with its gather and scatter, average pool with its adjoint, and gather / scatter at flat plane indices."""

    def max_pool2d(self, x: Array, window: Window, out: Pair) -> tuple[Array, Array]:
        if not suits(x):
            return super().max_pool2d(x, window, out)
        (n, c), (oh, ow), at = x.shape[:2], out, geometry(window)
        tops, lefts = first_taps(window, x.shape[2:], out)
        image, best = images(x), empty((n, oh, ow, c), x.dtype)
        taps = np.empty(best.shape, self.tap_dtype(window))
        parallel(lambda a, b: max_pool(image, best, taps, tops, lefts, a, b, at), n * oh, _row(ow, c, window))
        return nchw(best), nchw(taps)

    def pool_gather(self, x: Array, taps: Array, window: Window) -> Array:
        if not suits(x) or not taps.size:
            return super().pool_gather(x, taps, window)
        (n, c, oh, ow), at = taps.shape, geometry(window)
        image, winners, y = rows(x), rows(taps), empty((n, oh, ow * c), x.dtype)
        parallel(lambda a, b: gather_taps(image, winners, y, c, a, b, at), n * oh, _row(ow, c, window))
        return nchw(y.reshape(n, oh, ow, c))

    def pool_scatter(self, g: Array, taps: Array, window: Window, size: Pair) -> Array:
        if not suits(g):
            return super().pool_scatter(g, taps, window, size)
        (n, c), (h, w), at = g.shape[:2], size, geometry(window)
        gradient, winners, x = rows(g), rows(taps), empty((n, h, w * c), g.dtype)
        parallel(lambda a, b: scatter_taps(gradient, winners, x, c, a, b, at), n * h, _row(w, c, window))
        return nchw(x.reshape(n, h, w, c))

    def plane_indices(self, taps: Array, window: Window, size: Pair) -> Array:
        if not taps.size:
            return super().plane_indices(taps, window, size)
        (kh, kw), (dh, dw) = window.kernel, window.dilation
        steps = np.add.outer(np.arange(kh) * dh * size[1], np.arange(kw) * dw).reshape(-1)  # from a window's first tap, in the plane
        winners, at, width = images(taps), geometry(window), size[1]
        n, oh, ow, c = winners.shape
        indices = np.empty(winners.shape, np.int64)
        parallel(lambda a, b: plane_indices(winners, steps, indices, width, a, b, at), n * oh, _row(ow, c, Window((1, 1))))
        return nchw(indices)

    def gather(self, x: Array, indices: Array) -> Array:
        if not suits(x) or not indices.size:
            return super().gather(x, indices)
        n, c, h, w = x.shape
        at = images(indices.astype(np.int64, copy=False)).reshape(n, -1, c)
        image, y = images(x).reshape(n, h * w, c), np.empty(at.shape, x.dtype)
        parallel(lambda a, b: gather(image, at, y, a, b), n * at.shape[1], 4 * c)
        return nchw(y.reshape(n, *indices.shape[2:], c))

    def scatter(self, y: Array, indices: Array, size: Pair) -> Array:
        if not suits(y):
            return super().scatter(y, indices, size)
        (n, c), (h, w) = y.shape[:2], size
        at = images(indices.astype(np.int64, copy=False)).reshape(n, -1, c)
        values, x = images(y).reshape(at.shape), np.zeros((n, h * w, c), y.dtype)
        bands = -(-c // 16)  # threads share images and channels: what adds up at one place is then added in one thread, in order
        parallel(lambda a, b: scatter(values, at, x, a, b, bands), n * bands, 4 * at.shape[1] * min(c, 16))
        return nchw(x.reshape(n, h, w, c))

    def avg_pool2d(self, x: Array, window: Window, weight: Array) -> Array:
        if not suits(x, weight):
            return super().avg_pool2d(x, window, weight)
        (n, c), (oh, ow), at = x.shape[:2], weight.shape, geometry(window)
        image, factors, y = rows(x), plain(weight), empty((n, oh, ow * c), x.dtype)
        parallel(lambda a, b: avg_pool(image, y, factors, c, a, b, at), n * oh, _row(ow, c, window))
        return nchw(y.reshape(n, oh, ow, c))

    def avg_pool2d_adjoint(self, g: Array, window: Window, weight: Array, size: Pair) -> Array:
        if not suits(g, weight):
            return super().avg_pool2d_adjoint(g, window, weight, size)
        (n, c), (h, w), at = g.shape[:2], size, geometry(window)
        gradient, factors, x = rows(g), plain(weight), empty((n, h, w * c), g.dtype)
        parallel(lambda a, b: avg_pool_adjoint(gradient, x, factors, c, a, b, at), n * h, _row(w, c, window))
        return nchw(x.reshape(n, h, w, c))


def _row(width: int, channels: int, window: Window) -> int:
    """What a row of pixels costs."""
    return width * channels * window.taps


# -- the loops: rows are counted through all images, from `start` up to `stop` --------------------------------------------------------


@jit
def max_pool(x: Array, best: Array, taps: Array, tops: Array, lefts: Array, start: int, stop: int, at: Geometry) -> None:
    """best, taps (N, OH, OW, C) of x (N, H, W, C); a window starts with its first tap inside the image, as `tops` and `lefts` say."""
    kh, kw, sh, sw, ph, pw, dh, dw = at
    h, w, c, oh, ow = x.shape[1], x.shape[2], x.shape[3], best.shape[1], best.shape[2]
    for row in range(start, stop):
        n, i = row // oh, row % oh
        for j in range(ow):
            top, where = best[n, i, j], taps[n, i, j]
            tap = np.int32(tops[i] * kw + lefts[j])
            pixel = x[n, i * sh + tops[i] * dh - ph, j * sw + lefts[j] * dw - pw]
            for k in range(c):
                top[k] = pixel[k]
                where[k] = tap
            for a in range(tops[i], kh):
                y = i * sh + a * dh - ph
                if y >= h:
                    break
                for b in range(kw):
                    z = j * sw + b * dw - pw
                    if z < 0 or z >= w:
                        continue
                    tap = np.int32(a * kw + b)
                    pixel = x[n, y, z]
                    for k in range(c):
                        value, held, before = pixel[k], top[k], np.int32(where[k])
                        better = (value > held) | (value != value)  # the second: NaN wins
                        top[k] = value if better else held
                        where[k] = tap if better else before


@jit
def gather_taps(x: Array, taps: Array, y: Array, c: int, start: int, stop: int, at: Geometry) -> None:
    """y (N, OH, OW C) = x (N, H, W C) at the winning taps, 0 where a tap lies in the padding."""
    kh, kw, sh, sw, ph, pw, dh, dw = at
    h, w, oh, ow = x.shape[1], x.shape[2] // c, y.shape[1], y.shape[2] // c
    seen = np.empty(ow * c, y.dtype)  # what one tap sees, in all windows of a row
    for row in range(start, stop):
        n, i = row // oh, row % oh
        to, where = y[n, i], taps[n, i]
        for k in range(to.size):
            to[k] = 0
        for a in range(kh):
            p = i * sh + a * dh - ph
            if p < 0 or p >= h:
                continue
            for b in range(kw):
                tap = np.int32(a * kw + b)
                for j in range(ow):
                    q, block = j * sw + b * dw - pw, seen[j * c : j * c + c]
                    if q < 0 or q >= w:
                        for k in range(block.size):
                            block[k] = 0
                        continue
                    pixel = x[n, p, q * c : q * c + c]
                    for k in range(block.size):
                        block[k] = pixel[k]
                for k in range(to.size):
                    value, held = seen[k], to[k]
                    to[k] = value if np.int32(where[k]) == tap else held


@jit
def scatter_taps(g: Array, taps: Array, x: Array, c: int, start: int, stop: int, at: Geometry) -> None:
    """x (N, H, W C): each pixel adds up g (N, OH, OW C) of the windows that it wins."""
    kh, kw, sh, sw, ph, pw, dh, dw = at
    oh, ow, h, w = g.shape[1], g.shape[2] // c, x.shape[1], x.shape[2] // c
    won, zero = np.empty(ow * c, x.dtype), x.dtype.type(0)  # `won`: what one tap won, in all windows of a row
    for row in range(start, stop):
        n, y = row // h, row % h
        line = x[n, y]
        for k in range(line.size):
            line[k] = 0
        for a in range(kh):
            i = y + ph - a * dh
            if i < 0 or i % sh != 0 or i // sh >= oh:
                continue
            source, where = g[n, i // sh], taps[n, i // sh]
            for b in range(kw):
                tap = np.int32(a * kw + b)
                for k in range(won.size):
                    won[k] = source[k] if np.int32(where[k]) == tap else zero
                for j in range(ow):
                    z = j * sw + b * dw - pw
                    if z < 0 or z >= w:
                        continue
                    pixel, block = line[z * c : z * c + c], won[j * c : j * c + c]
                    for k in range(pixel.size):
                        pixel[k] += block[k]


@jit
def plane_indices(taps: Array, steps: Array, indices: Array, width: int, start: int, stop: int, at: Geometry) -> None:
    """indices (N, OH, OW, C) = h W + w of the winning taps, which lie `steps` from the first tap."""
    _, _, sh, sw, ph, pw, _, _ = at
    oh, ow, c = taps.shape[1], taps.shape[2], taps.shape[3]
    for row in range(start, stop):
        n, i = row // oh, row % oh
        for j in range(ow):
            to, where, first = indices[n, i, j], taps[n, i, j], (i * sh - ph) * width + j * sw - pw
            for k in range(c):
                to[k] = first + steps[where[k]]


@jit
def gather(x: Array, at: Array, y: Array, start: int, stop: int) -> None:
    """y (N, P', C) = x (N, P, C) at the indices `at` (N, P', C) along the pixels."""
    pixels, count, c = x.shape[1], y.shape[1], x.shape[2]
    for row in range(start, stop):
        n, q = row // count, row % count
        for k in range(c):
            p = at[n, q, k]
            if p < 0 or p >= pixels:
                raise IndexError("gather: an index lies outside the plane")
            y[n, q, k] = x[n, p, k]


@jit
def scatter(y: Array, at: Array, x: Array, start: int, stop: int, bands: int) -> None:
    """x (N, P, C) += y (N, P', C) at the indices `at` (N, P', C), for some images and bands of 16 channels."""
    pixels, count, c = x.shape[1], y.shape[1], x.shape[2]
    for item in range(start, stop):
        n, first = item // bands, item % bands * 16
        for q in range(count):
            for k in range(first, min(first + 16, c)):
                p = at[n, q, k]
                if p < 0 or p >= pixels:
                    raise IndexError("scatter: an index lies outside the plane")
                x[n, p, k] += y[n, q, k]


@jit
def avg_pool(x: Array, y: Array, weight: Array, c: int, start: int, stop: int, at: Geometry) -> None:
    """y (N, OH, OW C): sums over windows of x (N, H, W C) times weight (OH, OW): down the columns first, then over the columns of each window."""
    kh, kw, sh, sw, ph, pw, dh, dw = at
    h, w, oh, ow = x.shape[1], x.shape[2] // c, y.shape[1], y.shape[2] // c
    step = max(1, BESIDE // (sw * c))  # windows at a time, so that what they see stays in the first cache
    column = np.empty(min(w, step * sw + (kw - 1) * dw) * c, y.dtype)
    for row in range(start, stop):
        n, i = row // oh, row % oh
        for j0 in range(0, ow, step):
            j1 = min(ow, j0 + step)
            left, right = max(0, j0 * sw - pw), min(w, (j1 - 1) * sw - pw + (kw - 1) * dw + 1)
            sums = column[: max(0, right - left) * c]
            for k in range(sums.size):
                sums[k] = 0
            for a in range(kh):
                p = i * sh + a * dh - ph
                if p < 0 or p >= h:
                    continue
                line = x[n, p, left * c : right * c]
                for k in range(sums.size):
                    sums[k] += line[k]
            for j in range(j0, j1):
                to, factor = y[n, i, j * c : j * c + c], weight[i, j]
                for k in range(to.size):
                    to[k] = 0
                for b in range(kw):
                    q = j * sw + b * dw - pw
                    if q < 0 or q >= w:
                        continue
                    part = sums[(q - left) * c : (q - left) * c + c]
                    for k in range(to.size):
                        to[k] += part[k]
                for k in range(to.size):
                    to[k] *= factor


@jit
def avg_pool_adjoint(g: Array, x: Array, weight: Array, c: int, start: int, stop: int, at: Geometry) -> None:
    """x (N, H, W C): each pixel adds up g (N, OH, OW C) times weight (OH, OW) of its windows: down the columns of windows first, too."""
    kh, kw, sh, sw, ph, pw, dh, dw = at
    oh, ow, h, w = g.shape[1], g.shape[2] // c, x.shape[1], x.shape[2] // c
    column = np.empty(ow * c, x.dtype)  # sums over the rows of windows that touch a row of pixels
    for row in range(start, stop):
        n, y = row // h, row % h
        for k in range(column.size):
            column[k] = 0
        for a in range(kh):
            i = y + ph - a * dh
            if i < 0 or i % sh != 0 or i // sh >= oh:
                continue
            i //= sh
            for j in range(ow):
                source, to, factor = g[n, i, j * c : j * c + c], column[j * c : j * c + c], weight[i, j]
                for k in range(to.size):
                    to[k] += source[k] * factor
        line = x[n, y]
        for k in range(line.size):
            line[k] = 0
        for b in range(kw):
            for j in range(ow):
                z = j * sw + b * dw - pw
                if z < 0 or z >= w:
                    continue
                pixel, part = line[z * c : z * c + c], column[j * c : j * c + c]
                for k in range(pixel.size):
                    pixel[k] += part[k]
