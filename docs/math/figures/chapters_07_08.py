"""Figures of chapters 7 and 8: im2col, pooling and unpooling.

As in chapters 0 to 4, what goes in is blue, the kernel orange, what comes out green.
"""

from __future__ import annotations

import numpy as np
from draw import Cells, Figure

from minidcnn import Tensor
from minidcnn import functional as F
from minidcnn.study import conv1d, conv_transpose1d, matrix
from minidcnn.window import Window

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
    "07-im2col": columns,
    "07-matrix": projection,
    "08-unpooling": unpooling,
    "08-overlap": sharing,
    "08-ceil-mode": last_window,
}
