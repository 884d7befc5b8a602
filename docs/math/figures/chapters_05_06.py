"""Figures of chapters 5 and 6: overlap, phase sums and spectra; bilinear upsampling.

As in chapters 0 to 4, what goes in is blue, the kernel orange, what comes out green.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from draw import Figure

from minidcnn import Tensor
from minidcnn import functional as F
from minidcnn.nn.init import bilinear_filter
from minidcnn.study import conv_transpose1d, overlap

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


def spectrum() -> Figure:
    """Of a line of 12 pixels that repeats, a flat one and two slow waves: what zeros make of its spectrum, and three kernels of that."""
    s, n = 2, 12
    turns = 2 * np.pi * np.arange(n) / n
    line = np.tile(5 + 7 * np.cos(turns) + 4 * np.cos(2 * turns), 3)
    panels = (
        ([1], "zeros inserted", "the waves around 0,", "and a copy around 1/2"),
        ([1, 1, 1], "then (1, 1, 1)", "a third of the copy", "is left: a chessboard"),
        ([1, 1], "then (1, 1)", "zero at 1/2: flat is", "clean, slopes are not"),
        ([1, 2, 1], "then (1, 2, 1)", "a double zero: flat", "and slopes are clean"),
    )
    fig = Figure(
        700,
        256,
        "What inserted zeros do to a spectrum, and kernels to that",
        "Four bar charts over the frequencies from -1/4 to 3/4. Zeros inserted: five bars around 0, and the same five around 1/2. After 1 1 1 "
        "the middle bar at 1/2 is a third of that at 0. After 1 1 the middle one is gone and its neighbours are not. After 1 2 1 hardly "
        "anything is left of all five. The absolute value of the kernel's polynomial is drawn over the bars: at 1/2 it is 1/3, 0 and 0.",
    )
    step, base, tall = 6, 172, 124
    for i, (w, title, *verdict) in enumerate(panels):
        left, count = 16 + i * 176, s * n
        kind = ("blue", "blue") if i == 0 else ("green", "red")
        period = conv_transpose1d(line, w, s)[count : 2 * count]  # of the middle copy: all that a kernel reaches is there
        waves = np.roll(np.abs(np.fft.fft(period)) / n / sum(w) / 5, count // 4)
        fig.text(left + count * step / 2, 18, title, "ink strong", 14)
        for at, height in enumerate(waves):
            if height > 1e-9:
                fig.rect(left + at * step, base - tall * height, step, tall * height, kind[at >= count // 2], 0)
        fig.line(left, base, left + count * step, base, "ink")
        if i:
            sizes = np.abs(np.fft.fft(w, 96)) / sum(w)
            fig.polyline([(left + (at / 4 + 0.5) * step, base - tall * sizes[at - 24]) for at in range(-2, 95)], "orange")
            fig.text(left + 16 * step, base - 0.8 * tall, "|*W*|", "orange", 13)
        for frequency, at in (("0", count // 4), ("1/2", 3 * count // 4)):
            x = left + (at + 0.5) * step
            fig.line(x, base, x, base + 5, "ink")
            fig.text(x, base + 17, frequency, "soft", 13)
        for row, words in enumerate(verdict):
            fig.text(left + count * step / 2, base + 46 + 18 * row, words, "ink", 13)
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


FIGURES = {
    "05-overlap": counting,
    "05-phase-sums": phase_sums,
    "05-checkerboard": checkerboard,
    "05-spectrum": spectrum,
    "05-two-steps": two_steps,
    "06-tents": tents,
    "06-gain": gain,
}
