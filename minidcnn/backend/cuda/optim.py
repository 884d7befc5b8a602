"""Optimizer steps and scaled gradients on the GPU: kernels/optim.cu, all parameters of one dtype in one launch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import Array, memory_order
from ..rules import AdamRule, SgdRule
from .base import CudaBase

FILE = "optim.cu"
SHARE = 1 << 12  # elements of a block
STATE = 3  # arrays of state that a row of the table has room for


class CudaOptim(CudaBase):
    """sgd_step and adam_step, of one parameter or many, and scale_all. What has gaps goes to the reference, one by one."""

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
        if order is None or not (self.launcher.suits(p, g, *state) or self._empty(p, g, *state)):
            return None
        views = [None if s is None else s.transpose(order) for s in state]
        if any(v is not None and not v.flags.c_contiguous for v in views):
            return None
        return p.transpose(order), self.xp.ascontiguousarray(g.transpose(order)), *views

    def _empty(self, *arrays: Array | None) -> bool:
        return all(a is None or not a.size for a in arrays)
