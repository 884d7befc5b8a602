"""ReLU and dropout on the GPU: kernels/elementwise.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array, inverse, memory_order
from ..random import DeviceSeed
from .base import CudaBase
from .runs import runs

FILE = "elementwise.cu"


class CudaElementwise(CudaBase):
    """Arrays are taken in their memory order, whatever that is, as one run; what has gaps goes to the reference."""

    def relu(self, x: Array) -> Array:
        order = self._order(x)
        if order is None:
            return super().relu(x)
        flat = x.transpose(order)
        y: Array = self.xp.empty(flat.shape, x.dtype)
        self._over("relu", (flat, y))
        return y.transpose(inverse(order))

    def relu_grad(self, g: Array, y: Array) -> Array:
        order = self._order(y)
        if order is None or g.shape != y.shape or g.dtype != y.dtype:
            return super().relu_grad(g, y)
        gradient, flat = self.plain(g.transpose(order)), y.transpose(order)
        dx: Array = self.xp.empty(flat.shape, y.dtype)
        self._over("relu_grad", (gradient, flat, dx))
        return dx.transpose(inverse(order))

    def dropout(self, x: Array, p: float, seed: int, shape: tuple[int, ...]) -> Array:
        planes = x.ndim == 4 and shape == (*x.shape[:2], 1, 1)
        if not self.launcher.suits(x) or not (planes or shape == x.shape):
            return super().dropout(x, p, seed, shape)
        order = (0, 2, 3, 1) if x.ndim == 4 else tuple(range(x.ndim))  # elements of images count channels last
        flat = self.plain(x.transpose(order))
        y: Array = self.xp.empty(flat.shape, x.dtype)
        c, plane = (x.shape[1], x.shape[2] * x.shape[3]) if x.ndim == 4 else (1, 1)
        threshold, scale = np.uint64(round(p * (1 << 53))), 1 / (1 - p) if p < 1 else 0.0
        place = seed.place if isinstance(seed, DeviceSeed) else None
        self._over("dropout", (flat, y), place, np.uint64(seed % (1 << 64)), threshold, scale, plane, c, planes and plane > 1)
        return y.transpose(inverse(order))

    def _over(self, kernel: str, arrays: tuple[Array, ...], *arguments: Any) -> None:
        """Launch a kernel over arrays of one size, in runs if they have them whole: it takes them, `arguments` and the size."""
        size = arrays[0].size
        run, wide = runs(self.launcher, size, *arrays)
        self.launcher.over(size // run, FILE, kernel, arrays[0].dtype, *arrays, *arguments, size, defines=wide)

    def _order(self, x: Array) -> tuple[int, ...] | None:
        return memory_order(x) if self.launcher.suits(x) else None
