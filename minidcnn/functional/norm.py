"""Normalisation: batch norm, whose gradient is a function of its own with derivatives of every order, and local response norm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from ..autograd import Function, Gradient
from ..backend import Array, kernels_of, sum_dtype
from ..tensor import Tensor
from ..window import integer
from .activation import ReLU, ReLUGate, floating
from .common import cast, check_backend, rounded, wide
from .elementwise import pow
from .reduce import sum, var
from .shape import broadcast_to, reshape


@dataclass(frozen=True, eq=False)
class Normalize(Function):
    """x (N, C, ...), weight (C,), bias (C,) -> (x - mean) rstd weight + bias, with a constant mean and rstd (C,): affine."""

    mean: Array
    rstd: Array
    needs_inputs: ClassVar[tuple[int, ...]] = (0, 1)

    def forward(self, x: Array, weight: Array, bias: Array) -> Array:
        return kernels_of(x).batch_norm_apply(x, self.mean, self.rstd, weight, bias)

    def vjp(self, g: Tensor, x: Tensor, weight: Tensor) -> tuple[Gradient, ...]:
        axes, (one, zero) = _others(x), _one_zero(x)
        return (
            lambda: Normalize(self.mean * 0, self.rstd)(g, weight, zero),
            lambda: cast(sum(wide(g) * Normalize(self.mean, self.rstd)(wide(x), one, zero), axes), weight.dtype),
            lambda: sum(cast(g, weight.dtype), axes),
        )


@dataclass(frozen=True, eq=False)
class BatchNorm(Normalize):
    """The same with the mean and rstd = (variance + eps)^(-1/2) of x itself, which its derivatives take into account."""

    eps: float

    def vjp(self, g: Tensor, x: Tensor, weight: Tensor) -> tuple[Gradient, ...]:
        return BatchNormGrad(self.mean, self.rstd, self.eps).outputs(g, x, weight)


@dataclass(frozen=True, eq=False)
class BatchNormGrad(Function):
    """g, x (N, C, ...), weight (C,) -> (dx, dweight, dbias): the gradient of <g, BatchNorm(x, weight, bias)>.

    With z = (x - mean) rstd, M the mean over a channel of m values and P(u) = u - M(u) - z M(u z), which is its own adjoint:
    dx = weight rstd P(g), dweight = m M(g z), dbias = m M(g). The derivatives below use dz/dx = rstd P and drstd/dx = -rstd^2 z / m.
    """

    mean: Array
    rstd: Array
    eps: float
    needs_inputs: ClassVar[tuple[int, ...]] = (0, 1, 2)
    differentiable = 3

    def forward(self, g: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
        return kernels_of(x).batch_norm_grad(g, x, self.mean, self.rstd, weight)

    def vjp(self, grads: tuple[Tensor | None, ...], g: Tensor, x: Tensor, weight: Tensor) -> tuple[Gradient, ...]:
        stored = g, x, weight
        a, b, c = (None if t is None else wide(t) for t in grads)  # gradients of <a, dx> + <b, dweight> + <c, dbias> are wanted
        g, x, weight = (wide(t) for t in stored)  # float16 is rounded once, at the end
        axes, (one, zero), m = _others(x), _one_zero(x), x.size // x.shape[1]

        def z() -> Tensor:
            return BatchNorm(self.mean, self.rstd, self.eps)(x, one, zero)

        def by_g() -> Tensor:
            terms = [] if a is None else [self(a, x, weight)]
            if b is not None:
                terms.append(_along(b, x) * z())
            if c is not None:
                terms.append(broadcast_to(_along(c, x), x.shape))
            return _total(terms)

        def by_x() -> Tensor:
            if a is None:
                assert b is not None
                return self(_along(b, x) * g, x, one)
            slope, gz, _ = self.outputs(g, x, one)  # rstd P(g), m M(g z)
            az = self.outputs(a, x, one)[1]
            scale = weight * pow(var(x, axes, correction=0) + self.eps, -0.5) * (1 / m)  # weight rstd / m
            by_z = -(a * _along(scale * gz, x) + g * _along(scale * az, x))
            if b is not None:
                by_z = by_z + _along(b, x) * g
            return self(by_z, x, one) - z() * _along(scale * sum(a * slope, axes), x)

        def by_weight() -> Tensor:
            assert a is not None
            return sum(a * self(g, x, one), axes)

        results = by_g, None if a is None and b is None else by_x, None if a is None else by_weight
        return tuple(_stored(result, t) for result, t in zip(results, stored, strict=True))


@dataclass(frozen=True, eq=False)
class BatchNormReLU(BatchNorm):
    """ReLU behind BatchNorm in one pass. Neither its input nor its output is kept for the ReLU: backward finds from x where it is open."""

    needs_inputs = (0, 1, 2)

    def forward(self, x: Array, weight: Array, bias: Array) -> Array:
        return kernels_of(x).batch_norm_apply(x, self.mean, self.rstd, weight, bias, relu=True)

    def vjp(self, g: Tensor, x: Tensor, weight: Tensor, *rest: Tensor) -> tuple[Gradient, ...]:
        return BatchNormReLUGrad(self.mean, self.rstd, self.eps).outputs(g, x, weight, *rest)


@dataclass(frozen=True, eq=False)
class BatchNormReLUGrad(BatchNormGrad):
    """BatchNormGrad of g where the ReLU is open, else of 0: the gate is constant almost everywhere and its own adjoint."""

    needs_inputs = (0, 1, 2, 3)

    def forward(self, g: Array, x: Array, weight: Array, bias: Array | None = None) -> tuple[Array, Array, Array]:
        return kernels_of(x).batch_norm_grad(g, x, self.mean, self.rstd, weight, bias)

    def vjp(self, grads: tuple[Tensor | None, ...], g: Tensor, x: Tensor, weight: Tensor, *rest: Tensor) -> tuple[Gradient, ...]:
        at, scale, bias = (wide(t)._array for t in (x, weight, rest[0]))  # so y is float32 beside float16, and rounding closes no gate
        y = Tensor.wrap(kernels_of(at).batch_norm_apply(at, self.mean, self.rstd, scale, bias))
        plain = BatchNormGrad(self.mean, self.rstd, self.eps)
        by_g, *others = plain.vjp(grads, ReLUGate()(wide(g), y), x, weight)
        assert callable(by_g)
        return _stored(lambda: ReLUGate()(by_g(), y), g), *others, None


@dataclass(frozen=True)
class ChannelSum(Function):
    """x (N, C, ...) -> sums over the channels c - before ... c + after: linear, and its adjoint looks the other way."""

    before: int
    after: int

    def forward(self, x: Array) -> Array:
        return kernels_of(x).channel_sum(x, self.before, self.after)

    def vjp(self, g: Tensor, *_: Tensor) -> tuple[Gradient, ...]:
        return (ChannelSum(self.after, self.before)(g),)


def _others(x: Tensor) -> tuple[int, ...]:
    """All axes but the channels."""
    return (0, *range(2, x.ndim))


def _along(v: Tensor, x: Tensor) -> Tensor:
    """v (C,) as (1, C, 1, ...), to go with x (N, C, ...)."""
    return reshape(v, (1, x.shape[1], *(1,) * (x.ndim - 2)))


def _one_zero(x: Tensor) -> tuple[Tensor, Tensor]:
    """A weight and a bias (C,) that change nothing."""
    xp, dtype = kernels_of(x._array).xp, sum_dtype(x.dtype)
    return Tensor.wrap(xp.ones(x.shape[1], dtype)), Tensor.wrap(xp.zeros(x.shape[1], dtype))


def _stored(gradient: Callable[[], Tensor] | None, like: Tensor) -> Gradient:
    """A gradient that was computed `wide`, in the dtype of what it is the gradient of."""
    return None if gradient is None else lambda: cast(gradient(), like.dtype)


def _total(terms: list[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


# -- the public functions -------------------------------------------------------------------------------------------------------------


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    relu: bool = False,
) -> Tensor:
    """input: (N, C, ...) -> the same shape: (x - mean) / sqrt(var + eps) weight + bias, each channel by itself; the rest is (C,).

    With `relu`, ReLU of that: while training in the same passes over memory, forward and backward, and with less kept.

    While `training`, mean and variance are the batch's own, and the running ones, if given, are updated in place: new = (1 - momentum) old
    + momentum batch, with the unbiased variance. Otherwise the running ones are used. An empty batch stays empty and updates nothing.
    weight and bias are in input's dtype, or in float32 for float16.
    ValueError for wrong shapes, one value per channel while training, or no statistics otherwise; TypeError for mixed dtypes or backends.
    Ioffe & Szegedy, "Batch normalization", 2015.
    """
    x = floating("batch_norm", input)
    if x.ndim < 2:
        raise ValueError(f"batch_norm: input must be (N, C, ...), got shape {x.shape}")
    shape, kind = x.shape, x.dtype
    for name, t in (("running_mean", running_mean), ("running_var", running_var), ("weight", weight), ("bias", bias)):
        if t is None:
            continue
        check_backend("batch_norm", x, t)
        if t.shape != (shape[1],):
            raise ValueError(f"batch_norm: {name} must have one value for each of {shape[1]} channels, got shape {t.shape} (input {shape})")
        if name in ("weight", "bias") and t.dtype != kind and t.dtype != sum_dtype(kind):
            raise TypeError(f"batch_norm: input is {kind} but {name} is {t.dtype}; cast one with .astype()")
    kernels = kernels_of(x._array)
    if weight is None or bias is None:
        one, zero = _one_zero(x)
        weight, bias = one if weight is None else weight, zero if bias is None else bias
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm: running_mean and running_var are needed unless training=True")
        spread = kernels.xp.sqrt(running_var._array.astype("float64") + eps)
        y = Normalize(running_mean._array.astype("float64"), 1 / spread)(x, weight, bias)  # copies: a later update does not reach them
        return ReLU()(y) if relu else y
    if not x.size:
        nothing = kernels.xp.zeros(x.shape[1], "float64")
        return Normalize(nothing, nothing + 1)(x, weight, bias)
    count = x.size // x.shape[1]
    if count == 1:
        raise ValueError(
            f"batch_norm: training needs more than one value per channel, got input {x.shape}; give a larger batch or image, or use eval()"
        )
    mean, variance = kernels.batch_norm_stats(x._array)
    running = [None if t is None else t._array for t in (running_mean, running_var)]
    rstd = kernels.batch_norm_track(mean, variance, count, eps, momentum, running[0], running[1])
    for t in (running_mean, running_var):
        if t is not None:
            t.changed()
    function = BatchNormReLU if relu else BatchNorm
    return function(mean, rstd, eps)(x, weight, bias)


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """input: (N, C, ...) -> the same shape: x / (k + alpha / size sum x^2)^beta, the sum over `size` neighbouring channels.

    They are c - size // 2 ... c + (size - 1) // 2, as far as they exist. Krizhevsky et al., "ImageNet classification", 2012, section 3.3,
    with PyTorch's and Caffe's convention that alpha is divided by size. ValueError for fewer than 2 axes, or a size below 1.
    """
    x = floating("local_response_norm", input)
    if x.ndim < 2:
        raise ValueError(f"local_response_norm: input must be (N, C, ...), got shape {x.shape}")
    size = integer(size, "local_response_norm: size", 1)
    x, stored = wide(x), x
    total = ChannelSum(size // 2, (size - 1) // 2)(x * x)
    return rounded(x * pow(total * (alpha / size) + k, -beta), stored)
