"""What a forward and a vjp of one's own may return, and the sentences that answer what it may not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from minidcnn import Function, Tensor, check_grads, grad
from minidcnn import functional as F


@dataclass(frozen=True)
class Product(Function):
    """a b, broadcast; what its vjp returns is for the test to say."""

    returns: Callable[[Tensor, Tensor, Tensor], Any]
    needs_inputs = (0, 1)

    def forward(self, a, b):
        return a * b

    def vjp(self, g, a, b):
        return self.returns(g, a, b)


def leaves() -> tuple[Tensor, Tensor]:
    return Tensor(np.array([1.0, 2, 3]), requires_grad=True), Tensor(np.array([[3.0, 4, 5], [6, 7, 8]]), requires_grad=True)


@dataclass(frozen=True)
class Squares(Function):
    """x^2; as what its forward returns it is for the test to say."""

    returns: Callable[[Any], Any]
    needs_inputs = (0,)

    def forward(self, x):
        return self.returns(x * x)

    def vjp(self, g, x):
        return (g * x * 2,)


@pytest.mark.parametrize(
    ("returns", "kind"),
    [
        (Tensor, "Tensor"),
        (lambda y: [y, y], "list"),
        (lambda y: None, "NoneType"),
        (lambda y: float(y[0]), "float"),
        (lambda y: (y, Tensor(y)), "Tensor"),
    ],
)
def test_a_forward_that_returns_anything_but_arrays_is_refused(returns, kind: str) -> None:
    sentence = rf"^Squares.forward: return an array or a tuple of arrays, got a {kind}$"
    for x in (leaves()[0], leaves()[0].detach()):
        with pytest.raises(TypeError, match=sentence):
            Squares(returns)(x)
    with pytest.raises(TypeError, match=sentence):
        check_grads(Squares(returns), [np.array([1.0, 2, 3])])


def test_a_forward_may_return_a_scalar_of_numpy() -> None:
    x = Tensor(np.array(3.0), requires_grad=True)
    y = Squares(lambda y: y[()])(x)
    y.backward()
    assert y.item() == 9 and x.grad.item() == 6 and y.shape == ()


@pytest.mark.parametrize(
    ("returns", "sentence"),
    [
        (lambda g, a, b: g * b, r"^Product.vjp: return a tuple with one gradient for each of 2 inputs .*, got a Tensor$"),
        (lambda g, a, b: (g * a,), r"got 1 of them$"),
        (lambda g, a, b: None, r"got a NoneType$"),
        (lambda g, a, b: (g * a for _ in "ab"), r"got a generator$"),
        (lambda g, a, b: (F.sum(g * b, 0), g * a, g), r"got 3 of them$"),
        (
            lambda g, a, b: ((g * b).numpy(), g * a),
            r"gradient of input 0 must be a Tensor or None, got ndarray; compute it by minidcnn's functions, not NumPy's$",
        ),
        (lambda g, a, b: (None, lambda: 2.0), r"gradient of input 1 must be a Tensor or None, got float"),
    ],
)
def test_a_vjp_that_returns_anything_but_a_gradient_for_each_input_is_refused(returns, sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        Product(returns)(*leaves()).sum().backward()


@pytest.mark.parametrize("inside", [False, True])
def test_a_gradient_that_was_not_summed_to_a_broadcast_input_is_refused(inside: bool) -> None:
    """Also within a graph, where the functions behind might take it for their own and the sentence would blame them."""
    a, b = leaves()
    product = Product(lambda g, a, b: (lambda: g * b, g * a))(F.exp(a) if inside else a, b)
    sentence = r"^Product.vjp: the gradient of input 0 has shape \(2, 3\), the input has \(3,\); sum it over axes that were broadcast$"
    with pytest.raises(RuntimeError, match=sentence):
        product.sum().backward()
    with pytest.raises(RuntimeError, match=sentence):
        grad(Product(lambda g, a, b: (g * b, None))(a * 1, b).sum(), a)


@pytest.mark.parametrize("inside", [False, True])
def test_a_gradient_of_another_dtype_is_refused(inside: bool) -> None:
    """Else all that lies behind would be computed in float64 from there on, and a float32 leaf get a float64 gradient."""
    a, b = (Tensor(t.numpy(), requires_grad=True, dtype="float32") for t in leaves())
    product = Product(lambda g, a, b: (lambda: F.sum(g * b * Tensor(np.ones(3)), 0), g * a))
    sentence = "^Product.vjp: the gradient of input 0 is float64, the input float32; give constants the input's dtype, as Tensor"
    with pytest.raises(TypeError, match=sentence):
        product(F.exp(a) if inside else a, b).sum().backward()
    with pytest.raises(TypeError, match=sentence):
        grad(product(a * 1, b).sum(), a)
    product(a.detach(), b).sum().backward()
    assert b.grad.dtype == np.float32


def test_what_nobody_asks_for_is_not_looked_at() -> None:
    a, b = leaves()
    product = Product(lambda g, a, b: [lambda: g * b, g * a, lambda: g, None])  # the wrong one; more inputs, that were left out
    (g,) = grad(product(a, b).sum(), b)
    assert g.numpy().tolist() == [[1, 2, 3], [1, 2, 3]]
    assert grad(product(a.detach(), b).sum(), b)[0].shape == (2, 3)
