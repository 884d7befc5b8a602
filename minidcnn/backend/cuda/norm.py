"""Batch norm and sums over pixels on the GPU: kernels/norm.cu."""

from __future__ import annotations

import math
from typing import Any

from ..arrays import Array, nchw
from ..half import sum_dtype
from .base import CudaBase

FILE = "norm.cu"
BLOCK = (32, 8)  # channels, rows
SHARES_BLOCK = (8, 32)  # channels, rows of threads that take shares
WANTED_BLOCKS = 1024
FEWEST_ROWS = 64  # of a share


class CudaNorm(CudaBase):
    """Statistics, the affine map that uses them and its gradient; sums over all axes but the channels."""

    sums_gradients = True

    def batch_norm_stats(self, x: Array) -> tuple[Array, Array]:
        if not self._takes(x):
            return super().batch_norm_stats(x)
        xp, c = self.xp, x.shape[1]
        rows, share, shares = self._shares(x)
        means, squares = (xp.empty((shares, c), "float64") for _ in range(2))
        mean, var = (xp.empty(c, "float64") for _ in range(2))
        self.launcher.launch(_grid(c, shares), BLOCK, FILE, "moments", x.dtype, self._rows(x), means, squares, rows, c, share)
        self._combine(c, "combine_moments", x.dtype, means, squares, mean, var, rows, c, share, shares)
        return mean, var

    def batch_norm_apply(self, x: Array, mean: Array, rstd: Array, weight: Array, bias: Array, relu: bool = False) -> Array:
        if not self._takes(x):
            return super().batch_norm_apply(x, mean, rstd, weight, bias, relu)
        flat = self._rows(x)
        y: Array = self.xp.empty(flat.shape, x.dtype)
        terms = (self.plain(v, sum_dtype(x.dtype)) for v in (mean, rstd * weight, bias))
        self.over_rows((1, *flat.shape), FILE, "normalize", x.dtype, flat, *terms, y, *flat.shape, relu)
        return self._shaped(y, x)

    def batch_norm_grad(
        self, g: Array, x: Array, mean: Array, rstd: Array, weight: Array, gate: Array | None = None, also: Array | None = None
    ) -> tuple[Array, Array, Array]:
        if not self._takes(x, g, also):
            return super().batch_norm_grad(g, x, mean, rstd, weight, gate, also)
        xp, c, kind, wide = self.xp, x.shape[1], x.dtype, sum_dtype(x.dtype)
        rows, share, shares = self._shares(x)
        flat, slopes = self._rows(x), (self._rows(g), None if also is None else self._rows(also))
        at, spread, scale = (self.plain(v, wide) for v in (mean, rstd, rstd * weight))
        bias, gated = (scale, False) if gate is None else (self.plain(gate, wide), True)
        sums, products = (xp.empty((shares, c), "float64") for _ in range(2))
        affine = (at, spread, scale, bias)
        self.launcher.launch(
            _grid(c, shares), BLOCK, FILE, "gradient_sums", kind, *slopes, flat, *affine, sums, products, rows, c, share, gated
        )
        dbias, dweight = self._added(sums, wide), self._added(products, wide)
        dx: Array = xp.empty(flat.shape, kind)
        terms = (self.plain(v, wide) for v in (dbias / rows, dweight / rows))
        self.over_rows((1, *flat.shape), FILE, "normalize_grad", kind, *slopes, flat, *affine, *terms, dx, *flat.shape, gated)
        return self._shaped(dx, x), dweight.astype(weight.dtype, copy=False), dbias.astype(weight.dtype, copy=False)

    def sum(self, x: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
        if not self._takes(x) or x.ndim != 4 or sorted(axes) != [0, 2, 3]:
            return super().sum(x, axes, keepdims)
        c = x.shape[1]
        rows, share, shares = self._shares(x)
        sums = self.xp.empty((shares, c), "float64")
        self.launcher.launch(_grid(c, shares), BLOCK, FILE, "row_sums", x.dtype, self._rows(x), sums, rows, c, share)
        total = self._added(sums, x.dtype)
        return total.reshape(1, c, 1, 1) if keepdims else total

    def _takes(self, x: Array, *others: Array | None) -> bool:
        return self.launcher.suits(x, *others) and x.ndim in (2, 4)

    def _rows(self, x: Array) -> Array:
        """(N, C) or (N, C, H, W) -> (M, C) without gaps."""
        return (self.images(x) if x.ndim == 4 else self.plain(x)).reshape(-1, x.shape[1])

    def _shaped(self, rows: Array, like: Array) -> Array:
        """(M, C) -> the shape of `like`."""
        if like.ndim == 2:
            return rows
        n, c, h, w = like.shape
        return nchw(rows.reshape(n, h, w, c))

    def _shares(self, x: Array) -> tuple[int, int, int]:
        """(rows, rows in a share, shares): enough shares to fill a GPU, none too small."""
        rows = x.size // x.shape[1]
        wanted = max(1, min(WANTED_BLOCKS // -(-x.shape[1] // BLOCK[0]), rows // FEWEST_ROWS))
        share = math.ceil(rows / wanted)
        return rows, share, math.ceil(rows / share)

    def _added(self, parts: Array, dtype: Any) -> Array:
        shares, c = parts.shape
        out: Array = self.xp.empty(c, dtype)
        self._combine(c, "add_shares", dtype, parts, out, c, shares)
        return out

    def _combine(self, channels: int, kernel: str, dtype: Any, *arguments: Any) -> None:
        """Launch a kernel over the shares of each channel."""
        self.launcher.launch((-(-channels // SHARES_BLOCK[0]),), SHARES_BLOCK, FILE, kernel, dtype, *arguments)


def _grid(channels: int, shares: int) -> tuple[int, int]:
    return -(-channels // BLOCK[0]), shares
