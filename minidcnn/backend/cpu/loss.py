"""Cross-entropy and its gradient in one pass over the pixels each: exponential functions and logarithms are NumPy's, in blocks that stay in L2.

Where a loop may raise an error, a row of an array costs as much as what is done with a few numbers in it: arrays are read by index here.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..arrays import Array
from ..reference import Kernels
from .jit import jit
from .layout import plain, suits
from .threads import parallel

EACH = 8  # what a logit costs, with its exponential function
BLOCK = 1 << 17  # logits in a block: in smaller ones, threads wait for each other between the calls


class CpuLoss(Kernels):
    """Softmax and cross-entropy in one."""

    def cross_entropy(self, x: Array, target: Array, weight: Array, smoothing: float) -> tuple[Array, Array, Array]:
        if not suits(x, weight) or x.ndim < 2:
            return super().cross_entropy(x, target, weight, smoothing)
        logits, classes, w = _pixels(x), plain(target).reshape(-1), plain(weight)
        losses, top, logs = (np.empty(target.shape, x.dtype) for _ in range(3))
        flat, tops, of = (v.reshape(-1) for v in (losses, top, logs))
        total = float(weight.sum(dtype=np.float64))

        def pixels(start: int, stop: int) -> None:
            for a, b in _blocks(start, stop, x.shape[1]):
                powers, sums = np.empty((b - a, x.shape[1]), x.dtype), np.empty(b - a)
                shift(logits, tops, of, powers, True, a, b)
                np.exp(powers, out=powers)
                add_up(powers, sums)
                np.log(sums, out=sums)
                entropy(logits, classes, w, total, float(smoothing), tops, sums, flat, of, a, b)

        parallel(pixels, len(logits), EACH * x.shape[1])
        return losses, top, logs

    def cross_entropy_grad(self, g: Array, x: Array, top: Array, logs: Array, target: Array, weight: Array, smoothing: float) -> Array:
        if not suits(g, x, top, logs, weight) or x.ndim < 2 or g.shape != target.shape:
            return super().cross_entropy_grad(g, x, top, logs, target, weight, smoothing)
        logits, classes, w = _pixels(x), plain(target).reshape(-1), plain(weight)
        slopes, tops, sums = (plain(v).reshape(-1) for v in (g, top, logs))
        dx, total = np.empty_like(logits), float(weight.sum(dtype=np.float64))

        def pixels(start: int, stop: int) -> None:
            for a, b in _blocks(start, stop, x.shape[1]):
                shift(logits, tops, sums, dx[a:b], False, a, b)
                np.exp(dx[a:b], out=dx[a:b])
                entropy_grad(slopes, classes, w, total, float(smoothing), dx, a, b)

        parallel(pixels, len(logits), EACH * x.shape[1])
        return dx.reshape(*target.shape, x.shape[1]).transpose(0, -1, *range(1, x.ndim - 1))


def _blocks(start: int, stop: int, classes: int) -> Iterator[tuple[int, int]]:
    """`start` up to `stop` in parts of BLOCK logits, or a pixel."""
    step = max(1, BLOCK // classes)
    for first in range(start, stop, step):
        yield first, min(first + step, stop)


def _pixels(x: Array) -> Array:
    """x (N, C, ...) -> (pixels, C), a view of channels-last images, else a copy."""
    return plain(x.transpose(0, *range(2, x.ndim), 1)).reshape(-1, x.shape[1])


@jit
def shift(x: Array, top: Array, logs: Array, y: Array, first: bool, start: int, stop: int) -> None:
    """y (stop - start, C) = x (P, C) - top - logs, for pixels `start` up to `stop`; `first`: top is found, the largest of each, and logs are 0."""
    c = x.shape[1]
    for p in range(start, stop):
        if first:
            largest = x[p, 0]
            for k in range(1, c):
                value = x[p, k]
                if value > largest or value != value:  # the second: NaN wins
                    largest = value
            top[p], logs[p] = largest, 0
        for k in range(c):
            y[p - start, k] = x[p, k] - top[p] - logs[p]


@jit
def add_up(y: Array, sums: Array) -> None:
    """sums (P,) of y (P, C) over its classes, in float64."""
    for p in range(sums.size):
        total = 0.0
        for k in range(y.shape[1]):
            total += y[p, k]
        sums[p] = total


@jit
def entropy(
    x: Array,
    target: Array,
    weight: Array,
    total: float,
    smoothing: float,
    top: Array,
    log: Array,
    losses: Array,
    logs: Array,
    start: int,
    stop: int,
) -> None:
    """losses, logs (P,) of x (P, C), target (P,) and log (stop - start,), for pixels `start` up to `stop`; `total` is the sum of weight (C,)."""
    c = x.shape[1]
    for p in range(start, stop):
        y, largest, one = target[p], top[p], log[p - start]
        if y >= c:
            raise IndexError("cross_entropy: a target is no class")
        loss = 0.0
        if y >= 0:
            loss = (1 - smoothing) * weight[y] * (one - (x[p, y] - largest))
            if smoothing != 0:
                weighted = 0.0
                for k in range(c):
                    weighted += weight[k] * (x[p, k] - largest)
                loss += smoothing / c * (total * one - weighted)
        losses[p] = loss
        logs[p] = one


@jit
def entropy_grad(g: Array, target: Array, weight: Array, total: float, smoothing: float, dx: Array, start: int, stop: int) -> None:
    """dx (P, C), which holds softmax(x), = g ((a + b total) softmax(x) - a e_y - b weight), a = (1 - smoothing) weight_y, b = smoothing / C."""
    c = dx.shape[1]
    kind = dx.dtype.type
    b = kind(smoothing / c)
    for p in range(start, stop):
        y, slope = target[p], g[p]
        if y >= c:
            raise IndexError("cross_entropy_grad: a target is no class")
        if y < 0:
            for k in range(c):
                dx[p, k] = 0
            continue
        own = kind((1 - smoothing) * weight[y])
        scale = slope * kind(own + smoothing / c * total)
        for k in range(c):
            dx[p, k] = scale * dx[p, k] - b * weight[k] * slope
        dx[p, y] -= slope * own
