"""Products of columns with a weight in float32: panels of the weight against blocks of rows that stay in registers.

For the sizes of convolutions 1.1 to 1.9 times as fast as BLAS, which packs the weight anew for each block of columns.

Importing this module imports numba.
"""

from __future__ import annotations

import numpy as np

from ...window import Pair, Window
from ..arrays import Array
from .columns import Lines
from .jit import _dispatcher as njit
from .matmul import ADDS, add, multiply
from .memory import Scratch, empty
from .threads import parallel
from .vector import LANES, ROWS, panel_vectors
from .winograd_loops import fill, transpose

_scratch = Scratch()


def padded_lines(image: Array, c: int, window: Window, out: Pair, spare: int = 0) -> Array:
    """Images (N, H, W C) with the zeros around them that windows at `out` positions see; themselves where they see none.

    spare: numbers behind the last that must be there to be read, whatever they are.
    """
    (n, h, line), (top, left) = image.shape, window.padding
    height, width = window.buffer((h, line // c), out)
    width, left = width * c, left * c
    if (height, width, spare) == (h, line, 0):
        return image
    size = n * height * width
    padded = empty((size + spare,))[:size].reshape(n, height, width)
    parallel(lambda a, b: pad_lines(image, padded, top, left, a, b), n * height, width)
    return padded


class Product:
    """y = a matrix for a fixed matrix (K, N), packed once; called from several threads for their rows of a (P, K) and y (P, N)."""

    def __init__(self, matrix: Array) -> None:
        self.k, self.n = matrix.shape
        self.vectors = panel_vectors(self.n)
        columns = self.vectors * LANES
        self.panels = -(-self.n // columns)
        self.wide = self.panels * columns
        self.packed = empty((self.panels * self.k * columns + LANES,))
        turned = matrix.strides[0] < matrix.strides[1]  # then rows of the transposed matrix are runs of memory
        source = np.ascontiguousarray(matrix.T if turned else matrix).reshape(-1)
        step = max(1, -(-self.k // 64))  # parts of 64 rows
        parallel(lambda a, b: pack(source, self.k, self.n, turned, self.packed, columns, step, a, b), self.panels * step, 64 * columns)

    def __call__(self, a: Array, y: Array) -> None:
        """y[...] = a matrix; a and y lie in C order without gaps."""
        rows, block = len(a), ROWS[self.vectors - 1]
        if rows < block:  # rows that are there to be read
            more = _scratch("rows", block * self.k).reshape(block, self.k)
            more[:rows] = a
            result = _scratch("result", block * self.n).reshape(block, self.n)
            self(more, result)
            y[...] = result[:rows]
            return
        self.lines(a.reshape(1, 1, -1), Lines(1, 1, self.k, self.k, 1, 0), y.reshape(1, rows, self.n), 0, 1)  # as windows that touch

    def lines(self, image: Array, at: Lines, y: Array, start: int, stop: int, first: int = 0, every: int = 1) -> None:
        """Lines first + every p of y (lines, OW, N) = windows times matrix, for the lines p of windows from `start` up to `stop`.

        Nothing is copied: a window's runs are read where they lie in image (N, H, W C).
        """
        lines = stop - start if self.n < self.wide else 0
        wide = _scratch("wide", lines * y.shape[1] * self.wide).reshape(lines, y.shape[1], self.wide)
        windows(image, at, self.packed, self.vectors, self.panels, y, first, every, wide, start, stop)


@njit
def pad_lines(x: Array, y: Array, top: int, left: int, start: int, stop: int) -> None:
    """Lines `start` up to `stop` of y (N, H', W' C) = those of x (N, H, W C), from (top, left) on, with zeros around them."""
    line, wide = x.shape[2], y.shape[2]
    for p in range(start, stop):
        h, to = p % y.shape[1] - top, y.ctypes.data + 4 * p * wide
        if 0 <= h < x.shape[1]:
            source = x.ctypes.data + 4 * (p // y.shape[1] * x.shape[1] + h) * line
            fill(source, 0, to, 0, 1, left, line, wide - left - line)
        else:
            fill(0, 0, to, 0, 1, wide, 0, 0)


@njit
def some_columns(wide: Array, y: Array) -> None:
    """y (P, N) = the first rows and columns of `wide`; NumPy takes three times as long for a few columns."""
    for p in range(y.shape[0]):
        for k in range(y.shape[1]):
            y[p, k] = wide[p, k]


@njit
def pack(matrix: Array, k: int, n: int, turned: bool, packed: Array, columns: int, step: int, start: int, stop: int) -> None:
    """packed (panels, k, columns) = the columns of matrix (k, n), or of its transpose (n, k) if `turned`, 0 beyond the last.

    An item is one of `step` parts of 64 rows of a panel.
    """
    for item in range(start, stop):
        panel, first = item // step, item % step * 64
        for i in range(first, min(first + 64, k)):
            to, j0 = (panel * k + i) * columns, panel * columns
            if not turned:
                for j in range(columns):
                    packed[to + j] = matrix[i * n + j0 + j] if j0 + j < n else 0
            elif i % LANES == 0 and i + LANES <= k and j0 + columns <= n:
                for j in range(0, columns, LANES):
                    source = matrix.ctypes.data + 4 * ((j0 + j) * k + i)
                    transpose(source, k, packed.ctypes.data + 4 * (to + j), columns)
            elif i // LANES * LANES + LANES > k or j0 + columns > n:  # not yet done by a transposed square
                for j in range(columns):
                    packed[to + j] = matrix[(j0 + j) * k + i] if j0 + j < n else 0


@njit
def windows(
    image: Array, at: Lines, packed: Array, vectors: int, panels: int, y: Array, first: int, every: int, wide: Array, start: int, stop: int
) -> None:
    """Lines first + every p of y (lines, OW, N) = lines of windows times packed; by way of `wide` (lines, OW, columns) if N is fewer."""
    columns, line = vectors * LANES, image.shape[2]
    block, count = ROWS[vectors - 1], y.shape[1]
    whole, last = count // block * block, count - block
    direct = y.shape[2] == wide.shape[2]
    for panel in range(panels):  # it stays in the cache for all the lines
        b = packed.ctypes.data + 4 * panel * at.run * at.runs * columns
        for p in range(start, stop):
            a, step = image.ctypes.data + 4 * (p // at.oh * image.shape[1] + p % at.oh * at.row) * line, wide.shape[2]
            to = y[first + every * p] if direct else wide[p - start]
            c = to.ctypes.data + 4 * panel * columns
            multiply(a, at.step, at.gap * line, at.runs, b, c, step, at.run, whole, vectors, 0)
            if whole < count:  # the last block does some windows again
                a, c = a + 4 * last * at.step, c + 4 * last * step
                multiply(a, at.step, at.gap * line, at.runs, b, c, step, at.run, block, vectors, 0)
    if not direct:
        for p in range(start, stop):
            some_columns(wide[p - start], y[first + every * p])


@njit
def window_sums(
    image: Array, at: Lines, g: Array, turned: bool, vectors: int, total: Array, first: int, last: int, together: int, start: int, stop: int
) -> None:
    """total (O, runs, run) += g^T windows over the lines first .. last of g (lines, OW, O); an item is a panel of one of the runs.

    `turned`: total is (runs, run rounded up to ADDS, O) and it is the channels O that lie along vectors.
    """
    columns, line, ow, o = vectors * LANES, image.shape[2], g.shape[1], g.shape[2]
    high = (at.run + ADDS - 1) // ADDS * ADDS
    panels = (o if turned else at.run) // columns
    for top in range(first, last, together):
        for item in range(start, stop):
            r, j = item // panels, item % panels * columns
            for p in range(top, min(top + together, last)):
                x_at = image.ctypes.data + 4 * (p // at.oh * image.shape[1] + p % at.oh * at.row + r * at.gap) * line
                g_at, to = g.ctypes.data + 4 * p * ow * o, total.ctypes.data + 4 * j
                if turned:
                    a, a_k, b, b_k, to, to_row, count = x_at, at.step, g_at + 4 * j, o, to + 4 * r * high * o, o, high
                else:
                    a, a_k, b, b_k, to, to_row, count = g_at, o, x_at + 4 * j, at.step, to + 4 * r * at.run, at.runs * at.run, o
                add(a, 1, a_k, b, b_k, to, to_row, ow, count, vectors, 1)
