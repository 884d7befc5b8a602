"""Batch norm and sums over pixels on the GPU: kernels/norm.cu."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...window import Pair
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
        self.launcher.launch(_grid(c, BLOCK, shares), BLOCK, FILE, "moments", x.dtype, self._rows(x), means, squares, rows, c, share)
        grid = _grid(c, SHARES_BLOCK)
        self.launcher.launch(grid, SHARES_BLOCK, FILE, "combine_moments", x.dtype, means, squares, mean, var, rows, c, share, shares)
        return mean, var

    def batch_norm_track(
        self, mean: Array, variance: Array, count: int, eps: float, momentum: Any, running_mean: Array | None, running_var: Array | None
    ) -> Array:
        running = [v for v in (running_mean, running_var) if v is not None]
        if not self.launcher.suits(*running) or not all(v.flags.c_contiguous for v in running):
            return super().batch_norm_track(mean, variance, count, eps, momentum, running_mean, running_var)
        rstd: Array = self.xp.empty(variance.shape, "float64")
        number, rate = (momentum, None) if isinstance(momentum, int | float) else (0, self.plain(momentum, "float64"))
        settings = (np.float64(v) for v in (count / (count - 1), eps, number))
        self.launcher.over(
            rstd.size, FILE, "track", running[0].dtype, mean, variance, running_mean, running_var, rstd, rstd.size, *settings, rate
        )
        return rstd

    def batch_norm_apply(self, x: Array, mean: Array, rstd: Array, weight: Array, bias: Array, relu: bool = False) -> Array:
        if not self._takes(x):
            return super().batch_norm_apply(x, mean, rstd, weight, bias, relu)
        flat = self._rows(x)
        y: Array = self.xp.empty(flat.shape, x.dtype)
        self.over_rows((1, *flat.shape), FILE, "normalize", x.dtype, flat, *self._affine(x, mean, rstd, weight, bias), y, *flat.shape, relu)
        return self._shaped(y, x)

    def batch_norm_grad(
        self, g: Array, x: Array, mean: Array, rstd: Array, weight: Array, gate: Array | None = None, also: Array | None = None
    ) -> tuple[Array, Array, Array]:
        if not self._takes(x, g, also):
            return super().batch_norm_grad(g, x, mean, rstd, weight, gate, also)
        xp, c = self.xp, x.shape[1]
        rows, share, shares = self._shares(x)
        flat = self._rows(x)
        inputs = self._rows(g), None if also is None else self._rows(also), flat, *self._affine(x, mean, rstd, weight, gate)
        parts = [xp.empty((shares, c), "float64") for _ in range(2)]
        self.launcher.launch(_grid(c, BLOCK, shares), BLOCK, FILE, "gradient_sums", x.dtype, *inputs, *parts, rows, c, share)
        dbias, dweight = self._added(sum_dtype(x.dtype), *parts)
        dx: Array = xp.empty(flat.shape, x.dtype)
        self.over_rows((1, rows, c), FILE, "normalize_grad", x.dtype, *inputs, dbias, dweight, dx, rows, c, 1 / rows)
        return self._shaped(dx, x), dweight.astype(weight.dtype, copy=False), dbias.astype(weight.dtype, copy=False)

    def sum(self, x: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
        if not self._takes(x) or x.ndim != 4 or sorted(axes) != [0, 2, 3]:
            return super().sum(x, axes, keepdims)
        c = x.shape[1]
        rows, share, shares = self._shares(x)
        sums = self.xp.empty((shares, c), "float64")
        self.launcher.launch(_grid(c, BLOCK, shares), BLOCK, FILE, "row_sums", x.dtype, self._rows(x), sums, rows, c, share)
        (total,) = self._added(x.dtype, sums)
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

    def _affine(self, x: Array, mean: Array, rstd: Array, weight: Array, bias: Array | None) -> tuple[Array | None, ...]:
        """What there is one of for each channel, in the dtypes that kernels take beside x."""
        wide = sum_dtype(x.dtype)
        at, spread = (self.plain(v, "float64") for v in (mean, rstd))
        return at, spread, self.plain(weight, wide), None if bias is None else self.plain(bias, wide)

    def _added(self, dtype: Any, *parts: Array) -> list[Array]:
        """One or two arrays (shares, C), added up over the shares in one launch: each (C,), with memory of its own."""
        shares, c = parts[0].shape
        totals: list[Array] = [self.xp.empty(c, dtype) for _ in parts]
        ends = parts[0], parts[-1], totals[0], totals[-1]
        self.launcher.launch(_grid(c, SHARES_BLOCK, len(parts)), SHARES_BLOCK, FILE, "add_shares", dtype, *ends, c, shares)
        return totals


def _grid(channels: int, block: Pair, shares: int = 1) -> Pair:
    return -(-channels // block[0]), shares
