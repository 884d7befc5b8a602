"""Optimizer steps: in place, each parameter gone through once.

Parameter, gradient and state may have any strides. On NumPy they are cut into blocks, in the parameter's memory order, so that all the
operations on one block find it in the cache; on CuPy a block is the whole array.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..arrays import Array, memory_order
from ..rules import AdamRule, SgdRule
from .base import BaseKernels

BLOCK = 1 << 15  # elements


class OptimKernels(BaseKernels):
    """Steps of one parameter and of many, and what clipping needs of the gradients."""

    def blocks(self, *arrays: Array | None) -> Iterator[tuple[Any, ...]]:
        """Equally shaped arrays cut into the same blocks, in the memory order of the first; None stays None."""
        leader = arrays[0]
        assert leader is not None
        if self.xp is np and leader.size <= BLOCK:
            yield arrays
            return
        order = memory_order(leader) or tuple(range(leader.ndim))
        stack = [tuple(None if a is None else a.transpose(order) for a in arrays)]
        while stack:
            views = stack.pop()
            first: Any = views[0]
            if self.xp is not np or first.size <= BLOCK or not first.ndim:
                yield views
                continue
            n = len(first)
            step = BLOCK // (first.size // n)  # 0 where one row alone is too large
            at: list[Any] = [slice(i, i + step) for i in range(0, n, step)] if step else list(range(n))
            stack.extend(tuple(None if v is None else v[i] for v in views) for i in reversed(at))

    def sgd_step(self, p: Array, g: Array, buffer: Array | None, first: bool, rule: SgdRule) -> None:
        """p and buffer in place, as torch.optim.SGD; g is only read. `buffer` may be None without momentum; the `first` step fills it.

        By the rule, d = g + weight_decay p; buffer = momentum buffer + (1 - dampening) d, at first d; p -= lr (d + momentum buffer if
        nesterov, buffer with momentum, else d).
        """
        for p_, g_, buffer_ in self.blocks(p, g, buffer):
            d = g_ + rule.weight_decay * p_ if rule.weight_decay else g_
            if buffer_ is not None:
                if first:
                    buffer_[...] = d
                else:
                    buffer_ *= rule.momentum
                    buffer_ += (1 - rule.dampening) * d
                d = d + rule.momentum * buffer_ if rule.nesterov else buffer_
            p_ -= rule.lr * d

    def adam_step(self, p: Array, g: Array, mean: Array, square: Array, largest: Array | None, step: int, rule: AdamRule) -> None:
        """p, mean, square and largest (amsgrad, else None) in place, as torch.optim.Adam and, `decoupled`, AdamW; `step` counts from 1.

        By the rule, mean += (1 - beta1)(g - mean); square = beta2 square + (1 - beta2) g^2; p -= lr / (1 - beta1^step) mean / (sqrt(square /
        (1 - beta2^step)) + eps), where g includes weight_decay p or, decoupled, p is first scaled by 1 - lr weight_decay.
        """
        rate, root = rule.corrected(step)
        for p_, g_, mean_, square_, largest_ in self.blocks(p, g, mean, square, largest):
            if rule.weight_decay and rule.decoupled:
                p_ *= 1 - rule.lr * rule.weight_decay
            d = g_ + rule.weight_decay * p_ if rule.weight_decay and not rule.decoupled else g_
            mean_ += (1 - rule.beta1) * (d - mean_)
            square_ *= rule.beta2
            square_ += (1 - rule.beta2) * (d * d)
            if largest_ is not None:
                largest_[...] = self.xp.maximum(largest_, square_)
                square_ = largest_
            p_ -= rate * (mean_ / (self.xp.sqrt(square_) / root + rule.eps))

    def sgd_steps(self, steps: Sequence[tuple[Any, ...]]) -> None:
        """sgd_step of many parameters, each item its arguments in their order. No two items share memory."""
        for step in steps:
            self.sgd_step(*step)

    def adam_steps(self, steps: Sequence[tuple[Any, ...]]) -> None:
        """adam_step of many parameters, each item its arguments in their order. No two items share memory."""
        for step in steps:
            self.adam_step(*step)

    def scale_all(self, arrays: Sequence[Array], factor: float, look: bool = False) -> Any:
        """Each array of float32 or float64 times `factor`, in place. No two share memory.

        look: returns whether all were finite before, as a 0-d array that is not waited for; else True.
        """
        finite: Any = self.all_finite(arrays) if look else True
        for x in arrays:
            x *= x.dtype.type(factor)
        return finite

    def power_sum(self, arrays: Sequence[Array], power: float) -> Array:
        """sum |x|^power over all elements of all arrays, in float64, a 0-d array; the largest |x| for power inf. 0 for none.

        NaN and infinities show in the result. power: above 0.
        """
        xp = self.xp
        total = xp.zeros((), "float64")
        for x in arrays:
            for (x_,) in self.blocks(x):
                a = xp.abs(x_.astype("float64"))
                if power == math.inf:
                    total = xp.maximum(total, a.max() if a.size else 0.0)
                else:
                    total = total + (a * a if power == 2 else a if power == 1 else a**power).sum()
        return xp.asarray(total)  # type: ignore[no-any-return]

    def all_finite(self, arrays: Sequence[Array]) -> Array:
        """Whether no array holds NaN or an infinity, as a 0-d boolean array that is not waited for."""
        result = self.xp.ones((), bool)
        for x in arrays:
            for (x_,) in self.blocks(x):
                result = result & self.xp.isfinite(x_).all()
        return self.xp.asarray(result)  # type: ignore[no-any-return]
