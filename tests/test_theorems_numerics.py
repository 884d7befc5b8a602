"""Theorems T22 and T23: Winograd's factorisation of a convolution, what it saves and what it costs; and how to check gradients by differences."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from theorems import Array, conv, conv_t, numbers

from minidcnn import Tensor, grad, use_kernels
from minidcnn import functional as F
from minidcnn.backend import Kernels
from minidcnn.backend.cpu.transforms import matrices
from minidcnn.testing import Conv, convs, integers, seeds
from minidcnn.window import Window

# -- Winograd ---------------------------------------------------------------------------------------------------------------------------


def winograd(points: Sequence[Fraction | int], taps: int) -> tuple[list[list[Fraction]], ...]:
    """(A^T, G, B^T) of F(m, taps) from n - 1 = m + taps - 2 points and infinity: Toom and Cook's product of polynomials, transposed.

    A polynomial of n coefficients is known from its values at n - 1 points and its leading coefficient; V takes them, V^-1 gives it back.
    The product of w and y is V^-1 [(V w) * (V y)]; read for fixed w as a matrix and transposed, that is the convolution.
    """
    n = len(points) + 1
    outputs = n + 1 - taps

    def values(size: int) -> list[list[Fraction]]:
        return [*([Fraction(p) ** i for i in range(size)] for p in points), [Fraction(int(i == size - 1)) for i in range(size)]]

    v = values(n)
    inverse = [[Fraction(int(i == j)) for j in range(n)] for i in range(n)]
    for i in range(n):  # Gauss and Jordan
        pivot = next(r for r in range(i, n) if v[r][i])
        v[i], v[pivot], inverse[i], inverse[pivot] = v[pivot], v[i], inverse[pivot], inverse[i]
        inverse[i], v[i] = [a / v[i][i] for a in inverse[i]], [a / v[i][i] for a in v[i]]
        for r in range(n):
            if r != i and v[r][i]:
                inverse[r] = [a - v[r][i] * b for a, b in zip(inverse[r], inverse[i], strict=True)]
                v[r] = [a - v[r][i] * b for a, b in zip(v[r], v[i], strict=True)]
    return [list(c) for c in zip(*values(outputs), strict=True)], values(taps), [list(c) for c in zip(*inverse, strict=True)]


def times(matrix: list[list[Fraction]], v: Any) -> list[Fraction]:
    return [sum((a * int(b) if isinstance(b, np.integer) else a * b for a, b in zip(r, v, strict=True)), Fraction(0)) for r in matrix]


@given(points=st.lists(st.integers(-4, 4), min_size=2, max_size=6, unique=True), data=st.data(), seed=seeds)
@example(points=[0, 1, -1], data=None, seed=0)
@example(points=[0, 1, -1, 2, -2], data=None, seed=0)
def test_t22_winograd_and_its_transpose(points: list[int], data: st.DataObject | None, seed: int) -> None:
    """C = A^T diag(G w) B^T, hence C^T = B diag(G w) A and the weight's gradient G^T diag(B^T x) A: each in m + taps - 1 multiplications."""
    taps = 3 if data is None else data.draw(st.integers(1, len(points)))
    a_t, g, b_t = winograd(points, taps)
    outputs, n = len(a_t), len(points) + 1
    x, w, y = numbers(n, seed), numbers(taps, seed + 1), numbers(outputs, seed + 2)
    a, b, g_t = ([list(c) for c in zip(*m, strict=True)] for m in (a_t, b_t, g))
    gw = times(g, w)
    assert len(gw) == outputs + taps - 1
    assert times(a_t, [p * q for p, q in zip(gw, times(b_t, x), strict=True)]) == conv(x, w).tolist()
    assert times(b, [p * q for p, q in zip(gw, times(a, y), strict=True)]) == conv_t(y, w).tolist()
    assert times(g_t, [p * q for p, q in zip(times(b_t, x), times(a, y), strict=True)]) == conv(x, y).tolist()


THIRDS = [Fraction(p) for p in ("0", "2/3", "-2/3", "3/2", "-3/2")]
FACTORS = {
    "two": winograd([0, 1, -1], 3),
    "four": winograd([0, 1, -1, 2, -2], 3),
    "thirds": winograd(THIRDS, 3),
    "i": matrices(4, 3, (0, 1, -1), True),
}


class Watched:
    """A number that counts its products with other such numbers; products with constants are free, as sums are."""

    products = 0

    def __init__(self, value: Fraction) -> None:
        self.value = value

    def __add__(self, other: Any) -> Watched:
        return Watched(self.value + (other.value if isinstance(other, Watched) else other))

    def __mul__(self, other: Any) -> Watched:
        Watched.products += isinstance(other, Watched)
        return Watched(self.value * (other.value if isinstance(other, Watched) else other))

    __radd__, __rmul__ = __add__, __mul__


def watched(shape: tuple[int, ...], seed: int) -> Array:
    return np.vectorize(lambda v: Watched(Fraction(int(v))), otypes=[object])(integers(shape, seed))


def values(array: Array) -> Array:
    return np.vectorize(lambda v: int(v.value), otypes=[np.int64])(array)


@pytest.mark.parametrize(("name", "products"), [("two", (16, 36)), ("four", (36, 144)), ("thirds", (36, 144)), ("i", (49, 144))])
def test_t22_multiplications_in_two_dimensions(name: str, products: tuple[int, int]) -> None:
    """A^T [(G w G^T) * (B^T x B)] A multiplies (m + 2)^2 times, with i (m + 3)^2, what the definition multiplies 9 m^2 times; the transpose as often."""
    a_t, g, b_t = (np.array(m, dtype=object) for m in FACTORS[name])
    m, n = len(a_t), b_t.shape[1]
    x, w, y = watched((n, n), 0), watched((3, 3), 1), watched((m, m), 2)
    counts = []
    Watched.products = 0
    out = a_t @ ((g @ w @ g.T) * (b_t @ x @ b_t.T)) @ a_t.T
    counts.append(Watched.products)
    back = b_t.T @ ((g @ w @ g.T) * (a_t.T @ y @ a_t)) @ b_t
    counts.append(Watched.products - counts[0])
    Watched.products = 0
    direct = np.array([[(x[i : i + 3, j : j + 3] * w).sum() for j in range(m)] for i in range(m)])
    counts.append(Watched.products)
    assert counts == [products[0], products[0], products[1]] == [len(g) ** 2, len(g) ** 2, 9 * m * m]
    xs, ws, ys = (Tensor(values(v)[None, None]) for v in (x, w, y))
    np.testing.assert_array_equal(values(out), F.conv2d(xs, ws).numpy()[0, 0])
    np.testing.assert_array_equal(values(direct), values(out))
    np.testing.assert_array_equal(values(back), F.conv_transpose2d(ys, ws).numpy()[0, 0])


def factored(x: Array, w: Array, factors: tuple[Any, ...], dtype: Any, rounded: Any = lambda v: v) -> Array:
    """x (N, C, H, W) convolved with w (O, C, 3, 3) tile by tile: A^T [(G w G^T) * (B^T x B)] A, with `rounded` factors."""
    a_t, g, b_t = (np.array(m, dtype) for m in factors)
    m, n = len(a_t), b_t.shape[1]
    out = np.empty((len(x), len(w), x.shape[2] - 2, x.shape[3] - 2), dtype)
    filters = rounded(g @ w @ g.T)
    for i in range(0, out.shape[2], m):
        for j in range(0, out.shape[3], m):
            tile = rounded(b_t @ x[:, :, i : i + n, j : j + n] @ b_t.T)
            out[:, :, i : i + m, j : j + m] = a_t @ (filters * tile[:, None]).sum(2) @ a_t.T
    return out


def test_t22_what_float32_pays() -> None:
    """On random tiles, over the error of the definition: 2, 11, 5 and 2.5 times; the sum of A^2 (G^2 summed) (D^2 summed) leaves out what transforms round."""
    rng = np.random.default_rng(22)
    ratios = []
    for _ in range(40):
        x, w = rng.standard_normal((64, 1, 18, 18), np.float32), rng.standard_normal((1, 1, 3, 3), np.float32)
        exact = F.conv2d(Tensor(x.astype(float)), Tensor(w.astype(float))).numpy()
        with use_kernels("reference"):
            direct = F.conv2d(Tensor(x), Tensor(w)).numpy()
        error = np.sqrt(np.square(direct - exact).mean())
        ratios.append([np.sqrt(np.square(factored(x, w, f, np.float32) - exact).mean()) / error for f in FACTORS.values()])
    for got, factors in zip(np.mean(ratios, 0), FACTORS.values(), strict=True):
        a_t, g, b_t = (np.square(np.array(m, float)) for m in factors)
        assert 1 < got / ((a_t @ (g.sum(1) * b_t.sum(1))).mean() / 3) < 1.5
    two, four, thirds, i = np.mean(ratios, 0)
    assert 1.6 < two < i < 3 and 4 < thirds < 7 and 9 < four < 15


def test_t22_what_the_engines_own_pays(rng: np.random.Generator) -> None:
    """The vector code of F(4, 3) over 16 channels, where the definition's own sums of 144 products round as well: about 2.5 times its error."""
    from minidcnn.backend.cpu import winograd as fast

    x, w = rng.standard_normal((4, 16, 22, 30), np.float32), rng.standard_normal((16, 16, 3, 3), np.float32)
    window, reference = Window((3, 3), padding=(1, 1)), Kernels(np)
    exact = reference.conv2d(x.astype(float), w.astype(float), None, window, (22, 30))
    direct, ours = (k.conv2d(x, w, None, window, (22, 30)) for k in (reference, fast))
    ratio = np.sqrt(np.square(ours - exact).mean() / np.square(direct - exact).mean())
    assert 1.5 < ratio < 4


def bf16(x: Array) -> Array:
    """x rounded to the nearest number of 8 bits of mantissa, in float64."""
    fraction, exponent = np.frexp(x)
    return np.ldexp(np.rint(fraction * 256), exponent - 8)


def test_t22_what_bf16_pays(rng: np.random.Generator) -> None:
    """Factors in bf16, sums exact: F(2, 3) loses 1.4 times what the definition loses, F(4, 3) 9 and 4.3 times, and with i 1.6 times."""
    assert bf16(np.array([1 + 2**-7, 1 + 2**-9, -3.14159])).tolist() == [1 + 2**-7, 1, -3.140625]
    x, w = np.maximum(rng.standard_normal((1, 64, 18, 18)), 0), rng.standard_normal((8, 64, 3, 3))
    exact = F.conv2d(Tensor(x), Tensor(w)).numpy()
    lost = [F.conv2d(Tensor(bf16(x)), Tensor(bf16(w))).numpy() - exact, *(factored(x, w, f, float, bf16) - exact for f in FACTORS.values())]
    direct, two, four, thirds, i = (np.sqrt(np.square(e).mean() / np.square(exact).mean()) for e in lost)
    assert 0.002 < direct < 0.003
    assert 1.2 < two / direct < i / direct < 1.8 and 3.5 < thirds / direct < 5 and 7 < four / direct < 12


# -- checking gradients -----------------------------------------------------------------------------------------------------------------


@given(case=convs(), seed=seeds, j=st.integers(0, 10))
def test_t23_differences_of_a_linear_function_are_exact(case: Conv, seed: int, j: int) -> None:
    """conv2d is linear in x and in w apart, so with whole numbers and h = 2^-j the central difference is the slope, bit for bit."""
    h = 2.0**-j
    x, w, v, u, g = (integers(shape, seed + i) for i, shape in enumerate((case.x, case.w, case.x, case.w, case.y)))
    a, b = Tensor(x, requires_grad=True), Tensor(w, requires_grad=True)
    dx, dw = grad(F.conv2d(a, b, **case.options), [a, b], g)

    def loss(x: Array, w: Array) -> float:
        return float(np.vdot(F.conv2d(Tensor(x), Tensor(w), **case.options).numpy(), g))

    assert (loss(x + h * v, w) - loss(x - h * v, w)) / (2 * h) == np.vdot(dx.numpy(), v)
    assert (loss(x, w + h * u) - loss(x, w - h * u)) / (2 * h) == np.vdot(dw.numpy(), u)


@pytest.mark.parametrize(("dtype", "step"), [(np.float64, 8.7e-6), (np.float32, 7.1e-3)])
@given(seed=seeds)
def test_t23_of_others_the_best_step_is_the_cube_root_of_three_eps(dtype: Any, step: float, seed: int) -> None:
    """The error of e^x is at most e^x (h^2 / 6 + eps / h) for reasonable h; least at h = (3 eps)^(1/3), thirty times h is worse, and a thirtieth."""
    eps = float(np.finfo(dtype).eps)
    best = (3 * eps) ** (1 / 3)
    assert abs(best - step) < step / 100
    x = np.random.default_rng(seed).uniform(0, 1, 200).astype(dtype)
    t = Tensor(x, requires_grad=True)
    (slope,) = grad(F.exp(t), t, np.ones_like(x))

    def error(h: float) -> Array:
        up, down = x + dtype(h), x - dtype(h)  # what the sums really are, rounded: the difference is divided by their distance
        difference = (F.exp(Tensor(up)).numpy() - F.exp(Tensor(down)).numpy()).astype(np.float64) / (up.astype(np.float64) - down)
        return abs(difference / slope.numpy() - 1)

    errors = {scale: error(scale * best) for scale in (1 / 30, 1, 30)}
    for scale, e in errors.items():
        h = scale * best
        assert (e <= 1.05 * h * h / 6 + 3 * eps / h).all()
    assert errors[1].mean() < errors[30].mean() / 30 and errors[1].mean() < errors[1 / 30].mean() / 5
