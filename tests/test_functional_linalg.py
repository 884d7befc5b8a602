"""Matrix products: PyTorch's values and two orders of gradients for every pair of shapes, exact in whole numbers, and the refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from peer import agree

from minidcnn import Tensor, check_adjoint, check_grads, grad
from minidcnn import functional as F
from minidcnn.testing import LAYOUTS, integers, lay_out, seeds, tie_free

Array = np.ndarray[Any, Any]

SHAPES = [
    ((3, 4), (4, 2)),
    ((4,), (4,)),
    ((4,), (4, 2)),
    ((3, 4), (4,)),
    ((2, 3, 4), (4, 5)),
    ((3, 4), (2, 4, 5)),
    ((2, 3, 4), (2, 4, 5)),
    ((5, 1, 3, 4), (2, 4, 1)),
    ((1, 3, 4), (2, 4, 5)),
    ((4,), (2, 4, 3)),
    ((2, 3, 4), (4,)),
    ((1, 1), (1, 1)),
]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_matmul_is_pytorchs(shapes: Any) -> None:
    a, b = tie_free(shapes[0]), tie_free(shapes[1], 1)
    agree(lambda F, a, b: F.matmul(a, b), a, b)
    agree(lambda F, a, b: a @ b, a.astype(np.float32), b.astype(np.float32), rtol=2e-6, atol=2e-6)
    check_grads(F.matmul, [a, b], 3)


@st.composite
def factors(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes (..., M, K) and (..., K, N) whose leading axes broadcast; any of them may be 0 or missing."""
    leading = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=2, min_side=0, max_side=3)).input_shapes
    m, k, n = (draw(st.integers(0, 4)) for _ in range(3))
    left = (*leading[0], m, k) if draw(st.booleans()) else (k,)
    right = (*leading[1], k, n) if draw(st.booleans()) else (k,)
    return left, right


@given(shapes=factors(), seed=seeds, layout=st.sampled_from(LAYOUTS), dtype=st.sampled_from([np.float64, np.float32, np.int64]))
def test_matmul_is_the_sum_of_products_exactly(shapes: Any, seed: int, layout: str, dtype: Any) -> None:
    a, b = integers(shapes[0], seed, dtype), integers(shapes[1], seed + 1, dtype)
    y = F.matmul(Tensor.wrap(lay_out(a, layout)), Tensor.wrap(lay_out(b, layout)))
    left, right = a if a.ndim > 1 else a[None], b if b.ndim > 1 else b[:, None]
    expected = (left[..., :, :, None].astype(np.int64) * right[..., None, :, :].astype(np.int64)).sum(-2)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.numpy().reshape(-1), expected.reshape(-1))
    assert y.shape == np.matmul(a, b).shape


@given(shapes=factors(), seed=seeds)
def test_matmul_is_adjoint_to_its_gradients(shapes: Any, seed: int) -> None:
    """<a b, y> = <a, grad a> = <b, grad b>, in whole numbers: the product is linear in each factor."""
    a, b = Tensor(integers(shapes[0], seed), requires_grad=True), Tensor(integers(shapes[1], seed + 1), requires_grad=True)
    product = a @ b
    y = integers(product.shape, seed + 2)
    left, right = grad(product, [a, b], y)
    assert np.vdot(product.numpy(), y) == np.vdot(a.numpy(), left.numpy()) == np.vdot(b.numpy(), right.numpy())


def test_arrays_count_as_constants() -> None:
    a, b = tie_free((3, 4)), tie_free((4, 2), 1)
    x = Tensor(b, requires_grad=True)
    y = a @ x
    np.testing.assert_allclose(y.numpy(), a @ b, rtol=1e-14)
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.broadcast_to(a.sum(0)[:, None], (4, 2)), rtol=1e-13)


@pytest.mark.parametrize(
    "dtypes", [(np.float32, np.float64), (np.float64, np.float32), (np.int64, np.float32), (np.float16, np.float32)], ids=str
)
def test_factors_of_two_dtypes_promote(dtypes: Any) -> None:
    """PyTorch refuses them; here the rule is that of every other operator."""
    a, b = Tensor(integers((3, 4), 0, dtypes[0])), Tensor(integers((4, 2), 1, dtypes[1]), requires_grad=True)
    y = a @ b
    assert y.dtype == (a[0, 0] * b[0, 0]).dtype
    np.testing.assert_array_equal(y.numpy(), a.numpy().astype(np.float64) @ b.numpy().astype(np.float64))
    y.sum().backward()
    assert b.grad.dtype == dtypes[1]


# -- linear -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4), (0, 4), (2, 1, 3, 4)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_pytorchs(shape: tuple[int, ...], bias: bool) -> None:
    arrays = [tie_free(shape), tie_free((5, 4), 1), tie_free((5,), 2)][: 3 if bias else 2]
    agree(lambda F, *t: F.linear(*t), *arrays)
    agree(lambda F, *t: F.linear(*t), *(a.astype(np.float32) for a in arrays), rtol=2e-6, atol=2e-6)
    if 0 not in shape:
        check_grads(F.linear, arrays, 3)


def test_linear_with_one_output_and_no_axis_for_it() -> None:
    agree(lambda F, x, w: F.linear(input=x, weight=w), tie_free((3, 4)), tie_free((4,), 1))


def test_linear_is_adjoint_to_the_product_with_its_weight() -> None:
    w = tie_free((5, 4))
    check_adjoint(
        lambda v: F.linear(Tensor(v), Tensor(w)).numpy(),
        lambda v: F.matmul(Tensor(v), Tensor(w)).numpy(),
        tie_free((3, 4), 1),
        tie_free((3, 5), 2),
    )


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (
            lambda: F.matmul(Tensor(1.0), Tensor([1.0])),
            ValueError,
            r"matmul: both factors need at least one axis, got shapes \(\) and \(1,\); use \* for",
        ),
        (
            lambda: F.matmul(Tensor(np.ones((2, 3))), Tensor(np.ones((2, 3)))),
            ValueError,
            r"matmul: the last axis of \(2, 3\) and the last but one axis of \(2, 3\) must be equal",
        ),
        (
            lambda: Tensor(np.ones((2, 3))) @ Tensor(np.ones(2)),
            ValueError,
            r"matmul: the last axis of \(2, 3\) and the only axis of \(2,\) must be equal",
        ),
        (
            lambda: Tensor(np.ones((2, 3, 4))) @ Tensor(np.ones((3, 4, 5))),
            ValueError,
            r"matmul: the leading axes of \(2, 3, 4\) and \(3, 4, 5\) do not broadcast",
        ),
        (
            lambda: F.linear(Tensor(np.ones((2, 3))), Tensor(np.ones((5, 4)))),
            ValueError,
            r"linear: weight expects 4 features, got 3 \(input \(2, 3\)\)",
        ),
        (
            lambda: F.linear(Tensor(1.0), Tensor(np.ones((5, 4)))),
            ValueError,
            r"linear: weight expects 4 features, got no axis \(input \(\)\)",
        ),
        (
            lambda: F.linear(Tensor(np.ones((2, 4))), Tensor(np.ones((5, 4, 4)))),
            ValueError,
            r"linear: weight must be \(O, I\) or \(I,\), got shape \(5, 4, 4\)",
        ),
        (
            lambda: F.linear(Tensor(np.ones((2, 4))), Tensor(np.ones((5, 4))), Tensor(np.ones((2, 5)))),
            ValueError,
            r"linear: bias must have shape \(5,\), one number for each output feature, got \(2, 5\)",
        ),
    ],
)
def test_what_is_refused(make: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        make()
