"""Batch norm and sums over pixels on the GPU: kernels/norm.cu."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ...window import Pair
from ..arrays import Array, nchw
from ..half import sum_dtype
from .base import CudaBase
from .launcher import BLOCK
from .runs import runs

FILE = "norm.cu"
LANES = 32  # runs of channels in a block, at most
WANTED_BLOCKS = 1024
FEWEST_ROWS = 8  # of a thread, which first reads what is of its channels
SMALL_SHARE = 64  # rows over which moments are taken around the first, at least: were that unlike all others, it would cost digits
SHARES_BLOCK = (8, 32)  # channels, rows of threads that take shares


class Shares(NamedTuple):
    """How rows (M, C) are shared out: a block for each share and each of the runs of channels that fit into one."""

    grid: Pair
    block: Pair
    defines: tuple[str, ...]
    sizes: tuple[int, int, int]  # rows, channels, rows of a share: the last arguments of a kernel


class CudaNorm(CudaBase):
    """Statistics, the affine map that uses them and its gradient; sums over all axes but the channels."""

    def batch_norm_stats(self, x: Array) -> tuple[Array, Array]:
        if not self._takes(x):
            return super().batch_norm_stats(x)
        flat, c = self._rows(x), x.shape[1]
        shares = self._shares(flat, fewest=SMALL_SHARE)
        means, squares = self._on_shares("moments", shares, x.dtype, flat, parts=2)
        mean, var = (self.xp.empty(c, "float64") for _ in range(2))
        arguments = means, squares, mean, var, *shares.sizes, len(means)
        self.launcher.launch(_grid(c), SHARES_BLOCK, FILE, "combine_moments", x.dtype, *arguments, defines=shares.defines)
        return mean, var

    def batch_norm_track(
        self, mean: Array, variance: Array, count: int, eps: float, momentum: Any, running_mean: Array | None, running_var: Array | None
    ) -> Array:
        running = [v for v in (running_mean, running_var) if v is not None]
        if not self.launcher.suits(*running) or not all(v.flags.c_contiguous for v in running):
            return super().batch_norm_track(mean, variance, count, eps, momentum, running_mean, running_var)
        rstd: Array = self.xp.empty(variance.shape, "float64")
        number, rate = (momentum, None) if isinstance(momentum, int | float | np.generic) else (0, self.plain(momentum, "float64"))
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
        self._on_shares("normalize", self._shares(flat, y), x.dtype, flat, *self._affine(x, mean, rstd, weight, bias), y, relu)
        return self._shaped(y, x)

    def batch_norm_grad(
        self, g: Array, x: Array, mean: Array, rstd: Array, weight: Array, gate: Array | None = None
    ) -> tuple[Array, Array, Array]:
        if not self._takes(x, g):
            return super().batch_norm_grad(g, x, mean, rstd, weight, gate)
        images = self._rows(g), self._rows(x)
        dx: Array = self.xp.empty(images[0].shape, x.dtype)
        shares, affine = self._shares(dx, *images), self._affine(x, mean, rstd, weight, gate)
        parts = self._on_shares("gradient_sums", shares, x.dtype, *images, *affine, parts=2)
        dbias, dweight = self._added(sum_dtype(x.dtype), shares, *parts)
        self._on_shares("normalize_grad", shares, x.dtype, *images, *affine, dbias, dweight, dx, 1 / len(dx))
        return self._shaped(dx, x), dweight.astype(weight.dtype, copy=False), dbias.astype(weight.dtype, copy=False)

    def sum(self, x: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
        if not self._takes(x) or x.ndim != 4 or sorted(axes) != [0, 2, 3]:
            return super().sum(x, axes, keepdims)
        flat = self._rows(x)
        shares = self._shares(flat)
        (total,) = self._added(x.dtype, shares, *self._on_shares("row_sums", shares, x.dtype, flat, parts=1))
        return total.reshape(1, -1, 1, 1) if keepdims else total

    def _takes(self, x: Array, *others: Array) -> bool:
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

    def _shares(self, rows: Array, *others: Array, fewest: int | None = None) -> Shares:
        """Enough shares of so many rows (M, C) to fill a GPU, with `fewest` rows at least; in runs of channels where all these arrays have them whole."""
        count, c = rows.shape
        run, defines = runs(self.launcher, c, rows, *others)
        across = min(LANES, 1 << (c // run - 1).bit_length())
        down, wide = BLOCK // across, -(-c // (run * across))
        share = math.ceil(count / max(1, min(WANTED_BLOCKS // wide, count // (fewest or FEWEST_ROWS * down))))
        return Shares((wide, math.ceil(count / share)), (across, down), defines, (count, c, share))

    def _on_shares(self, kernel: str, shares: Shares, dtype: Any, *arguments: Any, parts: int = 0) -> list[Array]:
        """Launch a kernel that works on shares of rows, and where it sums over them return what it found: (shares, C) each."""
        found: list[Array] = [self.xp.empty((shares.grid[1], shares.sizes[1]), "float64") for _ in range(parts)]
        self.launcher.launch(shares.grid, shares.block, FILE, kernel, dtype, *arguments, *found, *shares.sizes, defines=shares.defines)
        return found

    def _affine(self, x: Array, mean: Array, rstd: Array, weight: Array, bias: Array | None) -> tuple[Array | None, ...]:
        """What there is one of for each channel, in the dtypes that kernels take beside x."""
        wide = sum_dtype(x.dtype)
        at, spread = (self.plain(v, "float64") for v in (mean, rstd))
        return at, spread, self.plain(weight, wide), None if bias is None else self.plain(bias, wide)

    def _added(self, dtype: Any, shares: Shares, *parts: Array) -> list[Array]:
        """One or two arrays (shares, C), added up over the shares in one launch: each (C,), with memory of its own."""
        count, c = parts[0].shape
        totals: list[Array] = [self.xp.empty(c, dtype) for _ in parts]
        ends = parts[0], parts[-1], totals[0], totals[-1]
        self.launcher.launch((*_grid(c), len(parts)), SHARES_BLOCK, FILE, "add_shares", dtype, *ends, c, count, defines=shares.defines)
        return totals


def _grid(channels: int) -> tuple[int]:
    return (-(-channels // SHARES_BLOCK[0]),)
