"""Sums, means, variances, extrema and logsumexp: PyTorch's values and two orders of gradients, over any axes; ties, empties, precision."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from peer import agree

from minidcnn import Tensor, check_adjoint, check_grads, grad, use_kernels
from minidcnn import functional as F
from minidcnn.testing import LAYOUTS, float_dtypes, lay_out, seeds, tie_free

Array = np.ndarray[Any, Any]

FUNCTIONS: dict[str, Any] = {
    "sum": lambda F, x, dim, keepdim: F.sum(x * x, dim, keepdim),
    "mean": lambda F, x, dim, keepdim: F.mean(x * x, dim, keepdim),
    "var": lambda F, x, dim, keepdim: F.var(x, dim, correction=0, keepdim=keepdim),
    "amax": lambda F, x, dim, keepdim: F.amax(F.exp(x), dim, keepdim),
    "amin": lambda F, x, dim, keepdim: F.amin(F.exp(x), dim, keepdim),
    "logsumexp": lambda F, x, dim, keepdim: F.logsumexp(x, dim, keepdim),
}
each_function = pytest.mark.parametrize("name", FUNCTIONS)


@st.composite
def shape_and_dim(draw: st.DrawFn) -> tuple[tuple[int, ...], Any]:
    """A shape and some of its axes: an int or a tuple, counted from either end."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=4))
    axes = draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    axes = [a - len(shape) if draw(st.booleans()) else a for a in axes]
    return shape, axes[0] if len(axes) == 1 and draw(st.booleans()) else tuple(axes)


# -- values and gradients -----------------------------------------------------------------------------------------------------------


@each_function
@given(case=shape_and_dim(), keepdim=st.booleans(), seed=seeds, dtype=float_dtypes)
def test_reductions_are_pytorchs(name: str, case: Any, keepdim: bool, seed: int, dtype: Any) -> None:
    shape, dim = case
    rtol = 1e-12 if dtype == np.float64 else 2e-6
    agree(lambda F, x: FUNCTIONS[name](F, x, dim, keepdim), tie_free(shape, seed, dtype), rtol=rtol, atol=rtol, grad_rtol=5 * rtol)


@each_function
@pytest.mark.parametrize("dim", [0, (1, 2), -1, (0, 1, 2)], ids=str)
def test_derivatives(name: str, dim: Any) -> None:
    check_grads(lambda x: FUNCTIONS[name](F, x, dim, False), [tie_free((3, 2, 4))], 3)


@pytest.mark.parametrize("name", ["sum", "mean", "var", "amax", "amin"])
def test_all_axes_are_the_default(name: str) -> None:
    x = tie_free((2, 3, 4))
    agree(lambda F, x: getattr(F, name)(x), x)
    assert getattr(F, name)(Tensor(x)).shape == ()
    assert getattr(F, name)(Tensor(x), None, keepdim=True).shape == (1, 1, 1)


def test_axes_may_be_numpys_integers_and_lists() -> None:
    x = tie_free((2, 3, 4))
    for dim in (np.int64(1), [0, 2], (np.int32(-1), 0)):
        expected = tuple(int(d) for d in dim) if isinstance(dim, list | tuple) else int(dim)
        np.testing.assert_array_equal(F.amax(Tensor(x), dim).numpy(), x.max(axis=expected))


def test_a_tensor_without_axes_reduces_to_itself() -> None:
    x = np.array(0.75)
    for dim in (0, -1):
        for f in (F.sum, F.mean, F.amax, F.amin, F.logsumexp):
            assert f(Tensor(x), dim).numpy() == 0.75
            agree(lambda F, x, f=f.__name__, dim=dim: getattr(F, f)(x, dim), x)


@pytest.mark.parametrize("correction", [0, 1, 2])
def test_var_divides_by_the_count_less_the_correction(correction: int) -> None:
    x = tie_free((3, 4, 5))
    for dim in (None, 0, (1, 2)):
        agree(lambda F, x, dim=dim: F.var(x, dim, correction=correction), x)
        np.testing.assert_allclose(F.var(Tensor(x), dim, correction).numpy(), x.var(dim, ddof=correction), rtol=1e-14)
    shifted = F.var(Tensor(x + 1e6)).item()  # two passes: nothing is lost to the mean
    np.testing.assert_allclose(shifted, x.var(ddof=1), rtol=1e-9)


@pytest.mark.parametrize("dim", [0, (0, 2), None], ids=str)
def test_sum_is_adjoint_to_broadcasting(dim: Any) -> None:
    leaf = Tensor(tie_free((3, 4, 2)), requires_grad=True)
    y = F.sum(leaf, dim)
    back = lambda v: grad(y, leaf, v, retain_graph=True)[0].numpy()
    check_adjoint(lambda v: F.sum(Tensor(v), dim).numpy(), back, tie_free((3, 4, 2), 1), tie_free(y.shape, 2))


# -- ties ---------------------------------------------------------------------------------------------------------------------------


@given(shape=hnp.array_shapes(min_dims=1, max_dims=3, max_side=4), seed=seeds)
def test_equal_extrema_share_the_gradient_evenly(shape: tuple[int, ...], seed: int) -> None:
    x = np.random.default_rng(seed).integers(0, 2, shape).astype(np.float64)
    for dim in (0, tuple(range(len(shape)))):
        agree(lambda F, x, dim=dim: F.amax(x, dim), x)
        agree(lambda F, x, dim=dim: F.amin(x, dim), x)
    leaf = Tensor(x, requires_grad=True)
    np.testing.assert_allclose(grad(F.amax(leaf, 0).sum(), leaf)[0].numpy().sum(0), 1, rtol=1e-15)


# -- precision ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernels", ["fast", "reference"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_sums_of_float32_lose_nothing(kernels: str, layout: str) -> None:
    """They are added up in float64 and rounded once: the exact sum, over every set of axes, in any layout, also of large arrays."""
    x = (tie_free((4, 3, 50, 41)) * 1000).astype(np.float32)
    exact = sum(map(Fraction, x.reshape(-1).tolist()))
    with use_kernels(kernels):
        array = Tensor.wrap(lay_out(x, layout))
        assert F.sum(array).dtype == np.float32
        assert F.sum(array).item() == np.float32(float(exact))
        for dim in (0, 1, (0, 2, 3), (2, 3), -1, (0, 1, 2, 3)):
            np.testing.assert_array_equal(F.sum(array, dim).numpy(), x.sum(axis=dim, dtype=np.float64).astype(np.float32))
            np.testing.assert_array_equal(
                F.sum(array, dim, keepdim=True).numpy(), x.sum(axis=dim, dtype=np.float64, keepdims=True).astype(np.float32)
            )


def test_the_mean_of_equal_numbers_is_that_number() -> None:
    for n in range(1, 200):
        assert F.mean(Tensor(np.ones(n))).item() == 1.0
        assert F.mean(Tensor(np.full((2, n), 7.0, np.float32)), 1).numpy().tolist() == [7.0, 7.0]
        assert n == 1 or F.var(Tensor(np.full(n, 3.0))).item() == 0.0


def test_logsumexp_neither_overflows_nor_underflows() -> None:
    for shift in (0.0, 1000.0, -1000.0):
        x = np.array([[1.0, 2.0, 3.0], [-5.0, 0.0, 5.0]])
        np.testing.assert_allclose(F.logsumexp(Tensor(x + shift), 1).numpy(), np.log(np.exp(x).sum(1)) + shift, rtol=1e-12)
        agree(lambda F, x: F.logsumexp(x, 1), x + shift)
        check_grads(lambda x: F.logsumexp(x, 0), [x + shift], 2)


def test_logsumexp_of_infinities() -> None:
    """As in PyTorch, but for a row that is all -inf, as masks make them: its gradient is 0, not NaN."""
    x = np.array([[-np.inf, -np.inf, -np.inf], [-np.inf, 0.0, 1.0], [3.0, -np.inf, -np.inf], [np.nan, 0.0, 1.0]])
    agree(lambda F, x: F.logsumexp(x, 1), x[1:], order=1)
    agree(lambda F, x: F.logsumexp(x[:3], (0, 1)), x, order=2)
    agree(lambda F, x: F.logsumexp(x, 1), x, order=0)
    np.testing.assert_array_equal(F.logsumexp(Tensor([[np.inf, 0.0], [np.inf, -np.inf]]), 1).numpy(), np.inf)
    leaf = Tensor(x[:1], requires_grad=True)
    F.logsumexp(leaf, 1).sum().backward()
    assert leaf.grad.numpy().tolist() == [[0.0, 0.0, 0.0]]


# -- dtypes and empties ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int8, np.int32, np.int64])
def test_integers_are_summed_as_int64(dtype: Any) -> None:
    x = np.ones((3, 100), dtype) * dtype(100 if dtype != np.bool_ else 1)
    for dim in (None, 0, 1):
        agree(lambda F, x, dim=dim: F.sum(x) if dim is None else F.sum(x, dim), x, order=0)
    assert F.sum(Tensor(x)).dtype == np.int64
    assert F.mean(Tensor(x)).dtype == np.float32
    assert F.mean(Tensor(x)).item() == x.mean()
    y = np.array([[5, 0, 3], [1, 7, 2]]).astype(dtype)
    agree(lambda F, x: F.amax(x, 1), y, order=0)
    agree(lambda F, x: F.amin(x, 1), y, order=0)
    agree(lambda F, x: F.logsumexp(x, 1), y, order=0, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@each_function
def test_dtypes_stay(name: str, dtype: Any) -> None:
    x = Tensor(tie_free((3, 4), 0, dtype), requires_grad=True)
    y = FUNCTIONS[name](F, x, 1, False)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == dtype
    exact = FUNCTIONS[name](F, Tensor(x.numpy().astype(np.float64)), 1, False)
    np.testing.assert_allclose(y.numpy(), exact.numpy(), rtol=20 * np.finfo(dtype).eps)


def test_empty_sums_are_zero_and_other_axes_may_be_empty() -> None:
    x = np.zeros((0, 3))
    for dim in (None, 0, 1):
        agree(lambda F, x, dim=dim: F.sum(x) if dim is None else F.sum(x, dim), x)
    for name, f in FUNCTIONS.items():
        assert f(F, Tensor(x), 1, False).shape == (0,), name
        if name != "var":  # of which PyTorch warns
            agree(lambda F, x, f=f: f(F, x, 1, False), x)


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda x: F.sum(x, 2), ValueError, r"sum: dim 2 is out of range for a tensor of 2 axes \(-2 to 1\)"),
        (lambda x: F.mean(x, (0, -3)), ValueError, r"mean: dim -3 is out of range for a tensor of 2 axes"),
        (lambda x: F.amax(x, (1, -1)), ValueError, r"amax: dim \(1, -1\) names an axis twice"),
        (lambda x: F.sum(x, 0.5), TypeError, "sum: dim must be an int, got 0.5"),
        (lambda x: F.sum(x, "0"), TypeError, "sum: dim must be an int, got '0'"),
        (lambda x: F.mean(x, 0), ValueError, r"mean: shape \(0, 3\) has no elements over dim 0"),
        (lambda x: F.var(x, 0, 0), ValueError, "var: 0 elements over dim 0 are too few for correction 0"),
        (lambda x: F.var(Tensor([1.0])), ValueError, "var: 1 elements over dim None are too few for correction 1; use correction=0"),
        (lambda x: F.amax(x, 0), ValueError, r"amax: shape \(0, 3\) has no elements over dim 0"),
        (lambda x: F.amin(x), ValueError, r"amin: shape \(0, 3\) has no elements over dim None"),
        (lambda x: F.logsumexp(x, (0, 1)), ValueError, r"logsumexp: shape \(0, 3\) has no elements over dim \(0, 1\)"),
    ],
)
def test_what_is_refused(make: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        make(Tensor(np.zeros((0, 3))))
