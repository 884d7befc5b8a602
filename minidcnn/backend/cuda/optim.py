"""Optimizer steps, scaled gradients and their norm on the GPU: kernels/optim.cu, all parameters of one dtype in one launch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import Array, memory_order
from ..rules import AdamRule, SgdRule
from .base import CudaBase

FILE = "optim.cu"
SHARE = 1 << 12  # elements of a block
STATE = 3  # arrays of state that a row of the table has room for
MOST = 240  # gradients of one launch of power_parts: their table is an argument, and arguments have 4 KB
GRADIENTS = np.dtype([("x", np.int64, MOST), ("size", np.int32, MOST), ("first", np.int32, MOST)])  # as in kernels/optim.cu


class CudaOptim(CudaBase):
    """sgd_step and adam_step, of one parameter or many, and scale_all: what has gaps goes to the reference, one by one. power_sum, which copies it."""

    def sgd_step(self, p: Array, g: Array, buffer: Array | None, first: bool, rule: SgdRule) -> None:
        self.sgd_steps([(p, g, buffer, first, rule)])

    def adam_step(self, p: Array, g: Array, mean: Array, square: Array, largest: Array | None, step: int, rule: AdamRule) -> None:
        self.adam_steps([(p, g, mean, square, largest, step, rule)])

    def sgd_steps(self, steps: Sequence[tuple[Any, ...]]) -> None:
        rows = []
        for step in steps:
            arrays = self._alike(*step[:3])
            if arrays is None:
                super().sgd_step(*step)
            else:
                first, rule = step[3:]
                rows.append((arrays, (first, *rule)))
        self._launch("sgd_step", rows)

    def adam_steps(self, steps: Sequence[tuple[Any, ...]]) -> None:
        rows = []
        for step in steps:
            arrays = self._alike(*step[:5])
            if arrays is None:
                super().adam_step(*step)
                continue
            t, rule = step[5:]
            rows.append((arrays, (*rule.corrected(t), *rule)))
        self._launch("adam_step", rows)

    def scale_all(self, arrays: Sequence[Array], factor: float, look: bool = False) -> Any:
        flag = self.xp.ones((), "int32") if look else None
        others, rows = [], []
        for x in arrays:
            whole = self._alike(x, x)
            if whole is None:
                others.append(x)
            else:
                rows.append((whole[:1], ()))
        self._launch("scale_all", rows, factor, flag)
        finite = super().scale_all(others, factor, look) if others else True
        if flag is None:
            return True
        return flag & finite if others else flag

    def power_sum(self, arrays: Sequence[Array], power: float) -> Array:
        taken, others = self._taken(arrays)
        if not taken:
            return super().power_sum(others, power)
        total = self._powers(taken, power)
        if others:
            rest = super().power_sum(others, power)
            total = self.xp.maximum(total, rest) if power == math.inf else total + rest
        return total

    def all_finite(self, arrays: Sequence[Array]) -> Array:
        taken, others = self._taken(arrays)
        if not taken:
            return super().all_finite(others)
        finite = self.xp.isfinite(self._powers(taken, math.inf))
        return finite & super().all_finite(others) if others else finite  # type: ignore[no-any-return]

    def _taken(self, arrays: Sequence[Array]) -> tuple[list[Array], list[Array]]:
        """Those that the kernels take, in any order of their elements but without gaps, copied if need be; and the others, as far as they hold anything."""
        taken, others = [], []
        for x in arrays:
            if self.launcher.suits(x):
                order = memory_order(x)
                taken.append(self.plain(x) if order is None else x.transpose(order))
            elif x.size:
                others.append(x)
        return taken, others

    def _powers(self, arrays: Sequence[Array], power: float) -> Array:
        """power_sum of what _taken took: a launch for each MOST of a dtype, and one that adds up."""
        parts, total, count = self.xp.empty(sum(-(-x.size // SHARE) for x in arrays), "float64"), self.xp.empty((), "float64"), 0
        for dtype in dict.fromkeys(x.dtype for x in arrays):
            alike = [x for x in arrays if x.dtype == dtype]
            for start in range(0, len(alike), MOST):
                count += self._power_parts(alike[start : start + MOST], parts[count:], power)
        self.launcher.launch((1,), (256,), FILE, "power_total", arrays[0].dtype, parts, total, count, np.float64(power))
        return total  # type: ignore[no-any-return]

    def _power_parts(self, arrays: Sequence[Array], parts: Array, power: float) -> int:
        """One launch; returns how many parts it leaves. The table is an argument, of which the launch keeps a copy, recorded or not: nothing is uploaded."""
        *first, blocks = itertools.accumulate((-(-x.size // SHARE) for x in arrays), initial=0)
        table, n = np.zeros((), GRADIENTS), len(arrays)
        table["x"][:n], table["size"][:n], table["first"][:n] = [self.launcher.address(x) for x in arrays], [x.size for x in arrays], first
        kernel = "power_parts" if power in (1, 2, math.inf) else "any_power_parts"
        self.launcher.launch(
            (blocks,), (256,), FILE, kernel, arrays[0].dtype, table, parts[:blocks], n, SHARE, np.float64(power), behind=arrays
        )
        return blocks

    def _launch(self, kernel: str, rows: Sequence[tuple[tuple[Any, ...], tuple[Any, ...]]], *more: Any) -> None:
        """One launch for each dtype of ((p, g, state ...), settings), and what they have in common; rows without elements have nothing to do."""
        for dtype in dict.fromkeys(arrays[0].dtype for arrays, _ in rows):
            some = [row for row in rows if row[0][0].dtype == dtype and row[0][0].size]
            if not some:
                continue
            table, block = np.zeros((len(some), 4 + STATE), np.int64), 0
            for line, (arrays, _) in zip(table, some, strict=True):
                line[: 2 + len(arrays)] = arrays[0].size, block, *(self.launcher.address(a) for a in arrays)
                block += -(-arrays[0].size // SHARE)
            settings = [[float(v) for v in values] for _, values in some]
            tables = [self.xp.asarray(t) for t in (table, np.array(settings)) if t.size]
            behind = [a for arrays, _ in some for a in arrays if a is not None]
            self.launcher.launch((block,), (256,), FILE, kernel, dtype, *tables, len(some), SHARE, *more, behind=behind)

    def _alike(self, p: Array, g: Array, *state: Array | None) -> tuple[Any, ...] | None:
        """All arrays in p's memory order, or None if p or its state have gaps or orders of their own; g is copied if need be."""
        order = memory_order(p)
        if order is None or not (self.launcher.suits(p, g, *state) or all(a is None or not a.size for a in (p, g, *state))):
            return None
        views = [None if s is None else s.transpose(order) for s in state]
        if any(v is not None and not v.flags.c_contiguous for v in views):
            return None
        return p.transpose(order), self.plain(g.transpose(order)), *views
