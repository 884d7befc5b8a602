"""The checkers must catch what they are there to catch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from minidcnn import Function, Tensor, check_adjoint, check_grads
from minidcnn import functional as F


@dataclass(frozen=True)
class Wrong(Function):
    """x^2 with a derivative that is off by `error`."""

    error: float
    needs_inputs = (0,)

    def forward(self, x):
        return x * x

    def vjp(self, g, x):
        return (g * x * (2 + self.error),)


@dataclass(frozen=True)
class WrongSecond(Function):
    """x^3 whose first derivative is right and whose second, being cut off, is not."""

    needs_inputs = (0,)

    def forward(self, x):
        return x**3

    def vjp(self, g, x):
        return (g * Tensor(3 * x.numpy() ** 2),)


def test_a_wrong_gradient_is_caught_even_if_it_is_nearly_right() -> None:
    x = np.array([0.7, -1.2, 2.0])
    check_grads(Wrong(0.0), [x], 3)
    for error in (1.0, 1e-3, -1e-4):
        with pytest.raises(AssertionError, match="along a direction is"):
            check_grads(Wrong(error), [x], 1)


def test_a_wrong_second_order_is_caught_at_order_two_only() -> None:
    x = np.array([0.7, -1.2, 2.0])
    check_grads(WrongSecond(), [x], 1)
    with pytest.raises(AssertionError, match=r"d\(df/d0\)/d0"):
        check_grads(WrongSecond(), [x], 2)


@dataclass(frozen=True)
class Twice(Function):
    """2 x, with a vjp for the test to say."""

    returns: Callable[[Tensor], Any]

    def forward(self, x):
        return x * 2

    def vjp(self, g, *_):
        return self.returns(g)


def test_a_gradient_of_the_wrong_shape_or_dtype_is_caught() -> None:
    with pytest.raises(RuntimeError, match=r"Twice.vjp: the gradient of input 0 has shape \(1, 3\)"):
        check_grads(Twice(lambda g: (F.reshape(g * 2, (1, 3)),)), [np.ones(3)], 1)
    with pytest.raises(AssertionError, match=r"gradient of \(3,\) float32 for \(3,\) float64"):
        check_grads(Twice(lambda g: ((g * 2).astype("float32"),)), [np.ones(3)], 1)
    with pytest.raises(TypeError, match="got 2 of them"):
        check_grads(Twice(lambda g: (g * 2, g)), [np.ones(3)], 1)


def test_only_float64_is_precise_enough() -> None:
    for values, kind in ((np.ones(3, np.float32), "float32"), ([1.0, 2.0], "list"), (1.0, "float")):
        with pytest.raises(ValueError, match=f"check_grads: input 1 is {kind}; differences need float64 arrays"):
            check_grads(lambda x, y: x + y, [np.ones(3), values])


def test_check_adjoint_accepts_the_transpose_and_nothing_else(rng: np.random.Generator) -> None:
    a = rng.standard_normal((4, 3))
    x, y = rng.standard_normal(3), rng.standard_normal(4)
    check_adjoint(lambda v: a @ v, lambda v: a.T @ v, x, y)
    b = a.copy()
    b[2, 1] *= 1 + 1e-9
    with pytest.raises(AssertionError, match=r"<a\(x\), y> = "):
        check_adjoint(lambda v: a @ v, lambda v: b.T @ v, x, y)
    with pytest.raises(AssertionError, match=r"b\(y\) has \(4,\) for x of \(3,\)"):
        check_adjoint(lambda v: a @ v, lambda v: v, x, y)


def test_nan_is_never_accepted() -> None:
    @dataclass(frozen=True)
    class Nan(Function):
        def forward(self, x):
            return x * 2

        def vjp(self, g, *_):
            return (g * float("nan"),)

    with pytest.raises(AssertionError):
        check_grads(Nan(), [np.ones(2)], 1)
    with pytest.raises(AssertionError):
        check_adjoint(lambda v: v * np.nan, lambda v: v, np.ones(2), np.ones(2))
