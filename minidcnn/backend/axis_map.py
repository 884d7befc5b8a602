"""Sparse linear maps along one axis, of which resizing, padding by mirrors and adaptive pooling are made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .arrays import Array


@dataclass(frozen=True, eq=False)
class AxisMap:
    """y[i] = sum over t from starts[i] up to starts[i + 1] of weights[t] x[indices[t]], for x of `size` along the axis.

    NumPy arrays on every backend: starts int64 (outputs + 1,), indices int64 (taps,), weights float64 (taps,) or None where all are 1:
    then the map gathers and adds, in any dtype. The rows of a matrix in compressed form; `transposed` is its adjoint, and as y is
    always gathered, neither needs atomics. `made` is the rule that made it, its name and its arguments besides the sizes, by which it can
    be made for other sizes; () where there is none. Maps of one rule and one size are equal.
    """

    size: int
    starts: Array
    indices: Array
    weights: Array | None = None
    made: tuple[Any, ...] = ()

    @classmethod
    def gather(cls, indices: Array, size: int, made: tuple[Any, ...] = ()) -> AxisMap:
        """y[i] = x[indices[i]]."""
        return cls(size, np.arange(len(indices) + 1), np.asarray(indices, np.int64), None, made)

    @classmethod
    def identity(cls, size: int, made: tuple[Any, ...] = ()) -> AxisMap:
        """y = x."""
        return cls.gather(np.arange(size), size, made)

    @property
    def outputs(self) -> int:
        """Size of y along the axis."""
        return len(self.starts) - 1

    @cached_property
    def is_identity(self) -> bool:
        """Whether y = x."""
        return (
            self.weights is None
            and np.array_equal(self.indices, np.arange(self.size))
            and np.array_equal(self.starts, np.arange(self.size + 1))
        )

    @cached_property
    def transposed(self) -> AxisMap:
        """The adjoint map, from y to x: each tap the other way round."""
        order = np.argsort(self.indices, kind="stable")
        counts = np.bincount(self.indices, minlength=self.size)
        ends = np.repeat(np.arange(self.outputs), np.diff(self.starts))
        weights = None if self.weights is None else self.weights[order]
        made = ("transposed", self.made) if self.made else ()
        return AxisMap(self.outputs, np.concatenate([[0], np.cumsum(counts)]), ends[order], weights, made)

    def rounds(self, dtype: Any) -> Iterator[tuple[Array | slice, Array, Array | None]]:
        """For k = 0, 1, ...: the outputs that have a k-th tap (a full slice if all do), the inputs it takes and its weights in `dtype`."""
        counts = np.diff(self.starts)
        for k in range(int(counts.max(initial=0))):
            to = np.flatnonzero(counts > k)
            taps = self.starts[to] + k
            weights = None if self.weights is None else self.weights[taps].astype(dtype)
            yield slice(None) if len(to) == self.outputs else to, self.indices[taps], weights
