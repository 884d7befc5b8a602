"""The matrices of the Winograd convolution F(4x4, 3x3), generated from the points at which polynomials are evaluated.

A 3-tap filter on 6 pixels gives 4 outputs. Filter and pixels are the coefficients of polynomials; their product is known from its values
at six points, infinity one of them: six multiplications where the definition needs twelve (Winograd 1980; Lavin & Gray, "Fast Algorithms for
Convolutional Neural Networks", 2016).

Any points would do. Of 0, p, -p, q, -q and infinity, p = 2/3 and q = 3/2 lose the fewest digits, less than half of what the usual 1 and 2 lose:
powers of both stay near 1. Where factors are rounded to bf16 and errors grow from layer to layer, better points are used still: 0, 1, -1, i, -i
and infinity, whose powers all have magnitude 1, lose half as much, for seven multiplications instead of six (docs/math/11-winograd.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TypeAlias

Matrix: TypeAlias = Sequence[Sequence[Fraction]]

OUT, TAPS, POINTS = 4, 3, (0, Fraction(2, 3), Fraction(-2, 3), Fraction(3, 2), Fraction(-3, 2))
SIDE = OUT + TAPS - 1  # pixels that a tile sees, along one axis
VALUES, BF16_VALUES = SIDE, SIDE + 1  # of a tile along one axis; the latter for images and weights in bf16


def matrices(
    outputs: int = OUT, taps: int = TAPS, points: tuple[Fraction | int, ...] = POINTS, imaginary: bool = False
) -> tuple[Matrix, Matrix, Matrix]:
    """(A^T, G, B^T) of shapes (m, q), (q, r), (q, n) with n = m + r - 1, exact: y = A^T [(G w) * (B^T x)] is y_i = sum_j w_j x_(i+j).

    Row p of G evaluates the filter at point p, divided by the product of p's distances to the other points (Lagrange); the last row is
    the value at infinity, the leading coefficient. Column p of A^T are the powers of p. Row p of B^T are the coefficients of the
    polynomial with all other points as roots, the last one of that with all points as roots (Toom, Cook; in Blahut 1985).
    q = n products, one more if `imaginary` puts i and -i beside the n - 3 points: see _imaginary.
    """
    n = outputs + taps - 1
    finite = [Fraction(p) for p in points]
    pair = [Fraction(1), Fraction(0), Fraction(1)] if imaginary else [Fraction(1)]  # x^2 + 1, lowest coefficient first

    def with_roots(roots: list[Fraction], first: list[Fraction] = pair) -> list[Fraction]:
        coefficients = first
        for root in roots:
            coefficients = [a - root * b for a, b in zip([Fraction(0), *coefficients], [*coefficients, Fraction(0)], strict=True)]
        return coefficients + [Fraction(0)] * (n - len(coefficients))

    others = [[q for q in finite if q != p] for p in finite]
    powers = [[p**i for i in range(n)] for p in finite]
    scale = [_dot(with_roots(rest), row) for rest, row in zip(others, powers, strict=True)]
    infinity = [[Fraction(int(i == size - 1)) for i in range(size)] for size in (outputs, taps)]
    a = [*(row[:outputs] for row in powers), infinity[0]]
    g = [*([v / f for v in row[:taps]] for row, f in zip(powers, scale, strict=True)), infinity[1]]
    b = [*(with_roots(rest) for rest in others), with_roots(finite)]
    if imaginary:
        more = _imaginary(with_roots(finite, [Fraction(1)]), with_roots(finite))
        for rows, size in ((a, outputs), (g, taps)):
            real, other = (_at_i(size, turn) for turn in (0, 3))
            rows[-1:-1] = [real, other, [p + q for p, q in zip(real, other, strict=True)]]
        largest = [max(map(abs, row)) for row in more]  # put into G, so that B^T holds whole numbers
        g[-4:-1] = [[v * f for v in row] for row, f in zip(g[-4:-1], largest, strict=True)]
        b[-1:-1] = [[v / f for v in row] for row, f in zip(more, largest, strict=True)]
    return transposed(a), g, b


def _imaginary(rest: list[Fraction], every: list[Fraction]) -> list[list[Fraction]]:
    """Three rows of B^T for the product of two polynomials at i: (a + b i)(c + d i) by the products a c, b d and (a + b)(c + d).

    rest, every: the coefficients of the polynomials with all real points as roots, and with i and -i as well. A polynomial e that is 1 at i
    and -i and 0 at the real points stands for the real part a c - b d, and x e for the other, (a + b)(c + d) - a c - b d (Karatsuba).
    """
    at_i = [_dot(rest, _at_i(len(rest), turn)) for turn in (0, 3)]  # rest at i: u + v i
    u, v = (part / (at_i[0] ** 2 + at_i[1] ** 2) for part in at_i)  # 1 / (u + v i) is u - v i with these
    e = [u * here - v * before for here, before in zip(rest, [Fraction(0), *rest[:-1]], strict=True)]
    shifted = [Fraction(0), *e[:-1]]
    x_e = [c - shifted[-1] * m for c, m in zip(shifted, every, strict=True)]  # modulo the polynomial with all points as roots
    return [[p - q for p, q in zip(e, x_e, strict=True)], [-p - q for p, q in zip(e, x_e, strict=True)], x_e]


def _at_i(size: int, turn: int) -> list[Fraction]:
    """The real parts of the powers of i, from the power `turn` on; with 3, the imaginary parts from 0 on."""
    return [Fraction((1, 0, -1, 0)[(k + turn) % 4]) for k in range(size)]


def _dot(a: Sequence[Fraction], b: Sequence[Fraction]) -> Fraction:
    return sum((p * q for p, q in zip(a, b, strict=True)), start=Fraction(0))


def transposed(matrix: Matrix) -> Matrix:
    return [list(row) for row in zip(*matrix, strict=True)]


A_T, G, B_T = matrices()
BF16_A_T, BF16_G, BF16_B_T = matrices(points=(0, 1, -1), imaginary=True)
