"""Optimizer steps in one pass over each parameter: what is read once is used for all that depends on it. The gradients' norm, in one pass over all."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from ..arrays import Array, memory_order
from ..reference import Kernels
from ..rules import AdamRule, SgdRule
from .jit import jit
from .layout import suits
from .threads import parallel

LARGE = 1 << 12  # elements; what is smaller is left to NumPy
CHUNK = 1 << 16  # elements that are added up by one thread
LANES = 256  # sums kept side by side


class CpuOptim(Kernels):
    """sgd_step and adam_step; and power_sum of powers 1, 2 and infinity."""

    def sgd_step(self, p: Array, g: Array, buffer: Array | None, first: bool, rule: SgdRule) -> None:
        flat = _flat(p, g, buffer)
        if flat is None:
            return super().sgd_step(p, g, buffer, first, rule)
        lr, momentum, dampening, decay, _ = map(float, rule)
        if buffer is None:
            return parallel(lambda a, b: sgd(flat[0], flat[1], lr, decay, a, b), p.size, 2)
        p_, g_, buffer_ = flat
        settings = bool(first), bool(rule.nesterov), lr, momentum, 1 - dampening, decay
        return parallel(lambda a, b: sgd_momentum(p_, g_, buffer_, *settings, a, b), p.size, 2)

    def adam_step(self, p: Array, g: Array, mean: Array, square: Array, largest: Array | None, step: int, rule: AdamRule) -> None:
        flat = _flat(p, g, mean, square)
        if flat is None or largest is not None:
            return super().adam_step(p, g, mean, square, largest, step, rule)
        rate, root = rule.corrected(step)
        shrink, decay = (1 - rule.lr * rule.weight_decay, 0.0) if rule.decoupled else (1.0, float(rule.weight_decay))
        settings = rate, 1 - rule.beta1, float(rule.beta2), 1 - rule.beta2, 1 / root, float(rule.eps), shrink, decay
        p_, g_, mean_, square_ = flat
        return parallel(lambda a, b: adam(p_, g_, mean_, square_, *settings, a, b), p.size, 2)

    def power_sum(self, arrays: Sequence[Array], power: float) -> Array:
        lines, others = _lines(arrays)
        if not lines or power not in (1, 2, math.inf):  # pow: NumPy has it in vectors
            return super().power_sum(arrays, power)
        sums = _chunk_sums(lines, float(power))
        if others:
            sums = np.append(sums, super().power_sum(others, power))
        return np.asarray(sums.max() if power == math.inf else sums.sum())


def _lines(arrays: Sequence[Array]) -> tuple[list[Array], list[Array]]:
    """Those of `arrays` that compiled loops take, flat, and the others, as far as they hold anything; all are others if too small to be worth it."""
    if sum(a.size for a in arrays) < LARGE:
        return [], list(arrays)
    lines, others = [], []
    for a in arrays:
        order = memory_order(a) if suits(a) and a.flags.writeable and a.flags.aligned else None
        if order is not None:
            lines.append(a.transpose(order).reshape(-1))
        elif a.size:
            others.append(a)
    return lines, others


def _chunk_sums(lines: list[Array], power: float) -> Array:
    """(chunks,) float64: sum |x|^power of each CHUNK elements of each line, or their largest. Lines are cut by their length alone."""
    first = list(itertools.accumulate((-(-line.size // CHUNK) for line in lines), initial=0))
    sums = np.empty(first[-1])

    def work(start: int, stop: int) -> None:
        for line, begin, end in zip(lines, first, first[1:], strict=False):
            for i in range(max(start, begin), min(stop, end)):
                sums[i] = add_powers(line[(i - begin) * CHUNK : (i - begin + 1) * CHUNK], power)

    parallel(work, len(sums), sum(line.size for line in lines) / len(sums))
    return sums


def _flat(*arrays: Array | None) -> list[Array] | None:
    """Equally shaped arrays as flat views, if all are float32 or float64 and lie in the same order without gaps; else None."""
    p = arrays[0]
    if p is None or p.size < LARGE or not suits(*arrays) or (order := memory_order(p)) is None:
        return None
    moved = [a.transpose(order) for a in arrays if a is not None]
    if not all(a.flags.carray and a.shape == moved[0].shape for a in moved):
        return None
    return [a.reshape(-1) for a in moved]


# Settings come in float64, and are rounded to what the parameters are in.


@jit
def sgd(p: Array, g: Array, lr: float, decay: float, start: int, stop: int) -> None:
    """p -= lr (g + decay p), from `start` up to `stop`, as in all of these."""
    kind = p.dtype.type
    lr, decay, p, g = kind(lr), kind(decay), p[start:stop], g[start:stop]
    for k in range(p.size):
        p[k] -= lr * (g[k] + decay * p[k])


@jit
def sgd_momentum(
    p: Array, g: Array, buffer: Array, first: bool, nesterov: bool, lr: float, momentum: float, add: float, decay: float,
    start: int, stop: int,
) -> None:  # fmt: skip
    """d = g + decay p; buffer = momentum buffer + add d, or d at `first`; p -= lr (d + momentum buffer if `nesterov`, else buffer)."""
    kind = p.dtype.type
    lr, momentum, add, decay = kind(lr), kind(momentum), kind(add), kind(decay)
    p, g, buffer = p[start:stop], g[start:stop], buffer[start:stop]
    for k in range(p.size):
        d = g[k] + decay * p[k]
        held = d if first else momentum * buffer[k] + add * d
        buffer[k] = held
        p[k] -= lr * (d + momentum * held if nesterov else held)


@jit
def adam(
    p: Array, g: Array, mean: Array, square: Array, rate: float, add1: float, keep2: float, add2: float, root: float, eps: float,
    shrink: float, decay: float, start: int, stop: int,
) -> None:  # fmt: skip
    """p = shrink p; d = g + decay p; mean += add1 (d - mean); square = keep2 square + add2 d^2; p -= rate mean / (sqrt(square) root + eps)."""
    kind = p.dtype.type
    rate, add1, keep2, add2 = kind(rate), kind(add1), kind(keep2), kind(add2)
    root, eps, shrink, decay = kind(root), kind(eps), kind(shrink), kind(decay)
    p, g, mean, square = p[start:stop], g[start:stop], mean[start:stop], square[start:stop]
    for k in range(p.size):
        value = shrink * p[k]
        d = g[k] + decay * value
        m = mean[k] + add1 * (d - mean[k])
        s = keep2 * square[k] + add2 * (d * d)
        mean[k] = m
        square[k] = s
        p[k] = value - rate * (m / (np.sqrt(s) * root + eps))


@jit
def add_powers(x: Array, power: float) -> float:
    """sum |x|^power in float64 for power 1 or 2, else the largest |x|, NaN if one is."""
    lanes = np.zeros(LANES)
    for start in range(0, x.size, LANES):
        line = x[start : start + LANES]
        if power == 2:
            for k in range(line.size):
                lanes[k] += np.float64(line[k]) * np.float64(line[k])
        elif power == 1:
            for k in range(line.size):
                lanes[k] += abs(np.float64(line[k]))
        else:
            for k in range(line.size):
                a = abs(np.float64(line[k]))
                lanes[k] = a if (a > lanes[k]) | (a != a) else lanes[k]
    return float(lanes.sum() if power == 1 or power == 2 else lanes.max())
