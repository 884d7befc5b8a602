"""The small module of docs/math: rows against sums written out, matrices against what they stand for."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from theorems import Line, lines, numbers

from minidcnn import Tensor
from minidcnn import functional as F
from minidcnn.study import conv1d, conv_transpose1d, matrix, overlap
from minidcnn.testing import seeds


@given(line=lines(), seed=seeds)
def test_rows_are_the_sums_of_their_docstrings(line: Line, seed: int) -> None:
    n = line.full - 2 * line.p + line.op
    x, w, y = numbers(n, seed), numbers(line.k, seed + 1), numbers(line.m, seed + 2)
    forward, back = [0] * line.m, [0] * n
    for i in range(line.m):
        for a in range(line.k):
            if 0 <= (j := i * line.s + a * line.d - line.p) < n:
                forward[i] += int(w[a] * x[j])
                back[j] += int(w[a] * y[i])
    assert conv1d(x, w, line.s, line.p, line.d).tolist() == forward
    assert conv_transpose1d(y, w, line.s, line.p, line.op, line.d).tolist() == back


def test_results_are_numpy_arrays_of_the_common_dtype() -> None:
    assert conv1d([1, 2, 3], [1, 10]).dtype == conv_transpose1d([1, 2, 3], [1, 10]).dtype == np.int64
    assert conv1d([1, 2, 3], [0.5, 0.25]).tolist() == [1, 1.75]
    assert conv_transpose1d([0.5, 0.25], [1, 2]).dtype == np.float64
    assert conv1d(np.ones(3, np.float32), np.ones(2, np.float32)).dtype == np.float32


@given(line=lines())
def test_overlap_counts_windows(line: Line) -> None:
    n = line.full - 2 * line.p + line.op
    counts = [sum((j + line.p - a * line.d) in range(0, line.m * line.s, line.s) for a in range(line.k)) for j in range(n)]
    assert overlap(line.m, line.k, line.s, line.p, line.op, line.d).tolist() == counts


def test_a_matrix_does_what_its_map_does() -> None:
    w = np.arange(12).reshape(2, 1, 3, 2)

    def f(x: np.ndarray) -> Tensor:
        return F.conv2d(Tensor(x), Tensor(w), stride=(2, 1), padding=(1, 0))

    x = np.arange(20).reshape(1, 1, 4, 5) ** 2 % 7
    c = matrix(f, (1, 1, 4, 5))
    assert c.shape == (2 * 2 * 4, 20) and c.dtype == np.int64
    assert (c @ x.ravel()).tolist() == f(x).numpy().ravel().tolist()


def test_matrices_of_rows_and_arrays() -> None:
    assert matrix(lambda x: conv1d(x, [1, 10, 100]), 4).tolist() == [[1, 10, 100, 0], [0, 1, 10, 100]]
    assert matrix(lambda y: conv_transpose1d(y, [1, 10, 100]), 2).tolist() == [[1, 0], [10, 1], [100, 10], [0, 100]]
    assert matrix(lambda x: x.T, (2, 3)).argmax(1).tolist() == [0, 3, 1, 4, 2, 5]
    assert matrix(lambda x: x.sum(), (2, 3)).tolist() == [[1] * 6]
    assert matrix(lambda x: x / 2, 1).tolist() == [[0.5]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conv1d([[1, 2]], [1]), r"conv1d: the image must be a list of numbers, got shape \(1, 2\)"),
        (lambda: conv1d([1, 2], 3), r"conv1d: the kernel must be a list of numbers, got shape \(\)"),
        (lambda: conv_transpose1d([], [1]), r"conv_transpose1d: the image must be a list of numbers, got shape \(0,\)"),
        (lambda: conv1d([1, 2], [1, 2, 3]), "does not fit"),
        (lambda: conv_transpose1d([1, 2], [1, 2, 3], 2, output_padding=2), "output_padding"),
        (lambda: matrix(lambda x: x, (2, 0)), r"matrix: a map from arrays of shape \(2, 0\) has no columns"),
    ],
)
def test_what_cannot_be_computed_says_why(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_fractions_are_refused_rather_than_rounded() -> None:
    with pytest.raises(TypeError, match="real numbers"):
        conv1d([Fraction(1, 2)], [1])
