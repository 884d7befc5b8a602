"""The walk through the graph: sums of gradients, single outputs, tensors behind which nothing is wanted; and who listens to functions."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from minidcnn import Function, Tensor, check_grads, grad
from minidcnn.autograd import listening


@dataclass(frozen=True)
class Both(Function):
    """x -> 2 x and 3 x."""

    differentiable: ClassVar[int] = 2

    def forward(self, x: Any) -> Any:
        return 2 * x, 3 * x

    def vjp(self, g: Any, *_: Any) -> Any:
        return (sum(factor * part for factor, part in zip((2.0, 3.0), g, strict=True) if part is not None),)


def test_a_sum_that_is_passed_on_to_several_inputs_is_not_added_into() -> None:
    """x + w gets a sum of two gradients, which becomes x's and w's alike; what x gets besides is not w's."""
    x, w = Tensor([1.0, 2.0], requires_grad=True), Tensor([3.0, 4.0], requires_grad=True)
    s = x + w * 1.0  # deeper than x * 7, and so earlier
    (s * 2.0 + s * 3.0 + x * 7.0).sum().backward()
    assert x.grad is not None and x.grad.numpy().tolist() == [12, 12]
    assert w.grad is not None and w.grad.numpy().tolist() == [5, 5]


def test_each_output_of_a_function_has_its_own_gradient() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    a, b = Both().outputs(x)
    to = (a * 5.0 + b * 7.0).sum()
    for wanted, slopes in (((b,), (7,)), ((a, b), (5, 7)), ((b, x, a), (7, 31, 5))):
        found = grad(to, wanted, retain_graph=True)
        assert [g.numpy().tolist() for g in found] == [[s, s] for s in slopes]
    check_grads(lambda x: Both().outputs(x)[1], [np.array([1.0, -2.0])])
    assert [g.numpy().tolist() for g in grad(b.sum(), [a, b], allow_unused=True)] == [[0, 0], [1, 1]]


def test_what_lies_behind_a_wanted_tensor_may_have_been_freed() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    y = x * x
    y.sum().backward()
    z = (y * 3.0).sum()
    assert grad(z, y, retain_graph=True)[0].numpy().tolist() == [3, 3]
    with pytest.raises(RuntimeError, match="^backward: this graph was run backward already"):
        grad(z, x)


def test_a_listener_is_told_of_what_is_applied_while_it_listens() -> None:
    told: dict[str, list[tuple[str, int, int]]] = {"outer": [], "inner": []}

    def to(name: str) -> Any:
        return lambda function, inputs, outputs: told[name].append((type(function).__name__, len(inputs), len(outputs)))

    x = Tensor([1.0, 2.0])
    with listening(to("outer")):
        with pytest.raises(ValueError, match="^end$"), listening(to("inner")):
            Both().outputs(x)
            raise ValueError("end")
        other = threading.Thread(target=lambda: x * x)
        other.start()
        other.join()
        x + x
    x * x
    assert told == {"outer": [("Add", 2, 1)], "inner": [("Both", 1, 2)]}


@pytest.mark.parametrize("value", [2, "yes", np.True_])
def test_what_counts_as_true_requires_gradients(value: Any) -> None:
    """A 2 was kept as it is, and as it is not True, nothing was recorded."""
    made, switched, called = Tensor([3.0], value), Tensor([3.0]), Tensor([3.0]).requires_grad_(value)
    switched.requires_grad = value
    for x in (made, switched, called):
        assert x.requires_grad is True
        (x * x).sum().backward()
        assert x.grad is not None and x.grad.item() == 6
        x.requires_grad = 0
        assert x.requires_grad is False and not (x * x).requires_grad


def test_a_gradient_shares_no_memory_with_its_seed() -> None:
    x, seed = Tensor([1.0, 2.0], requires_grad=True), Tensor([3.0, 4.0])
    (g,) = grad(x, x, seed)
    assert g.numpy().tolist() == [3, 4] and not np.may_share_memory(g.numpy(), seed.numpy())


def test_a_gradient_with_a_history_is_not_added_into() -> None:
    x = Tensor([3.0], requires_grad=True)
    (x * x * x).sum().backward(create_graph=True)
    before = x.grad
    assert before is not None and before.requires_grad
    (x * 2.0).sum().backward()
    assert before.item() == 27 and x.grad is not None and x.grad.item() == 29
