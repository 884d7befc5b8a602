"""The matrices of the Winograd convolution F(4x4, 3x3), generated from the points at which polynomials are evaluated.

A 3-tap filter on 6 pixels gives 4 outputs. Filter and pixels are the coefficients of polynomials; their product is known from its values
at six points, infinity one of them: six multiplications where the definition needs twelve (Winograd 1980; Lavin & Gray, "Fast Algorithms for
Convolutional Neural Networks", 2016).

Any points would do. Of 0, p, -p, q, -q and infinity, p = 2/3 and q = 3/2 lose the fewest digits, less than half of what the usual 1 and 2 lose:
powers of both stay near 1 (docs/math/11-winograd.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import TypeAlias

Matrix: TypeAlias = Sequence[Sequence[Fraction]]

OUT, TAPS, POINTS = 4, 3, (0, Fraction(2, 3), Fraction(-2, 3), Fraction(3, 2), Fraction(-3, 2))
SIDE = OUT + TAPS - 1
XI = SIDE * SIDE  # products per tile, each a matrix product over all tiles


def matrices(outputs: int = OUT, taps: int = TAPS, points: tuple[Fraction | int, ...] = POINTS) -> tuple[Matrix, Matrix, Matrix]:
    """(A^T, G, B^T) of shapes (m, n), (n, r), (n, n) with n = m + r - 1, exact: y = A^T [(G w) * (B^T x)] is y_i = sum_j w_j x_(i+j).

    Row p of G evaluates the filter at point p, divided by the product of p's distances to the other points (Lagrange); the last row is
    the value at infinity, the leading coefficient. Column p of A^T are the powers of p. Row p of B^T are the coefficients of the
    polynomial with all other points as roots, the last one of that with all points as roots (Toom, Cook; Blahut 1985, section 5.2).
    """
    n = outputs + taps - 1
    finite = [Fraction(p) for p in points]

    def with_roots(roots: list[Fraction]) -> list[Fraction]:
        coefficients = [Fraction(1)]
        for root in roots:
            coefficients = [a - root * b for a, b in zip([Fraction(0), *coefficients], [*coefficients, Fraction(0)], strict=True)]
        return coefficients + [Fraction(0)] * (n - len(coefficients))

    others = [[q for q in finite if q != p] for p in finite]
    powers = [[p**i for i in range(n)] for p in finite]
    scale = [math.prod((p - q for q in rest), start=Fraction(1)) for p, rest in zip(finite, others, strict=True)]
    infinity = [[Fraction(int(i == size - 1)) for i in range(size)] for size in (outputs, taps)]
    a = [*(row[:outputs] for row in powers), infinity[0]]
    g = [*([v / f for v in row[:taps]] for row, f in zip(powers, scale, strict=True)), infinity[1]]
    b = [*(with_roots(rest) for rest in others), with_roots(finite)]
    return transposed(a), g, b


def transposed(matrix: Matrix) -> Matrix:
    return [list(row) for row in zip(*matrix, strict=True)]


A_T, G, B_T = matrices()
