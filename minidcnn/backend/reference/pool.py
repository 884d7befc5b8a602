"""Pooling: max-pool is a gather at the winners, its adjoint a scatter-add; average pooling is a linear map beside its adjoint.

A winner is stored as its tap, i KW + j: one byte for kernels of up to 256 taps, as `tap_dtype` says. The public indices are flat plane indices h W + w.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ...window import Pair, Window
from ..arrays import Array, empty_images, nchw, nhwc, zero_images
from ..half import in_float32
from .transfer import TransferKernels


@lru_cache(256)
def first_taps(window: Window, size: Pair, out: Pair) -> tuple[Array, Array]:
    """As the window says, int64 (OH,) and (OW,), once for each geometry: arrays that nobody may change. ValueError where a window sees padding only."""
    tops, lefts = window.first_taps(size, out, "max_pool2d")
    return np.array(tops, np.int64), np.array(lefts, np.int64)


class PoolKernels(TransferKernels):
    """Max-pool with its gather and scatter, average pool with its adjoint, and gather / scatter at flat plane indices."""

    def tap_dtype(self, window: Window) -> np.dtype[Any]:
        """The smallest unsigned dtype that counts the window's taps: uint8 for up to 256, uint16 for up to 65536, else uint32."""
        return np.min_scalar_type(window.taps - 1)

    def max_pool2d(self, x: Array, window: Window, out: Pair) -> tuple[Array, Array]:
        """x (N, C, H, W) -> (maxima, winning taps), both (N, C, *out). Padding is -inf, the first maximum wins, NaN wins over all."""
        xp = self.xp
        padded = self.pad_images(x, window, out, -np.inf)
        rows, columns = map(xp.asarray, first_taps(window, x.shape[2:], out))
        taps = empty_images(xp, (*x.shape[:2], *out), self.tap_dtype(window))
        taps[...] = rows[:, None] * window.kernel[1] + columns
        best = empty_images(xp, taps.shape, x.dtype)
        best[...] = -np.inf
        for i, j, at in window.each_tap(out):
            value = padded[:, :, *at]
            better = (value > best) | xp.isnan(value)
            taps[better] = i * window.kernel[1] + j
            best[better] = value[better]
        return best, taps

    def pool_gather(self, x: Array, taps: Array, window: Window) -> Array:
        """x (N, C, H, W) at the winning `taps` (N, C, OH, OW): max pooling with the winners already known, a linear map."""
        out: Pair = taps.shape[2:]
        padded = self.pad_images(x, window, out)
        y = zero_images(self.xp, taps.shape, x.dtype)
        for i, j, at in window.each_tap(out):
            y += self.xp.where(taps == i * window.kernel[1] + j, padded[:, :, *at], x.dtype.type(0))
        return y

    @in_float32
    def pool_scatter(self, g: Array, taps: Array, window: Window, size: Pair) -> Array:
        """The adjoint of pool_gather: g (N, C, OH, OW) -> (N, C, *size), added at each window's winning pixel."""
        out: Pair = taps.shape[2:]
        (ph, pw), (h, w) = window.padding, size
        padded = zero_images(self.xp, (*g.shape[:2], *window.buffer(size, out)), g.dtype)
        for i, j, at in window.each_tap(out):
            padded[:, :, *at] += self.xp.where(taps == i * window.kernel[1] + j, g, g.dtype.type(0))
        return padded[:, :, ph : ph + h, pw : pw + w]

    def within(self, indices: Array, count: int) -> tuple[Array, Array]:
        """Indices that are safe to use in a plane of `count` pixels, and 0, or -1 if all were so before, as an integer without axes.

        On NumPy they are returned as they are: `demand` will object before they are used.
        """
        xp = self.xp
        if not indices.size:
            return indices, self.scalar(-1, "int64")
        wrong = xp.where((indices.min() < 0) | (indices.max() >= count), 0, -1)
        return indices if xp is np else self.map(lambda i: xp.clip(i, 0, count - 1), indices), wrong

    def plane_indices(self, taps: Array, window: Window, size: Pair) -> Array:
        """Winning taps (N, C, OH, OW) -> int64 flat plane indices h W + w of an image of `size`."""
        xp, (oh, ow) = self.xp, taps.shape[2:]
        (sh, sw), (ph, pw), (dh, dw) = window.stride, window.padding, window.dilation
        i, j = xp.divmod(taps.astype(xp.int64), window.kernel[1])
        h = i * dh + (xp.arange(oh) * sh - ph)[:, None]
        w = j * dw + (xp.arange(ow) * sw - pw)
        return h * size[1] + w  # type: ignore[no-any-return]

    def gather(self, x: Array, indices: Array) -> Array:
        """x (N, C, H, W) at flat plane indices (N, C, OH, OW) -> (N, C, OH, OW)."""
        n, c, h, w = x.shape
        _, _, oh, ow = indices.shape
        at = nhwc(indices).reshape(n, oh * ow, c)
        y = self.xp.take_along_axis(nhwc(x).reshape(n, h * w, c), at, 1)
        return nchw(y.reshape(n, oh, ow, c))

    @in_float32
    def scatter(self, y: Array, indices: Array, size: Pair) -> Array:
        """The adjoint of gather: y (N, C, OH, OW) -> (N, C, *size), added where indices repeat, 0 where none points."""
        xp, (n, c, oh, ow) = self.xp, y.shape
        out = xp.zeros((n, size[0] * size[1], c), y.dtype)
        at = nhwc(indices).reshape(n, oh * ow, c)
        xp.add.at(out, (xp.arange(n)[:, None, None], at, xp.arange(c)), nhwc(y).reshape(n, oh * ow, c))
        return nchw(out.reshape(n, *size, c))

    @in_float32
    def avg_pool2d(self, x: Array, window: Window, weight: Array) -> Array:
        """x (N, C, H, W) -> (N, C, OH, OW): the sum of each window's pixels (padding is 0) times `weight` (OH, OW), float32 for float16.

        Each row of a window is added up by itself: in one sum over a large window, a single pixel is too small to count in full.
        """
        out: Pair = weight.shape
        padded = self.pad_images(x, window, out)
        lines = zero_images(self.xp, (*padded.shape[:3], out[1]), x.dtype)  # sums over a row of taps, at every row of pixels
        y = zero_images(self.xp, (*x.shape[:2], *out), x.dtype)
        for i, j, (rows, columns) in window.each_tap(out):
            if i == 0:
                lines += padded[:, :, :, columns]
            if j == window.kernel[1] - 1:
                y += lines[:, :, rows]
        y *= weight
        return y

    @in_float32
    def avg_pool2d_adjoint(self, g: Array, window: Window, weight: Array, size: Pair) -> Array:
        """The adjoint of avg_pool2d: g (N, C, OH, OW) -> (N, C, *size), g times `weight` added to each pixel of its window, row by row too."""
        out: Pair = weight.shape
        (ph, pw), (h, w) = window.padding, size
        g = g * weight
        padded = zero_images(self.xp, (*g.shape[:2], *window.buffer(size, out)), g.dtype)
        lines = zero_images(self.xp, (*g.shape[:3], padded.shape[3]), g.dtype)  # what the row of windows adds to each row of pixels
        for i, j, (rows, columns) in window.each_tap(out):
            if i == 0:
                lines[:, :, :, columns] += g
            if j == window.kernel[1] - 1:
                padded[:, :, rows] += lines
        return padded[:, :, ph : ph + h, pw : pw + w]
