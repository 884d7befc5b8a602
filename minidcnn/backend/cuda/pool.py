"""Pooling on the GPU: kernels/pool.cu."""

from __future__ import annotations

import math

from ...window import Pair, Window
from ..arrays import Array, nchw, nhwc
from ..half import sum_dtype
from ..reference.pool import first_taps
from .base import CudaBase, geometry
from .runs import runs

FILE = "pool.cu"
TAPS = {1: "char", 2: "short", 4: "int"}  # by the bytes of a winning tap
USUAL = {
    ((k, k), (2, 2), (0, 0), (1, 1)) for k in (2, 3)
}  # windows that get kernels of their own: those of U-Net, SegNet and VGG, and of AlexNet


class CudaPool(CudaBase):
    """Max-pool with its gather and scatter, average pool with its adjoint, gather and scatter at flat plane indices."""

    def max_pool2d(self, x: Array, window: Window, out: Pair) -> tuple[Array, Array]:
        n, c = x.shape[:2]
        if not self.launcher.suits(x, result=n * c * math.prod(out)):
            return super().max_pool2d(x, window, out)
        first_taps(window, x.shape[2:], out)  # refuses what the reference refuses
        y = self.new_images(n, c, out, x.dtype)
        taps = self.new_images(n, c, out, self.tap_dtype(window))
        at = geometry(n, c, window, x.shape[2:], out)
        self._in_runs(y, "max_pool", (self.images(x), y, taps), at, _defines(window, taps))
        return nchw(y), nchw(taps)

    def pool_gather(self, x: Array, taps: Array, window: Window) -> Array:
        if not self.launcher.suits(x, result=taps.size):
            return super().pool_gather(x, taps, window)
        (n, c), out = x.shape[:2], taps.shape[2:]
        y = self.new_images(n, c, out, x.dtype)
        arguments = self.images(x), self.images(taps), y, *geometry(n, c, window, x.shape[2:], out)
        self.over_rows((n * out[0], out[1], c), FILE, "pool_gather", x.dtype, *arguments, defines=_defines(window, taps))
        return nchw(y)

    def pool_scatter(self, g: Array, taps: Array, window: Window, size: Pair) -> Array:
        n, c = g.shape[:2]
        if not self.launcher.suits(g, result=n * c * math.prod(size)):
            return super().pool_scatter(g, taps, window, size)
        x, winners = self.new_images(n, c, size, g.dtype), self.images(taps)
        at = geometry(n, c, window, size, taps.shape[2:])
        self._in_runs(x, "pool_scatter", (self.images(g), winners, x), at, _defines(window, taps))
        return nchw(x)

    def gather(self, x: Array, indices: Array) -> Array:
        if not self.launcher.suits(x, result=indices.size):
            return super().gather(x, indices)
        (n, c, h, w), out = x.shape, indices.shape[2:]
        y, at = self.new_images(n, c, out, x.dtype), self.plain(nhwc(indices), "int64")
        q = out[0] * out[1]
        self.over_rows((n, q, c), FILE, "gather", x.dtype, self.images(x), at, y, h * w, q, c)
        return nchw(y)

    def scatter(self, y: Array, indices: Array, size: Pair) -> Array:
        n, c, oh, ow = y.shape
        if not self.launcher.suits(y, result=n * c * math.prod(size)):
            return super().scatter(y, indices, size)
        x, at = self.new_images(n, c, size, y.dtype), self.plain(nhwc(indices), "int64")
        head: Array = self.xp.full(x.size, -1, "int32")
        following: Array = self.xp.empty(y.size, "int32")
        self.over_rows((n, oh * ow, c), FILE, "scatter_link", y.dtype, at, head, following, size[0] * size[1], oh * ow, c)
        self.launcher.over(x.size, FILE, "scatter_sum", y.dtype, self.images(y), head, following, x, x.size)
        return nchw(x)

    def avg_pool2d(self, x: Array, window: Window, weight: Array) -> Array:
        (n, c), out = x.shape[:2], weight.shape
        if not self.launcher.suits(x, result=n * c * weight.size) or weight.dtype != sum_dtype(x.dtype):
            return super().avg_pool2d(x, window, weight)
        y, at = self.new_images(n, c, out, x.dtype), geometry(n, c, window, x.shape[2:], out)
        self._in_runs(y, "avg_pool", (self.images(x), self.plain(weight), y), at)
        return nchw(y)

    def avg_pool2d_adjoint(self, g: Array, window: Window, weight: Array, size: Pair) -> Array:
        n, c = g.shape[:2]
        if not self.launcher.suits(g, result=n * c * math.prod(size)) or weight.dtype != sum_dtype(g.dtype):
            return super().avg_pool2d_adjoint(g, window, weight, size)
        x, at = self.new_images(n, c, size, g.dtype), geometry(n, c, window, size, weight.shape)
        self._in_runs(x, "avg_pool_adjoint", (self.images(g), self.plain(weight), x), at)
        return nchw(x)

    def _in_runs(self, result: Array, kernel: str, arrays: tuple[Array, ...], at: tuple[int, ...], defines: tuple[str, ...] = ()) -> None:
        """Launch a kernel that takes runs of a pixel's channels, whole in all its arrays (one of them the result) or single numbers."""
        n, h, w, c = result.shape
        run, wide = runs(self.launcher, c, result, *arrays)
        self.over_rows((n * h, w, c // run), FILE, kernel, result.dtype, *arrays, *at, defines=(*wide, *defines))


def _defines(window: Window, taps: Array) -> tuple[str, ...]:
    """What winning taps are, and the window itself if it is a usual one."""
    at = window.kernel, window.stride, window.padding, window.dilation
    own = (f"WINDOW={','.join(str(v) for pair in at for v in pair)}",) if at in USUAL else ()
    return (f"TAP=unsigned {TAPS[taps.dtype.itemsize]}", *own)
