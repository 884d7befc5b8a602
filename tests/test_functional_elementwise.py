"""Elementwise functions: PyTorch's values, dtypes and two orders of gradients with broadcasting; ties, zeros, NaN and refusals."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from peer import agree

from minidcnn import Tensor, check_grads, grad, no_grad
from minidcnn import functional as F
from minidcnn.testing import LAYOUTS, float_dtypes, integers, lay_out, seeds, tie_free

Array = np.ndarray[Any, Any]
NAN, INF = np.nan, np.inf

ONE: dict[str, Any] = {  # of one positive argument
    "neg": lambda F, x: F.neg(x),
    "exp": lambda F, x: F.exp(x),
    "log": lambda F, x: F.log(x),
    "log1p": lambda F, x: F.log1p(x),
    "sqrt": lambda F, x: F.sqrt(x),
    "abs": lambda F, x: F.abs(x - 1.5),
    "square": lambda F, x: F.square(x - 1.5),
    "sign": lambda F, x: F.sign(x - 1.5) * x,
    "pow 3": lambda F, x: F.pow(x - 1.5, 3),
    "pow 1": lambda F, x: F.pow(x, 1),
    "pow 0": lambda F, x: F.pow(x, 0) * x,
    "pow -1.5": lambda F, x: F.pow(x, -1.5),
    "2 pow x": lambda F, x: F.pow(2.0, x),
    "clamp": lambda F, x: F.clamp(x, 0.8, 2.1),
    "clamp min": lambda F, x: F.clamp(x * x, min=1.5),
    "clamp max": lambda F, x: F.clamp(x * x, max=1.5),
    "clamp crossed": lambda F, x: F.clamp(x, 2.0, 1.0) + x,
    "scalars": lambda F, x: (2 - x) / 3 + 1 / x - x / 8 + (x - 0.5) * -4,
}
TWO: dict[str, Any] = {  # of two positive arguments
    "add": lambda F, x, y: F.add(x * x, y, alpha=2.5),
    "sub": lambda F, x, y: F.sub(x, y * y, alpha=-3),
    "mul": lambda F, x, y: F.mul(x, y),
    "div": lambda F, x, y: F.div(x, y),
    "pow": lambda F, x, y: F.pow(x, y),
    "maximum": lambda F, x, y: F.maximum(x, y) * x,
    "minimum": lambda F, x, y: F.minimum(x, y) * y,
    "where": lambda F, x, y: F.where(x > y, x * y, y),
    "operators": lambda F, x, y: x * y - x / y + x**y - (-x) + abs(y - 1.5),
}


def positive(shape: tuple[int, ...], seed: int, dtype: Any = np.float64) -> Array:
    """Distinct numbers between 0.5 and 2.5, none of them 1.5."""
    return (tie_free(shape, seed) + 1.5).astype(dtype)


# -- values and gradients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ONE)
@given(shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4), seed=seeds, dtype=float_dtypes)
def test_functions_of_one_are_pytorchs(name: str, shape: tuple[int, ...], seed: int, dtype: Any) -> None:
    rtol = 1e-13 if dtype == np.float64 else 2e-6
    agree(ONE[name], positive(shape, seed, dtype), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", TWO)
@given(
    shapes=hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, min_side=0, max_side=3),
    seed=seeds,
    dtypes=st.tuples(float_dtypes, float_dtypes),
)
def test_functions_of_two_broadcast_and_promote_as_pytorchs(name: str, shapes: Any, seed: int, dtypes: Any) -> None:
    a, b = (positive(s, seed + i, d) for i, (s, d) in enumerate(zip(shapes.input_shapes, dtypes, strict=True)))
    b = b + b.dtype.type(0.0078125)  # where there are two of a kind, no ties between them
    rtol = 1e-13 if set(dtypes) == {np.dtype(np.float64)} else 5e-6
    agree(TWO[name], a, b, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", ONE)
def test_derivatives_of_one(name: str) -> None:
    check_grads(lambda x: ONE[name](F, x), [positive((3, 4), 0)], 2)


@pytest.mark.parametrize("name", TWO)
@pytest.mark.parametrize("shapes", [((2, 3), (2, 3)), ((2, 1), (3,)), ((), (2, 3)), ((4, 1, 3), (2, 1))], ids=str)
def test_derivatives_of_two(name: str, shapes: Any) -> None:
    check_grads(lambda x, y: TWO[name](F, x, y), [positive(shapes[0], 0), positive(shapes[1], 1) + 0.01], 2)


@pytest.mark.parametrize("shapes", [((2, 3), (3,), (2, 1)), ((3,), (2, 3), ()), ((1, 3), (2, 1), (2, 3))], ids=str)
def test_where_broadcasts_its_condition_too(shapes: Any) -> None:
    condition, a, b = integers(shapes[0], 0, np.int64) > 0, tie_free(shapes[1], 1), tie_free(shapes[2], 2)
    agree(lambda F, c, a, b: F.where(c, a * a, b), condition, a, b)
    check_grads(lambda a, b: F.where(Tensor(condition), a * a, b), [a, b], 2)
    agree(lambda F, c, a: F.where(c, a, 0.5), condition, a)
    agree(lambda F, c, a: F.where(c, 2, a), condition, a)
    np.testing.assert_array_equal(F.where(Tensor(condition.astype(np.float32)), Tensor(a), Tensor(b)).numpy(), np.where(condition, a, b))


# -- dtypes -----------------------------------------------------------------------------------------------------------------------

DTYPES = [np.bool_, np.uint8, np.int32, np.int64, np.float16, np.float32, np.float64]


@pytest.mark.parametrize("op", ["add", "mul", "div", "maximum", "where"])
@pytest.mark.parametrize("left", DTYPES)
def test_promotion_is_pytorchs(op: str, left: Any) -> None:
    """Of all pairs of dtypes, with and without axes: floats outrank integers, tensors with axes those without."""
    f = (lambda F, a, b: F.where(a > b, a, b)) if op == "where" else lambda F, a, b: getattr(F, op)(a, b)
    for right in DTYPES:
        for shapes in (((3,), (3,)), ((), (3,)), ((3,), ()), ((), ())):
            agree(f, np.ones(shapes[0], left), np.full(shapes[1], 1, right), order=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", [2, 2.5, True])
def test_a_python_number_never_promotes_within_its_kind(dtype: Any, number: float) -> None:
    x = np.ones(3, dtype)
    agree(lambda F, x: x + number, x, order=0)
    agree(lambda F, x: number * x, x, order=0)
    agree(lambda F, x: x / number, x, order=0, rtol=1e-7)
    agree(lambda F, x: F.where(x > 0, x, number), x, order=0)
    if dtype != np.bool_:
        if number is not True:  # PyTorch refuses to subtract from True
            agree(lambda F, x: number - x, x, order=0)
        agree(lambda F, x: F.add(x, x, alpha=2), x, order=0)
        agree(lambda F, x: -x, x, order=0)


@pytest.mark.parametrize("name", ["exp", "log", "log1p", "sqrt"])
def test_real_functions_of_integers_are_float32(name: str) -> None:
    for dtype in (np.uint8, np.int64, np.bool_):
        agree(lambda F, x: getattr(F, name)(x), np.array([1, 1, 1], dtype), order=0, rtol=1e-6)


def test_integers() -> None:
    for dtype in (np.uint8, np.int8, np.int64):
        a, b = np.array([0, 5, 100], dtype), np.array([5, 0, 100], dtype)
        agree(lambda F, a, b: F.minimum(a, b), a, b, order=0)
        agree(lambda F, a, b: F.maximum(a, b), a, b, order=0)
        agree(lambda F, a: F.clamp(a, min=3), a, order=0)
        agree(lambda F, a: F.clamp(a, 2, 50), a, order=0)
        agree(lambda F, a: F.clamp(a, 2.5, 50.25), a, order=0)
        agree(lambda F, a: F.abs(a), a, order=0)
        agree(lambda F, a: F.pow(a, 2), np.array([0, 3, 5], dtype), order=0)
        agree(lambda F, a, b: F.add(a, b, alpha=2), np.array([1, 2, 3], dtype), b, order=0)
        np.testing.assert_array_equal(F.add(Tensor(a), Tensor(b), alpha=0.5).numpy(), a + b.astype(np.float32) * 0.5)
    assert F.minimum(Tensor([True, False]), Tensor([True, True])).numpy().tolist() == [True, False]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout(layout: str) -> None:
    a, b = positive((2, 3, 4, 5), 0), positive((2, 3, 4, 5), 1)
    for f in TWO.values():
        y = f(F, Tensor.wrap(lay_out(a, layout)), Tensor.wrap(lay_out(b, layout)))
        np.testing.assert_allclose(y.numpy(), f(F, Tensor(a), Tensor(b)).numpy(), rtol=1e-15)


# -- corners ------------------------------------------------------------------------------------------------------------------------


def test_ties_share_the_gradient() -> None:
    values = np.array([1.0, 2.0, 3.0]), np.array([1.0, 5.0, 3.0])
    for f in (lambda F, a, b: F.maximum(a, b), lambda F, a, b: F.minimum(a, b)):
        agree(f, *values, order=1)
    x = Tensor(values[0], requires_grad=True)
    F.maximum(x, 2.0).sum().backward()
    assert x.grad.numpy().tolist() == [0.0, 0.5, 1.0]


def test_limits_belong_to_the_interval_of_clamp() -> None:
    assert F.clamp(Tensor([1, 2]), max=np.float32(1.5)).numpy().tolist() == F.clamp(Tensor([1, 2]), max=1.5).numpy().tolist() == [1.0, 1.5]
    agree(lambda F, x: F.clamp(x, -1.0, 2.0), np.array([-2.0, -1.0, 0.0, 2.0, 3.0]))
    agree(lambda F, x: F.clamp(x, -0.1, 0.1), np.array([-0.1, 0.1, 0.0], np.float32))  # 0.1 as float32 is above 0.1


def test_absolute_values_and_signs_at_zero() -> None:
    agree(lambda F, x: F.abs(x), np.array([-1.0, 0.0, 2.0]))
    agree(lambda F, x: F.sign(x), np.array([-1.0, 0.0, -0.0, 2.0]), order=0)
    agree(lambda F, x: F.sign(x), np.array([True, False]))


def test_booleans_are_numbers_where_a_number_stands_beside_them() -> None:
    x = Tensor([True, False])
    for y, expected, dtype in ((x**2, [1, 0], np.int64), (x**0.5, [1, 0], np.float32), (2**x, [2, 1], np.int64)):
        assert y.numpy().tolist() == expected and y.dtype == dtype
    assert F.clamp(x, max=0).numpy().tolist() == [False, False]


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 0.0, 2.0, 3.5])
def test_powers_at_zero_and_of_negative_numbers(exponent: float) -> None:
    x = np.array([0.0, 1.0]) if exponent == 3.5 else np.array([0.0, -1.5, 2.0])
    agree(lambda F, x: F.pow(x, exponent), x)
    agree(lambda F, x, y: F.pow(x, y), np.abs(x), np.full_like(x, exponent), order=1)


def test_the_derivatives_of_a_power_where_the_exponent_is_0() -> None:
    """d/db of b a^(b - 1) is 1/a there. PyTorch cuts it off; differences and the symmetry of second derivatives decide."""
    check_grads(F.pow, [np.array([2.0, 3.0, 0.5]), np.array([0.0, 1.0, 0.0])], 3)
    agree(lambda F, x, y: F.pow(x, y), np.array([0.0, np.inf, np.nan]), np.zeros(3), order=1)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_infinite_slopes_and_nan_are_pytorchs() -> None:
    special = np.array([0.0, -0.0, 1.0, -1.0, INF, -INF, NAN])
    for f in (
        lambda F, x: F.sqrt(x),
        lambda F, x: F.log(x),
        lambda F, x: F.log1p(x),
        lambda F, x: F.exp(x),
        lambda F, x: F.pow(x, -1),
        lambda F, x: 1 / x,
        lambda F, x: x / 4,
        lambda F, x: F.clamp(x, -0.5, 0.5),
        lambda F, x: F.clamp(x, min=0.0),
        lambda F, x: F.maximum(x, 0.5 * x),
    ):
        agree(f, special, order=1)
    agree(lambda F, x: F.pow(x, 0.5), np.array([0.0, 1.0, -1.0, INF, NAN]), order=1)
    agree(
        lambda F, a, b: F.pow(a, b),
        np.array([0.0, 0.0, 0.0, -0.0, 2.0, -2.0, INF]),
        np.array([-1.0, 0.0, -0.5, -2.0, 3.0, 3.0, -1.0]),
        order=1,
    )
    other = np.roll(special, 3)
    agree(lambda F, a, b: F.maximum(a, b), special, other, order=1)
    agree(lambda F, a, b: F.minimum(a, b), special, other, order=1)
    agree(lambda F, a, b: F.where(a > 0, a, b), special, other, order=1)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_infinite_slopes_behind_a_limit_do_not_reach_what_it_replaced() -> None:
    """Infinity times 0 is NaN: what is not selected gets 0, whatever the slope behind."""
    x, numbers = np.array([4.0, -1e-9, 1.0]), np.array([-INF, -1.0, -0.0, 0.0, 0.5, 1.0, 2.0, INF, NAN])
    pairs = [m.ravel() for m in np.meshgrid(numbers, numbers)]
    for f in (lambda F, x: F.sqrt(x), lambda F, x: F.log(x), lambda F, x: F.exp(x)):
        agree(lambda F, x, f=f: f(F, F.clamp(x, min=0)), x, order=1)
        agree(lambda F, x, f=f: f(F, F.clamp(x, 1, 0)), x, order=1)
        agree(lambda F, x, f=f: f(F, F.clamp(x, max=-1e-9)), x, order=1)
        agree(lambda F, x, f=f: f(F, F.maximum(x, 0.0 * x)), x, order=1)
        agree(lambda F, a, b, f=f: f(F, F.maximum(a, b)), *pairs, order=1)
        agree(lambda F, a, b, f=f: f(F, F.minimum(a, b)), *pairs, order=1)


def test_where_keeps_nan_and_infinity_of_the_other_side_out_of_the_gradient() -> None:
    x = Tensor(np.array([0.0, 4.0]), requires_grad=True)
    with np.errstate(all="ignore"):
        F.where(x > 0, F.log(F.where(x > 0, x, 1.0)), 0.0).sum().backward()
    assert x.grad.numpy().tolist() == [0.0, 0.25]


def test_quotients_of_large_and_small_numbers_have_finite_gradients() -> None:
    big, small = np.array([1e30], np.float32), np.array([1e-30], np.float32)
    agree(lambda F, a, b: F.div(a, b), big, big, order=1, rtol=1e-6, atol=0)
    agree(lambda F, a, b: F.div(a, b), small, small, order=1, rtol=1e-6, atol=0)


def test_log1p_of_small_numbers_keeps_its_digits() -> None:
    np.testing.assert_allclose(F.log1p(Tensor(np.array([1e-18, -1e-18]))).numpy(), [1e-18, -1e-18], rtol=1e-15)


@pytest.mark.parametrize("divisor", [2, -2, 0.25, 3, 7.0, 1024, 1e300, 5e-324, 2.0**-1074])
def test_division_by_a_number_is_exact(divisor: float) -> None:
    x = np.array([1.0, 3.0, -7.0, 0.0, 1e-300])
    with np.errstate(over="ignore", under="ignore"):
        np.testing.assert_array_equal((Tensor(x) / divisor).numpy(), x / divisor)


# -- in-place protection --------------------------------------------------------------------------------------------------------------


def test_a_condition_changed_before_backward_is_an_error() -> None:
    x, mask = Tensor(np.ones(3), requires_grad=True), Tensor([True, False, True])
    y = F.where(mask, x, 0.0)
    with no_grad():
        mask[0] = False
    with pytest.raises(RuntimeError, match="that Where needs was changed in place"):
        y.sum().backward()


def test_an_array_beside_a_tensor_is_copied() -> None:
    x, weights = Tensor(np.ones(3), requires_grad=True), np.array([1.0, 2.0, 3.0])
    y = x * weights
    weights[:] = 0
    (g,) = grad(y.sum(), x)
    assert g.numpy().tolist() == [1.0, 2.0, 3.0]


def test_results_never_share_memory_with_what_they_are_made_of() -> None:
    """Else writing into one would change the other behind the back of the graph."""
    x = Tensor(positive((3, 4), 0))
    for name, f in ONE.items():
        assert not np.shares_memory(f(F, x)._array, x._array), name
    for f in (lambda x: F.add(x, 0), lambda x: F.mul(x, 1), lambda x: F.div(x, 1), lambda x: F.pow(x, 1), lambda x: F.clamp(x, max=9.0)):
        assert not np.shares_memory(f(x)._array, x._array)


# -- refusals -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (
            lambda: Tensor(np.ones((2, 3))) + Tensor(np.ones((2, 4))),
            ValueError,
            r"add: shapes \(2, 3\) and \(2, 4\) do not broadcast; axes must be equal or 1, counted from the last",
        ),
        (lambda: F.div(Tensor(np.ones(2)), np.ones(3)), ValueError, r"div: shapes \(2,\) and \(3,\) do not broadcast"),
        (
            lambda: F.where(Tensor([True, False]), Tensor(np.ones(3)), 0.0),
            ValueError,
            r"where: shapes \(2,\) and \(3,\) do not broadcast",
        ),
        (lambda: F.clamp(Tensor([1.0])), ValueError, "clamp: give min, max or both"),
        (lambda: F.clamp(Tensor([1.0]), Tensor(0.5)), TypeError, "clamp: limits must be numbers, got Tensor; .* use maximum and minimum"),
        (lambda: F.clamp(Tensor([1.0]), 0, [2]), TypeError, "clamp: limits must be numbers, got list"),
        (lambda: -Tensor([True]), TypeError, "neg: a boolean has no negative; use x == False to invert it, or cast it with"),
        (lambda: operator.sub(Tensor([True]), Tensor([True])), TypeError, "sub: booleans have no difference; compare them with !="),
        (lambda: Tensor([True]) ** Tensor([True]), TypeError, "pow: booleans have no power; cast them with"),
        (lambda: True ** Tensor([True]), TypeError, "pow: booleans have no power"),
        (lambda: F.clamp(Tensor([True]), 2, 5), ValueError, "the number 2 does not fit a tensor of bool, 0 to 1; cast the tensor with"),
        (lambda: F.clamp(Tensor([True]), min=-1), ValueError, "the number -1 does not fit a tensor of bool, 0 to 1"),
        (lambda: Tensor([1.0]) + "1", TypeError, "Tensor: data must be real numbers .* got str of dtype <U1"),
        (lambda: Tensor([1.0]) * None, TypeError, "Tensor: data must be real numbers .* got NoneType of dtype object"),
    ],
)
def test_what_is_refused(make: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        make()


def test_numbers_that_an_integer_dtype_cannot_hold() -> None:
    x = Tensor(np.array([[1, 200, 7]], np.uint8))
    for make, number in (
        (lambda: x * -1, -1),
        (lambda: 300 + x, 300),
        (lambda: x - 256, 256),
        (lambda: x**-2, -2),
        (lambda: F.where(x > 1, x, -1), -1),
        (lambda: F.maximum(x, 300), 300),
        (lambda: F.clamp(x, min=-1), -1),
        (lambda: F.clamp(x, 0, 300), 300),
    ):
        with pytest.raises(ValueError, match=rf"^the number {number} does not fit a tensor of uint8, 0 to 255; cast the tensor with"):
            make()
    assert (x + 255 - 255).numpy().tolist() == [[1, 200, 7]]  # as NumPy's, uint8 goes round
    for quotient, expected in ((x / 400, [[0.0025, 0.5, 0.0175]]), (400 / x, [[400.0, 2.0, 400 / 7]]), (x / -2, [[-0.5, -100.0, -3.5]])):
        assert quotient.dtype == np.float32
        np.testing.assert_allclose(quotient.numpy(), expected, rtol=1e-6)
