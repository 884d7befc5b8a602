"""Products of columns with a weight, in float32 or of factors in bf16: panels of the weight against blocks of rows that stay in registers.

For the sizes of convolutions 1.1 to 1.9 times as fast as BLAS, which packs the weight anew for each block of columns.

Importing this module imports numba.
"""

from __future__ import annotations

import numpy as np

from ...window import Pair, Window
from ..arrays import Array
from .columns import Lines
from .instructions import LANES
from .jit import _dispatcher as njit
from .matmul import ADDS, add, multiply
from .memory import Scratch, empty
from .routine import routine
from .threads import parallel
from .vector import ROWS, make_pair, make_round, panel_vectors
from .winograd_loops import fill, transpose

_scratch = Scratch()
round_run, pair_runs = make_round(), make_pair()
ROWS_PACKED = 64  # of a panel, by one item of work


def padded_lines(image: Array, c: int, window: Window, out: Pair, spare: int = 0, twos: int | None = None) -> Array:
    """Images (N, H, W C) with the zeros around them that windows at `out` positions see; themselves where they see none.

    spare: numbers behind the last that must be there to be read, whatever they are. Unless `twos` is None, bf16, two in the place of one.
    """
    (n, h, line), (top, left) = image.shape, window.padding
    height, width = window.buffer((h, line // c), out)
    width, left = width * c, left * c
    if (height, width, spare) == (h, line, 0) and twos is None:
        return image
    width //= 1 if twos is None else 2
    size = n * height * width
    padded = empty((size + spare,))[:size].reshape(n, height, width)
    parallel(lambda a, b: pad_lines(image, padded, top, left, twos, a, b), n * height, width)
    return padded


class Product:
    """y = a matrix for a fixed float32 matrix (K, N), packed once; called from several threads for their rows of a (P, K) and y (P, N).

    bf16: factors are rounded, `per` of them in one place of a float32; K must be a multiple of LANES then.
    """

    def __init__(self, matrix: Array, bf16: bool = False) -> None:
        self.k, self.n = matrix.shape
        self.twos = 1 if bf16 else None
        self.per = 1 if self.twos is None else 2
        self.vectors = panel_vectors(self.n)
        columns = self.vectors * LANES
        self.panels = -(-self.n // columns)
        self.wide = self.panels * columns
        self.packed = empty((self.panels * self.k // self.per * columns + LANES,))
        turned = matrix.strides[0] < matrix.strides[1]  # then rows of the transposed matrix are runs of memory
        source = np.ascontiguousarray(matrix.T if turned else matrix).reshape(-1)
        step = max(1, -(-self.k // ROWS_PACKED))

        def some(start: int, stop: int) -> None:
            pack(source, self.k, self.n, turned, self.packed, columns, step, _scratch("block", LANES * columns), self.twos, start, stop)

        parallel(some, self.panels * step, ROWS_PACKED * columns)

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
        k, flat = self.k // self.per, a.reshape(1, 1, -1)
        if self.twos is not None:
            flat = _scratch("bf16", rows * k).reshape(1, 1, -1)
            pad_lines(a.reshape(1, 1, -1), flat, 0, 0, self.twos, 0, 1)
        self.lines(flat, Lines(1, 1, k, k, 1, 0), y.reshape(1, rows, self.n), 0, 1)  # as windows that touch

    def lines(self, image: Array, at: Lines, y: Array, start: int, stop: int, first: int = 0, every: int = 1) -> None:
        """Lines first + every p of y (lines, OW, N) = windows times matrix, for the lines p of windows from `start` up to `stop`.

        Nothing is copied: a window's runs are read where they lie in image (N, H, W C), which is bf16 if `twos` is not None.
        """
        lines = stop - start if self.n < self.wide else 0
        wide = _scratch("wide", lines * y.shape[1] * self.wide).reshape(lines, y.shape[1], self.wide)
        windows(image, at, self.packed, self.vectors, self.panels, y, first, every, wide, self.twos, start, stop)


@routine
def round_line(source: int, line: int, left: int, to: int, wide: int) -> None:
    """to (wide,) = pairs of bf16 of `left` zeros, a line of numbers, and zeros."""
    fill(0, 0, to, 0, 1, left // 2, 0, 0)
    round_run(source, to + 2 * left, line)
    fill(0, 0, to + 2 * (left + line), 0, 1, wide - (left + line) // 2, 0, 0)


@njit
def pad_lines(x, y, top, left, twos, start, stop):  # type: ignore[no-untyped-def]
    """Lines `start` up to `stop` of y (N, H', W' C) = those of x (N, H, W C), from (top, left) on, with zeros around them.

    Unless `twos` is None, y is bf16, two in one place: (N, H', W' C / 2).
    """
    line, wide = x.shape[2], y.shape[2]
    for p in range(start, stop):
        h, to = p % y.shape[1] - top, y.ctypes.data + 4 * p * wide
        source = x.ctypes.data + 4 * (p // y.shape[1] * x.shape[1] + h) * line
        if not 0 <= h < x.shape[1]:
            fill(0, 0, to, 0, 1, wide, 0, 0)
        elif twos is None:
            fill(source, 0, to, 0, 1, left, line, wide - left - line)
        else:
            round_line(source, line, left, to, wide)


@njit
def some_columns(wide: Array, y: Array) -> None:
    """y (P, N) = the first rows and columns of `wide`; NumPy takes three times as long for a few columns."""
    for p in range(y.shape[0]):
        for k in range(y.shape[1]):
            y[p, k] = wide[p, k]


@njit
def pack(matrix, k, n, turned, packed, columns, step, block, twos, start, stop):  # type: ignore[no-untyped-def]
    """packed (panels, k, columns) = the columns of matrix (k, n), or of its transpose (n, k) if `turned`, 0 beyond the last.

    An item is one of `step` parts of a panel. Unless `twos` is None, packed is (panels, k / 2, columns), pairs of rows, by way of `block`.
    """
    for item in range(start, stop):
        panel, first = item // step, item % step * ROWS_PACKED
        j0 = panel * columns
        for i0 in range(first, min(first + ROWS_PACKED, k), LANES):
            rows = min(LANES, k - i0)
            to, at = (packed, (panel * k + i0) * columns) if twos is None else (block, 0)
            if turned and rows == LANES and j0 + columns <= n:
                for j in range(0, columns, LANES):
                    transpose(matrix.ctypes.data + 4 * ((j0 + j) * k + i0), k, to.ctypes.data + 4 * (at + j), columns)
            elif not turned and j0 + columns <= n:
                fill(matrix.ctypes.data + 4 * (i0 * n + j0), n, to.ctypes.data + 4 * at, columns, rows, 0, columns, 0)
            else:
                for i in range(i0, i0 + rows):
                    for j in range(columns):
                        value = matrix[(j0 + j) * k + i if turned else i * n + j0 + j] if j0 + j < n else 0
                        to[at + (i - i0) * columns + j] = value
            if twos is None:
                continue
            for r in range(0, rows, 2):
                source = block.ctypes.data + 4 * r * columns
                pair_runs(source, source + 4 * columns, packed.ctypes.data + 4 * ((panel * k + i0 + r) // 2 * columns), columns)


@njit
def windows(image, at, packed, vectors, panels, y, first, every, wide, twos, start, stop):  # type: ignore[no-untyped-def]
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
            multiply(a, at.step, at.gap * line, at.runs, b, c, step, at.run, whole, vectors, 0, twos)
            if whole < count:  # the last block does some windows again
                a, c = a + 4 * last * at.step, c + 4 * last * step
                multiply(a, at.step, at.gap * line, at.runs, b, c, step, at.run, block, vectors, 0, twos)
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
                add(a, 1, a_k, b, b_k, to, to_row, ow, count, vectors, 1, None)


@njit
def pair_windows(image, oh, ow, kh, run, to, zeros, start, stop):  # type: ignore[no-untyped-def]
    """to (KH, pairs, run) = pairs `start` up to `stop`, in bf16, of windows (N, OH, OW) that lie side by side in image (N, H, W C).

    Windows are counted through all images; an odd one out makes a pair with zeros (run,).
    """
    line, count = image.shape[2], image.shape[0] * oh * ow
    for p in range(start, stop):
        q = 2 * p
        first = image.ctypes.data + 4 * ((q // (oh * ow) * image.shape[1] + q // ow % oh * kh) * line + q % ow * run)
        q += 1
        second = image.ctypes.data + 4 * ((q // (oh * ow) * image.shape[1] + q // ow % oh * kh) * line + q % ow * run)
        for a in range(kh):
            other = second + 4 * a * line if q < count else zeros.ctypes.data
            pair_runs(first + 4 * a * line, other, to.ctypes.data + 4 * (a * to.shape[1] + p) * run, run)


@njit
def pair_sums(g, x, o, run, vectors, parts, total, start, stop):  # type: ignore[no-untyped-def]
    """total (parts, O, KH, run) = g^T x of pairs g (1, pairs, O) and x (KH, pairs, run); an item is a panel of a line of the kernel, in a part."""
    kh, pairs = x.shape[0], x.shape[1]
    columns = vectors * LANES
    panels = run // columns
    for item in range(start, stop):
        part, a, j = item // (kh * panels), item // panels % kh, item % panels * columns
        first, last = part * pairs // parts, (part + 1) * pairs // parts
        g_at, x_at = g.ctypes.data + 4 * first * o, x.ctypes.data + 4 * ((a * pairs + first) * run + j)
        add(g_at, 1, o, x_at, run, total.ctypes.data + 4 * ((part * o * kh + a) * run + j), kh * run, last - first, o, vectors, 0, 1)
