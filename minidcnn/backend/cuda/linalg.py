"""Matrix products on the GPU: kernels/gemm.cu."""

from __future__ import annotations

import math

import numpy as np

from ..arrays import Array, memory_order
from ..half import sum_dtype
from .base import ASYNC, SHORTEST, CudaBase, parts
from .launcher import LIMIT

FILE = "gemm.cu"
STEP = 16  # the parts of a long k are multiples of it, so that no run of 16 bytes is cut


class CudaLinalg(CudaBase):
    """matmul, with the precision of convolutions."""

    def matmul(self, a: Array, b: Array) -> Array:
        leading = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        batches, (m, k), n = math.prod(leading), a.shape[-2:], b.shape[-1]
        if not self.launcher.suits(a, b, result=batches * m * n):
            return super().matmul(a, b)
        (a, at), (b, bt) = self._strides(a, leading), self._strides(b, leading)
        axes = _merged(list(leading), at, bt)
        if len(axes) > 2:  # no pair of strides reaches every batch
            (a, at), (b, bt) = (self._strides(self._spread(v, leading), leading) for v in (a, b))
            axes = _merged(list(leading), at, bt)
        (_, a_outer, b_outer), (inner, a_inner, b_inner) = [(1, 0, 0)] * (2 - len(axes)) + axes
        a_along, a_whole = self._runs(a, (a_outer, a_inner), (at[-2], m), (at[-1], k))
        b_along, b_whole = self._runs(b, (b_outer, b_inner), (bt[-1], n), (bt[-2], k))
        copies = a_whole and b_whole and self.launcher.capability >= ASYNC
        most = min(-(-k // SHORTEST), (LIMIT - 1) // (batches * m * n))
        (down, across), defines = self.tile(m, n, a, batches * most)
        defines += f"A_ALONG_K={int(a_along)}", f"B_ALONG_K={int(b_along)}", f"ASYNC={int(copies)}"
        defines = self.fastest(defines, a_along and b_along)
        blocks = batches * -(-m // down) * -(-n // across)
        share = -(-k // (parts(blocks, most) * STEP)) * STEP
        count = -(-k // share)
        c: Array = self.xp.empty((*leading, m, n), a.dtype)
        sums = self.xp.empty((count, c.size), sum_dtype(a.dtype)) if count > 1 else None
        strides = a_outer, a_inner, *at[-2:], b_outer, b_inner, *bt[-2:]
        arguments = _run(a), _run(b), c, sums, m, n, k, share, inner, count, *strides
        self.launcher.launch((blocks * count,), (256,), FILE, "gemm", a.dtype, *arguments, defines=defines)
        if sums is not None:
            self.launcher.over(c.size, FILE, "sum_parts", a.dtype, sums, c, count, c.size, defines=defines)
        return c

    def _runs(self, a: Array, leading: tuple[int, int], row: tuple[int, int], k: tuple[int, int]) -> tuple[bool, bool]:
        """Whether memory runs along k, else along rows, and whether all its runs of 16 bytes are whole; row and k are (stride, size)."""
        along, line = row[0] != 1, 16 // a.itemsize
        (run, length), (apart, _) = (k, row) if along else (row, k)
        whole = run == 1 and length % line == 0 and all(s % line == 0 for s in (apart, *leading))
        return along, whole and self.launcher.address(a) % 16 == 0

    def _strides(self, a: Array, leading: tuple[int, ...]) -> tuple[Array, list[int]]:
        """`a`, copied if it has gaps, and its strides in elements along `leading` and its last two axes; 0 where it repeats or has one element."""
        a = a if memory_order(a) is not None else self.plain(a)
        own = [s // a.itemsize if n > 1 else 0 for s, n in zip(a.strides, a.shape, strict=True)]
        return a, [0] * (len(leading) + 2 - a.ndim) + own

    def _spread(self, a: Array, leading: tuple[int, ...]) -> Array:
        """`a` copied for each of the batches that it is used in."""
        return self.plain(self.xp.broadcast_to(a, (*leading, *a.shape[-2:])))


def _run(a: Array) -> Array:
    """The memory of an array without gaps, in its order."""
    return a.transpose(memory_order(a))


def _merged(sizes: list[int], *strides: list[int]) -> list[tuple[int, ...]]:
    """(size, stride in the first, stride in the second) of the leading axes, neighbours merged where one step leads through both."""
    axes: list[tuple[int, ...]] = []
    for size, *steps in zip(sizes, *(s[: len(sizes)] for s in strides), strict=True):
        if size == 1:
            continue
        if axes and all(before == step * size for before, step in zip(axes[-1][1:], steps, strict=True)):
            axes[-1] = (axes[-1][0] * size, *steps)
        else:
            axes.append((size, *steps))
    return axes
