"""Figures of chapters 0 to 4: windows, the matrix of a convolution, its transpose, sizes, and four algorithms for one map.

What goes in is blue, the kernel orange, what comes out green, what is cropped or never reached is hatched.
"""

from __future__ import annotations

from collections.abc import Sequence

from draw import Figure

from minidcnn.study import conv1d, conv_transpose1d, matrix, overlap
from minidcnn.window import Window

DIGITS = [1, 10, 100]


def touched(position: int, k: int, s: int = 1, p: int = 0, d: int = 1) -> list[int]:
    """The pixels of a position's taps, as the window itself says."""
    window = Window((1, k), (1, s), (0, p), (1, d))
    return [columns.start + position * s - p for _, _, (_, columns) in window.each_tap((1, 1))]


# -- chapter 0 -----------------------------------------------------------------------------------------------------------------------


def window() -> Figure:
    n, k, s, p, cell = 7, 3, 2, 1, 44
    fig = Figure(
        700,
        316,
        "A window slides over an image",
        "Seven pixels, numbered 0 to 6, with one pixel of padding, -1 and 7, on each side. Four windows of three taps start at -1, 1, 3 and 5. "
        "Below, a window of three taps with dilation 2 touches the pixels 0, 2 and 4 and spans five.",
    )
    left = 150 + cell  # of pixel 0

    def at(pixel: int) -> float:
        return left + pixel * cell

    fig.text(20, 42, "pixels *j*", "soft", 13, "start")
    fig.cells(at(-1), 26, [-1], "plain dashed", cell, 32)
    fig.cells(at(0), 26, list(range(n)), "blue", cell, 32)
    fig.cells(at(n), 26, [n], "plain dashed", cell, 32)
    fig.text(at(-1) + cell / 2, 14, "padding", "soft", 12)
    fig.text(at(n) + cell / 2, 14, "padding", "soft", 12)
    (_, m) = Window((1, k), (1, s), (0, p)).positions((1, n))
    fig.text(20, 86, "stride 2:", "soft", 13, "start")
    for i in range(m):
        y = 72 + 36 * i
        for a, pixel in enumerate(touched(i, k, s, p)):
            fig.cells(at(pixel), y, [f"*w*{'₀₁₂'[a]}"], "orange", cell, 28)
        fig.text(at(n + 1) + 16, y + 14, f"*i* = {i}", "ink", 13, "start")
    y = 72 + 36 * m + 20
    fig.text(20, y + 14, "dilation 2:", "soft", 13, "start")
    taps = touched(0, k, d=2)
    fig.line(at(taps[0]) + cell / 2, y + 14, at(taps[-1]) + cell / 2, y + 14, "soft")
    for a, pixel in enumerate(taps):
        fig.cells(at(pixel), y, [f"*w*{'₀₁₂'[a]}"], "orange", cell, 28)
    fig.bracket(at(taps[0]), at(taps[-1] + 1), y + 40, "span *K* = 5")
    fig.text(at(n + 1) + 16, y + 14, "*i* = 0, *p* = 0", "ink", 13, "start")
    return fig


# -- chapter 1 -----------------------------------------------------------------------------------------------------------------------


def marked(entries: Sequence[Sequence[int]]) -> list[list[str]]:
    """Orange where the kernel is."""
    return [["orange" if value else "" for value in row] for row in entries]


def knobs() -> Figure:
    fig = Figure(
        720,
        420,
        "The matrix of a convolution, and what stride, padding and dilation do to it",
        "Plain: the kernel 1, 10, 100 in five rows, one column further right each time. Stride 2: three rows, two columns further each time. "
        "Padding 1: seven rows, the first and the last kernel cut off. Dilation 2: three rows, zeros between the taps.",
    )
    cell, row = 36, 24
    for x, y, words, options in (
        (56, 40, "plain", {}),
        (420, 40, "stride 2: every second row", {"stride": 2}),
        (56, 230, "padding 1: two columns cut off", {"padding": 1}),
        (420, 230, "dilation 2: zeros between the taps", {"dilation": 2}),
    ):
        c = matrix(lambda v, options=options: conv1d(v, DIGITS, **options), 7).tolist()
        fig.text(x, y - 18, words, "ink strong", 14, "start")
        place = fig.matrix(x, y, c, marked(c), cell, row)
        if "padding" in options:
            wider = matrix(lambda v: conv1d(v, DIGITS), 9).tolist()
            for column, side in ((0, place.left - cell - 10), (8, place.right + 10)):
                entries = [[line[column]] for line in wider]
                fig.cells(side, y, entries, [["plain dashed hatched" if value else "" for value in line] for line in entries], cell, row)
    return fig


def blocks() -> Figure:
    fig = Figure(
        660,
        190,
        "A convolution in two dimensions is a matrix of matrices",
        "On the left a kernel of two rows, 1 2 and 3 4. On the right a matrix of two by three blocks: the block made of the first row and the one "
        "made of the second beside it; below, the same two blocks one further right; zeros elsewhere.",
    )
    fig.text(62, 22, "kernel", "soft", 13)
    fig.cells(30, 60, [[1, 2], [3, 4]], [["orange"] * 2, ["orange bold"] * 2], 32)
    first, second = (matrix(lambda v, w=w: conv1d(v, w), 3).tolist() for w in ([1, 2], [3, 4]))
    zero = [[0] * 3] * 2
    grid = [[first, second, zero], [zero, first, second]]
    entries = [[value for block in line for value in block[i]] for line in grid for i in range(2)]
    shades = ["orange", "orange bold"]
    kinds = [
        [shades[1 if block is second else 0] if value else "" for block in line for value in block[i]] for line in grid for i in range(2)
    ]
    place = fig.matrix(200, 34, entries, kinds, 46, 32)
    for column in (3, 6):
        fig.line(place.left + column * 46, place.top - 6, place.left + column * 46, place.bottom + 6, "ink")
    fig.line(place.left - 8, place.y(1.5), place.right + 8, place.y(1.5), "ink")
    for column, words in ((1, "image row 0"), (4, "image row 1"), (7, "image row 2")):
        fig.text(place.x(column), 16, words, "soft", 12)
    for line, words in ((0.5, "output row 0"), (2.5, "output row 1")):
        fig.text(place.left - 14, place.y(line), words, "soft", 12, "end")
    return fig


# -- chapter 2 -----------------------------------------------------------------------------------------------------------------------


def transpose() -> Figure:
    fig = Figure(
        720,
        280,
        "The matrix of a convolution, and its transpose",
        "On the left three rows and seven columns, with the kernel 1, 10, 100 in the rows, two columns further right each time. On the right seven "
        "rows and three columns, with the kernel in the columns, two rows further down each time.",
    )
    cell, row = 40, 28
    c = matrix(lambda x: conv1d(x, DIGITS, 2), 7).tolist()
    c_t = matrix(lambda y: conv_transpose1d(y, DIGITS, 2), 3).tolist()
    fig.text(170, 22, "*C*: every output collects", "ink strong", 14)
    left = fig.matrix(30, 42, c, marked(c), cell, row)
    fig.text(530, 22, "*C*ᵀ: every input hands out", "ink strong", 14)
    right = fig.matrix(468, 42, c_t, marked(c_t), cell, row)
    fig.text(left.x(3), left.bottom + 20, "7 pixels *x* in", "soft", 13)
    fig.text(left.right + 22, left.y(1), "3 numbers *y* out", "soft", 13, "start")
    fig.text(right.right + 22, right.y(3), "7 pixels *x* out", "soft", 13, "start")
    fig.text(right.x(1), right.bottom + 20, "3 numbers *y* in", "soft", 13)
    return fig


def paint() -> Figure:
    y, s, cell = [1, 2, 3], 2, 54
    out = conv_transpose1d(y, DIGITS, s).tolist()
    fig = Figure(
        600,
        214,
        "A transposed convolution paints the kernel once for every input",
        "Three inputs, 1, 2 and 3. The first paints 1, 10, 100, the second 2, 20, 200 two pixels further right, the third 3, 30, 300. Below, the "
        "sums of the columns: 1, 10, 102, 20, 203, 30, 300.",
    )
    left = 190.0
    fig.text(57, 18, "input *y*", "soft", 13)
    fig.text(left + 3.5 * cell, 18, "painted on *x*", "soft", 13)
    fig.text(57, 186, "sum", "soft", 13)
    for j in range(len(out)):
        fig.line(left + (j + 0.5) * cell, 36, left + (j + 0.5) * cell, 164, "plain dashed")
    for i, pixel in enumerate(y):
        x, top = left + i * s * cell, 36 + 42 * i
        source = fig.cells(30, top, [pixel], "blue", cell, 32)
        fig.arrow(source.right + 4, top + 16, x - 3, top + 16)
        fig.cells(x, top, conv_transpose1d([pixel], DIGITS).tolist(), "orange", cell, 32)
    fig.line(left - 6, 164, left + len(out) * cell + 6, 164, "ink")
    meet = [len([i for i in range(len(y)) if j in touched(i, 3, s)]) > 1 for j in range(len(out))]
    fig.cells(left, 170, out, ["green bold" if two else "green" for two in meet], cell, 32)
    return fig


def triple() -> Figure:
    fig = Figure(
        640,
        290,
        "One trilinear form and its three maps",
        "In the middle the form T of x, w and y, with an arrow to each of the three. The arrow to y is the convolution of x with w, the arrow to x "
        "the transposed convolution of y with w, the arrow to w the gradient of the weight, from x and y.",
    )
    middle = (320, 150)
    fig.arrow(320, 128, 320, 62, "blue bold")
    fig.arrow(240, 172, 152, 234, "orange bold")
    fig.arrow(400, 172, 488, 234, "green bold")
    for x, y, words, hue in (
        (320, 40, "large image *x*", "blue"),
        (110, 256, "weight *w*", "orange"),
        (530, 256, "small image *y*", "green"),
    ):
        fig.rect(x - 75, y - 20, 150, 40, hue, 6)
        fig.text(x, y, words, "ink", 14)
    fig.rect(middle[0] - 118, middle[1] - 22, 236, 44, "plain", 6)
    fig.text(middle[0], middle[1], "*T*(*x*, *w*, *y*)", "ink", 15)
    fig.text(334, 96, "transposed convolution: *y* with *w*", "ink", 13, "start")
    fig.text(20, 184, "gradient of the weight:", "ink", 13, "start")
    fig.text(20, 204, "*x* with *y*", "ink", 13, "start")
    fig.text(620, 184, "convolution:", "ink", 13, "end")
    fig.text(620, 204, "*x* with *w*", "ink", 13, "end")
    return fig


# -- chapter 3 -----------------------------------------------------------------------------------------------------------------------


def staircase() -> Figure:
    fig = Figure(
        640,
        290,
        "Two sizes have the same number of positions",
        "Image sizes 5 to 12 from left to right, numbers of positions 2 to 5 upwards, for three taps at stride 2. Every step of the staircase is two "
        "sizes wide: 5 and 6 have 2 positions, 7 and 8 have 3, 9 and 10 have 4, 11 and 12 have 5. The first of each step is n0.",
    )
    sizes, cell, left, base = range(5, 13), 56, 130.0, 230.0
    window = Window((1, 3), (1, 2))
    for column, n in enumerate(sizes):
        x, m = left + column * cell, window.positions((1, n))[1]
        top = base - 44 * (m - 1)
        first = window.image_size((1, m))[1] == n
        fig.rect(x + 1, top, cell - 2, 40, "green" if first else "blue")
        fig.text(x + cell / 2, top + 20, "*n*₀" if first else "*n*₀ + 1", "ink", 13)
        fig.line(x + cell / 2, top + 42, x + cell / 2, base + 8, "plain dashed")
        fig.text(x + cell / 2, base + 20, n, "ink", 14)
    for m in range(2, 6):
        fig.text(left - 16, base - 44 * (m - 1) + 20, m, "ink", 14, "end")
    fig.text(left - 16, 42, "positions *m*", "soft", 13, "end")
    fig.text(left + 4 * cell, base + 42, "size *n* of the image", "soft", 13)
    return fig


def crop() -> Figure:
    fig = Figure(
        700,
        244,
        "padding and output_padding choose a part of the whole output",
        "The whole output 1, 10, 102, 20, 203, 30, 300. Padding 1 keeps the five in the middle. Padding 1 with output padding 1 keeps the last "
        "six. TensorFlow's SAME keeps the first six. Output padding 1 alone keeps all and appends a zero.",
    )
    y, s, cell, left = [1, 2, 3], 2, 44, 250.0
    whole = conv_transpose1d(y, DIGITS, s).tolist()
    fig.text(left - 16, 32, "the whole output", "ink strong", 13, "end")
    fig.cells(left, 16, whole, "green", cell, 32)
    rows = [
        ("padding=1", 1, conv_transpose1d(y, DIGITS, s, 1).tolist()),
        ("padding=1, output_padding=1", 1, conv_transpose1d(y, DIGITS, s, 1, 1).tolist()),
        ("TensorFlow, SAME", 0, whole[:6]),
        ("output_padding=1", 0, conv_transpose1d(y, DIGITS, s, 0, 1).tolist()),
    ]
    for line, (words, start, kept) in enumerate(rows):
        top = 66 + 44 * line
        fig.text(left - 16, top + 16, words, "ink", 13, "end")
        for j, value in enumerate(whole):
            if not start <= j < start + len(kept):
                fig.cells(left + j * cell, top, [value], "plain dashed hatched", cell, 32)
        for j, value in enumerate(kept, start):
            fig.cells(left + j * cell, top, [value], "green" if j < len(whole) else "plain dashed hatched", cell, 32)
        cut = (start, len(whole) - start - len(kept))
        fig.text(left + 8 * cell + 14, top + 16, "one empty" if cut[1] < 0 else f"cut: {cut[0]} and {cut[1]}", "soft", 12, "start")
    return fig


# -- chapter 4 -----------------------------------------------------------------------------------------------------------------------


def zero_insertion() -> Figure:
    fig = Figure(
        620,
        250,
        "A transposed convolution as a convolution of an image with zeros inserted",
        "The inputs 1, 2, 3 with a zero between them and two zeros on each side. Below it three of the seven positions of the flipped kernel 100, 10, "
        "1, at steps of one pixel, and their results 1, 10 and 102.",
    )
    cell, left = 46, 30.0
    spread = [0, 0, 1, 0, 2, 0, 3, 0, 0]
    fig.cells(left, 20, spread, ["blue" if value else "plain dashed" for value in spread], cell, 32)
    fig.text(left + 9 * cell + 18, 36, "*y* with zeros", "soft", 13, "start")
    flipped = DIGITS[::-1]
    results = conv1d(spread, flipped).tolist()
    for j in range(3):
        top = 78 + 44 * j
        fig.cells(left + j * cell, top, flipped, "orange", cell, 32)
        fig.arrow(left + (j + 3) * cell + 6, top + 16, left + 9 * cell + 12, top + 16)
        fig.cells(left + 9 * cell + 18, top, [results[j]], "green", cell, 32)
    fig.text(left + 3.5 * cell, 222, "and so on, one pixel at a time, to the seventh position", "soft", 13, "start")
    return fig


def phases() -> Figure:
    y, s, cell = [1, 2, 3], 2, 46
    whole = conv_transpose1d(y, DIGITS, s).tolist()
    hues = ["orange", "purple"]
    fig = Figure(
        680,
        204,
        "Every phase of the output has its own taps",
        "The kernel 1, 10, 100 is sorted: taps 0 and 2, the numbers 1 and 100, make the even outputs 1, 102, 203, 300; tap 1, the number 10, makes "
        "the odd ones 10, 20, 30. Interleaved: 1, 10, 102, 20, 203, 30, 300.",
    )
    left = 330.0
    fig.text(20, 18, "kernel *w*", "soft", 13, "start")
    fig.cells(20, 30, DIGITS, [f"{hues[a % s]}{' dashed' if a % s else ''}" for a in range(3)], 40, 32)
    fig.text(left, 18, "*y* = 1, 2, 3 painted without stride", "soft", 13, "start")
    for j in range(len(whole)):
        fig.line(left + (j + 0.5) * cell, 62 + 50 * (j % s), left + (j + 0.5) * cell, 152, hues[j % s])
    for r in range(s):
        kind, top = f"{hues[r]}{' dashed' if r else ''}", 30 + 50 * r
        taps = DIGITS[r::s]
        fig.text(200, top + 16, ("even:", "odd:")[r], "ink", 13, "end")
        last = fig.cells(208, top, taps, kind, cell, 32)
        fig.arrow(last.right + 6, top + 16, left + r * cell - 6, top + 16)
        for q, value in enumerate(conv_transpose1d(y, taps).tolist()):
            fig.cells(left + (s * q + r) * cell, top, [value], kind, cell, 32)
    fig.cells(left, 154, whole, [f"{hues[j % s]}{' dashed' if j % s else ''}" for j in range(len(whole))], cell, 32)
    fig.text(left - 16, 170, "interleaved", "soft", 13, "end")
    return fig


def dead() -> Figure:
    fig = Figure(
        560,
        320,
        "With stride 2 and dilation 2 three pixels in four are dead",
        "The output of three by four ones with three by three taps of ones, stride 2 and dilation 2: nine rows of eleven pixels. Numbers stand in even "
        "rows and even columns only, from 1 in the corners to 9 in the middle. All other pixels are hatched: nothing reaches them.",
    )
    rows, columns = overlap(3, 3, 2, dilation=2).tolist(), overlap(4, 3, 2, dilation=2).tolist()
    cells = [[a * b for b in columns] for a in rows]
    kinds = [["green" if value else "plain dashed hatched" for value in row] for row in cells]
    fig.cells(30, 16, [[value or None for value in row] for row in cells], kinds, 45, 32)
    return fig


FIGURES = {
    "00-window": window,
    "01-knobs": knobs,
    "01-blocks": blocks,
    "02-transpose": transpose,
    "02-paint": paint,
    "02-triple": triple,
    "03-staircase": staircase,
    "03-crop": crop,
    "04-zero-insertion": zero_insertion,
    "04-phases": phases,
    "04-dead": dead,
}
