"""What the theorems' tests share: one axis of a window, images of one row, maps as matrices.

Per axis: kernel k, stride s, padding p, dilation d, span K = d (k - 1) + 1, output_padding op; m positions on an image of n pixels. What is
special to one axis is tested on images of one row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minidcnn import Tensor
from minidcnn import functional as F
from minidcnn.testing import integers
from minidcnn.window import Window

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Line:
    """One axis: kernel k, stride s, padding p, dilation d, output_padding op, and the m pixels that a transposed convolution gets."""

    k: int
    s: int = 1
    p: int = 0
    d: int = 1
    op: int = 0
    m: int = 3

    @property
    def span(self) -> int:
        return self.d * (self.k - 1) + 1

    @property
    def full(self) -> int:
        """Size of the output before it is cropped."""
        return (self.m - 1) * self.s + self.span

    @property
    def window(self) -> Window:
        return Window((1, self.k), (1, self.s), (0, self.p), (1, self.d))

    def phase(self, r: int) -> list[int]:
        """The taps that reach every s-th pixel of the whole output from pixel r on."""
        return [a for a in range(self.k) if (a * self.d - r) % self.s == 0]


@st.composite
def lines(draw: st.DrawFn, kernels: int = 5, dilations: int = 3, m: int = 5, most_op: Any = lambda line: line.s - 1) -> Line:
    """A line whose output has at least one pixel; output_padding up to most_op(line)."""
    line = Line(draw(st.integers(1, kernels)), draw(st.integers(1, 4)), 0, draw(st.integers(1, dilations)), 0, draw(st.integers(1, m)))
    op = draw(st.integers(0, most_op(line)))
    p = draw(st.integers(0, (line.full + op - 1) // 2))
    return Line(line.k, line.s, p, line.d, op, line.m)


def row(numbers: Any) -> Tensor:
    return Tensor(np.asarray(numbers).reshape(1, 1, 1, -1))


def conv(x: Any, w: Any, s: int = 1, p: int = 0, d: int = 1) -> Array:
    return F.conv2d(row(x), row(w), stride=(1, s), padding=(0, p), dilation=(1, d)).numpy()[0, 0, 0]


def conv_t(y: Any, w: Any, s: int = 1, p: int = 0, op: int = 0, d: int = 1) -> Array:
    return F.conv_transpose2d(
        row(y), row(w), stride=(1, s), padding=(0, p), output_padding=(0, op), dilation=(1, d)
    ).numpy()[0, 0, 0]  # fmt: skip


def along(line: Line, y: Any, w: Any) -> Array:
    return conv_t(y, w, line.s, line.p, line.op, line.d)


def numbers(n: int, seed: int, most: int = 4) -> Array:
    return integers((n,), seed, np.int64, most)


def matrix(f: Any, n: int) -> Array:
    """The matrix of the linear map f from n numbers: its columns are the images of the unit vectors."""
    return np.stack([np.asarray(f(unit)) for unit in np.eye(n, dtype=np.int64)], 1)
