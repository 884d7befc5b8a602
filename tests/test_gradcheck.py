"""The checkers must catch what they are there to catch."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from cupy_stand_in import make_module
from simulated import ON_DEVICE

import minidcnn
from minidcnn import Function, Tensor, check_adjoint, check_grads, no_grad
from minidcnn import functional as F
from minidcnn.backend import switch, to_backend
from minidcnn.probe import close
from minidcnn.recording import is_grad_enabled

X = np.array([0.7, -1.2, 2.0])


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


@pytest.mark.parametrize("size", [1, 10, 1000])
def test_an_error_of_ten_rtol_is_missed_by_about_one_seed_in_ten(size: int) -> None:
    x = np.random.default_rng(1).standard_normal(size)
    missed = 0
    for seed in range(40):
        with contextlib.suppress(AssertionError):
            check_grads(Wrong(2 * 1e-5), [x], 1, seed=seed)
            missed += 1
    assert missed <= 5
    check_grads(Wrong(2 * 1e-7), [x], 1)


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
    with pytest.raises(TypeError, match="Twice.vjp: the gradient of input 0 is float32, the input float64"):
        check_grads(Twice(lambda g: ((g * 2).astype("float32"),)), [np.ones(3)], 1)
    with pytest.raises(TypeError, match="got 2 of them"):
        check_grads(Twice(lambda g: (g * 2, g)), [np.ones(3)], 1)


def test_only_float64_is_precise_enough() -> None:
    for values, kind in ((np.ones(3, np.float32), "float32"), (np.arange(3), "int64"), ([1.0, 2.0], "list"), (1.0, "float")):
        with pytest.raises(ValueError, match=f"check_grads: input 1 is {kind}; differences need float64 arrays"):
            check_grads(lambda x, y: x + y, [np.ones(3), values])


def test_what_is_not_finite_is_never_accepted() -> None:
    for number in (np.nan, np.inf, -np.inf):
        one = np.array([1, number, 1])
        with pytest.raises(AssertionError, match=r"df/d0 is -?(nan|inf) at index \(1,\)"):
            check_grads(Twice(lambda g, one=one: (g * Tensor(2 * one),)), [X], 1)
        with pytest.raises(AssertionError, match="<a"):
            check_adjoint(lambda v, one=one: v * one, lambda v: v * 7, np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match=r"f is nan at index \(1,\); choose inputs at which it is finite"), np.errstate(invalid="ignore"):
        check_grads(F.log, [X])


@dataclass(frozen=True)
class Square(Function):
    """x^2, with a vjp for the test to say."""

    returns: Callable[[Tensor, Tensor], Any]
    needs_inputs = (0,)

    def forward(self, x):
        return x * x

    def vjp(self, g, x):
        return self.returns(g, x)


def test_the_gradient_that_higher_orders_differentiate_is_the_one_of_order_one() -> None:
    twofold = Square(lambda g, x: (g * x * (4 if is_grad_enabled() else 2),))
    check_grads(twofold, [X], 1)
    with pytest.raises(AssertionError, match=r"\(df/d0\) with create_graph=True differs from that without, most at index \(2,\)"):
        check_grads(twofold, [X], 2)


@pytest.mark.parametrize(
    ("f", "kind", "sentence"),
    [
        (lambda x: F.split(x, 1), TypeError, r"f must return one Tensor, got a tuple; check one at a time: lambda x: f\(x\)\[0\]"),
        (lambda x: x.numpy(), TypeError, "f must return one Tensor, got a ndarray; compute it with minidcnn's functions"),
        (lambda x: x.sum().item(), TypeError, "f must return one Tensor, got a float"),
        (lambda x: F.exp(x.astype("float32")), ValueError, "f returns float32; differences need float64 throughout"),
        (lambda x: F.argmax(x) if hasattr(F, "argmax") else x.argmax(), ValueError, "f returns int64"),
        (lambda x: F.dropout(x, 0.5), ValueError, r"f has other values each time it is called, .*eval\(\)"),
        (lambda x: F.dropout(x[:1], 0.5), ValueError, "f has other values each time it is called"),
        (lambda x: x[x.numpy() > 0.7], ValueError, r"f has shape \(1,\) and, a step further, \(2,\)"),
    ],
)
def test_an_f_that_cannot_be_checked_is_no_wrong_derivative(f, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=f"^check_grads: {sentence}"):
        check_grads(f, [X])


@pytest.mark.parametrize(
    ("arguments", "kind", "sentence"),
    [
        ((X,), TypeError, r"arrays must be a list with one array for each input of f, got one of shape \(3,\); write \[x\]"),
        ((X[None],), TypeError, r"got one of shape \(1, 3\)"),
        ((1.0,), TypeError, "got a float"),
        (([],), ValueError, "arrays is empty, so nothing would be checked"),
        (([X], 0), ValueError, "order must be at least 1, got 0"),
        (([X], 1.5), TypeError, "order must be an int, got 1.5"),
        (([X], 1, 0.0), ValueError, "step and rtol must be positive numbers, got 0.0 and 1e-06"),
        (([X], 1, 1e-4, np.inf), ValueError, "step and rtol must be positive numbers"),
    ],
)
def test_arguments(arguments: Any, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=f"^check_grads: .*{sentence}"):
        check_grads(F.exp, *arguments)


def test_the_message_says_which_order_which_input_which_element_and_what_may_be_wrong() -> None:
    off = np.ones((2, 3, 4))
    off[1, 0, 2] = 1.02
    x = np.random.default_rng(0).standard_normal(off.shape)
    with pytest.raises(
        AssertionError, match=r"^check_grads: df/d1 along a direction is .*; at index \(1, 0, 2\) alone [-.\de]+ and [-.\de]+$"
    ):
        check_grads(lambda y, x: y * Square(lambda g, x: (g * x * Tensor(2 * off),))(x), [x + 1, x], 1)
    with pytest.raises(AssertionError, match=r"d\(df/d0\)/dg along a direction is 0.0, .* Does .numpy\(\), .detach\(\) or no_grad\(\) cut"):
        check_grads(Square(lambda g, x: (Tensor(g.numpy()) * x * 2,)), [X])
    with pytest.raises(AssertionError, match=r"df/d0 along a direction is 0.0, .* cut it off"):
        check_grads(lambda x: Tensor(np.exp(x.numpy())), [X])
    with pytest.raises(AssertionError, match="or compute in less than float64 inside$"):
        check_grads(lambda x: F.exp(x.astype("float32")).astype("float64"), [X])


@dataclass
class Stateful(Function):
    """x^2, keeping x, or a count, on self."""

    counts: bool = False
    x: Any = None
    runs: int = 0

    def forward(self, x):
        self.x = x.copy()
        return x * x

    def vjp(self, g):
        self.runs += 1
        return (g * Tensor(self.x) * (1 + self.runs if self.counts else 2),)


def test_a_vjp_that_keeps_state_is_caught() -> None:
    for f in (Stateful(), Stateful(counts=True)):
        with pytest.raises(AssertionError, match="df/d0 is another, most at index .*, when it is taken again: a vjp must keep no state"):
            check_grads(f, [X], 1)
    check_grads(lambda x: Stateful()(x), [X], 1)


def write(array: Any, values: Any) -> Any:
    array[...] = values
    return array


@dataclass(frozen=True)
class Exponential(Function):
    """exp(x), whose vjp writes into the output."""

    needs_outputs = (0,)

    def forward(self, x):
        return np.exp(x)

    def vjp(self, g, y):
        y._array *= g._array
        return (Tensor(y._array),)


@pytest.mark.parametrize(
    ("f", "what"),
    [
        (Twice(lambda g: (Tensor(write(g._array, 2 * g._array)),)), "g"),  # right, unless somebody else needs g
        (Twice(lambda g: (write(g._array, 2 * g._array), g)[1:]), "g"),
        (lambda x: Tensor.wrap(write(x._array, x._array + 1)) * 0 + x, "input 0"),
        (Square(lambda g, x: (Tensor(write(x._array, 2 * g._array * x._array)),)), "input 0"),
        (Exponential(), "the output"),
    ],
)
def test_writing_into_what_others_hold_is_caught(f, what: str) -> None:
    with pytest.raises(AssertionError, match=f"f changes {what} in place, in forward or in a vjp; others may need it"):
        check_grads(f, [X], 1)


def row_major(array: Any) -> Any:
    """Wrong: the memory of an array, as if it were row-major."""
    return np.lib.stride_tricks.as_strided(array, array.shape, [8 * int(np.prod(array.shape[i + 1 :])) for i in range(array.ndim)])


def test_a_vjp_must_be_linear_in_g_and_read_it_by_its_strides() -> None:
    with pytest.raises(AssertionError, match="df/d0 is another, .* times -1024 for g times -1024: a vjp must be linear in g"):
        check_grads(Twice(lambda g: (F.clamp(g * 2, -50, 50),)), [X], 2)
    with pytest.raises(AssertionError, match="df/d0 is another, .* for a g that lies otherwise in memory: read it by its strides"):
        check_grads(Twice(lambda g: (Tensor(row_major(g._array)) * 2,)), [np.outer(X, X[:2])], 1)
    with pytest.raises(AssertionError, match="df/d0 is another, .* in sum for two g, each 0 where the other is not: a vjp must be linear"):
        check_grads(Twice(lambda g: (g * 2 * Tensor(np.sign(g.numpy()) ** 2 + (g.numpy() == 0).any()),)), [X], 1)


@dataclass(frozen=True)
class RowMajor(Function):
    """x^2, but of memory in any other order."""

    needs_inputs = (0,)

    def forward(self, x):
        return row_major(x) ** 2

    def vjp(self, g, x):
        return (g * Tensor(row_major(x._array)) * 2,)


def test_inputs_are_read_by_their_strides() -> None:
    with pytest.raises(
        AssertionError, match="f is another, most at .*, for inputs that lie otherwise in memory: read them by their strides"
    ):
        check_grads(RowMajor(), [np.outer(X, X[:2])], 1)


@dataclass(frozen=True)
class Buffered(Function):
    """2 x in memory of its own, which it uses again: as the output, or as the gradient."""

    output: bool
    buffer: Any

    def forward(self, x):
        return write(self.buffer, 2 * x) if self.output else 2 * x

    def vjp(self, g):
        return (g * 2 if self.output else Tensor.wrap(write(self.buffer, 2 * g._array)),)


def test_results_of_one_call_do_not_lie_where_the_next_call_writes() -> None:
    for output, name in ((True, "f"), (False, "df/d0")):
        with pytest.raises(AssertionError, match=f"check_grads: {name} lies in memory that a later call writes into; return a new array"):
            check_grads(Buffered(output, np.zeros(3)), [X], 1)


def test_a_gradient_is_the_same_whichever_inputs_require_one() -> None:
    def f(x: Tensor, y: Tensor) -> Tensor:
        return x * y if x.requires_grad and y.requires_grad else x * y.detach() + y * 0

    check_grads(lambda x, y: x * y, [X, X[::-1]], 3)
    with pytest.raises(AssertionError, match="df/d1 is another where no other input requires gradients"):
        check_grads(f, [X, X[::-1]], 1)


def test_values_are_the_same_whether_a_graph_is_recorded_or_not() -> None:
    with pytest.raises(AssertionError, match="f has other values where gradients are recorded than where not"):
        check_grads(lambda x: x * (2 if x.requires_grad else 3), [X], 1)


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e-3, 1e3, 1e6, 1e9, 1e12, 1e50])
def test_inputs_of_any_size(scale: float) -> None:
    check_grads(lambda x: x * x * x, [X * scale], 3)
    check_grads(lambda x: x * 2 + 1, [X * scale], 2)
    with pytest.raises(AssertionError, match="along a direction is"):
        check_grads(Wrong(1e-3), [X * scale], 1)


@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1e6, 1e12, 1e200])
def test_values_of_any_size(scale: float) -> None:
    check_grads(lambda x: scale * x * x * x, [X], 3)
    with pytest.raises(AssertionError, match="along a direction is"):
        check_grads(lambda x: scale * Wrong(1.0)(x), [X], 1)
    with pytest.raises(AssertionError, match=r"d\(df/d0\)/d0"):
        check_grads(lambda x: scale * WrongSecond()(x), [X], 2)


def test_rounding_is_no_wrong_derivative() -> None:
    """Where the derivative is 0 and all that f computes is what rounding left; and large constants, against which slopes are small."""
    x = np.random.default_rng(0).standard_normal((4, 25))
    for size in (1, 1e8):
        check_grads(lambda x: F.sum(x - F.mean(x)), [x * size])
    check_grads(lambda x: (x + 1) - 1 - x, [x])
    check_grads(lambda x, b: F.batch_norm(x + b, None, None, training=True), [x.reshape(4, 5, 5, 1), np.zeros((5, 1, 1))])
    check_grads(F.sigmoid, [np.array([30.0, -30.0])])
    check_grads(lambda x: x * x + 1e6, [x])
    with pytest.raises(AssertionError, match="along a direction is"):
        check_grads(lambda x: Wrong(0.1)(x) + 1e6, [x], 1)


def test_corners_and_fast_changes_near_by_are_no_wrong_derivatives() -> None:
    check_grads(F.relu, [np.array([1e-5, 1.0, -2.0])])
    check_grads(lambda x: F.exp(x * 1e4), [X * 1e-4])
    with np.errstate(invalid="ignore"):
        check_grads(F.log, [np.array([1e-4, 1.0])], 1)  # a step further it is not defined
    check_grads(lambda x: F.softmax(x, 0), [np.array([0.3, -np.inf, 1.0])])
    for x in (0.0, 1e-8):
        with pytest.raises(
            AssertionError, match=r"at index \(1,\) alone .* f may have a corner, a jump or an end so near \(move the inputs\)"
        ):
            check_grads(F.relu, [np.array([1.0, x, -2.0])])


def test_an_f_of_something_else_is_noticed() -> None:
    other = Tensor(X)
    with pytest.raises(ValueError, match="f does not depend on what it is given, so there is nothing to check"):
        check_grads(lambda x: F.exp(other), [X])
    check_grads(lambda x: Tensor(np.ones(2)), [np.zeros((0, 3))])


def test_one_wrong_element_among_many() -> None:
    x = np.random.default_rng(0).standard_normal(20_000)
    off = np.ones(x.size)
    off[777] = 1.1
    with pytest.raises(AssertionError, match=r"at index \(777,\) alone"):
        check_grads(Square(lambda g, x: (g * x * Tensor(2 * off),)), [x], 1)


def test_everything_that_is_right_passes() -> None:
    check_grads(lambda x: x, [X], 3)
    check_grads(lambda x, y: x * x, [X, X])  # nothing depends on y: its derivative is 0
    check_grads(lambda x: F.sign(x) + 0 * x, [X])
    check_grads(lambda x, y: x * x * y, [np.array(0.7), np.float64(2)], 3)
    check_grads(lambda x: x * x, [np.zeros((0, 3))], 3)
    check_grads(lambda x: x * x, [Tensor(X, requires_grad=True)], 3)
    check_grads(lambda x, y: x * y + F.exp(x), (a for a in (X, X[::-1])), 3)
    with no_grad():
        check_grads(F.exp, [X])
    with pytest.raises(AssertionError), no_grad():
        check_grads(Wrong(0.1), [X])
    with pytest.raises(AssertionError, match="along a direction is"):
        check_grads(Wrong(0.1), [np.array(0.7)])


@dataclass(frozen=True)
class Rows(Function):
    """The first two rows, in the memory of x."""

    view: bool

    def forward(self, x):
        return x[:2]

    def vjp(self, g):
        return (F.pad(g, (0, 0, 0, 1)),)


def test_a_function_that_returns_the_memory_of_its_input_must_say_so() -> None:
    """Else what is written into one is not known to have changed the other, and a backward pass that needs it is wrong."""
    x = np.outer(X, X[:2])
    check_grads(Rows(view=True), [x])
    check_grads(lambda x: x[:2].reshape(-1), [x])
    with pytest.raises(AssertionError, match="f lies in the memory of input 0; copy it, or set view = True in the Function"):
        check_grads(Rows(view=False), [x])


# -- adjoints -------------------------------------------------------------------------------------------------------------------------


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


def test_whole_numbers_of_small_dtypes_do_not_wrap_in_the_products() -> None:
    a, b = np.array([[1, 0], [0, 1]], np.int8), np.array([[1, 64], [64, 1]], np.int8)
    twos, hundreds = np.array([2, 2], np.int8), np.full(40, 100, np.uint8)
    with pytest.raises(AssertionError, match="<a"):
        check_adjoint(lambda v: a @ v, lambda v: b @ v, twos, twos)
    with pytest.raises(AssertionError, match=r"= 400000.0 but <x, b\(y\)> = 656000.0"):
        check_adjoint(lambda v: v, lambda v: v + np.uint8(64), hundreds, hundreds)
    half = np.array([300, 500], np.float16)  # whose products are more than float16 holds
    check_adjoint(lambda v: v, lambda v: v, half, half, rtol=0)
    many = np.array([2**31, 3], np.int64)
    check_adjoint(lambda v: v * 2, lambda v: v * 2, many, many, rtol=0)


def test_maps_that_write_into_what_they_get_do_not_hide_their_mistake() -> None:
    for a, b in ((lambda v: write(v, 2 * v), lambda v: 4 * v), (lambda v: 2 * v, lambda v: write(v, 4 * v))):
        with pytest.raises(AssertionError, match="<a"):
            check_adjoint(a, b, np.array([1.0, 2, 3]), np.array([1.0, 5, 2]))
    buffer = np.zeros(3)
    check_adjoint(lambda v: write(buffer, 2 * v), lambda v: write(buffer, 2 * v), X, X[::-1])


def test_adjoints_are_those_of_real_arrays() -> None:
    with pytest.raises(TypeError, match=r"check_adjoint: a\(x\) must be real numbers .* of dtype complex128"):
        check_adjoint(lambda v: v * 1j, lambda v: v, X, X)
    check_adjoint(lambda v: F.flip(Tensor(v), 0), lambda v: v[::-1], X, X)
    check_adjoint(lambda v: v, lambda v: v, np.zeros((0, 3)), np.zeros((0, 3)))


@pytest.mark.skipif(np.finfo(np.longdouble).maxexp < 16000, reason="no wider dtype than float64 here")
def test_products_that_float64_does_not_hold() -> None:
    for size in (1e-200, 1e200):
        check_adjoint(lambda v: v * 2, lambda v: v * 2, X * size, X * size)
        with pytest.raises(AssertionError, match=rf"e\{'-' if size < 1 else '+'}(399|400|401) but"):
            check_adjoint(lambda v: v * 2, lambda v: v * 3, X * size, X * size)


# -- on CuPy --------------------------------------------------------------------------------------------------------------------------


def test_arrays_of_cupy_are_checked_where_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    if not ON_DEVICE:
        monkeypatch.setitem(sys.modules, "cupy", make_module())
    monkeypatch.setattr(switch, "_made", {})
    where = []

    def f(x: Tensor, y: Tensor) -> Tensor:
        where.append((x.backend, y.backend))
        return F.exp(x) * y

    with minidcnn.use_kernels("reference"):
        there = to_backend(X, "cupy")
        check_grads(f, [there, to_backend(X[::-1].copy(), "cupy")], 3)
        with pytest.raises(AssertionError, match=r"at index \(\d,\) alone"):
            check_grads(Wrong(0.1), [there])
        check_adjoint(lambda v: v * 2, lambda v: v * 2, there, there)
        minidcnn.use("cupy")
        try:
            check_grads(f, [X, X[::-1]], 2)
        finally:
            minidcnn.use("numpy")
    assert set(where) == {("cupy", "cupy")}


def test_infinity_is_close_to_no_number() -> None:
    assert not close(np.array([np.inf]), np.array([1.0]), 1e-6)
