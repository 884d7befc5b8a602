"""check_grads of a layer: its parameters are inputs, too, and it is left as it was."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from minidcnn import Function, Tensor, check_grads, nn
from minidcnn import functional as F

X = np.random.default_rng(0).standard_normal((2, 3, 4, 5))


@dataclass(frozen=True)
class ScaleFunction(Function):
    """x p, a factor for each channel; the factors' gradient times `error`, the input's times `slip`."""

    error: float = 1.0
    slip: float = 1.0
    needs_inputs = (0, 1)

    def forward(self, x, p):
        return x * p.reshape(1, -1, 1, 1)

    def vjp(self, g, x, p):
        return self.slip * g * F.reshape(p, (1, -1, 1, 1)), self.error * (g * x).sum((0, 2, 3))


class Scale(nn.Module):
    def __init__(self, error: float = 1.0, slip: float = 1.0) -> None:
        super().__init__()
        self.factor = nn.Parameter(np.array([1.0, -2.0, 0.5]))
        self.function = ScaleFunction(error, slip)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.factor)


def test_a_parameter_whose_gradient_is_wrong_is_named() -> None:
    check_grads(Scale(), [X], 3)
    with pytest.raises(AssertionError, match=r"^check_grads: df/dfactor along a direction is .*; at index \(\d,\) alone"):
        check_grads(Scale(error=0.5), [X], 1)
    with pytest.raises(AssertionError, match=r"^check_grads: df/d1.factor along a direction is"):
        check_grads(nn.Sequential(nn.Tanh(), Scale(error=0.5)), [X])
    with pytest.raises(AssertionError, match="^check_grads: df/d0 along a direction is"):
        check_grads(Scale(slip=1.01), [X])


def test_what_requires_no_gradient_or_is_not_in_a_module_is_not_checked() -> None:
    layer = Scale(error=0.5)
    check_grads(lambda x: layer(x), [X], 1)
    check_grads(layer.requires_grad_(False), [X], 1)
    assert not layer.factor.requires_grad


def test_a_shared_parameter_is_one_input() -> None:
    first, second = Scale(), Scale(error=0.5)
    second.factor = first.factor
    check_grads(nn.Sequential(first, nn.Tanh(), first), [X])
    with pytest.raises(AssertionError, match="df/d0.factor along a direction is"):
        check_grads(nn.Sequential(first, nn.Tanh(), second), [X])


def test_a_module_of_parameters_alone() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.Parameter(X[0])

        def forward(self) -> Tensor:
            return F.exp(self.rows)

    check_grads(Table(), [])
    with pytest.raises(ValueError, match="^check_grads: arrays is empty, so nothing would be checked"):
        check_grads(Table().requires_grad_(False), [])


def test_parameters_must_be_float64() -> None:
    with pytest.raises(ValueError, match=r"^check_grads: parameter weight is float32; differences need float64: check f\.double\(\)$"):
        check_grads(nn.Conv2d(3, 2, (2, 3)), [X])


def test_a_layer_is_left_as_it_was() -> None:
    layer = nn.Sequential(nn.Conv2d(3, 2, (2, 3), bias=False), nn.BatchNorm2d(2)).double()
    before = layer.state_dict()
    parameters = list(layer.parameters())
    check_grads(layer, [X])
    assert all(np.array_equal(before[name], array) for name, array in layer.state_dict().items())
    assert [id(p) for p in layer.parameters()] == [id(p) for p in parameters]
    assert all(p.requires_grad and p.grad is None for p in parameters) and layer.training
    layer.eval()
    check_grads(layer, [X])


def test_a_layer_that_computes_a_part_of_itself_again() -> None:
    class Again(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return F.checkpoint(self.layer, x)  # type: ignore[no-any-return]

    check_grads(Again(nn.Sequential(Scale(), nn.Tanh())), [X])
    with pytest.raises(AssertionError, match="df/dlayer.factor along a direction is"):
        check_grads(Again(Scale(error=0.5)), [X])


def test_parameters_that_would_not_be_checked_are_refused() -> None:
    class Closure(Scale):
        def __init__(self) -> None:
            super().__init__(error=0.5)
            self.read = lambda x: self.function(x, self.factor)  # a copy reads the original's

        def forward(self, x: Tensor) -> Tensor:
            return self.read(x)

    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [(Scale(error=0.5),)]

        def forward(self, x: Tensor) -> Tensor:
            return self.layers[0][0](x)

    for module in (Closure(), Listed()):
        with pytest.raises(ValueError, match="^check_grads: f reads tensors that require gradients besides its own parameters"):
            check_grads(module, [X])
        check_grads(lambda x, module=module: module(x), [X])
