"""Optimizer steps in one pass over each parameter: what is read once is used for all that depends on it."""

from __future__ import annotations

import numpy as np

from ..arrays import Array, memory_order
from ..reference import Kernels
from ..rules import AdamRule, SgdRule
from .jit import jit
from .layout import suits
from .threads import parallel

LARGE = 1 << 12  # elements; what is smaller is left to NumPy


class CpuOptim(Kernels):
    """sgd_step and adam_step."""

    def sgd_step(self, p: Array, g: Array, buffer: Array | None, first: bool, rule: SgdRule) -> None:
        flat = _flat(p, g, buffer)
        if flat is None:
            return super().sgd_step(p, g, buffer, first, rule)
        kind = p.dtype.type
        rate, ahead, decay = kind(rule.lr), kind(rule.momentum), kind(rule.weight_decay)
        keep, add = kind(0 if first else rule.momentum), kind(1 if first else 1 - rule.dampening)
        if buffer is None:
            return parallel(lambda a, b: sgd(flat[0][a:b], flat[1][a:b], rate, decay), p.size, 2)
        return parallel(
            lambda a, b: sgd_momentum(
                flat[0][a:b], flat[1][a:b], flat[2][a:b], bool(first), bool(rule.nesterov), rate, keep, add, ahead, decay
            ), p.size, 2,
        )  # fmt: skip

    def adam_step(self, p: Array, g: Array, mean: Array, square: Array, largest: Array | None, step: int, rule: AdamRule) -> None:
        flat = _flat(p, g, mean, square)
        if flat is None or largest is not None:
            return super().adam_step(p, g, mean, square, largest, step, rule)
        kind = p.dtype.type
        rate, root = rule.corrected(step)
        shrink, decay = (1 - rule.lr * rule.weight_decay, 0.0) if rule.decoupled else (1.0, rule.weight_decay)
        t = [kind(v) for v in (rate, 1 - rule.beta1, rule.beta2, 1 - rule.beta2, 1 / root, rule.eps, shrink, decay)]
        p_, g_, mean_, square_ = flat
        return parallel(
            lambda a, b: adam(p_[a:b], g_[a:b], mean_[a:b], square_[a:b], t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7]), p.size, 2
        )


def _flat(*arrays: Array | None) -> list[Array] | None:
    """Equally shaped arrays as flat views, if all are float32 or float64 and lie in the same order without gaps; else None."""
    present = [a for a in arrays if a is not None]
    order = memory_order(present[0])
    if not suits(*present) or present[0].size < LARGE or order is None:
        return None
    moved = [a.transpose(order) for a in present]
    if not all(a.flags.carray and a.shape == moved[0].shape for a in moved):
        return None
    return [a.reshape(-1) for a in moved]


@jit
def sgd(p: Array, g: Array, lr: float, decay: float) -> None:
    """p -= lr (g + decay p)."""
    for k in range(p.size):
        p[k] -= lr * (g[k] + decay * p[k])


@jit
def sgd_momentum(
    p: Array, g: Array, buffer: Array, first: bool, nesterov: bool, lr: float, keep: float, add: float, ahead: float, decay: float
) -> None:
    """d = g + decay p; buffer = keep buffer + add d; p -= lr (d + ahead buffer if `nesterov`, else buffer). `first`: buffer holds nothing."""
    for k in range(p.size):
        d = g[k] + decay * p[k]
        held = d if first else keep * buffer[k] + add * d
        buffer[k] = held
        p[k] -= lr * (d + ahead * held if nesterov else held)


@jit
def adam(
    p: Array, g: Array, mean: Array, square: Array, rate: float, add1: float, keep2: float, add2: float, root: float, eps: float,
    shrink: float, decay: float,
) -> None:  # fmt: skip
    """p = shrink p; d = g + decay p; mean += add1 (d - mean); square = keep2 square + add2 d^2; p -= rate mean / (sqrt(square) root + eps)."""
    for k in range(p.size):
        value = shrink * p[k]
        d = g[k] + decay * value
        m = mean[k] + add1 * (d - mean[k])
        s = keep2 * square[k] + add2 * (d * d)
        mean[k] = m
        square[k] = s
        p[k] = value - rate * (m / (np.sqrt(s) * root + eps))
