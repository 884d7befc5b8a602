"""Figures of chapters 0 to 4: windows, the matrix of a convolution, its transpose, sizes, and four algorithms for one map."""

from __future__ import annotations

from draw import Figure

from minidcnn.study import conv_transpose1d


def scatter_and_gather() -> Figure:
    """One map two ways: each input paints the kernel, or each output collects."""
    y, w = [1, 2, 3], [1, 10, 100]
    out = conv_transpose1d(y, w, 2).tolist()
    fig = Figure(
        700,
        250,
        "A transposed convolution paints",
        "Three pixels; each paints three numbers, two further right each time; the sums are the output.",
    )
    top = fig.cells(250, 20, y, "blue")
    for i, pixel in enumerate(y):
        row = fig.cells(90 + 2 * i * 52, 82 + 34 * i, [pixel * a for a in w], "orange", 52, 30)
        fig.curve(top.x(i), top.bottom, row.x(1), row.top)
    fig.cells(90, 200, out, "green", 52, 32)
    return fig


FIGURES = {"02-paint": scatter_and_gather}
