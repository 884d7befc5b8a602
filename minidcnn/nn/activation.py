"""Nonlinearities and dropout as layers. `inplace` is accepted as in PyTorch and ignored: an output never overwrites its input."""

from __future__ import annotations

from .. import functional as F
from ..tensor import Tensor
from ..window import fraction
from .module import Module


class ReLU(Module):
    """max(x, 0), any shape. TypeError for what is no Tensor."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class LeakyReLU(Module):
    """x where x > 0, else negative_slope x. TypeError for integers."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope, self.inplace = negative_slope, inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.leaky_relu(input, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}" + (", inplace=True" if self.inplace else "")


class Sigmoid(Module):
    """1 / (1 + exp(-x)). TypeError for integers."""

    def forward(self, input: Tensor) -> Tensor:
        return F.sigmoid(input)


class Tanh(Module):
    """The hyperbolic tangent. TypeError for integers."""

    def forward(self, input: Tensor) -> Tensor:
        return F.tanh(input)


class _OverDim(Module):
    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax(_OverDim):
    """exp(x) / sum(exp(x)) over `dim`, the class axis 1 unless said otherwise. ValueError for a dim out of range, TypeError for integers."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, self.dim)


class LogSoftmax(_OverDim):
    """The logarithm of softmax over `dim`, without overflow. Errors as of Softmax."""

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(input, self.dim)


class _Drop(Module):
    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        fraction(p, f"{type(self).__name__}: p")
        self.p, self.inplace = p, inplace

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Drop):
    """While training, each element is 0 with probability p, else scaled by 1 / (1 - p); in eval() the identity (Srivastava et al., 2014).

    ValueError unless 0 <= p <= 1, TypeError for integers while training.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p, self.training)


class Dropout2d(_Drop):
    """Dropout of whole channels of (N, C, H, W). ValueError unless 0 <= p <= 1, and for inputs without channels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout2d(input, self.p, self.training)
