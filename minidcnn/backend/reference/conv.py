"""Convolution as a closed triple on im2col and col2im: each one's derivatives are the other two.

With cols = im2col(x) and one matrix product per group:  conv2d: y = w . cols,  conv_transpose2d: x = col2im(w^T . y),
conv2d_weight: w = y . cols^T. Weights are (O, C / groups, KH, KW) in all three; cross-correlation, no flip.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from ...window import Pair, Window
from ..arrays import Array, empty_images, nchw, nhwc
from ..half import in_float32
from .base import BaseKernels


class Versioned(Protocol):
    """What counts the changes of an array."""

    version: int


class ConvKernels(BaseKernels):
    """im2col, col2im and the three convolutions."""

    def constant_weights(self, weights: Iterable[tuple[Array, Versioned]]) -> AbstractContextManager[None]:
        """Within a `with` block these arrays change only with their version: what is made of them may be kept. Here nothing is."""
        return nullcontext()

    def im2col(self, x: Array, window: Window, out: Pair) -> Array:
        """x (N, C, H, W) -> columns (N, C, KH, KW, OH, OW), in memory (N, OH, OW, KH, KW, C): a 0/1 map, one column per position."""
        n, c = x.shape[:2]
        padded = self.pad_images(x, window, out)
        cols = self.xp.empty((n, *out, *window.kernel, c), x.dtype).transpose(0, 5, 3, 4, 1, 2)
        for i, j, (rows, columns) in window.each_tap(out):
            cols[:, :, i, j] = padded[:, :, rows, columns]
        return cols  # type: ignore[no-any-return]

    @in_float32
    def col2im(self, cols: Array, window: Window, size: Pair) -> Array:
        """The adjoint of im2col: columns (N, C, KH, KW, OH, OW) -> (N, C, *size), overlapping windows added up."""
        n, c, out = *cols.shape[:2], cols.shape[4:]
        (ph, pw), (h, w) = window.padding, size
        padded = empty_images(self.xp, (n, c, *window.buffer(size, out)), cols.dtype)
        padded[...] = 0
        for i, j, (rows, columns) in window.each_tap(out):
            padded[:, :, rows, columns] += cols[:, :, i, j]
        return padded[:, :, ph : ph + h, pw : pw + w]

    @in_float32
    def conv2d(self, x: Array, w: Array, bias: Array | None, window: Window, out: Pair, groups: int = 1) -> Array:
        """x (N, C, H, W), w (O, C/groups, KH, KW), bias (O,) or None -> y (N, O, *out)."""
        n, o = len(x), len(w)
        a = _rows(self.im2col(x, window, out), groups)  # (G, N OH OW, KH KW C/G)
        y = self.matmul(a, _matrix(w, groups).swapaxes(1, 2))  # (G, N OH OW, O/G)
        y = y.transpose(1, 0, 2).reshape(n, *out, o)
        if bias is not None:
            y += bias
        return nchw(y)

    def conv2d_affine(
        self, x: Array, w: Array, scale: Array, offset: Array, relu: bool, window: Window, out: Pair, groups: int = 1
    ) -> Array:
        """scale conv2d(x, w) + offset, scale and offset (O,) in x's dtype, or float32 for float16; with `relu`, max of that and 0.

        What inference makes of a convolution, batch norm by fixed statistics and ReLU.
        """
        y, zeros = self.conv2d(x, w, None, window, out, groups), self.xp.zeros(len(w))
        return self.batch_norm_apply(y, zeros, zeros + 1, scale, offset, relu)  # type: ignore[attr-defined,no-any-return]

    @in_float32
    def conv_transpose2d(self, y: Array, w: Array, bias: Array | None, window: Window, size: Pair, groups: int = 1) -> Array:
        """y (N, O, OH, OW), w (O, C/groups, KH, KW), bias (C,) or None -> x (N, C, *size): the adjoint of conv2d at fixed w."""
        (n, _, *out), (_, cg, kh, kw) = y.shape, w.shape
        cols = self.matmul(_pixels(y, groups), _matrix(w, groups))  # (G, N OH OW, KH KW C/G)
        cols = cols.reshape(groups, n, *out, kh, kw, cg).transpose(1, 0, 6, 4, 5, 2, 3)  # (N, G, C/G, KH, KW, OH, OW)
        x = self.col2im(cols.reshape(n, groups * cg, kh, kw, *out) if groups > 1 else cols[:, 0], window, size)
        return x if bias is None else x + bias.reshape(1, -1, 1, 1)

    @in_float32
    def conv2d_weight(self, x: Array, y: Array, window: Window, groups: int = 1) -> Array:
        """x (N, C, H, W), y (N, O, OH, OW) -> w (O, C/groups, KH, KW): the adjoint of conv2d at fixed x."""
        c, (_, o, *out) = x.shape[1], y.shape
        a = _rows(self.im2col(x, window, (out[0], out[1])), groups)  # (G, N OH OW, KH KW C/G)
        w = self.matmul(a.swapaxes(1, 2), _pixels(y, groups))  # (G, KH KW C/G, O/G)
        w = w.reshape(groups, *window.kernel, c // groups, o // groups)
        return w.transpose(0, 4, 3, 1, 2).reshape(o, c // groups, *window.kernel)


def _rows(cols: Array, groups: int) -> Array:
    """Columns (N, C, KH, KW, OH, OW) -> (G, N OH OW, KH KW C/G); no copy for one group."""
    n, c, kh, kw, oh, ow = cols.shape
    flat = cols.transpose(0, 4, 5, 2, 3, 1).reshape(n * oh * ow, kh * kw, groups, c // groups)
    return flat.transpose(2, 0, 1, 3).reshape(groups, n * oh * ow, kh * kw * (c // groups))


def _matrix(w: Array, groups: int) -> Array:
    """Weights (O, C/G, KH, KW) -> (G, O/G, KH KW C/G)."""
    o, cg, kh, kw = w.shape
    return w.transpose(0, 2, 3, 1).reshape(groups, o // groups, kh * kw * cg)


def _pixels(y: Array, groups: int) -> Array:
    """Images (N, O, OH, OW) -> (G, N OH OW, O/G); no copy for one group in channels-last memory."""
    n, o, oh, ow = y.shape
    return nhwc(y).reshape(n * oh * ow, groups, o // groups).transpose(1, 0, 2)
