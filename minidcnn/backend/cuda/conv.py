"""Convolution on the GPU: kernels/conv.cu (implicit GEMM), kernels/direct.cu (groups of few channels) and kernels/im2col.cu."""

from __future__ import annotations

import math

from ...window import Pair, Window
from ..arrays import Array, nchw
from ..half import sum_dtype
from .base import ASYNC, MOST, SHORTEST, CudaBase, geometry, parts
from .launcher import BLOCK, LIMIT, WGMMA

FILE, DIRECT = "conv.cu", "direct.cu"
FEW = 8  # channels of a group, in and out, below which tiles are mostly empty


class CudaConv(CudaBase):
    """im2col, col2im and the three convolutions. Groups are tiled one by one, or, of few channels, not at all."""

    def im2col(self, x: Array, window: Window, out: Pair) -> Array:
        n, c = x.shape[:2]
        if not self.launcher.suits(x, result=n * c * math.prod(out) * window.taps):
            return super().im2col(x, window, out)
        cols = self.xp.empty((n, *out, *window.kernel, c), x.dtype)
        shape, at = (n * out[0], out[1], window.kernel[1] * c), geometry(n, c, window, x.shape[2:], out)
        self.over_rows(shape, "im2col.cu", "im2col", x.dtype, self.images(x), cols, *at)
        return cols.transpose(0, 5, 3, 4, 1, 2)  # type: ignore[no-any-return]

    def col2im(self, cols: Array, window: Window, size: Pair) -> Array:
        n, c, _, _, oh, ow = cols.shape
        if not self.launcher.suits(cols, result=n * c * math.prod(size)):
            return super().col2im(cols, window, size)
        x = self.new_images(n, c, size, cols.dtype)
        runs = self.plain(cols.transpose(0, 4, 5, 2, 3, 1))  # (N, OH, OW, KH, KW, C)
        self.over_rows((n * size[0], size[1], c), "im2col.cu", "col2im", cols.dtype, runs, x, *geometry(n, c, window, size, (oh, ow)))
        return nchw(x)

    def conv2d(self, x: Array, w: Array, bias: Array | None, window: Window, out: Pair, groups: int = 1) -> Array:
        if not self._convolves(x, w, bias, out):
            return super().conv2d(x, w, bias, window, out, groups)
        return self._forward(x, w, None, bias, False, window, out, groups)

    def conv2d_affine(
        self, x: Array, w: Array, scale: Array, offset: Array, relu: bool, window: Window, out: Pair, groups: int = 1
    ) -> Array:
        if not self._convolves(x, w, None, out) or {scale.dtype, offset.dtype} != {sum_dtype(x.dtype)}:
            return super().conv2d_affine(x, w, scale, offset, relu, window, out, groups)
        return self._forward(x, w, scale, offset, relu, window, out, groups)

    def _convolves(self, x: Array, w: Array, bias: Array | None, out: Pair) -> bool:
        return self.launcher.suits(x, w, bias, result=len(x) * math.prod(out) * len(w))

    def _forward(
        self, x: Array, w: Array, scale: Array | None, offset: Array | None, relu: bool, window: Window, out: Pair, groups: int
    ) -> Array:
        """ReLU(scale conv2d(x, w) + offset) in one kernel; what is None or False is left out."""
        (n, c), o, inputs = x.shape[:2], len(w), w.shape[1]
        outputs, scale, offset = o // groups, self._wide(scale), self._wide(offset)
        y, at = self.new_images(n, o, out, x.dtype), (inputs, outputs, *geometry(n, c, window, x.shape[2:], out))
        x = self.images(x)
        if self._directly(groups, inputs, outputs):
            w = self.plain(w.transpose(2, 3, 1, 0))  # (KH, KW, C/G, O)
            self.over_rows((n * out[0], out[1], o), DIRECT, "direct_forward", x.dtype, x, w, scale, offset, y, o, relu, *at)
            return nchw(y)
        positions, w = n * math.prod(out), self._weight(w)
        (down, across), defines = self.tile(positions, outputs, x, groups)
        defines = self.fastest((*defines, self._copies(x, w, inputs), f"GROUPED={int(groups > 1)}"), along_k=True)
        grid = -(-positions // down), -(-outputs // across), groups
        self.launcher.launch(grid, (256,), FILE, "conv_forward", x.dtype, x, w, scale, offset, y, o, relu, *at, defines=defines)
        return nchw(y)

    def conv_transpose2d(self, y: Array, w: Array, bias: Array | None, window: Window, size: Pair, groups: int = 1) -> Array:
        (n, o), inputs = y.shape[:2], w.shape[1]
        c, outputs = inputs * groups, o // groups
        if not self.launcher.suits(y, w, bias, result=n * math.prod(size) * c):
            return super().conv_transpose2d(y, w, bias, window, size, groups)
        x, at = self.new_images(n, c, size, y.dtype), (inputs, outputs, *geometry(n, c, window, size, y.shape[2:]))
        y, bias, phases = self.images(y), self._wide(bias), math.prod(window.stride)
        if self._directly(groups, inputs, outputs, phases):
            parted = w.reshape(groups, outputs, inputs, *window.kernel)
            w = self.plain(parted.transpose(3, 4, 1, 0, 2))  # (KH, KW, O/G, G, C/G)
            self.over_rows((n * size[0], size[1], c), DIRECT, "direct_transposed", y.dtype, y, w, bias, x, o, *at)
            return nchw(x)
        w = self._weight(w)
        pixels = n * math.prod(-(-m // s) for m, s in zip(size, window.stride, strict=True))  # of the largest phase
        (down, across), defines = self.tile(pixels, inputs, y, groups)
        defines = self.fastest((*defines, self._copies(y, w, outputs, inputs), f"GROUPED={int(groups > 1)}"), along_k=True)
        if {WGMMA, "TENSOR=1"} <= set(defines):  # a copy of the weight that runs along k, as it has to
            parted = w.reshape(groups, outputs, *window.kernel, inputs)
            w, defines = self.plain(parted.transpose(0, 4, 2, 3, 1)), (*defines, "TURNED=1")
        grid = -(-pixels // down), -(-inputs // across), groups * phases
        self.launcher.launch(grid, (256,), FILE, "conv_transposed", y.dtype, y, w, bias, x, o, *at, defines=defines)
        return nchw(x)

    def conv2d_weight(self, x: Array, y: Array, window: Window, groups: int = 1) -> Array:
        (n, c), (o, oh, ow) = x.shape[:2], y.shape[1:]
        inputs, outputs = c // groups, o // groups
        positions, columns = n * oh * ow, window.taps * inputs
        if not self.launcher.suits(x, y, result=o * columns):
            return super().conv2d_weight(x, y, window, groups)
        at = inputs, outputs, *geometry(n, c, window, x.shape[2:], (oh, ow))
        x, y = self.images(x), self.images(y)
        if self._directly(groups, inputs, outputs):
            return self._weight_directly(x, y, window, at)
        most = min(-(-positions // SHORTEST), (LIMIT - 1) // (o * columns), MOST // groups)
        swapped = outputs <= 64 < columns  # so that a tile of 128 rows is not half empty
        (down, across), defines = self.tile(*((columns, outputs) if swapped else (outputs, columns)), x, groups * most)
        defines = self.fastest((*defines, self._copies(x, y, inputs, outputs), f"GROUPED={int(groups > 1)}"), along_k=False)
        if swapped:
            (across, down), defines = (down, across), (*defines, "SWAPPED=1")
        share = -(-positions // parts(-(-columns // across) * -(-outputs // down) * groups, most))
        count = -(-positions // share)
        w = self.xp.empty((o, *window.kernel, inputs), x.dtype)
        sums = self.xp.empty((count, o, columns), sum_dtype(x.dtype))
        grid = -(-columns // across), -(-outputs // down), count * groups
        self.launcher.launch(grid, (256,), FILE, "conv_weight", x.dtype, x, y, sums, o, share, *at, defines=defines)
        self.launcher.over(w.size, FILE, "sum_parts", x.dtype, sums, w, count, w.size, defines=defines)
        return nchw(w)

    def _directly(self, groups: int, inputs: int, outputs: int, phases: int = 1) -> bool:
        """Whether groups of so many channels are computed without tiles: they are small, or with their phases more than a grid of tiles has room for."""
        return (groups > 1 and max(inputs, outputs) < FEW) or groups * phases > MOST

    def _weight_directly(self, x: Array, y: Array, window: Window, at: tuple[int, ...]) -> Array:
        """conv2d_weight of x (N, H, W, C) and y (N, OH, OW, O); a block has up to 32 output channels and as many columns as threads are left for."""
        inputs, (n, oh, _, o) = at[0], y.shape
        columns = window.taps * inputs
        across = min(32, 1 << (o - 1).bit_length())
        tall = -(-columns // (BLOCK // across))
        down = -(-columns // tall)
        wide, rows = -(-o // across), n * oh
        # a thread has one result, and so little to do at a time that it takes more of them to fill a GPU than tiles
        share = -(-rows // parts(wide * tall, min(rows, (LIMIT - 1) // (o * columns)), together=8))
        count = -(-rows // share)
        w = self.xp.empty((*window.kernel, inputs, o), x.dtype)
        sums = self.xp.empty((count, columns, o), sum_dtype(x.dtype))
        self.launcher.launch((wide, tall, count), (across, down), DIRECT, "direct_weight", x.dtype, x, y, sums, o, share, *at)
        self.launcher.over(w.size, DIRECT, "sum_parts", x.dtype, sums, w, count, w.size)
        return w.transpose(3, 2, 0, 1)  # type: ignore[no-any-return]

    def _copies(self, a: Array, b: Array, *channels: int) -> str:
        """How kernels/tile.cuh fetches: ASYNC=1 if runs of 16 bytes are whole in both arrays, by their channels, and the device can."""
        whole = all(c * a.itemsize % 16 == 0 for c in channels) and all(self.launcher.address(v) % 16 == 0 for v in (a, b))
        return f"ASYNC={int(whole and self.launcher.capability >= ASYNC)}"

    def _wide(self, terms: Array | None) -> Array | None:
        """What there is one of for each channel, as kernels take it beside sums: without gaps and in their dtype."""
        return None if terms is None else self.plain(terms, sum_dtype(terms.dtype))

    def _weight(self, w: Array) -> Array:
        """(O, C, KH, KW) -> (O, KH, KW, C) without gaps."""
        return self.plain(w.transpose(0, 2, 3, 1))
