"""Nonlinearities, softmax and dropout. `inplace` is accepted as in PyTorch and ignored: an output never overwrites its input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..autograd import Function, Gradient
from ..backend import Array, float_dtype, kernels_of, next_seed
from ..tensor import Tensor
from ..window import fraction
from .common import axis, cast, check_backend, rounded, wide
from .elementwise import Elementwise, exp, times
from .reduce import sum
from .shape import reshape


@dataclass(frozen=True)
class ReLU(Function):
    """max(x, 0). Its output says where it is linear, so the input is not kept."""

    needs_outputs = (0,)

    def forward(self, x: Array) -> Array:
        return kernels_of(x).relu(x)

    def vjp(self, g: Tensor, y: Tensor) -> tuple[Gradient, ...]:
        return (ReLUGate()(g, y),)


@dataclass(frozen=True)
class ReLUGate(Function):
    """g where y > 0, else 0: linear in g and its own adjoint, constant in y almost everywhere."""

    needs_inputs = (1,)

    def forward(self, g: Array, y: Array) -> Array:
        return kernels_of(g).relu_grad(g, y)

    def vjp(self, g: Tensor, y: Tensor) -> tuple[Gradient, ...]:
        return ReLUGate()(g, y), None


@dataclass(frozen=True)
class LeakyReLU(Elementwise):
    """x where x > 0, else slope x."""

    slope: float
    needs_inputs = (0,)

    def compute(self, xp: Any, x: Array) -> Array:
        return xp.where(x > 0, x, times(x, self.slope))  # type: ignore[no-any-return]

    def vjp(self, g: Tensor, x: Tensor) -> tuple[Gradient, ...]:
        return (LeakyGate(self.slope)(g, x),)


@dataclass(frozen=True)
class LeakyGate(Elementwise):
    """g where x > 0, else slope g: linear in g and its own adjoint."""

    slope: float
    needs_inputs = (1,)

    def compute(self, xp: Any, g: Array, x: Array) -> Array:
        return xp.where(x > 0, g, times(g, self.slope))  # type: ignore[no-any-return]

    def vjp(self, g: Tensor, x: Tensor) -> tuple[Gradient, ...]:
        return self(g, x), None


class Sigmoid(Elementwise):
    """1 / (1 + exp(-x)), from exp(-|x|), which does not overflow."""

    needs_outputs = (0,)

    def compute(self, xp: Any, x: Array) -> Array:
        e = xp.exp(-xp.abs(x))
        return xp.where(x < 0, e, x.dtype.type(1)) / (1 + e)  # type: ignore[no-any-return]

    def vjp(self, g: Tensor, y: Tensor) -> tuple[Gradient, ...]:
        return (g * (y - y * y),)


class Tanh(Elementwise):
    needs_outputs = (0,)

    def compute(self, xp: Any, x: Array) -> Array:
        return xp.tanh(x)  # type: ignore[no-any-return]

    def vjp(self, g: Tensor, y: Tensor) -> tuple[Gradient, ...]:
        return (g * (1 - y * y),)


@dataclass(frozen=True)
class Softmax(Function):
    """exp(x) / sum(exp(x)) along an axis; the maximum is taken out first, so nothing overflows."""

    axis: int
    needs_outputs = (0,)

    def forward(self, x: Array) -> Array:
        kernels, xp = kernels_of(x), kernels_of(x).xp
        if not x.size:
            return x.copy()
        e = kernels.map(lambda x, top: xp.exp(x - top), x, x.max(axis=self.axis, keepdims=True))
        return kernels.map(lambda e, total: e / total, e, kernels.sum(e, (self.axis,), keepdims=True))

    def vjp(self, g: Tensor, y: Tensor) -> tuple[Gradient, ...]:
        return (y * (g - sum(g * y, self.axis, keepdim=True)),)


@dataclass(frozen=True)
class LogSoftmax(Function):
    """x - log(sum(exp(x))) along an axis."""

    axis: int
    needs_outputs = (0,)

    def forward(self, x: Array) -> Array:
        kernels, xp = kernels_of(x), kernels_of(x).xp
        if not x.size:
            return x.copy()
        shifted = kernels.map(lambda x, top: x - top, x, x.max(axis=self.axis, keepdims=True))
        total = kernels.sum(kernels.map(xp.exp, shifted), (self.axis,), keepdims=True)
        return kernels.map(lambda x, total: x - xp.log(total), shifted, total)

    def vjp(self, g: Tensor, y: Tensor) -> tuple[Gradient, ...]:
        return (g - exp(y) * sum(g, self.axis, keepdim=True),)


@dataclass(frozen=True)
class Dropout(Function):
    """x times the mask that `seed` stands for: linear, and its own adjoint. Nothing is kept but the seed."""

    p: float
    seed: int
    shape: tuple[int, ...]  # of the mask

    def forward(self, x: Array) -> Array:
        return kernels_of(x).dropout(x, self.p, self.seed, self.shape)

    def vjp(self, g: Tensor, *_: Tensor) -> tuple[Gradient, ...]:
        return (self(g),)


# -- the public functions -------------------------------------------------------------------------------------------------------------


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0), any shape; the derivative at 0 is 0. NaN stays NaN."""
    return ReLU()(input)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where x > 0, else negative_slope x, any shape; the derivative at 0 is negative_slope. TypeError for integers."""
    return LeakyReLU(float(negative_slope))(floating("leaky_relu", input))


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), any shape, without overflow. TypeError for integers."""
    return Sigmoid()(floating("sigmoid", input))


def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent, any shape. TypeError for integers."""
    return Tanh()(floating("tanh", input))


def softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """exp(x) / sum(exp(x)) over `dim`, any shape; computed in `dtype` if given. TypeError for integers."""
    input = floating("softmax", input if dtype is None else cast(input, dtype))
    return _over("softmax", Softmax, input, dim)


def log_softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """log(softmax(x)) over `dim`, any shape, exact where softmax underflows. TypeError for integers."""
    input = floating("log_softmax", input if dtype is None else cast(input, dtype))
    return _over("log_softmax", LogSoftmax, input, dim)


def _over(name: str, kind: type[Softmax] | type[LogSoftmax], x: Tensor, dim: int) -> Tensor:
    """Along `dim`; a tensor without axes counts as one of a single element. Of float16 the sums are float32's, which do not overflow."""
    return rounded(kind(axis(name, dim, x.ndim))(wide(x)), x) if x.ndim else reshape(_over(name, kind, reshape(x, (1,)), dim), ())


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """While `training`, each element is 0 with probability p, else times 1 / (1 - p), so that its expectation stays; else the input itself.

    The mask is a function of the next seed (`minidcnn.manual_seed`). Srivastava et al., "Dropout", 2014. ValueError for p outside [0, 1].
    """
    check_backend("dropout", input)
    return _drop("dropout", input, p, training, input.shape)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels of (N, C, H, W): neighbouring pixels are too alike to be dropped one by one.

    Three axes are (N, C, L), as in PyTorch. Tompson et al., "Efficient object localization using convolutional networks", 2015,
    section 3.2. ValueError for p outside [0, 1] or other numbers of axes.
    """
    check_backend("dropout2d", input)
    if input.ndim not in (3, 4):
        raise ValueError(f"dropout2d: input must be (N, C, H, W) or (N, C, L), got shape {input.shape}; for elements use dropout")
    return _drop("dropout2d", input, p, training, (*input.shape[:2], *(1,) * (input.ndim - 2)))


def _drop(name: str, x: Tensor, p: float, training: bool, shape: tuple[int, ...]) -> Tensor:
    fraction(p, f"{name}: p")
    return Dropout(float(p), next_seed(), shape)(floating(name, x)) if training and p else x


def floating(name: str, x: Tensor) -> Tensor:
    """x itself. TypeError unless it is a tensor and its dtype is floating."""
    check_backend(name, x)
    if not float_dtype(x.dtype):
        raise TypeError(f'{name}: input must be floating-point, got {x.dtype}; convert it with .astype("float32")')
    return x
