"""Tensor: construction, dtypes, operators, indexing and what it says when used wrongly."""

from __future__ import annotations

import copy
import operator
import pickle
import re
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minidcnn import Tensor, check_grads
from minidcnn import functional as F
from minidcnn.optim import clip_grad_value_


def test_dtypes_follow_the_data() -> None:
    assert Tensor([1.0, 2.0]).dtype == np.float32
    assert Tensor(1.5).dtype == np.float32
    assert Tensor([1, 2]).dtype == np.int64
    assert Tensor([True]).dtype == np.bool_
    assert Tensor(np.ones(2)).dtype == np.float64
    assert Tensor(np.float64(1)).dtype == np.float64
    assert Tensor([1, 2], dtype=np.float64).dtype == np.float64


@pytest.mark.parametrize(
    "data",
    [
        [np.array([1.1, 2.2])],
        [np.float64(1.1)],
        [1.0, np.float64(1.1)],
        ([1.0], [np.float64(2)]),
        [1, np.float64(2)],
        [np.float32(1), 2.0],
        [np.float32(1), np.int64(2)],
        [np.float16(1), 2.0],
        [np.array([1.5], np.float16)],
        [np.int64(1), 2.0],
        [np.int32(2)],
        [[1.0, 2], [3, 4]],
    ],
)
def test_dtypes_within_lists_are_pytorchs(data) -> None:
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings(action="ignore"):  # lists of arrays are slow there
        expected = torch.tensor(data)
    ours = Tensor(data)
    assert str(expected.dtype) == f"torch.{ours.dtype}"
    np.testing.assert_array_equal(ours.numpy(), expected.numpy())
    assert Tensor([Tensor(np.array([1.1]))]).dtype == np.float64


@pytest.mark.parametrize("op", [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_python_scalar_never_promotes(op, dtype) -> None:
    x = Tensor(np.array([1.0, 2.0], dtype))
    for scalar in (2, 2.5, True, np.float64(2.5)):
        assert op(x, scalar).dtype == dtype
        assert op(scalar, x).dtype == dtype
        np.testing.assert_allclose(op(x, scalar).numpy(), op(np.array([1.0, 2.0]), float(scalar)), rtol=1e-3)
        np.testing.assert_allclose(op(scalar, x).numpy(), op(float(scalar), np.array([1.0, 2.0])), rtol=1e-3)


def test_numpy_arrays_on_the_left_defer_to_the_tensor() -> None:
    x = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    y = np.array([3.0, 4.0]) * x + np.float64(1)
    assert isinstance(y, Tensor)
    y.sum().backward()
    assert x.grad.numpy().tolist() == [3.0, 4.0]


def test_mixed_dtypes_promote_and_gradients_come_back_in_the_leafs_dtype() -> None:
    x = Tensor(np.array([1.0, 2.0], np.float32), requires_grad=True)
    y = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    z = x * y
    assert z.dtype == np.float64
    z.sum().backward()
    assert x.grad.dtype == np.float32
    assert y.grad.dtype == np.float64


@given(data=st.data(), shapes=hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=3))
def test_operators_broadcast_as_numpy_does_and_gradients_sum_back(data: st.DataObject, shapes) -> None:
    elements = st.integers(-4, 4).map(float)
    a, b = (data.draw(hnp.arrays(np.float64, s, elements=elements)) for s in shapes.input_shapes)
    x, y = Tensor(a, requires_grad=True), Tensor(b, requires_grad=True)
    for op in (operator.add, operator.sub, operator.mul):
        np.testing.assert_array_equal(op(x, y).numpy(), op(a, b))
    g = data.draw(hnp.arrays(np.float64, shapes.result_shape, elements=elements))
    (x * y).backward(g)
    for t, other in ((x, b), (y, a)):
        full = g * other
        extra = full.ndim - t.ndim
        axes = tuple(i for i in range(full.ndim) if i < extra or t.shape[i - extra] == 1)
        np.testing.assert_array_equal(t.grad.numpy(), full.sum(axis=axes).reshape(t.shape))  # integers: exact


INDICES = [
    1,
    -1,
    slice(1, 3),
    slice(None, None, -2),
    (slice(None), 2),
    (Ellipsis, 0),
    (None, 1, Ellipsis),
    np.array([0, 2, 2]),
    (np.array([0, 1]), slice(None), np.array([1, 1])),
    (slice(None), [3, 0, 3]),
    np.array([True, False, True]),
    (0, 0, 0),
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_indexing_as_numpy_and_its_derivative_adds_where_indices_repeat(index, rng: np.random.Generator) -> None:
    a = rng.standard_normal((3, 4, 5))
    np.testing.assert_array_equal(Tensor(a)[index].numpy(), a[index])
    check_grads(lambda x: (x * x)[index], [a], 2)
    x = Tensor(a, requires_grad=True)
    x[index].sum().backward()
    expected = np.zeros_like(a)
    np.add.at(expected, index, 1.0)
    np.testing.assert_array_equal(x.grad.numpy(), expected)


def test_indexing_by_tensors() -> None:
    x = Tensor(np.arange(12.0).reshape(3, 4))
    np.testing.assert_array_equal(x[Tensor([2, 0])].numpy(), x.numpy()[[2, 0]])
    np.testing.assert_array_equal(x[x > 5].numpy(), np.arange(6.0, 12.0))


def test_comparisons_are_elementwise_and_tensors_hash_by_identity() -> None:
    x = Tensor([1.0, 2.0, 3.0])
    assert (x > 2).numpy().tolist() == [False, False, True]
    assert (x == Tensor([1.0, 0.0, 3.0])).numpy().tolist() == [True, False, True]
    assert len({x, x, Tensor([1.0])}) == 2
    with pytest.raises(ValueError, match=r"truth of a tensor of shape \(3,\) is ambiguous"):
        bool(x)


def test_conversions() -> None:
    x = Tensor([[1.5]])
    assert (float(x), int(x), x.item(), bool(x), len(x)) == (1.5, 1, 1.5, True, 1)
    np.testing.assert_array_equal(np.asarray(x), [[1.5]])
    with pytest.raises(ValueError, match=r"only a one-element tensor has one value, this has shape \(2,\)"):
        Tensor([1.0, 2.0]).item()
    view = x.numpy()
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 2
    assert x.astype(np.float64).dtype == np.float64
    assert x.to("numpy") is x
    with pytest.raises(ValueError, match='backend "gpu" is unknown'):
        x.to("gpu")


def test_methods_are_the_functions() -> None:
    a = np.arange(6.0).reshape(2, 3)
    x = Tensor(a)
    for got, expected in [
        (x.sum(), a.sum()),
        (x.sum(1), a.sum(1)),
        (x.mean((0, 1), keepdim=True), a.mean(keepdims=True)),
        (x.reshape(3, 2), a.reshape(3, 2)),
        (x.reshape((-1, 1)), a.reshape(-1, 1)),
        (x.permute(1, 0), a.T),
        (x.transpose(0, 1), a.T),
        (x.T, a.T),
        (x.exp(), np.exp(a)),
        (-x, -a),
        (abs(-x), a),
        (x @ x.T, a @ a.T),
        (x.argmax(1), a.argmax(1)),
        (x.argmax(), 5),
        (x.argmax(0, keepdim=True), a.argmax(0)[None]),
    ]:
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-15)


def test_repr_shows_values_and_origin() -> None:
    assert repr(Tensor([1.0, 2.0])) == "Tensor([1., 2.], shape=(2,), dtype=float32)"
    x = Tensor([1.0], requires_grad=True)
    assert repr(x).endswith("requires_grad=True)")
    assert repr(x * x).endswith("made by Mul)")
    assert len(repr(Tensor(np.zeros((1000, 1000))))) < 1000


def test_layout_is_kept_by_construction_and_elementwise_work() -> None:
    nhwc = np.zeros((2, 5, 4, 3), np.float32).transpose(0, 3, 1, 2)
    x = Tensor(nhwc)
    assert x._array.transpose(0, 2, 3, 1).flags.c_contiguous
    for y in (x + 1, x * x, F.exp(x), F.cat([x, x], 1), F.where(x > 0, x, 0.0), x[:, :2] * 1 + 1):
        assert y._array.transpose(0, 2, 3, 1).flags.c_contiguous


def test_data_that_is_not_numbers_is_refused() -> None:
    with pytest.raises(TypeError, match="data must be real numbers .* got dict of dtype object"):
        Tensor({"a": 1})
    with pytest.raises(TypeError, match="data must be real numbers or equally long nested lists of them, got list"):
        Tensor([[1, 2], [3]])
    with pytest.raises(ValueError, match="the new array has shape"):
        Tensor([1.0]).data = np.zeros(3)


def test_complex_numbers_are_refused_everywhere() -> None:
    x, i = Tensor([1.0, 2.0], requires_grad=True), np.array([1j, 2])

    def put(index: int, value: Any) -> None:
        Tensor([1.0, 2.0])[index] = value

    for call, where in (
        (lambda: Tensor(i), "Tensor: data"),
        (lambda: x * i, "Tensor: data"),
        (lambda: 1j + x, "Tensor: data"),
        (lambda: setattr(x, "data", i), "Tensor.data"),
        (lambda: setattr(x, "data", [1j, 2]), "Tensor.data"),
        (lambda: put(0, 1j), "Tensor: what is assigned"),
        (lambda: put(0, None), "Tensor: what is assigned"),
        (lambda: (x * 2).backward(i), "backward: grad"),
    ):
        with pytest.raises(
            TypeError, match=f"^{where} must be real numbers or equally long nested lists of them, got .* of dtype (complex|obj)"
        ):
            call()
    for dtype in (complex, "complex64", str, object, "float31", "datetime64[s]"):
        for name, f in (("Tensor", lambda d: Tensor([1.0], dtype=d)), ("astype", x.astype)):
            with pytest.raises(TypeError, match=f'^{name}: dtype must be one of real numbers, such as "float32", got '):
                f(dtype)
    with pytest.raises(TypeError, match="astype: dtype must be one of real numbers.* got None"):
        x.astype(None)
    assert x.numpy().tolist() == [1.0, 2.0] and x.grad is None


def test_a_gradient_is_a_tensor_of_the_same_shape() -> None:
    p = Tensor(np.ones((2, 3)), requires_grad=True)
    for shape in ((1, 3), (3,), (), (3, 2), (6,)):
        with pytest.raises(ValueError, match=rf"Tensor.grad: the gradient has shape {re.escape(str(shape))}, the tensor has \(2, 3\)"):
            p.grad = Tensor(np.ones(shape))
    for value in (np.ones((2, 3)), 1.0, [[1.0] * 3] * 2):
        with pytest.raises(TypeError, match=r"Tensor.grad must be a Tensor or None, got (ndarray|float|list); wrap arrays"):
            p.grad = value
    assert p.grad is None
    p.grad = given = Tensor(np.ones((2, 3)))
    assert p.grad is given


@pytest.mark.parametrize("graph", [False, True])
def test_a_gradient_that_cannot_be_added_to_is_copied(graph: bool) -> None:
    """A broadcast, or an array that nobody may write: a backward pass and clipping write into it."""
    row = Tensor([1.0, 2.0, 3.0], requires_grad=graph)
    for gradient in (F.broadcast_to(row, (2, 3)), Tensor.wrap(F.broadcast_to(row, (2, 3)).numpy())):
        p = Tensor(np.full((2, 3), 5.0, np.float32), requires_grad=True)
        p.grad = gradient
        assert p.grad is not None and p.grad.requires_grad == gradient.requires_grad
        (2 * p).sum().backward()
        assert p.grad.numpy().tolist() == [[3.0, 4.0, 5.0]] * 2 and row.numpy().tolist() == [1.0, 2.0, 3.0]
        clip_grad_value_([p], 3.5)
        assert p.grad.numpy().tolist() == [[3.0, 3.5, 3.5]] * 2


def test_numbers_that_a_dtype_cannot_hold_are_told() -> None:
    for data in (300, [1, 300], [[-1]]):
        with pytest.raises(ValueError, match="^Tensor: data: a number does not fit uint8; choose a larger dtype$"):
            Tensor(data, dtype="uint8")
    x = Tensor(np.array([3, 4], np.uint8))
    with pytest.raises(ValueError, match=r"^what is assigned, 300, does not fit a tensor of uint8; cast the tensor with .astype\(\)$"):
        x[0] = 300
    assert x.numpy().tolist() == [3, 4]


def test_a_matrix_or_a_masked_array_becomes_an_array() -> None:
    matrix = np.zeros((2, 2)).view(np.matrix) + 2
    for x in (Tensor(matrix), Tensor(np.ones((2, 2)))):
        x.data = matrix
        assert type(x._array) is np.ndarray and (x * x).numpy().tolist() == [[4.0, 4.0], [4.0, 4.0]]
    assert type(Tensor(np.ma.ones(2))._array) is np.ndarray


@pytest.mark.parametrize("again", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])  # noqa: S301  # our own
def test_copies_of_leaves_are_nobodys(again) -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    y = x * x  # needs x
    twin = again(x)
    twin.data[...] = 5.0
    assert (twin.requires_grad, x.numpy().tolist()) == (True, [1.0, 2.0])
    with pytest.raises(RuntimeError, match=r"made by Mul cannot be copied or pickled.*detach\(\)"):
        again(y)
    y.sum().backward()
    assert x.grad.numpy().tolist() == [2.0, 4.0]


def test_argmax_without_elements_or_axes() -> None:
    x = Tensor(np.zeros((2, 0, 3)))
    assert (x.argmax(2).shape, x.argmax(0, keepdim=True).shape) == ((2, 0), (1, 0, 3))
    assert (Tensor(5.0).argmax().item(), Tensor(5.0).argmax(-1, keepdim=True).shape) == (0, ())
    for call, message in (
        (lambda: x.argmax(1), r"argmax: shape \(2, 0, 3\) has no elements over dim 1"),
        (lambda: x.argmax(), "has no elements over dim None"),
        (lambda: x.argmax(3), "argmax: dim 3 is out of range for a tensor of 3 axes"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_iteration_goes_along_the_first_axis() -> None:
    assert [row.numpy().tolist() for row in Tensor([[1.0, 2.0], [3.0, 4.0]])] == [[1.0, 2.0], [3.0, 4.0]]
    with pytest.raises(TypeError, match="tensor without axes"):
        list(Tensor(1.0))


def test_argmax_of_all_keeps_every_axis() -> None:
    x = Tensor(np.array([[1.0, 5.0, 2.0], [4.0, 3.0, 0.0]]))
    assert (x.argmax().shape, x.argmax(keepdim=True).shape, x.argmax(keepdim=True).item()) == ((), (1, 1), 1)
    assert x.argmax(-1, keepdim=True).numpy().tolist() == [[1], [0]]
