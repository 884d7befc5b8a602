"""Linear, Identity, Flatten."""

from __future__ import annotations

from typing import Any

from .. import functional as F
from ..tensor import Tensor
from ..window import integer
from .conv import reset
from .module import Module
from .parameter import Parameter


class Identity(Module):
    """Returns its input; arguments are ignored, so that it can stand in for any layer."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def forward(self, input: Any) -> Any:
        return input


class Linear(Module):
    """(..., in_features) -> (..., out_features): y = x weight^T + bias, weight (out_features, in_features).

    ValueError for fewer than 1 feature and for inputs of other features, TypeError for numbers that are no integers.
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        in_features, out_features = integer(in_features, "Linear: in_features", 1), integer(out_features, "Linear: out_features", 1)
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter.empty((out_features, in_features))
        self.register_parameter("bias", Parameter.empty((out_features,)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight and bias uniform within +- 1 / sqrt(in_features)."""
        reset(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Flatten(Module):
    """Axes start_dim .. end_dim joined into one: (N, C, H, W) -> (N, C H W). ValueError as functional.flatten."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        return F.flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
