"""Recomputation: the same bits and less memory, derivatives of every order, random numbers drawn and statistics updated once."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidcnn import Tensor, check_grads, grad, manual_seed, models, nn, no_grad
from minidcnn import functional as F
from minidcnn.backend import random_state
from minidcnn.functional.checkpoint import Checkpoint
from minidcnn.testing import integers, seeds, tie_free

Array = np.ndarray[Any, Any]


@dataclass(slots=True)
class Box:
    """A result of a kind of its own."""

    inside: Tensor


def call(function: Callable[..., Any], *inputs: Tensor) -> Any:
    """What checkpoint is compared with."""
    return function(*inputs)


def same(results: list[Array], expected: list[Array]) -> None:
    assert len(results) == len(expected) > 0
    for a, b in zip(results, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b, strict=True)


def network(norm: bool = True) -> nn.Sequential:
    manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 20, 3, padding=1), nn.BatchNorm2d(20) if norm else nn.Tanh(), nn.ReLU(), nn.Dropout(0.4),
        nn.Conv2d(20, 6, (3, 2)), nn.BatchNorm2d(6, momentum=None) if norm else nn.Tanh(), nn.Dropout2d(0.3),
    )  # fmt: skip


def image() -> Tensor:
    return Tensor(tie_free((2, 3, 9, 7), 0, np.float32), requires_grad=True)


# -- programs: chains of functions, cut into segments anywhere ----------------------------------------------------------------------

STEPS: list[Callable[[Tensor, Tensor], Tensor]] = [
    lambda x, w: F.tanh(x) * w,
    lambda x, w: x * x + w,
    lambda x, w: F.dropout(x, 0.3) - w * x,
    lambda x, w: F.sigmoid(x @ w),
    lambda x, w: F.exp(-x * x),
    lambda x, w: F.dropout(x + w, 0.5),
]


@st.composite
def programs(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Which steps, and where segments begin; a segment may hold others."""
    steps = draw(st.lists(st.integers(0, len(STEPS) - 1), min_size=1, max_size=6))
    return steps, sorted(draw(st.sets(st.integers(0, len(steps) - 1), min_size=1)))


def run(steps: list[int], w: Tensor, x: Tensor) -> Tensor:
    for k in steps:
        x = STEPS[k](x, w)
    return x


def run_in_segments(steps: list[int], cuts: list[int], nested: bool, w: Tensor, x: Tensor) -> Tensor:
    x = run(steps[: cuts[0]], w, x)
    for a, b in zip(cuts, [*cuts[1:], len(steps)], strict=True):
        inner = partial(run, steps[a:b], w)
        x = F.checkpoint(lambda x, inner=inner: F.checkpoint(inner, x) * 2, x) * 0.5 if nested else F.checkpoint(inner, x)
    return x


@given(programs(), seeds, st.booleans(), st.booleans())
def test_segments_change_no_gradient(program: tuple[list[int], list[int]], seed: int, nested: bool, of_x: bool) -> None:
    """Outputs, gradients and gradients of gradients, with dropout, for parameters that functions bring along."""
    steps, cuts = program

    def results(forward: Callable[[Tensor, Tensor], Tensor]) -> list[Array]:
        manual_seed(seed % 1000)
        w, x = Tensor(tie_free((3, 3), seed), requires_grad=True), Tensor(tie_free((3, 3), seed + 1), requires_grad=of_x)
        y = forward(w, x)
        wanted = [w, x] if of_x else [w]
        if not y.requires_grad:
            return [y.numpy()]
        first = grad(F.sum(y * y), wanted, create_graph=True, allow_unused=True)
        total = F.sum(first[0] * first[0]) + (F.sum(first[1]) if of_x else 0)
        second = grad(total, wanted, retain_graph=True, allow_unused=True) if total.requires_grad else ()
        F.sum(y).backward()
        after = [F.dropout(Tensor(np.ones(40)), 0.5).numpy()]  # the numbers that come next
        return [y.numpy(), *(t.numpy() for t in (*first, *second)), *(t.grad.numpy() for t in wanted if t.grad is not None), *after]

    expected, got = results(partial(run, steps)), results(partial(run_in_segments, steps, cuts, nested))
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)  # what w gets from three places and more is added up in another order
    same([got[0], got[-1]], [expected[0], expected[-1]])


def test_derivatives_to_third_order() -> None:
    x, w = tie_free((2, 2, 4, 5)), tie_free((3, 2, 3, 2), 1)
    check_grads(lambda x, w: F.checkpoint(lambda x, w: F.tanh(F.conv2d(x, w)), x, w), [x, w], 3)
    check_grads(lambda x, w: F.checkpoint(lambda x: F.tanh(F.conv2d(x * x, w)), x), [x, w], 3)  # w is only read
    nested: Callable[[Tensor, Tensor], Tensor] = lambda x, w: F.checkpoint(
        lambda x: F.checkpoint(F.sigmoid, F.conv2d(F.checkpoint(F.tanh, x), w)), x
    )
    check_grads(nested, [x, w], 3)
    two: Callable[..., Any] = lambda x, w: F.checkpoint(lambda x: (F.tanh(x), F.sum(x) * x), x)
    check_grads(lambda x, w: two(x, w)[0] * two(x, w)[1], [x, w], 3)
    check_grads(lambda x, w: F.checkpoint(lambda x: (F.tanh(x) * w[0, 0, 0, 0], x), x)[0], [x, w], 2)  # the other output is not used


def test_batch_norm_and_dropout_behave_as_if_computed_once() -> None:
    """Gradients, running statistics, counters and the random numbers that come next: to the bit."""

    def results(apply: Callable[..., Any]) -> list[Array]:
        net, x = network(), image()
        for _ in range(3):
            y = apply(net, x)
            F.sum(y * y * y).backward()
        return [
            *(t.grad.numpy() for t in (x, *net.parameters()) if t.grad is not None),
            *(b.numpy() for b in net.buffers()),
            y.numpy(),
            F.dropout(Tensor(np.ones(50)), 0.5).numpy(),
        ]

    expected = results(call)
    assert len(expected) == 1 + 8 + 6 + 2
    same(results(F.checkpoint), expected)
    same(results(lambda net, x: F.checkpoint(net[4:], F.checkpoint(net[:4], x))), expected)


def test_statistics_are_not_changed_by_the_backward_pass() -> None:
    net, x = network(), image()
    y = F.checkpoint(net, x)
    after = net.state_dict()
    random = random_state()
    F.sum(y).backward()
    assert random_state() == random
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, after[name])
    assert int(after["1.num_batches_tracked"]) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: models.UNet(3, 2, base=4, padding="same", norm="batch", depth=3, dropout=0.3),
        lambda: models.UNet(3, 2, base=4, depth=2, dropout=0.3),
        lambda: models.UNet(3, 2, base=4, padding="same", upsample="bilinear", depth=2),
        lambda: models.SegNet(3, 2, width=4, bayesian=True),
        lambda: models.SegNetBasic(3, 2, width=4),
        lambda: models.FCN8s(2, 3, width=2, pad=1, fc_kernel=1, learn_upsampling=True),
        lambda: models.FCNAlexNet(2, 3, width=6, pad=19, fc_kernel=1),
    ],
)
def test_networks_train_to_the_same_bits(make: Callable[[], models.Segmenter], monkeypatch: pytest.MonkeyPatch) -> None:
    segments: list[int] = []
    plain = F.checkpoint
    monkeypatch.setattr(F, "checkpoint", lambda function, *inputs: (segments.append(1), plain(function, *inputs))[1])

    def results(recompute: bool) -> list[Array]:
        manual_seed(1)
        net = make()
        net.recompute = recompute
        height, width = net.suitable_size((33, 46))
        x = Tensor(tie_free((2, 3, height, width), 0, np.float32))
        labels = Tensor(integers((2, *net.output_size((height, width))), 1, np.int64, 1) ** 2)
        for _ in range(2):
            F.cross_entropy(net(x), labels).backward()
        grads = [p.grad.numpy() for p in net.parameters() if p.grad is not None]
        net.eval()
        before = len(segments)
        answer = net(x).numpy()
        assert len(segments) == before  # nothing to recompute
        return [*grads, *(b.numpy() for b in net.buffers()), answer]

    expected = results(False)
    assert not segments
    same(results(True), expected)
    assert len(segments) >= 4


# -- memory ---------------------------------------------------------------------------------------------------------------------------


def test_what_lies_inside_is_not_kept() -> None:
    alive: list[weakref.ref[Tensor]] = []

    def function(x: Tensor) -> Tensor:
        inside = F.tanh(x)
        alive.append(weakref.ref(inside))
        return F.tanh(inside)

    x = Tensor(tie_free((50, 60)), requires_grad=True)
    gc.disable()  # it goes at once, not when the collector comes
    try:
        y = F.checkpoint(function, x)
        assert alive[0]() is None
        y.backward(np.ones((50, 60)))
        assert len(alive) == 2 and alive[1]() is None
    finally:
        gc.enable()


def nodes(output: Tensor) -> Iterator[Any]:
    stack, seen = [output._node], set()
    while stack:
        node = stack.pop()
        if node is not None and id(node) not in seen:
            seen.add(id(node))
            yield node
            stack.extend(e[0] for e in node.edges if isinstance(e, tuple))


def test_a_network_keeps_less() -> None:
    """Bytes of the arrays that the graph holds, parameters aside."""

    def kept(recompute: bool) -> int:
        manual_seed(0)
        net = models.UNet(3, 2, base=4, padding="same", norm="batch")
        net.recompute = recompute
        y = net(Tensor(tie_free((1, 3, 64, 96), 0, np.float32)))
        own = {id(p._array) for p in net.parameters()}
        arrays = {id(t._array): t._array.nbytes for node in nodes(y) for t, *_ in node.saved if id(t._array) not in own}
        return sum(arrays.values())

    assert kept(True) < 0.6 * kept(False)


# -- what it gives and takes ------------------------------------------------------------------------------------------------------------


def test_outputs_of_every_kind() -> None:
    x, plain = Tensor(tie_free((1, 2, 4, 6)), requires_grad=True), Tensor(np.arange(3.0))

    def function(x: Tensor, plain: Tensor) -> tuple[Any, ...]:
        y, indices = F.max_pool2d(x, 2, return_indices=True)
        return y, indices, x, plain, None, "text"

    y, indices, again, same_plain, nothing, text = F.checkpoint(function, x, plain)
    assert isinstance(y._node.function, Checkpoint) and y._node is again._node
    assert not indices.requires_grad and not same_plain.requires_grad and nothing is None and text == "text"
    np.testing.assert_array_equal(again.numpy(), x.numpy())
    (F.sum(y) + F.sum(again * again)).backward()
    expected = 2 * x.numpy()
    for c, winners in enumerate(indices.numpy()[0].reshape(2, -1)):
        expected.reshape(2, -1)[c, winners] += 1
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-15)


def test_without_gradients_it_is_a_call() -> None:
    x = Tensor(np.ones(3), requires_grad=True)
    with no_grad():
        assert F.checkpoint(lambda x: x, x) is x
    y = F.checkpoint(lambda x: x * 2, Tensor(np.ones(3)))
    assert y._node is None and not y.requires_grad


def test_one_input_twice_and_a_parameter_inside_and_outside() -> None:
    x = Tensor(np.array([2.0, 3.0]), requires_grad=True)
    F.sum(F.checkpoint(lambda a, b: a * b * x, x, x)).backward()
    np.testing.assert_allclose(x.grad.numpy(), 3 * x.numpy() ** 2)


def test_a_first_segment_whose_input_needs_no_gradient_trains_its_parameters() -> None:
    net = network(norm=False)
    F.sum(F.checkpoint(net, Tensor(image().numpy()))).backward()
    assert all(p.grad is not None for p in net.parameters())


def test_the_graph_can_be_kept_and_is_freed() -> None:
    x = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    y = F.sum(F.checkpoint(lambda x: x * x * x, x))
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_allclose(x.grad.numpy(), 6 * x.numpy() ** 2)
    with pytest.raises(RuntimeError, match="run backward already"):
        y.backward()


def test_what_was_changed_in_between_is_noticed() -> None:
    w = nn.Parameter(np.array([3.0]))
    y = F.checkpoint(lambda x: x * w, Tensor(np.array([2.0]), requires_grad=True))
    with no_grad():
        w[0] = 5.0
    with pytest.raises(RuntimeError, match="Checkpoint needs was changed in place after the forward pass"):
        y.backward()


def test_what_is_refused() -> None:
    x = Tensor(np.ones((2, 3)), requires_grad=True)
    with pytest.raises(TypeError, match=r"checkpoint: input 1 must be a Tensor, got int; bind it to the function with functools\.partial"):
        F.checkpoint(lambda x, n: x * n, x, 3)  # type: ignore[arg-type]
    outside = F.exp(x)
    with pytest.raises(
        RuntimeError, match="checkpoint: the function reads a tensor that Exp computed from parameters before; pass it as an input"
    ):
        F.checkpoint(lambda x: x * outside, x)
    with pytest.raises(RuntimeError, match="reads a tensor that Exp computed"):
        F.checkpoint(lambda x: outside, x)
    calls = iter([1, 2])
    y = F.checkpoint(lambda x: x[: next(calls)] * 2, x)
    with pytest.raises(RuntimeError, match=r"shapes \(\(1, 3\),\) in the forward pass and \(\(2, 3\),\) when it was computed again"):
        F.sum(y).backward()


PACKS: dict[str, Callable[[Tensor], Any]] = {
    "list": lambda y: [y],
    "dict": lambda y: {"out": y},
    "nested": lambda y: (1, (y,)),
    "deep": lambda y: (y, [{"a": (y,)}]),
    "dataclass": Box,
}


@pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS)
def test_results_whose_gradients_would_be_cut_off_are_refused(pack: Callable[[Tensor], Any]) -> None:
    x = Tensor(np.ones((2, 3)), requires_grad=True)
    with pytest.raises(
        TypeError, match=r"checkpoint: result \d is a \w+ with tensors that require gradients; return them in one flat tuple"
    ):
        F.checkpoint(lambda x: pack(x * 2), x)
    F.checkpoint(lambda x: (x * 2, pack(x.detach())), x)[0].sum().backward()
    assert x.grad is not None and (x.grad.numpy() == 2).all()


def test_an_input_that_is_changed_in_place_is_refused() -> None:
    def function(x: Tensor, factor: Tensor) -> Tensor:
        factor += 1
        return x * factor

    with pytest.raises(RuntimeError, match="checkpoint: the function changes an input in place.* change a copy"):
        F.checkpoint(function, Tensor([1.0], requires_grad=True), Tensor([2.0]))


def test_an_error_in_the_function_leaves_nothing_behind() -> None:
    from minidcnn.tensor import watch

    def function(x: Tensor) -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        F.checkpoint(function, Tensor(np.ones(2), requires_grad=True))
    assert watch.changed is None
    fails = iter([False, True])
    y = F.checkpoint(lambda x: F.dropout(x, 0.5) if not next(fails) else function(x), Tensor(np.ones(2), requires_grad=True))
    random = random_state()
    with pytest.raises(ZeroDivisionError):
        F.sum(y).backward()
    assert random_state() == random and watch.changed is None


def test_state_that_is_replaced_is_put_back_too() -> None:
    seen = Tensor([0.0])

    def square(x: Tensor) -> Tensor:
        seen.data = seen.data + 1
        return x * x

    x = Tensor([3.0], requires_grad=True)
    F.checkpoint(square, x).backward()
    assert (seen.item(), x.grad.item()) == (1.0, 6.0)


def test_a_checkpoint_goes_back_where_an_output_depends_on_frozen_leaves_alone() -> None:
    a, b = (Tensor(np.full((2, 3), n), requires_grad=True) for n in (2.0, 3.0))
    first, second = F.checkpoint(lambda x: (x * a, x * b), Tensor(np.full((2, 3), 5.0)))
    a.requires_grad = False
    (first + second).sum().backward()
    assert a.grad is None and b.grad is not None
    np.testing.assert_array_equal(b.grad.numpy(), np.full((2, 3), 5.0))


def test_a_checkpoint_whose_leaves_are_all_frozen_gives_none_a_gradient() -> None:
    a = Tensor(np.full((2, 3), 2.0), requires_grad=True)
    loss = F.checkpoint(lambda x: x * a, Tensor(np.full((2, 3), 5.0))).sum()
    a.requires_grad = False
    loss.backward()
    assert a.grad is None
