"""Rearrangements: PyTorch's and NumPy's values, adjoint pairs, indices of every kind, views and the protection of what they share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from peer import agree

from minidcnn import Tensor, check_adjoint, check_grads, grad, no_grad
from minidcnn import functional as F
from minidcnn.testing import LAYOUTS, integers, lay_out, seeds, tie_free

Array = np.ndarray[Any, Any]
shapes = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)

# of x (2, 3, 4); the same expression in PyTorch's names
EXPRESSIONS: dict[str, Any] = {
    "reshape": lambda F, x: F.reshape(x, (4, 6)),
    "reshape -1": lambda F, x: F.reshape(x, (2, -1, 2, 1)),
    "flatten": lambda F, x: F.flatten(x, 1),
    "flatten all": lambda F, x: F.flatten(x),
    "flatten part": lambda F, x: F.flatten(x, -3, 1),
    "permute": lambda F, x: F.permute(x, (2, 0, 1)),
    "permute negative": lambda F, x: F.permute(x, (-1, -3, 1)),
    "transpose": lambda F, x: F.transpose(x, 0, -1),
    "squeeze": lambda F, x: F.squeeze(F.reshape(x, (1, 6, 1, 4))),
    "squeeze one": lambda F, x: F.squeeze(F.reshape(x, (1, 6, 1, 4)), 2),
    "squeeze some": lambda F, x: F.squeeze(F.reshape(x, (1, 6, 1, 4)), (0, 1)),
    "unsqueeze": lambda F, x: F.unsqueeze(F.unsqueeze(x, -1), 1),
    "flip": lambda F, x: F.flip(x, (0, 2)),
    "flip one": lambda F, x: F.flip(x, (-1,)),
    "broadcast_to": lambda F, x: F.broadcast_to(F.reshape(x, (2, 1, 3, 4)), (5, 2, 2, 3, 4)),
    "cat": lambda F, x: F.cat([x, x * x, x[:, :1]], 1),
    "cat negative": lambda F, x: F.cat((x, x[..., :0], x * x), -1),
    "cat images": lambda F, x: F.cat(
        [F.reshape(x * x, (1, 2, 3, 4)), F.reshape(x, (1, 2, 3, 4)), F.reshape(x[:1] * x[1:], (1, 1, 3, 4))], 1
    ),
    "stack": lambda F, x: F.stack([x, x * x], 1),
    "stack last": lambda F, x: F.stack([x, x * x, x], -1),
    "split": lambda F, x: F.split(x, 3, 2)[1] * F.split(x, 3, 2)[0][..., :1],
    "split sizes": lambda F, x: F.split(x, [1, 0, 2], 1)[2] * F.split(x, [1, 0, 2], -2)[0],
    "split whole": lambda F, x: F.split(x, 9, 0)[0],
    "chain": lambda F, x: F.flip(F.transpose(F.cat([x, x], 0), 1, 2), (2,)).reshape(-1)[3:-2:4],
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_values_and_gradients_are_pytorchs(name: str) -> None:
    for dtype in (np.float64, np.float32):
        agree(lambda F, x: EXPRESSIONS[name](F, x * x), tie_free((2, 3, 4), 0, dtype), rtol=1e-6 if dtype == np.float32 else 1e-14)
    agree(EXPRESSIONS[name], integers((2, 3, 4), 0, np.int64), order=0)


@pytest.mark.parametrize("name", EXPRESSIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout_and_second_derivatives(name: str, layout: str) -> None:
    x = tie_free((2, 3, 4))
    np.testing.assert_array_equal(EXPRESSIONS[name](F, Tensor.wrap(lay_out(x, layout))).numpy(), EXPRESSIONS[name](F, Tensor(x)).numpy())
    if layout == "C":
        check_grads(lambda x: EXPRESSIONS[name](F, x), [x], 2)


@pytest.mark.parametrize("name", [n for n in EXPRESSIONS if not n.startswith(("split", "stack", "cat"))])
def test_every_backward_pass_is_the_adjoint(name: str) -> None:
    leaf = Tensor(tie_free((2, 3, 4)), requires_grad=True)
    y = EXPRESSIONS[name](F, leaf)
    back = lambda v: grad(y, leaf, v, retain_graph=True)[0].numpy()
    check_adjoint(lambda v: EXPRESSIONS[name](F, Tensor(v)).numpy(), back, tie_free((2, 3, 4), 1), tie_free(y.shape, 2))


@given(shape=shapes, data=st.data())
def test_parts_that_were_split_make_the_whole(shape: tuple[int, ...], data: st.DataObject) -> None:
    x = integers(shape, 1)
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    size = data.draw(st.integers(1, 5))
    cuts = sorted(data.draw(st.lists(st.integers(0, shape[dim]), max_size=3)))
    sizes = [b - a for a, b in zip([0, *cuts], [*cuts, shape[dim]], strict=True)]
    for parts in (F.split(Tensor(x), size, dim), F.split(Tensor(x), sizes, dim)):
        np.testing.assert_array_equal(F.cat(parts, dim).numpy(), x)
    agree(lambda F, x: F.split(x, size, dim)[-1], x)
    agree(lambda F, x: F.split(x, sizes, dim)[0], x)


@given(shape=shapes, data=st.data())
def test_permutations_reversals_and_reshapes_are_numpys(shape: tuple[int, ...], data: st.DataObject) -> None:
    x = integers(shape, 2)
    order = data.draw(st.permutations(range(len(shape))))
    axes = data.draw(st.lists(st.sampled_from(range(len(shape))), unique=True))
    np.testing.assert_array_equal(F.permute(Tensor(x), order).numpy(), x.transpose(order))
    np.testing.assert_array_equal(F.flip(Tensor(x), axes).numpy(), np.flip(x, tuple(axes)))
    np.testing.assert_array_equal(F.reshape(F.permute(Tensor(x), order), shape).numpy(), x.transpose(order).reshape(shape))
    np.testing.assert_array_equal(F.flatten(Tensor(x), data.draw(st.integers(0, len(shape) - 1))).numpy().reshape(-1), x.reshape(-1))


@given(shapes=hnp.mutually_broadcastable_shapes(num_shapes=1, base_shape=(2, 1, 3), max_dims=4, max_side=3))
def test_broadcast_to_is_numpys(shapes: Any) -> None:
    source = tie_free(shapes.input_shapes[0])
    target = np.broadcast_shapes(source.shape, (2, 1, 3))
    agree(lambda F, x: F.broadcast_to(x, target), source)


# -- indices --------------------------------------------------------------------------------------------------------------------


@given(data=st.data(), shape=hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4), seed=seeds)
def test_basic_and_advanced_indices_are_numpys_and_adjoint_to_adding(data: st.DataObject, shape: tuple[int, ...], seed: int) -> None:
    """Slices with negative steps, ellipses, new axes, integers; integer arrays that repeat, boolean masks; in whole numbers."""
    x = integers(shape, seed)
    index: Any = data.draw(
        st.one_of(
            hnp.basic_indices(shape, allow_newaxis=True),
            hnp.integer_array_indices(shape),
            hnp.integer_array_indices(shape, dtype=np.dtype(np.int32)),
            hnp.arrays(np.bool_, shape),
        )
    )
    leaf = Tensor(x, requires_grad=True)
    y = leaf[index]
    np.testing.assert_array_equal(y.numpy(), x[index])
    v = integers(y.shape, seed + 1)
    expected = np.zeros(shape)
    np.add.at(expected, index, v)
    np.testing.assert_array_equal(grad(y, leaf, v)[0].numpy(), expected)


INDICES: dict[str, Any] = {
    "repeated": np.array([2, 0, 2, 2]),
    "two arrays": (slice(None), np.array([0, 3, 3]), np.array([1, 1, 1])),
    "arrays around a slice": (np.array([0, 1, 1]), slice(None, None, -1), np.array([4, 4, 0])),
    "broadcast arrays": (np.array([[0], [2]]), np.array([[1, 1, 3]])),
    "negative": np.array([-1, -3]),
    "mask": tie_free((3, 4)) > 0,
    "mask and slice": (np.array([True, False, True]), slice(1, None, 2)),
    "empty": np.array([], np.int64),
    "list": [1, 1, 0],
    "number array": np.array(1),
}


@pytest.mark.parametrize("name", INDICES)
def test_advanced_indices_in_arrays_and_in_tensors(name: str) -> None:
    x, index = tie_free((3, 4, 5)), INDICES[name]
    check_grads(lambda x: (x * x)[index], [x], 2)
    as_tensors = tuple(Tensor(i) if isinstance(i, np.ndarray) else i for i in index) if isinstance(index, tuple) else Tensor(index)
    np.testing.assert_array_equal(Tensor(x)[as_tensors].numpy(), x[index])
    if isinstance(index, tuple):
        if -1 not in [getattr(i, "step", 1) for i in index]:  # PyTorch has no negative steps
            torch = pytest.importorskip("torch")
            theirs = tuple(torch.tensor(i) if isinstance(i, np.ndarray) else i for i in index)
            agree(lambda F, x: x[index if isinstance(x, Tensor) else theirs] ** 2, x)
    else:
        agree(lambda F, x, i: (x * x)[i], x, np.asarray(index))


def test_an_index_changed_before_backward_changes_nothing() -> None:
    """Arrays in an index are copied: their owner may fill them anew."""
    x, index, mask, places = (
        Tensor(tie_free((4,)), requires_grad=True),
        np.array([0, 1]),
        np.array([True, True, False, False]),
        Tensor([0, 1]),
    )
    ys = x[index], x[(index,)], x[mask], x[places]
    index[:] = 3
    mask[:] = ~mask
    with no_grad():
        places[0] = 3
    for y in ys:
        assert grad(y.sum(), x)[0].numpy().tolist() == [1.0, 1.0, 0.0, 0.0]


# -- views ------------------------------------------------------------------------------------------------------------------------

VIEWS: dict[str, Any] = {
    "reshape": lambda x: F.reshape(x, (6, 2)),
    "flatten": lambda x: F.flatten(x),
    "permute": lambda x: F.permute(x, (1, 0)),
    "transpose": lambda x: x.T,
    "unsqueeze": lambda x: F.unsqueeze(x, 0),
    "slice": lambda x: x[1:, ::2],
    "number": lambda x: x[1],
    "numbers": lambda x: x[1, -1],
    "number of one axis": lambda x: F.flatten(x)[5],
    "flip": lambda x: F.flip(x, 0),
    "split": lambda x: F.split(x, 1)[2],
    "broadcast_to": lambda x: F.broadcast_to(x, (2, 3, 4)),
    "view of a view": lambda x: F.flip(x[1:].T, 1),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_share_memory_and_a_change_through_either_is_noticed(name: str) -> None:
    """Whichever of the two is written to, a graph that needs the other refuses to run backward."""
    for write_to_view in (True, False):
        x = Tensor(tie_free((3, 4)))
        view = VIEWS[name](x)
        assert np.shares_memory(view._array, x._array)
        needed, written = (x, view) if write_to_view else (view, x)
        if name == "broadcast_to" and write_to_view:
            continue  # a broadcast cannot be written to
        y = (Tensor(np.ones(needed.shape), requires_grad=True) * needed).sum()
        with pytest.raises(ValueError, match="read-only"):
            written.data[...] = 0.0
        written[...] = 0.0
        with pytest.raises(RuntimeError, match="that Mul needs was changed in place"):
            y.backward()


@pytest.mark.parametrize("join", [F.cat, F.stack])
def test_tensors_may_come_from_a_generator(join) -> None:
    parts = [Tensor(np.full((2, 3), n)) for n in range(4)]
    np.testing.assert_array_equal(join((t for t in parts), 1).numpy(), join(parts, 1).numpy())


@pytest.mark.parametrize(
    "make", [lambda x: F.cat([x, x]), lambda x: F.cat([x]), lambda x: F.stack([x]), lambda x: x[np.array([0, 1, 2])], lambda x: x[x > -9]]
)
def test_copies_share_nothing(make: Any) -> None:
    x = Tensor(tie_free((3, 4)))
    assert not np.shares_memory(make(x)._array, x._array)


def test_a_split_and_joined_tensor_takes_each_gradient_once() -> None:
    x = Tensor(integers((3, 5), 0), requires_grad=True)
    a, b = F.split(x, [2, 3], 1)
    (F.cat([b * 2.0, a * 3.0, b], 1) * Tensor(np.arange(24.0).reshape(3, 8))).sum().backward()
    weights = np.arange(24.0).reshape(3, 8)
    np.testing.assert_array_equal(x.grad.numpy(), np.concatenate([3 * weights[:, 3:5], 2 * weights[:, :3] + weights[:, 5:]], 1))


# -- dtypes, corners, refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtypes", [(np.float32, np.float64), (np.int64, np.float32), (np.bool_, np.uint8), (np.int32, np.int64)], ids=str)
def test_joining_promotes_as_pytorch_does(dtypes: Any) -> None:
    a, b = np.ones((2, 3), dtypes[0]), np.ones((1, 3), dtypes[1])
    agree(lambda F, a, b: F.cat([a, b]), a, b)
    x, y = Tensor(a, requires_grad=a.dtype.kind == "f"), Tensor(b, requires_grad=b.dtype.kind == "f")
    if y.requires_grad:
        F.cat([x, y]).sum().backward()
        assert y.grad.dtype == b.dtype
        assert not x.requires_grad or x.grad.dtype == a.dtype


def test_tensors_without_axes() -> None:
    x = np.array(2.5)
    for f in (
        lambda F, x: F.reshape(x, (1, 1)),
        lambda F, x: F.flatten(x),
        lambda F, x: F.unsqueeze(x, -1),
        lambda F, x: F.squeeze(x),
        lambda F, x: F.permute(x, ()),
        lambda F, x: F.transpose(x, 0, -1),
        lambda F, x: F.stack([x, x * x]),
        lambda F, x: F.broadcast_to(x, (2, 3)),
    ):
        agree(f, x)


def test_numpys_integers_are_integers() -> None:
    x, two = Tensor(tie_free((2, 3, 4))), np.int64(2)
    assert F.reshape(x, (np.int32(-1), two)).shape == (12, 2)
    assert F.unsqueeze(x, two).shape == (2, 3, 1, 4)
    assert F.permute(x, np.array([2, 0, 1]).tolist()).shape == F.permute(x, (two, 0, 1)).shape == (4, 2, 3)
    assert [p.shape for p in F.split(x, two, np.int64(1))] == [(2, 2, 4), (2, 1, 4)]
    assert F.flip(x, two).shape == x.shape


def test_reshape_of_a_permuted_tensor_copies_in_row_major_order() -> None:
    x = tie_free((2, 3, 4, 5))
    agree(lambda F, x: F.reshape(F.permute(x, (0, 2, 3, 1)), (2, -1)) * F.reshape(x, (2, -1)), x)


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda x: F.reshape(x, (5, 3)), ValueError, r"reshape: 12 elements of shape \(3, 4\) do not fill shape \(5, 3\)"),
        (lambda x: F.reshape(x, (-1, 5)), ValueError, r"reshape: 12 elements of shape \(3, 4\) do not fill shape \(-1, 5\)"),
        (lambda x: F.reshape(x, (-1, -1)), ValueError, "do not fill"),
        (lambda x: F.reshape(x, (-3, -4)), ValueError, r"do not fill shape \(-3, -4\)"),
        (lambda x: F.reshape(x[:0], (-1, 0)), ValueError, "do not fill"),
        (lambda x: F.flatten(x, 1, 0), ValueError, "flatten: start_dim 1 comes after end_dim 0 for a tensor of 2 axes"),
        (lambda x: F.flatten(x, 2), ValueError, "flatten: dim 2 is out of range"),
        (lambda x: F.permute(x, (0,)), ValueError, r"permute: 1 dims \(0,\) for a tensor of 2 axes; name every axis once"),
        (lambda x: F.permute(x, (0, 0)), ValueError, r"permute: dim \(0, 0\) names an axis twice"),
        (lambda x: F.transpose(x, 0, 2), ValueError, "transpose: dim 2 is out of range"),
        (lambda x: F.squeeze(x, 2), ValueError, "squeeze: dim 2 is out of range"),
        (lambda x: F.unsqueeze(x, 3), ValueError, "unsqueeze: dim 3 is out of range"),
        (lambda x: F.flip(x, (0, -2)), ValueError, "flip: .* names an axis twice"),
        (
            lambda x: F.broadcast_to(x, (4, 3)),
            ValueError,
            r"broadcast_to: shape \(3, 4\) does not broadcast to \(4, 3\); axes must be equal or 1",
        ),
        (lambda x: F.broadcast_to(x, (4,)), ValueError, r"broadcast_to: shape \(3, 4\) does not broadcast to \(4,\)"),
        (lambda x: F.cat([]), ValueError, "cat: give at least one tensor"),
        (lambda x: F.cat([x, x.T]), ValueError, r"cat: tensor 1 has shape \(4, 3\), tensor 0 has \(3, 4\); all axes but dim 0 must agree"),
        (lambda x: F.cat([x, x[0]]), ValueError, r"cat: tensor 1 has shape \(4,\), tensor 0 has \(3, 4\)"),
        (lambda x: F.cat([x], 2), ValueError, "cat: dim 2 is out of range"),
        (lambda x: F.cat([x.sum(), x.sum()]), ValueError, "cat: tensors without axes cannot be joined; use stack"),
        (lambda x: F.stack([]), ValueError, "stack: give at least one tensor"),
        (lambda x: F.stack([x, x.T]), ValueError, r"stack: tensor 1 has shape \(4, 3\), tensor 0 has \(3, 4\); shapes must be equal"),
        (lambda x: F.split(x, 0), ValueError, "split: split_size must be at least 1, got 0"),
        (lambda x: F.split(x, [1, 1], 1), ValueError, r"split: sizes \[1, 1\] add up to 2, but dim 1 has 4"),
        (lambda x: F.split(x, [5, -1], 1), ValueError, r"split: sizes \[5, -1\] include a negative one"),
        (lambda x: F.split(x.sum(), 1), ValueError, "split: a tensor without axes cannot be cut"),
        (lambda x: x[3], IndexError, "index 3 is out of bounds"),
        (lambda x: x[0, 0, 0], IndexError, "too many indices"),
        (lambda x: x[np.array([0, 3])], IndexError, "index 3 is out of bounds"),
        (lambda x: x[Tensor([0.5])], IndexError, "must be of integer"),
        (lambda x: x[np.array([True, False])], IndexError, "boolean index did not match"),
    ],
)
def test_what_is_refused(make: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        make(Tensor(tie_free((3, 4))))


def test_an_empty_list_takes_nothing() -> None:
    x = Tensor(np.ones((2, 3)), requires_grad=True)
    assert (x[[]].shape, x[:, []].shape) == ((0, 3), (2, 0))
    x[[]].sum().backward()
    assert not x.grad.numpy().any()


@pytest.mark.parametrize("count", [1, 2, 8, 9, 17])
@pytest.mark.parametrize("layout", ["C", "channels-last", "permuted", "sliced"])
@pytest.mark.parametrize("dim", [0, 1, 2, 3])
def test_any_number_of_tensors_is_joined(count: int, layout: str, dim: int) -> None:
    shapes = [(2, 3, 4, 5) if not i % 2 else tuple(1 if axis == dim else n for axis, n in enumerate((2, 3, 4, 5))) for i in range(count)]
    arrays = [integers(shape, seed) for seed, shape in enumerate(shapes)]
    joined = F.cat([Tensor.wrap(lay_out(a, layout)) for a in arrays], dim).numpy()
    np.testing.assert_array_equal(joined, np.concatenate(arrays, dim))
    strides = {"channels-last": lambda a: a.transpose(0, 2, 3, 1), "permuted": lambda a: a.T}.get(layout, lambda a: a)
    assert strides(joined).flags.c_contiguous
