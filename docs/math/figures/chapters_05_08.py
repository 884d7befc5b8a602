"""Figures of chapters 5 to 8: overlap and phase sums, bilinear upsampling, im2col, pooling and unpooling.

As in chapters 0 to 4, what goes in is blue, the kernel orange, what comes out green.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from draw import Cells, Figure

from minidcnn import Tensor
from minidcnn import functional as F
from minidcnn.nn.init import bilinear_filter
from minidcnn.study import conv1d, conv_transpose1d, matrix, overlap
from minidcnn.window import Window

# -- chapter 5 -----------------------------------------------------------------------------------------------------------------------


def counting() -> Figure:
    fig = Figure(
        700,
        282,
        "Five kernels painted two pixels apart",
        "Left: five bars of three ones, each two cells further on than the last; the columns add up to 1 1 2 1 2 1 2 1 2 1 1. Right: bars "
        "of four ones, which add up to 1 1 2 2 2 2 2 2 2 2 1 1.",
    )
    m, s, cell, high, top = 5, 2, 25, 24, 44
    for k, left in ((3, 62), (4, 62 + 11 * cell + 46)):
        counts = overlap(m, k, s)
        fig.text(left + len(counts) * cell / 2, 16, f"{k} taps, stride {s}", "ink strong", 14)
        for i in range(m):
            y = top + i * (high + 5)
            if k == 3:
                fig.text(left - 10, y + high / 2, f"*i* = {i}", "blue", 13, "end")
            fig.cells(left + i * s * cell, y, [1] * k, "orange", cell, high, 13)
        y = top + m * (high + 5) + 8
        fig.cells(left, y, counts, ["green bold" if c == max(counts) else "green" for c in counts], cell, 30, 15)
        first, last = k - 1, (m - 1) * s
        inside = sorted(set(counts[first : last + 1].tolist()))
        fig.bracket(left + first * cell + 2, left + (last + 1) * cell - 2, y + 40, "inside: " + " or ".join(map(str, inside)), "ink")
    fig.text(52, top + m * (high + 5) + 23, "count", "green", 13, "end")
    return fig


def phase_sums() -> Figure:
    kernels = ([1, 1, 1], [1, 2, 1], [1, 2, 3, 1], [1, 3, 3, 1])
    fig = Figure(
        700,
        250,
        "Phase sums at stride 2",
        "Four kernels in rows of two, with the sums of the two columns. 1 1 1: 2 and 1, uneven. 1 2 1: 2 and 2, even. 1 2 3 1: 4 and 3, "
        "uneven. 1 3 3 1: 4 and 4, even.",
    )
    cell, s = 46, 2
    for n, w in enumerate(kernels):
        left = 36 + n * 180
        fig.text(left + cell, 18, "  ".join(map(str, w)), "ink strong", 16)
        fig.text(left + cell / 2, 46, "even", "soft", 12)
        fig.text(left + 3 * cell / 2, 46, "odd", "soft", 12)
        table = [[w[i + r] if i + r < len(w) else None for r in range(s)] for i in range(0, 4, s)]
        fig.cells(left, 58, table, [["plain dashed" if v is None else "orange" for v in row] for row in table], cell, 36, 16)
        if len(w) % s:
            fig.text(left + 3 * cell / 2, 58 + 54, "none", "soft", 11)
        fig.line(left, 140, left + s * cell, 140, "ink")
        sums = [conv_transpose1d(np.ones(4, int), w, s)[len(w) - 1 + (r - len(w) + 1) % s] for r in range(s)]
        even = len(set(sums)) == 1
        fig.cells(left, 150, sums, "green" if even else "red dashed", cell, 36, 16)
        fig.text(left + cell, 208, "equal:" if even else "unequal:", "green strong" if even else "red strong", 14)
        fig.text(left + cell, 228, "flat stays flat" if even else "a chessboard", "ink", 14)
    return fig


def checkerboard() -> Figure:
    fig = Figure(
        700,
        296,
        "A flat image, enlarged",
        "Six by six pixels of the interior. The kernel 1 1 1 gives 4 2 4 2 in one row and 2 1 2 1 in the next. 1 2 3 1 gives 16 12 16 12 "
        "and 12 9 12 9. 1 3 3 1 gives 16 everywhere. What is painted more is brighter.",
    )
    cell, flat = 34, Tensor(np.ones((1, 1, 8, 8), int))
    for n, (w, verdict) in enumerate(
        (([1, 1, 1], "2 does not divide 3"), ([1, 2, 3, 1], "2 divides 4"), ([1, 3, 3, 1], "equal phase sums"))
    ):
        left = 14 + n * 234
        kernel = Tensor(np.outer(w, w)[None, None])
        board = F.conv_transpose2d(flat, kernel, stride=2).numpy()[0, 0][4:10, 4:10]
        fig.text(left + 3 * cell, 18, f"({', '.join(map(str, w))})", "ink strong", 16)
        fig.text(left + 3 * cell, 40, verdict, "soft", 13)
        for i, j in np.ndindex(board.shape):
            fig.pixel(left + j * cell, 54 + i * cell, cell, cell, float(board[i, j] / board.max()), board[i, j])
        values = sorted(set(board.ravel().tolist()))
        fig.text(left + 3 * cell, 54 + 6 * cell + 20, " : ".join(map(str, values)) if len(values) > 1 else "even", "ink", 14)
    return fig


def two_steps() -> Figure:
    w, v = np.array([1, 2, 1]), np.array([1, 3, 3, 1])
    once = conv_transpose1d(w, v, 2)
    fig = Figure(
        700,
        272,
        "Two steps of two are one step of four",
        "One input pixel is painted as 1 2 1. Its three pixels are painted as 1 3 3 1, 2 6 6 2 and 1 3 3 1, two cells apart. The sum is "
        "1 3 5 7 7 5 3 1.",
    )
    cell, high, top, left = 44, 34, 46, 308
    rows = [top + a * (high + 14) for a in range(len(w))]
    fig.text(62, 22, "input", "blue", 13)
    fig.text(194, 22, "painted with *w*", "orange", 13)
    fig.text(left + 4 * cell, 22, "painted again, with *v*, two pixels apart", "orange", 13)
    fig.cells(62 - cell / 2, rows[1], [1], "blue", cell, high, 15)
    for a, y in enumerate(rows):
        fig.arrow(62 + cell / 2 + 4, rows[1] + high / 2, 194 - cell / 2 - 6, y + high / 2)
        fig.cells(194 - cell / 2, y, [w[a]], "orange", cell, high, 15)
        fig.arrow(194 + cell / 2 + 4, y + high / 2, left + 2 * a * cell - 6, y + high / 2)
        fig.cells(left + 2 * a * cell, y, conv_transpose1d(w[a : a + 1], v), "orange", cell, high, 15)
    y = rows[-1] + high + 18
    fig.line(left, y - 8, left + len(once) * cell, y - 8, "ink")
    fig.text(left - 14, y + 3 + high / 2, "sum: the kernel at stride 4", "green", 13, "end")
    fig.cells(left, y + 2, once, "green", cell, high, 15)
    return fig


# -- chapter 6 -----------------------------------------------------------------------------------------------------------------------


def tents() -> Figure:
    x, s = np.array([1, 2, 3]), 2
    painted = conv_transpose1d(x, bilinear_filter(2 * s), s, s // 2)
    image = Tensor(np.stack([x, x])[None, None].astype(float))
    exact = F.interpolate(image, scale_factor=s, mode="bilinear").numpy()[0, 0, 0]
    fig = Figure(
        700,
        390,
        "Bilinear upsampling as a sum of tents",
        "Three tents of heights 1, 2 and 3 over three input pixels. Their sum at six output pixels is .75 1.25 1.75 2.25 2.75 2.25. "
        "Interpolation gives the same but for the first, 1, and the last, 3.",
    )
    unit, base = 164, 224

    def at(y: float, value: float) -> tuple[float, float]:
        return 104 + (y + 0.5) * unit, base - value * 62

    fig.line(*at(-1, 0), *at(3, 0))
    for i, height in enumerate(x):
        fig.polyline([at(i - 1, 0), at(i, height), at(i + 1, 0)], "blue")
    fig.polyline([at(-1, 0), *(at(i, v) for i, v in enumerate(x)), at(3, 0)], "green bold")
    for points in ([at(-0.5, x[0]), at(0, x[0])], [at(2, x[2]), at(2.5, x[2])]):
        fig.polyline(points, "purple bold dashed")
    for j, value in enumerate(painted):
        y = (j + 0.5) / s - 0.5
        fig.line(*at(y, 0), *at(y, value), "soft dashed")
        fig.dot(*at(y, value), "green", 5)
        if value != exact[j]:
            fig.dot(*at(y, exact[j]), "purple", 5)
    fig.text(at(-0.5, 0)[0] - 8, at(0, x[0])[1], "interpolation", "purple", 13, "end")
    fig.text(at(2.5, 0)[0] + 8, at(0, x[2])[1], "3, not 2.25", "purple", 13, "start")
    fig.text(at(0.42, 0)[0], at(0, 1.72)[1], "sum of the tents", "green", 13, "end")
    fig.text(at(-0.5, 0)[0] - 8, base + 33, "input", "blue", 13, "end")
    fig.cells(at(-0.5, 0)[0], base + 16, x, "blue", unit, 34, 15)
    fig.text(at(-0.5, 0)[0] - 8, base + 77, "transposed", "green", 13, "end")
    fig.cells(at(-0.5, 0)[0], base + 60, [f"{v:g}" for v in painted], "green", unit / s, 34, 15)
    fig.text(at(-0.5, 0)[0] - 8, base + 121, "interpolated", "purple", 13, "end")
    kinds = ["purple" if a == b else "purple bold" for a, b in zip(painted, exact, strict=True)]
    fig.cells(at(-0.5, 0)[0], base + 104, [f"{v:g}" for v in exact], kinds, unit / s, 34, 15)
    return fig


def gain() -> Figure:
    size, s = (3, 4), 2
    kernel = np.outer(bilinear_filter(2 * s), bilinear_filter(2 * s))[None, None]
    gains = F.conv_transpose2d(Tensor(np.ones((1, 1, *size))), Tensor(kernel), stride=s, padding=s // 2).numpy()[0, 0]
    fig = Figure(
        700,
        292,
        "What becomes of an image of ones",
        "Six by eight output pixels: 1 inside, 3/4 along the edges, 9/16 in the corners. Beside it a table of the gain at the edge and in "
        "the corner for the factors 2, 3, 4, 8, 16 and 32.",
    )
    cell, high, left, top = 47, 38, 20, 38
    fig.text(left + 4 * cell, 16, "factor 2, an image of 3x4 ones", "ink strong", 14)
    for i, j in np.ndindex(gains.shape):
        fig.pixel(left + j * cell, top + i * high, cell, high, float(gains[i, j]), Fraction(float(gains[i, j])))
    for i in range(size[0] + 1):
        fig.line(left, top + i * s * high, left + size[1] * s * cell, top + i * s * high, "plain")
    for j in range(size[1] + 1):
        fig.line(left + j * s * cell, top, left + j * s * cell, top + size[0] * s * high, "plain")
    x, rows = 440, (2, 3, 4, 8, 16, 32)
    for offset, words in ((24, "factor"), (122, "edge"), (214, "corner")):
        fig.text(x + offset, 16, words, "ink strong", 14)
    fig.line(x - 6, 30, x + 244, 30, "ink")
    for n, factor in enumerate(rows):
        y = 52 + n * 36
        taps = 2 * factor - factor % 2
        edge = conv_transpose1d(np.ones(3), bilinear_filter(taps) * 2 * factor, factor, factor // 2)[0]
        least = Fraction(round(edge), 2 * factor)
        fig.text(x + 24, y, factor)
        fig.text(x + 122, y, f"{least} = {float(least):.4g}")
        fig.text(x + 214, y, f"{float(least**2):.4g}")
    return fig


# -- chapter 7 -----------------------------------------------------------------------------------------------------------------------


def columns() -> Figure:
    x, w, y = np.array([1, 2, 3, 4]), np.array([1, 10, 100]), np.array([1, 2])
    unfolded = F.unfold(Tensor(x.reshape(1, 1, 1, 4)), (1, 3)).numpy()[0]
    table = np.outer(w, y)
    fig = Figure(
        700,
        350,
        "im2col and col2im",
        "Above: 1 2 3 4 is copied into the columns 1 2 3 and 2 3 4; the row 1 10 100 times them is 321 432. Below: the column 1 10 100 times "
        "the row 1 2 is a table of three by two, which is added up into 1 12 120 200.",
    )
    shared = ["blue", "blue bold", "blue bold", "blue"]
    cell = 42

    def diagonals(kind: str) -> list[list[str]]:
        """Taps times positions; entries of pixels that lie in both windows are bold."""
        return [[f"{kind} bold" if a + i in (1, 2) else kind for i in range(2)] for a in range(3)]

    fig.text(24, 18, "convolution: copy, then multiply", "ink strong", 14, "start")
    row = fig.cells(24, 82, x, shared, cell, 38, 15)
    _below(fig, row, "the image")
    fig.arrow(row.right + 10, 101, row.right + 76, 101)
    fig.text(row.right + 42, 88, "im2col", "ink", 13)
    weights = fig.matrix(row.right + 94, 82, w, "orange", cell, 38)
    _below(fig, weights, "the kernel")
    fig.text(weights.right + 16, 101, "·", "ink", 20)
    cols = fig.matrix(weights.right + 32, 44, unfolded, diagonals("blue"), cell, 38)
    _below(fig, cols, "one column a window")
    fig.text(cols.right + 20, 101, "=", "ink", 18)
    out = fig.matrix(cols.right + 40, 82, conv1d(x, w), "green", cell, 38)
    _below(fig, out, "the output")

    fig.text(24, 210, "transposed convolution: multiply, then add", "ink strong", 14, "start")
    back = fig.cells(24, 270, conv_transpose1d(y, w), ["green", "green bold", "green bold", "green"], cell, 38, 15)
    _below(fig, back, "the output")
    fig.arrow(back.right + 76, 289, back.right + 10, 289)
    fig.text(back.right + 42, 276, "col2im", "ink", 13)
    sums = fig.matrix(back.right + 94, 232, table, diagonals("plain"), cell, 38)
    fig.text(sums.right + 22, 289, "=", "ink", 18)
    kernel = fig.matrix(sums.right + 44, 232, w.reshape(3, 1), "orange", cell, 38)
    fig.text(kernel.right + 18, 289, "·", "ink", 20)
    source = fig.matrix(kernel.right + 36, 270, y, "blue", cell, 38)
    _below(fig, source, "the input")
    return fig


def _below(fig: Figure, place: Cells, words: str) -> None:
    fig.text((place.left + place.right) / 2, place.bottom + 16, words, "soft", 12)


def projection() -> Figure:
    p = matrix(lambda v: F.unfold(Tensor(v.reshape(1, 1, 1, 4)), (1, 3)), 4)
    gram = p.T @ p
    fig = Figure(
        700,
        276,
        "The matrix of im2col",
        "P has six rows, two for each of three taps, and four columns, one for each pixel; each row has one 1. Its transpose times P is "
        "diagonal with 1 2 2 1.",
    )
    cell, high, left, top = 40, 34, 200, 46
    fig.text(left + 2 * cell, 14, "*P*, four pixels to six entries", "ink strong", 14)
    place = fig.matrix(left, top, p, [["blue bold" if v else "" for v in row] for row in p], cell, high)
    for a in range(3):
        middle = place.y(2 * a + 0.5)
        fig.text(left - 96, middle, f"tap {a}", "orange", 14, "end")
        fig.line(left - 86, place.y(2 * a) - 10, left - 86, place.y(2 * a + 1) + 10, "orange")
        for i in range(2):
            fig.text(left - 16, place.y(2 * a + i), f"window {i}", "soft", 12, "end")
    x = left + 4 * cell + 116
    fig.text(x - 46, top + 3 * high, "*P*ᵀ*P* =", "ink", 17)
    fig.text(x + 2 * cell + 10, 14, "counts on the diagonal", "ink strong", 14)
    fig.matrix(x + 10, top + high, gram, [["green bold" if v else "" for v in row] for row in gram], cell, high)
    return fig


# -- chapter 8 -----------------------------------------------------------------------------------------------------------------------


def unpooling() -> Figure:
    image = np.array([[1, 5, 2, 0, 3, 4], [3, 2, 7, 1, 9, 6], [8, 0, 4, 4, 2, 5], [6, 2, 3, 1, 5, 1]])
    y, at = F.max_pool2d(Tensor(image[None, None].astype(float)), 2, return_indices=True)
    back = F.max_unpool2d(y, at, 2).numpy()[0, 0].astype(int)
    best, indices = y.numpy()[0, 0].astype(int), at.numpy()[0, 0]
    won = np.isin(np.arange(24), indices).reshape(4, 6)
    fig = Figure(
        700,
        220,
        "Pooling and unpooling",
        "The maxima of six windows of two by two are 5 7 9 and 8 4 5, at the indices 1 8 10 and 12 14 17. Unpooling puts them back there, "
        "zeros elsewhere.",
    )
    cell, top = 33, 40

    def grid(left: float, values: np.ndarray, kind: str) -> Cells:
        kinds = [[kind if w else "plain" for w in row] for row in won]
        place = fig.cells(left, top, values, kinds, cell)
        for i in (0, 2, 4):
            fig.line(left, top + i * cell, place.right, top + i * cell, "ink bold")
        for j in (0, 2, 4, 6):
            fig.line(left + j * cell, top, left + j * cell, place.bottom, "ink bold")
        return place

    left = grid(18, image, "blue bold")
    fig.text((left.left + left.right) / 2, 20, "the image", "ink strong", 14)
    middle = top + 2 * cell
    fig.arrow(left.right + 7, middle, left.right + 53, middle)
    fig.text(left.right + 29, middle - 14, "pool", "ink", 13)
    x, wide = left.right + 60, 48
    for i, j in np.ndindex(best.shape):
        fig.rect(x + j * wide + 1, middle - wide + i * wide + 1, wide - 2, wide - 2, "green")
        fig.text(x + (j + 0.5) * wide, middle - wide + i * wide + 16, best[i, j], "ink", 16)
        fig.text(x + (j + 0.5) * wide, middle - wide + i * wide + 36, f"at {indices[i, j]}", "soft", 12)
    fig.text(x + 1.5 * wide, 20, "maxima and indices", "ink strong", 14)
    fig.arrow(x + 3 * wide + 7, middle, x + 3 * wide + 53, middle)
    fig.text(x + 3 * wide + 29, middle - 14, "unpool", "ink", 13)
    right = grid(x + 3 * wide + 60, back, "blue bold")
    fig.text((right.left + right.right) / 2, 20, "every winner back", "ink strong", 14)
    first = divmod(int(indices[1, 1]), 6)
    fig.text(
        left.left,
        left.bottom + 20,
        f"a tie: the 4 at {6 * first[0] + first[1]} comes before the one at {indices[1, 1] + 1}",
        "soft",
        12,
        "start",
    )
    return fig


def sharing() -> Figure:
    row = np.array([1.0, 2, 5, 3, 0])
    y, at = F.max_pool2d(Tensor(row.reshape(1, 1, 1, 5)), (1, 3), (1, 2), return_indices=True)
    back = F.max_unpool2d(y, at, (1, 3), (1, 2)).numpy().ravel().astype(int)
    best, indices = y.numpy().ravel().astype(int), at.numpy().ravel()
    fig = Figure(
        700,
        240,
        "A pixel that wins two windows",
        "Left: the row 1 2 5 3 0 under two windows of three that share the 5; both keep it, with index 2. Right: unpooling adds the two "
        "fives to 10 at index 2.",
    )
    cell, bottom, top = 54, 140, 34

    def panel(left: float, values: np.ndarray, down: bool) -> None:
        fig.text(left + 2.5 * cell, 16, "unpooling: *G*ᵀ*y*" if down else "pooling: *Gx*", "ink strong", 14)
        for i, (value, index) in enumerate(zip(best, indices, strict=True)):
            middle = left + (2 * i + 1.5) * cell
            fig.cells(middle - cell / 2, top, [value], "green", cell, 36, 16)
            fig.text(
                middle + (-cell / 2 - 8 if i == 0 else cell / 2 + 8), top + 18, f"index {index}", "soft", 12, "end" if i == 0 else "start"
            )
            to = left + (index + 0.5) * cell + (-10 if i == 0 else 10)
            fig.arrow(*((middle, top + 38, to, bottom - 4) if down else (to, bottom - 4, middle, top + 40)), "green")
        kinds = ["blue bold" if j in indices else "plain" for j in range(5)]
        fig.cells(left, bottom, [int(v) for v in values], kinds, cell, 36, 16)

    panel(36, row, False)
    panel(394, back, True)
    for i in range(2):
        x, y0 = 36 + 2 * i * cell, bottom + 42 + 24 * i
        fig.rect(x + 2, y0, 3 * cell - 4, 20, "orange")
        fig.text(x + 1.5 * cell, y0 + 10, f"window {i}", "ink", 12)
    fig.text(394 + 2.5 * cell, bottom + 54, "5 + 5 = 10: added, not overwritten", "ink", 13)
    return fig


def last_window() -> Figure:
    fig = Figure(
        700,
        314,
        "The last window of ceil_mode",
        "Six pixels, windows of two, stride 3: a third window would begin behind the image and is dropped. Seven pixels: it holds one pixel and "
        "is kept. Five pixels with one of padding: it would begin in the padding on the right and is dropped.",
    )
    cell, left = 40, 30
    for n, (pixels, k, s, p) in enumerate(((6, 2, 3, 0), (7, 2, 3, 0), (5, 2, 3, 1))):
        y = 18 + n * 100
        floor = Window((1, k), (1, s), (0, p)).positions((1, pixels))[1]
        ceil = Window((1, k), (1, s), (0, p), ceil_mode=True).positions((1, pixels))[1]
        labels = ["−∞"] * p + [str(j) for j in range(pixels)] + ["−∞"] * p
        kinds = ["plain dashed"] * p + ["blue"] * pixels + ["plain dashed"] * p
        fig.cells(left, y, labels, kinds, cell, 34)
        for i in range(floor + 1):
            kept = i < ceil
            kind = "green" if kept else "red dashed"
            fig.rect(left + i * s * cell + 2, y + 40, k * cell - 4, 26, kind)
            fig.text(left + (i * s + k / 2) * cell, y + 53, f"window {i}", "ink", 12)
        words = f"{pixels} pixels" + (f", padding {p}" if p else "")
        fig.text(392, y + 17, words, "ink strong", 14, "start")
        last = f"window {floor} holds pixel {pixels - 1}: kept" if ceil > floor else f"window {floor} would hold no pixel: dropped"
        fig.text(392, y + 40, last, "green" if ceil > floor else "red", 13, "start")
        fig.text(392, y + 60, f"{floor} windows rounding down, {ceil} with ceil_mode", "soft", 12, "start")
    return fig


FIGURES = {
    "05-overlap": counting,
    "05-phase-sums": phase_sums,
    "05-checkerboard": checkerboard,
    "05-two-steps": two_steps,
    "06-tents": tents,
    "06-gain": gain,
    "07-im2col": columns,
    "07-matrix": projection,
    "08-unpooling": unpooling,
    "08-overlap": sharing,
    "08-ceil-mode": last_window,
}
