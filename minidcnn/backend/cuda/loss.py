"""Softmax-cross-entropy on the GPU: kernels/loss.cu."""

from __future__ import annotations

import numpy as np

from ..arrays import Array
from .base import CudaBase
from .launcher import LIMIT

FILE = "loss.cu"


class CudaLoss(CudaBase):
    """cross_entropy and its gradient, for logits of any number of axes, and what comes before: the target checked."""

    def clean_target(self, target: Array, classes: int, ignore_index: int) -> tuple[Array, Array]:
        if not 0 < target.size < LIMIT:
            return super().clean_target(target, classes, ignore_index)
        clean = self.plain(target).astype("int64")  # always a copy
        first: Array = self.xp.full(1, -1, "int32")
        self.launcher.over(clean.size, FILE, "clean_target", "float32", clean, first, classes, np.int64(ignore_index), clean.size)
        return clean, first.reshape(())

    def cross_entropy(self, x: Array, target: Array, weight: Array, smoothing: float) -> tuple[Array, Array, Array]:
        if not self.launcher.suits(x, weight):
            return super().cross_entropy(x, target, weight, smoothing)
        xp, rows = self.xp, self._pixels(x)
        losses, top, logs = (xp.empty(target.shape, x.dtype) for _ in range(3))
        arguments = rows, self.plain(target), self.plain(weight), losses, top, logs, *self._terms(weight, smoothing), *rows.shape
        self.launcher.over(len(rows), FILE, "cross_entropy", x.dtype, *arguments)
        return losses, top, logs

    def cross_entropy_grad(self, g: Array, x: Array, top: Array, logs: Array, target: Array, weight: Array, smoothing: float) -> Array:
        if not self.launcher.suits(x, weight) or g.dtype != x.dtype:
            return super().cross_entropy_grad(g, x, top, logs, target, weight, smoothing)
        rows = self._pixels(x)
        dx: Array = self.xp.empty((*target.shape, x.shape[1]), x.dtype)
        arrays = (*(self.plain(a) for a in (g, rows, top, logs, target, weight)), dx)
        self.launcher.over(dx.size, FILE, "cross_entropy_grad", x.dtype, *arrays, *self._terms(weight, smoothing), *rows.shape)
        last = dx.ndim - 1
        return dx.transpose(0, last, *range(1, last))

    def _pixels(self, x: Array) -> Array:
        """(N, C, ...) -> (P, C) without gaps."""
        return self.plain(x.transpose(0, *range(2, x.ndim), 1)).reshape(-1, x.shape[1])

    def _terms(self, weight: Array, smoothing: float) -> tuple[Array | None, object]:
        """The sum of the weights (1,) where it counts, and the smoothing, in double."""
        total = self.xp.asarray(weight.sum(dtype="float64")).reshape(1) if smoothing else None
        return total, np.float64(smoothing)
