"""Convolution on the GPU: kernels/conv.cu (implicit GEMM) and kernels/im2col.cu."""

from __future__ import annotations

import math

from ...window import Pair, Window
from ..arrays import Array, nchw
from ..half import sum_dtype
from .base import ASYNC, WANTED_BLOCKS, CudaBase, geometry
from .launcher import LIMIT

FILE = "conv.cu"


class CudaConv(CudaBase):
    """im2col, col2im and the three convolutions; groups go through im2col and CudaLinalg's matrix product, as in the reference."""

    def im2col(self, x: Array, window: Window, out: Pair) -> Array:
        n, c = x.shape[:2]
        count = n * math.prod(out) * window.taps * c
        if not self.launcher.suits(x) or not 0 < count < LIMIT:
            return super().im2col(x, window, out)
        cols = self.xp.empty((n, *out, *window.kernel, c), x.dtype)
        self.launcher.over(count, "im2col.cu", "im2col", x.dtype, self.images(x), cols, *geometry(n, c, window, x.shape[2:], out))
        return cols.transpose(0, 5, 3, 4, 1, 2)  # type: ignore[no-any-return]

    def col2im(self, cols: Array, window: Window, size: Pair) -> Array:
        if not self.launcher.suits(cols):
            return super().col2im(cols, window, size)
        n, c, _, _, oh, ow = cols.shape
        x = self.new_images(n, c, size, cols.dtype)
        plain = self.xp.ascontiguousarray(cols.transpose(0, 4, 5, 2, 3, 1))
        self.launcher.over(x.size, "im2col.cu", "col2im", cols.dtype, plain, x, *geometry(n, c, window, size, (oh, ow)))
        return nchw(x)

    def conv2d(self, x: Array, w: Array, bias: Array | None, window: Window, out: Pair, groups: int = 1) -> Array:
        if groups > 1 or not self._convolves(x, w, bias, out):
            return super().conv2d(x, w, bias, window, out, groups)
        return self._forward(x, w, None, bias, False, window, out)

    def conv2d_affine(
        self, x: Array, w: Array, scale: Array, offset: Array, relu: bool, window: Window, out: Pair, groups: int = 1
    ) -> Array:
        if groups > 1 or not self._convolves(x, w, None, out) or {scale.dtype, offset.dtype} != {sum_dtype(x.dtype)}:
            return super().conv2d_affine(x, w, scale, offset, relu, window, out, groups)
        return self._forward(x, w, scale, offset, relu, window, out)

    def _convolves(self, x: Array, w: Array, bias: Array | None, out: Pair) -> bool:
        return self.launcher.suits(x, w, bias) and len(x) * math.prod(out) * len(w) < LIMIT

    def _forward(self, x: Array, w: Array, scale: Array | None, offset: Array | None, relu: bool, window: Window, out: Pair) -> Array:
        """ReLU(scale conv2d(x, w) + offset) in one kernel; what is None or False is left out."""
        n, c, o = *x.shape[:2], len(w)
        offset = self._wide(offset)
        y = self.new_images(n, o, out, x.dtype)
        positions = n * math.prod(out)
        size, defines = self.tile(positions, o, x)
        at = geometry(n, c, window, x.shape[2:], out)
        x, w = self.images(x), self._weight(w)
        defines += (self._copies(x, w, c),)
        (down, across), defines = self.best(size, defines, positions, o, 1, along_k=True)
        grid = -(-positions // down), -(-o // across)
        arguments = (x, w, scale, offset, y, o, relu, *at)
        self.launcher.launch(grid, (256,), FILE, "conv_forward", x.dtype, *arguments, defines=defines)
        return nchw(y)

    def conv_transpose2d(self, y: Array, w: Array, bias: Array | None, window: Window, size: Pair, groups: int = 1) -> Array:
        (n, o), c = y.shape[:2], w.shape[1]
        if groups > 1 or not self.launcher.suits(y, w, bias) or n * math.prod(size) * c >= LIMIT:
            return super().conv_transpose2d(y, w, bias, window, size, groups)
        x = self.new_images(n, c, size, y.dtype)
        pixels = n * math.prod(-(-m // s) for m, s in zip(size, window.stride, strict=True))  # of the largest phase
        tile, defines = self.tile(pixels, c, y)
        at = geometry(n, c, window, size, y.shape[2:])
        y, w = self.images(y), self._weight(w)
        defines += (self._copies(y, w, o, c),)
        (down, across), defines = self.best(tile, defines, pixels, c, 1, along_k=False)
        grid = -(-pixels // down), -(-c // across), math.prod(window.stride)
        arguments = (y, w, None, self._wide(bias), x, o, False, *at)
        self.launcher.launch(grid, (256,), FILE, "conv_transposed", y.dtype, *arguments, defines=defines)
        return nchw(x)

    def conv2d_weight(self, x: Array, y: Array, window: Window, groups: int = 1) -> Array:
        (n, c), (o, oh, ow) = x.shape[:2], y.shape[1:]
        positions, columns = n * oh * ow, window.taps * c
        if groups > 1 or not self.launcher.suits(x, y):
            return super().conv2d_weight(x, y, window, groups)
        tile, defines = self.tile(o, columns, x)
        at = geometry(n, c, window, x.shape[2:], (oh, ow))
        x, y = self.images(x), self.images(y)
        defines += (self._copies(x, y, c, o),)
        (down, across), defines = self.best(tile, defines, o, columns, -(-positions // 256), along_k=False)
        blocks = -(-columns // across) * -(-o // down)
        parts = max(1, min(-(-positions // 256), -(-WANTED_BLOCKS // blocks), (LIMIT - 1) // (o * columns)))
        share = -(-positions // parts)
        parts = -(-positions // share)
        w = self.xp.empty((o, *window.kernel, c), x.dtype)
        sums = self.xp.empty((parts, o, columns), sum_dtype(x.dtype))
        grid = -(-columns // across), -(-o // down), parts
        self.launcher.launch(grid, (256,), FILE, "conv_weight", x.dtype, x, y, sums, o, share, *at, defines=defines)
        self.launcher.over(w.size, FILE, "sum_parts", x.dtype, sums, w, parts, w.size, defines=defines)
        return nchw(w)

    def _copies(self, a: Array, b: Array, *channels: int) -> str:
        """How kernels/tile.cuh fetches: ASYNC=1 if runs of 16 bytes are whole in both arrays, by their channels, and the device can."""
        whole = all(c * a.itemsize % 16 == 0 for c in channels) and all(self.launcher.address(v) % 16 == 0 for v in (a, b))
        return f"ASYNC={int(whole and self.launcher.capability >= ASYNC)}"

    def _wide(self, bias: Array | None) -> Array | None:
        """What is added to sums, in their dtype."""
        return None if bias is None else bias.astype(sum_dtype(bias.dtype), copy=False)

    def _weight(self, w: Array) -> Array:
        """(O, C, KH, KW) -> (O, KH, KW, C) without gaps."""
        return self.xp.ascontiguousarray(w.transpose(0, 2, 3, 1))  # type: ignore[no-any-return]
