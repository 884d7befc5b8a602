"""+=, -=, *=, /= and **=: written into the array where nothing is recorded, a new tensor with a history where something is."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minidcnn import Tensor, check_grads, grad, no_grad, optim
from minidcnn import functional as F

OPERATORS = (operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ipow)


def test_gradient_descent_written_by_hand_trains() -> None:
    p = Tensor(np.array([1.0, 2.0, 3.0]), requires_grad=True)
    (p * p).sum().backward()
    assert p.grad is not None
    start, same = p, p.detach()
    with no_grad():
        p -= 0.25 * p.grad
    assert p is start and p.requires_grad and p.is_leaf
    assert p.numpy().tolist() == same.numpy().tolist() == [0.5, 1.0, 1.5]


def test_they_are_torchs_with_every_dtype_shape_and_view() -> None:
    torch = pytest.importorskip("torch")
    a = np.array([[1, 2, 3], [4, 5, 6]])
    others = (2, 0.5, np.array([3, 1, 2]), np.array([[2.0], [0.5]]), np.array([1.5, 2.0, 0.5], np.float16), np.ones((4, 2, 3)))
    for dtype in (np.uint8, np.int64, np.float16, np.float32, np.float64):
        for op in OPERATORS:
            for other in others:
                ours, theirs = Tensor(a.astype(dtype)), torch.tensor(a.astype(dtype))
                array = isinstance(other, np.ndarray)
                mine, its = (Tensor(other), torch.tensor(other)) if array else (other, other)
                row, its_row = ours[1], theirs[1]
                try:
                    op(theirs, its)
                except RuntimeError:
                    with pytest.raises((TypeError, ValueError), match="does not fit into a tensor"):
                        op(ours, mine)
                    assert ours.numpy().tolist() == a.tolist()
                    continue
                assert op(ours, mine) is ours
                assert ours.dtype == dtype
                np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=2e-3 if dtype == np.float16 else 1e-6)
                np.testing.assert_allclose(row.numpy(), its_row.numpy(), rtol=2e-3 if dtype == np.float16 else 1e-6)


def test_an_array_that_reads_itself_is_read_before_it_is_written() -> None:
    x = Tensor(np.arange(9.0).reshape(3, 3))
    x += x.T
    assert x.numpy().tolist() == [[0, 4, 8], [4, 8, 12], [8, 12, 16]]


def test_in_a_graph_they_make_new_tensors_that_can_be_differentiated() -> None:
    def steps(x: Tensor, z: Tensor) -> Tensor:
        y = x * z
        y += z
        y *= x
        y -= 0.5
        y /= z
        y **= 2
        return y

    check_grads(steps, [np.array([[0.5, 1.5, -1.0]]), np.array([[2.0, 0.5, 1.5]])], 2)
    total, x = Tensor(0.0), Tensor([1.0, 2.0], requires_grad=True)
    first = total
    for _ in range(2):
        total += (x * x).sum()
    assert grad(total, x)[0].numpy().tolist() == [4.0, 8.0]
    assert first.item() == 0.0


@pytest.mark.parametrize("record", [True, False], ids=["recorded", "not recorded"])
def test_shape_and_dtype_stay_in_a_graph_as_well(record: bool) -> None:
    y = Tensor(np.array([1.0, 2.0], np.float16), requires_grad=record) * 1
    y += Tensor(np.array([0.5, 0.25], np.float32))
    assert (y.dtype, y.numpy().tolist()) == (np.float16, [1.5, 2.25])
    with pytest.raises(
        ValueError, match=r"^add: a result of shape \(3, 2\) does not fit into a tensor of \(2,\); make a new tensor instead"
    ):
        y += Tensor(np.ones((3, 1), np.float16))
    count = Tensor([1, 2])
    with pytest.raises(TypeError, match="^mul: a result of float32 does not fit into a tensor of int64; make a new tensor instead"):
        count *= Tensor([1.0, 2.0], requires_grad=record)


def test_a_leaf_that_requires_gradients_is_refused_while_they_are_recorded() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    for op in OPERATORS:
        with pytest.raises(RuntimeError, match=r"a leaf that requires gradients cannot be changed in place .* inside no_grad\(\)"):
            op(x, 2)
    assert x.numpy().tolist() == [1.0, 2.0]


def test_a_graph_that_needs_the_old_values_refuses_to_run() -> None:
    x, factor = Tensor([1.0, 2.0], requires_grad=True), Tensor([3.0, 4.0])
    y = x * factor
    factor += 1
    with pytest.raises(RuntimeError, match="was changed in place after the forward pass"):
        y.sum().backward()


def test_repeated_and_read_only_numbers_get_memory_of_their_own() -> None:
    x = Tensor([1.0, 2.0])
    y = F.broadcast_to(x, (3, 2))
    y += Tensor([[1.0], [2.0], [3.0]])
    assert y.numpy().tolist() == [[2.0, 3.0], [3.0, 4.0], [4.0, 5.0]]
    assert x.numpy().tolist() == [1.0, 2.0]
    z = Tensor.wrap(x.numpy())
    z *= 5
    assert (z.numpy().tolist(), x.numpy().tolist()) == ([5.0, 10.0], [1.0, 2.0])


def test_a_view_with_an_axis_of_one_writes_through() -> None:
    """NumPy gives a new axis a stride of 0, though nothing repeats along it."""
    x = Tensor([1.0, 2.0])
    y = x[None]
    assert y.numpy().strides[0] == 0
    y += 1
    assert x.numpy().tolist() == [2.0, 3.0]


def test_what_is_no_number_is_refused_and_changes_nothing() -> None:
    x = Tensor([1.0, 2.0])
    change: Callable[[Any], Any] = x.__iadd__
    for value in (None, "1", {}, 1j):
        with pytest.raises(TypeError, match="must be real numbers"):
            change(value)
    assert x.numpy().tolist() == [1.0, 2.0]


def test_data_that_cannot_be_written_is_copied() -> None:
    q, p = Tensor(np.ones((2, 3))), Tensor(np.zeros((2, 3)), requires_grad=True)
    for values in (q.numpy(), np.broadcast_to(np.ones(3), (2, 3))):
        p.data, p.grad = values, Tensor(np.ones((2, 3)))
        optim.SGD([p], lr=0.5).step()  # which writes into that memory
        p.data[0, 1] = 7
        assert (p.numpy() == [[0.5, 7, 0.5], [0.5, 0.5, 0.5]]).all() and (q.numpy() == 1).all() and (values == 1).all()
    own = np.zeros((2, 3))
    p.data = own
    p.data[1, 2] = 3
    assert own[1, 2] == 3


def test_numpy_gets_a_copy_where_it_asks_for_an_array_of_its_own() -> None:
    """Writing into it must not change weights behind the back of the version counter."""
    t = Tensor(np.zeros(3))
    array = np.asarray(t)
    array[0] = 1
    assert t.numpy()[0] == 0


def test_arithmetic_in_place_keeps_the_dtype_of_memory_that_cannot_be_written() -> None:
    t = Tensor.wrap(np.broadcast_to(np.float32(1), (3,)))
    t += Tensor(np.ones(3, np.float64))
    assert t.dtype == np.float32 and (t.numpy() == 2).all()


def test_a_gradient_that_a_graph_keeps_is_not_changed_behind_its_back() -> None:
    """By another backward pass that adds to it, or by clipping."""
    for change in (lambda x: (x * x).sum().backward(), lambda x: optim.clip_grad_value_([x], 1.0)):
        x, w = (Tensor(np.array([v]), requires_grad=True) for v in (2.0, 3.0))
        (x * x).sum().backward()
        penalty = (x.grad * w * w).sum()
        change(x)
        with pytest.raises(RuntimeError, match="changed in place"):
            penalty.backward()
