"""Nonlinearities, softmax and dropout: their definitions, derivatives to third order, PyTorch's numbers, extremes, layouts, seeds."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from peer import agree

import minidcnn
from minidcnn import Tensor, check_adjoint, check_grads, grad, use_kernels
from minidcnn import functional as F
from minidcnn.backend import Kernels, kernels_of, memory_order
from minidcnn.functional.activation import Dropout, LeakyGate, ReLUGate
from minidcnn.testing import LAYOUTS, float_dtypes, lay_out, layouts, seeds, tie_free

Array = np.ndarray[Any, Any]
both_kernels = pytest.mark.parametrize("kernels", ["fast", "reference"])

FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "relu": lambda f, x: f.relu(x),
    "leaky_relu": lambda f, x: f.leaky_relu(x, 0.3),
    "leaky_relu downwards": lambda f, x: f.leaky_relu(x, -0.5),
    "sigmoid": lambda f, x: f.sigmoid(x),
    "tanh": lambda f, x: f.tanh(x),
    "softmax": lambda f, x: f.softmax(x, 1),
    "softmax over the last": lambda f, x: f.softmax(x, -1),
    "log_softmax": lambda f, x: f.log_softmax(x, 1),
    "log_softmax over the first": lambda f, x: f.log_softmax(x, 0),
}
each = pytest.mark.parametrize("name", FUNCTIONS)
shapes = st.lists(st.integers(0, 4), min_size=1, max_size=4).map(tuple)


# -- derivatives -------------------------------------------------------------------------------------------------------------------


@each
def test_derivatives_to_third_order(name: str) -> None:
    for shape in ((2, 3, 4, 5), (3, 2), (1, 1, 1, 1)):
        check_grads(lambda x: FUNCTIONS[name](F, x), [tie_free(shape) * 2], 3)


@each
def test_they_agree_with_pytorch(name: str) -> None:
    for shape in ((2, 3, 4, 5), (4, 3), (1, 1, 1), (0, 3, 2, 4)):
        agree(FUNCTIONS[name], tie_free(shape) * 3)
        agree(FUNCTIONS[name], tie_free(shape, 1, np.float32) * 3, rtol=1e-6, atol=1e-7)


@both_kernels
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gates_are_their_own_adjoints(kernels: str, layout: str) -> None:
    x, g, h = (Tensor.wrap(lay_out(tie_free((2, 3, 4, 5), seed), layout)) for seed in range(3))
    with use_kernels(kernels):
        for gate in (ReLUGate(), LeakyGate(0.3)):
            check_adjoint(
                lambda v, gate=gate: gate(Tensor(v), x).numpy(), lambda v, gate=gate: gate(Tensor(v), x).numpy(), g.numpy(), h.numpy()
            )


def test_slopes_at_zero() -> None:
    x = Tensor(np.zeros(3), requires_grad=True)
    np.testing.assert_array_equal(grad(F.relu(x).sum(), x)[0].numpy(), 0)
    np.testing.assert_array_equal(grad(F.leaky_relu(x, 0.25).sum(), x)[0].numpy(), 0.25)
    agree(lambda f, x: f.leaky_relu(f.relu(x), 0.1), np.array([0.0, -0.0, 1.0, -1.0]))


# -- values --------------------------------------------------------------------------------------------------------------------------


@both_kernels
@each
@given(seed=seeds, dtype=float_dtypes, layout=layouts)
def test_layout_and_dtype_change_nothing_and_are_kept(kernels: str, name: str, seed: int, dtype: Any, layout: str) -> None:
    x = tie_free((2, 3, 4, 5), seed, dtype)
    with use_kernels(kernels):
        plain, y = FUNCTIONS[name](F, Tensor(x)), FUNCTIONS[name](F, Tensor.wrap(lay_out(x, layout)))
    assert y.dtype == dtype
    np.testing.assert_allclose(y.numpy(), plain.numpy(), rtol=4 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps)
    if layout in ("channels-last", "permuted"):
        assert memory_order(y._array) == memory_order(lay_out(x, layout))


@both_kernels
@given(shape=shapes, dtype=float_dtypes, layout=layouts, seed=seeds)
def test_relu_is_the_maximum_with_zero_bit_by_bit(kernels: str, shape: tuple[int, ...], dtype: Any, layout: str, seed: int) -> None:
    x, g = tie_free(shape, seed, dtype), tie_free(shape, seed + 1, dtype)
    with use_kernels(kernels):
        t = Tensor(lay_out(x, layout), requires_grad=True)
        y = F.relu(t)
        y.backward(lay_out(g, layout))
    np.testing.assert_array_equal(y.numpy(), np.where(x > 0, x, 0))
    np.testing.assert_array_equal(t.grad.numpy(), np.where(x > 0, g, 0))


@both_kernels
def test_relu_of_a_large_array_and_of_strange_numbers(kernels: str, rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, 20, 21, 22)).astype(np.float32)
    x[0, 0, 0, :4] = np.nan, np.inf, -np.inf, -0.0
    with use_kernels(kernels):
        y = F.relu(Tensor(x)).numpy()
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    assert np.isnan(y[0, 0, 0, 0]) and F.relu(Tensor([-2, 3])).numpy().tolist() == [0, 3]


def test_relu_keeps_its_output_only() -> None:
    """What follows keeps that array anyway, so ReLU costs no memory of its own."""
    x = Tensor(tie_free((2, 3, 4, 5)), requires_grad=True)
    y = F.relu(x * 2)
    assert [t._array is y._array for t, *_ in y._node.saved] == [True]


@given(seed=seeds, dtype=float_dtypes, shift=st.floats(-50, 50))
def test_softmax_sums_to_one_and_does_not_feel_a_shift(seed: int, dtype: Any, shift: float) -> None:
    x = tie_free((2, 5, 3, 4), seed, dtype) * 10
    y, moved = F.softmax(Tensor(x), 1).numpy(), F.softmax(Tensor(x + dtype.type(shift)), 1).numpy()
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(y.sum(1), 1, rtol=8 * eps)
    assert (y > 0).all()
    np.testing.assert_allclose(moved, y, rtol=200 * eps)  # x + shift is rounded, at 60 by up to 32 eps
    np.testing.assert_allclose(F.log_softmax(Tensor(x), 1).numpy(), np.log(y.astype(np.float64)), rtol=8 * eps, atol=8 * eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extremes_neither_overflow_nor_warn(dtype: Any) -> None:
    x = Tensor(np.array([[-1e4, 1e4, 0.0], [1e30, -1e30, 1e30], [-np.inf, 0.0, -np.inf]], dtype), requires_grad=True)
    np.testing.assert_array_equal(F.sigmoid(x).numpy(), [[0, 1, 0.5], [1, 0, 1], [0, 0.5, 0]])
    np.testing.assert_array_equal(F.softmax(x, 1).numpy(), [[0, 1, 0], [0.5, 0, 0.5], [0, 1, 0]])
    half = np.log(dtype(0.5))
    np.testing.assert_array_equal(
        F.log_softmax(x, 1).numpy(), np.array([[-2e4, 0, -1e4], [half, -2e30, half], [-np.inf, 0, -np.inf]], dtype)
    )
    for f in (F.sigmoid, F.tanh, lambda x: F.softmax(x, 1), F.relu, F.leaky_relu):
        assert np.isfinite(grad(f(x), x, np.ones((3, 3), dtype))[0].numpy()).all()
    small = F.sigmoid(Tensor(np.array([-80.0], dtype))).numpy()
    np.testing.assert_allclose(small, np.exp(dtype(-80)), rtol=1e-6)  # not cut off to 0, as 1 - 1/(1 + exp(x)) would be


def test_softmax_takes_a_dtype_and_a_scalar() -> None:
    x = tie_free((2, 3), 0, np.float32)
    agree(lambda f, x: f.softmax(x, 1, dtype=f.torch.float64 if hasattr(f, "torch") else np.float64), x, order=1, rtol=1e-6)
    assert F.softmax(Tensor(x), 1, np.float64).dtype == np.float64 and F.log_softmax(Tensor([1, 2]), 0, "float32").dtype == np.float32
    assert F.softmax(Tensor(3.0), 0).item() == 1 and F.log_softmax(Tensor(3.0), -1).item() == 0


# -- dropout ---------------------------------------------------------------------------------------------------------------------------


@both_kernels
@given(p=st.floats(0.05, 0.95), seed=seeds, dtype=float_dtypes)
def test_dropout_keeps_the_expectation(kernels: str, p: float, seed: int, dtype: Any) -> None:
    """Elements are 0 or exactly x / (1 - p), and as many are 0 as a binomial distribution allows."""
    minidcnn.manual_seed(seed)
    x = np.ones((4, 5, 30, 20), dtype)
    with use_kernels(kernels):
        y = F.dropout(Tensor(x), p).numpy()
    assert y.dtype == dtype and set(np.unique(y).tolist()) == {0.0, float(dtype.type(1 / (1 - p)))}
    sigma = (p * (1 - p) / x.size) ** 0.5
    assert abs((y == 0).mean() - p) < 5 * sigma
    assert abs(y.mean(dtype=np.float64) - 1) < 5 * sigma / (1 - p)


@both_kernels
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("f", [F.dropout, F.dropout2d])
def test_a_mask_is_a_function_of_the_seed_alone(kernels: str, f: Callable[..., Tensor], layout: str) -> None:
    """Not of layout, dtype or kernels; and backward, of any order, applies the same one."""
    x, g = tie_free((2, 3, 4, 5)), lay_out(tie_free((2, 3, 4, 5), 1), layout)
    minidcnn.manual_seed(3)
    with use_kernels("reference"):
        mask = f(Tensor(np.ones_like(x)), 0.4).numpy()
    assert 0 < (mask == 0).mean() < 1
    minidcnn.manual_seed(3)
    with use_kernels(kernels):
        t = Tensor(lay_out(x, layout), requires_grad=True)
        y = f(t, 0.4)
        (first,) = grad((y * y).sum() / 2, t, create_graph=True)
        (second,) = grad(first, t, g)
    np.testing.assert_array_equal(y.numpy(), x * mask)
    np.testing.assert_allclose(first.numpy(), x * mask**2, rtol=1e-15)
    np.testing.assert_allclose(second.numpy(), g * mask**2, rtol=1e-15)
    minidcnn.manual_seed(3)
    np.testing.assert_array_equal(f(Tensor(x.astype(np.float32)), 0.4).numpy() == 0, mask == 0)


def test_each_call_draws_anew_and_the_seed_repeats_them() -> None:
    x = Tensor(np.ones((20, 30)))
    minidcnn.manual_seed(5)
    first, second = F.dropout(x).numpy(), F.dropout(x).numpy()
    minidcnn.manual_seed(5)
    np.testing.assert_array_equal(F.dropout(x).numpy(), first)
    np.testing.assert_array_equal(F.dropout(x).numpy(), second)
    assert (first == second).mean() < 0.6


def test_masks_have_no_pattern(rng: np.random.Generator) -> None:
    """Neighbours, distances of powers of two and masks of neighbouring seeds are uncorrelated; all bits of the numbers are fair."""
    n = 1 << 16
    bits = Kernels(np).uniform_bits(11, n)
    assert bits.dtype == np.uint64 and bits.max() < 1 << 53 and len(np.unique(bits)) == n
    keep = np.where(bits < 1 << 52, 1.0, -1.0)
    other = np.where(Kernels(np).uniform_bits(12, n) < 1 << 52, 1.0, -1.0)
    for correlation in [keep.mean(), (keep * other).mean(), *(np.mean(keep[d:] * keep[:-d]) for d in (1, 2, 3, 16, 64, 1024, 4096))]:
        assert abs(correlation) < 5 / n**0.5
    for k in range(53):
        assert abs(((bits >> np.uint64(k)) & np.uint64(1)).mean() - 0.5) < 2.5 / n**0.5


def test_the_numbers_are_those_of_splitmix64() -> None:
    """The generator in plain integers, one number after the other, and the published first outputs for seed 1234567."""

    def numbers(state: int, count: int) -> list[int]:
        result, mod = [], 1 << 64
        for _ in range(count):
            state = (state + 0x9E3779B97F4A7C15) % mod
            z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % mod
            z = (z ^ (z >> 27)) * 0x94D049BB133111EB % mod
            result.append(z ^ (z >> 31))
        return result

    assert numbers(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    for seed in (0, 1234567, 2**63 - 1):
        assert Kernels(np).uniform_bits(seed, 7).tolist() == [z >> 11 for z in numbers(seed, 7)]


def test_dropout2d_drops_whole_channels() -> None:
    for shape in ((20, 30, 4, 5), (20, 30, 6)):
        y = F.dropout2d(Tensor(np.ones(shape, np.float32)), 0.25).numpy().reshape(600, -1)
        assert (y == y[:, :1]).all() and y.dtype == np.float32
        assert abs((y[:, 0] == 0).mean() - 0.25) < 5 * (0.25 * 0.75 / 600) ** 0.5


@pytest.mark.parametrize("f", [F.dropout, F.dropout2d])
def test_all_and_nothing(f: Callable[..., Tensor]) -> None:
    x = Tensor(tie_free((2, 3, 4, 5)), requires_grad=True)
    assert f(x, 0.0) is x and f(x, 0.5, training=False) is x and f(x, 1.0, False) is x
    y = f(x, 1.0)
    np.testing.assert_array_equal(y.numpy(), 0)
    np.testing.assert_array_equal(grad(y.sum(), x)[0].numpy(), 0)
    assert f(Tensor(np.ones((0, 3, 4, 5))), 0.5).shape == (0, 3, 4, 5)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4), (2, 3, 4, 5), (2, 1, 3, 2, 2), ()])
def test_dropout_is_linear_with_itself_as_adjoint(shape: tuple[int, ...]) -> None:
    drop, x, y = Dropout(0.4, 7, shape), tie_free(shape), tie_free(shape, 1)
    check_adjoint(lambda v: drop(Tensor(v)).numpy(), lambda v: drop(Tensor(v)).numpy(), x, y)
    check_grads(drop, [x], 3)


def test_the_mask_of_images_counts_channels_last() -> None:
    """So a kernel on channels-last memory draws it in memory order."""
    mask = kernels_of(np.zeros(1)).dropout_mask(0.5, 9, (2, 3, 4, 5), np.dtype(np.float64))
    flat = kernels_of(np.zeros(1)).dropout_mask(0.5, 9, (120,), np.dtype(np.float64))
    assert mask.transpose(0, 2, 3, 1).flags.c_contiguous
    np.testing.assert_array_equal(mask.transpose(0, 2, 3, 1).reshape(-1), flat)


# -- errors -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call, message", [
    (lambda: F.dropout(Tensor([1.0]), 1.5), "dropout: p must lie between 0 and 1, got 1.5"),
    (lambda: F.dropout(Tensor([1.0]), "0.5"), "dropout: p must lie between 0 and 1, got 0.5"),
    (lambda: F.dropout2d(Tensor(np.ones((1, 2, 3, 4))), -0.1, False), "dropout2d: p must lie between 0 and 1, got -0.1"),
    (lambda: F.dropout(Tensor([1.0]), float("nan")), "dropout: p must lie between 0 and 1, got nan"),
    (lambda: F.dropout2d(Tensor([1.0])), "dropout2d: input must be (N, C, H, W) or (N, C, L), got shape (1,); for elements use dropout"),
    (lambda: F.dropout(Tensor([1, 2])), 'dropout: input must be floating-point, got int64; convert it with .astype("float32")'),
    (lambda: F.softmax(Tensor([1, 2]), 0), "softmax: input must be floating-point, got int64"),
    (lambda: F.log_softmax(Tensor([1.0, 2.0]), 1), "log_softmax: dim 1 is out of range for a tensor of 1 axes (-1 to 0)"),
    (lambda: F.softmax(Tensor(1.0), 1), "softmax: dim 1 is out of range for a tensor of 1 axes"),
    (lambda: F.sigmoid(Tensor([True])), "sigmoid: input must be floating-point, got bool"),
    (lambda: F.tanh(Tensor([1])), "tanh: input must be floating-point, got int64"),
    (lambda: F.leaky_relu(Tensor([1])), "leaky_relu: input must be floating-point, got int64"),
])  # fmt: skip
def test_errors_are_sentences(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        call()


@pytest.mark.parametrize("f", [F.softmax, F.log_softmax, F.logsumexp], ids=lambda f: f.__name__)
def test_float16_does_not_overflow_over_more_numbers_than_it_can_count(f: Callable[..., Tensor]) -> None:
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 70_000)).astype(np.float16)
    half, single = Tensor(x, requires_grad=True), Tensor(x.astype(np.float32), requires_grad=True)
    for t in (half, single):
        y = f(t, 1)
        y.backward(np.random.default_rng(1).uniform(0.5, 1, y.shape).astype(np.float16))
        if t is half:
            result = y
    assert result.dtype == half.grad.dtype == np.float16
    np.testing.assert_array_equal(result.numpy(), y.numpy().astype(np.float16))
    np.testing.assert_allclose(half.grad.numpy(), single.grad.numpy(), rtol=2**-11, atol=2**-25)
