"""Cross-entropy and its gradient in one pass over the pixels each, without an array of intermediate values."""

from __future__ import annotations

import math

import numpy as np

from ..arrays import Array
from ..reference import Kernels
from .jit import jit
from .layout import plain, suits
from .threads import parallel

EACH = 8  # what a logit costs, with its exponential function


class CpuLoss(Kernels):
    """Softmax and cross-entropy in one."""

    def cross_entropy(self, x: Array, target: Array, weight: Array, smoothing: float) -> tuple[Array, Array, Array]:
        if not suits(x, weight) or x.ndim < 2:
            return super().cross_entropy(x, target, weight, smoothing)
        logits, classes, w = _pixels(x), plain(target).reshape(-1), plain(weight)
        losses, top, logs = (np.empty(target.shape, x.dtype) for _ in range(3))
        flat = [v.reshape(-1) for v in (losses, top, logs)]
        total = float(weight.sum(dtype=np.float64))
        parallel(
            lambda a, b: entropy(logits, classes, w, total, float(smoothing), flat[0], flat[1], flat[2], a, b),
            len(logits),
            EACH * x.shape[1],
        )
        return losses, top, logs

    def cross_entropy_grad(self, g: Array, x: Array, top: Array, logs: Array, target: Array, weight: Array, smoothing: float) -> Array:
        if not suits(g, x, top, logs, weight) or x.ndim < 2 or g.shape != target.shape:
            return super().cross_entropy_grad(g, x, top, logs, target, weight, smoothing)
        logits, classes, w = _pixels(x), plain(target).reshape(-1), plain(weight)
        slopes, tops, sums = (plain(v).reshape(-1) for v in (g, top, logs))
        dx, total = np.empty_like(logits), float(weight.sum(dtype=np.float64))
        parallel(
            lambda a, b: entropy_grad(slopes, logits, tops, sums, classes, w, total, float(smoothing), dx, a, b), len(logits), EACH * x.shape[1]
        )  # fmt: skip
        return dx.reshape(*target.shape, x.shape[1]).transpose(0, -1, *range(1, x.ndim - 1))


def _pixels(x: Array) -> Array:
    """x (N, C, ...) -> (pixels, C), a view of channels-last images, else a copy."""
    return plain(x.transpose(0, *range(2, x.ndim), 1)).reshape(-1, x.shape[1])


@jit
def entropy(
    x: Array, target: Array, weight: Array, total: float, smoothing: float, losses: Array, top: Array, logs: Array, start: int, stop: int
) -> None:
    """losses, top, logs (P,) of x (P, C) and target (P,), for pixels `start` up to `stop`; `total` is the sum of weight (C,)."""
    c = x.shape[1]
    for p in range(start, stop):
        row, y = x[p], target[p]
        if y >= c:
            raise IndexError("cross_entropy: a target is no class")
        largest = row[0]
        for k in range(1, c):
            value = row[k]
            if value > largest or value != value:  # the second: NaN wins
                largest = value
        exponentials, weighted = 0.0, 0.0
        for k in range(c):
            shifted = row[k] - largest
            exponentials += np.exp(shifted)
            if smoothing != 0:
                weighted += weight[k] * shifted
        log = math.log(exponentials) if exponentials > 0 else exponentials  # NaN stays NaN
        loss = 0.0
        if y >= 0:
            loss = (1 - smoothing) * weight[y] * (log - (row[y] - largest))
            if smoothing != 0:
                loss += smoothing / c * (total * log - weighted)
        losses[p] = loss
        top[p] = largest
        logs[p] = log


@jit
def entropy_grad(
    g: Array,
    x: Array,
    top: Array,
    logs: Array,
    target: Array,
    weight: Array,
    total: float,
    smoothing: float,
    dx: Array,
    start: int,
    stop: int,
) -> None:
    """dx (P, C) = g ((a + b total) softmax(x) - a e_y - b weight) with a = (1 - smoothing) weight_y and b = smoothing / C."""
    c = x.shape[1]
    kind = x.dtype.type
    b = kind(smoothing / c)
    for p in range(start, stop):
        row, to, y, slope = x[p], dx[p], target[p], g[p]
        if y >= c:
            raise IndexError("cross_entropy_grad: a target is no class")
        if y < 0:
            for k in range(c):
                to[k] = 0
            continue
        own = kind((1 - smoothing) * weight[y])
        scale, base, log = slope * kind(own + smoothing / c * total), top[p], logs[p]
        for k in range(c):
            to[k] = scale * np.exp(row[k] - base - log) - b * weight[k] * slope
        to[y] -= slope * own
