"""Elementwise arithmetic: each function and its derivative side by side."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autograd import Function, Gradient
from ..backend import HALF, Array, kernels_of, sum_dtype
from ..operators import register
from ..tensor import Operand, Tensor
from .common import as_tensor, cast, check_backend, fitting, of_tensor, operands, rounded, together, wide

NUMBER = (int, float, np.integer, np.floating)


@dataclass(frozen=True)
class Elementwise(Function):
    """A function of equally shaped arrays, element by element, in memory order; a dataclass, also where it has no parameters to declare."""

    def compute(self, *xp_and_arrays: Any, **_: Any) -> Array:
        raise NotImplementedError(f"{type(self).__name__} does not define compute")

    def forward(self, *arrays: Array, **_: Any) -> Array:
        kernels = kernels_of(arrays[0])
        return kernels.map(lambda *a: self.compute(kernels.xp, *a), *arrays)


class Add(Elementwise):
    def compute(self, xp: Any, a: Array, b: Array) -> Array:
        return a + b

    def vjp(self, g: Tensor, *_: Tensor) -> tuple[Gradient, ...]:
        return g, g


class Sub(Elementwise):
    def compute(self, xp: Any, a: Array, b: Array) -> Array:
        return a - b

    def vjp(self, g: Tensor, *_: Tensor) -> tuple[Gradient, ...]:
        return g, lambda: -g


class Mul(Elementwise):
    needs_inputs = (0, 1)

    def compute(self, xp: Any, a: Array, b: Array) -> Array:
        return a * b

    def vjp(self, g: Tensor, a: Tensor, b: Tensor) -> tuple[Gradient, ...]:
        return lambda: g * b, lambda: g * a


class Div(Elementwise):
    needs_inputs = (0, 1)

    def compute(self, xp: Any, a: Array, b: Array) -> Array:
        return a / b

    def vjp(self, g: Tensor, a: Tensor, b: Tensor) -> tuple[Gradient, ...]:
        return lambda: g / b, lambda: -(g * (a / b / b))  # b * b might overflow


def times(x: Array, factor: float) -> Array:
    """factor x. Beside float16 a factor keeps the digits and the size that float16 lacks: the product is float32's, rounded once."""
    single = sum_dtype(x.dtype)
    product: Array = (x if x.dtype == single else x.astype(single)) * single.type(factor)
    return product if x.dtype == single else product.astype(x.dtype)


@dataclass(frozen=True)
class Scale(Elementwise):
    """factor * x, its own adjoint."""

    factor: float

    def compute(self, xp: Any, x: Array) -> Array:
        return -x if self.factor == -1 else times(x, self.factor)

    def vjp(self, g: Tensor, *_: Tensor) -> tuple[Gradient, ...]:
        return (self(g),)


@dataclass(frozen=True)
class Power(Elementwise):
    """x ** exponent for a constant exponent."""

    exponent: float
    needs_inputs = (0,)

    def compute(self, xp: Any, x: Array) -> Array:
        return x * x if self.exponent == 2 else x ** x.dtype.type(self.exponent)

    def vjp(self, g: Tensor, x: Tensor) -> tuple[Gradient, ...]:
        p = self.exponent
        if p == 0:
            return (None,)
        return (g * p if p == 1 else g * (p * (x if p == 2 else Power(p - 1)(x))),)


class PowerOf(Elementwise):
    """a ** b for two tensors; b's gradient is 0 where a is 0 and b is not negative, as in PyTorch."""

    needs_inputs = (0, 1)

    def compute(self, xp: Any, a: Array, b: Array) -> Array:
        return a**b

    def vjp(self, g: Tensor, a: Tensor, b: Tensor) -> tuple[Gradient, ...]:
        def base() -> Tensor:
            unclear = Tensor.wrap((b._array == 0) & ~((a._array > 0) | (a._array < 0)))  # 0 / 0, or NaN: the derivative of a ** 0 is 0
            return g * b * pow(where(unclear, 1.0, a), b - 1)

        def exponent() -> Tensor:
            zero = Tensor.wrap((a._array == 0) & (b._array >= 0))
            return g * where(zero, 0.0, pow(a, b) * log(where(zero, 1.0, a)))

        return base, exponent


class Exp(Elementwise):
    needs_outputs = (0,)

    def compute(self, xp: Any, x: Array) -> Array:
        return xp.exp(x)  # type: ignore[no-any-return]

    def vjp(self, g: Tensor, y: Tensor) -> tuple[Gradient, ...]:
        return (g * y,)


class Log(Elementwise):
    needs_inputs = (0,)

    def compute(self, xp: Any, x: Array) -> Array:
        return xp.log(x)  # type: ignore[no-any-return]

    def vjp(self, g: Tensor, x: Tensor) -> tuple[Gradient, ...]:
        return (g / x,)


class Log1p(Elementwise):
    needs_inputs = (0,)

    def compute(self, xp: Any, x: Array) -> Array:
        return xp.log1p(x)  # type: ignore[no-any-return]

    def vjp(self, g: Tensor, x: Tensor) -> tuple[Gradient, ...]:
        return (g / (x + 1),)


class Sqrt(Elementwise):
    needs_outputs = (0,)

    def compute(self, xp: Any, x: Array) -> Array:
        return xp.sqrt(x)  # type: ignore[no-any-return]

    def vjp(self, g: Tensor, y: Tensor) -> tuple[Gradient, ...]:
        return (g / (y * 2),)


class Abs(Elementwise):
    """|x|; the derivative at 0 is 0."""

    needs_inputs = (0,)

    def compute(self, xp: Any, x: Array) -> Array:
        return xp.abs(x)  # type: ignore[no-any-return]

    def vjp(self, g: Tensor, x: Tensor) -> tuple[Gradient, ...]:
        return (g * sign(x),)


@dataclass(frozen=True)
class Clamp(Elementwise):
    """x limited to [low, high], of which one may be None; the derivative is 1 on the closed interval."""

    low: float | None
    high: float | None
    needs_inputs = (0,)

    def compute(self, xp: Any, x: Array) -> Array:
        low, high = (None if limit is None else x.dtype.type(limit) for limit in (self.low, self.high))
        return xp.clip(x, low, high)  # type: ignore[no-any-return]

    def vjp(self, g: Tensor, x: Tensor) -> tuple[Gradient, ...]:
        low, high = (-math.inf if self.low is None else self.low), (math.inf if self.high is None else self.high)
        inside = (x._array >= x.dtype.type(low)) & (x._array <= x.dtype.type(high))
        return (where(Tensor.wrap(inside), g, 0.0),)  # a product would make NaN of an infinite slope


class Maximum(Elementwise):
    """The larger element; where both are equal each side gets half of the gradient, as in PyTorch."""

    needs_inputs = (0, 1)

    def compute(self, xp: Any, a: Array, b: Array) -> Array:
        return xp.maximum(a, b)  # type: ignore[no-any-return]

    def vjp(self, g: Tensor, a: Tensor, b: Tensor) -> tuple[Gradient, ...]:
        return lambda: _share(g, a, b), lambda: _share(g, b, a)


class Minimum(Elementwise):
    """The smaller element; where both are equal each side gets half of the gradient."""

    needs_inputs = (0, 1)

    def compute(self, xp: Any, a: Array, b: Array) -> Array:
        return xp.minimum(a, b)  # type: ignore[no-any-return]

    def vjp(self, g: Tensor, a: Tensor, b: Tensor) -> tuple[Gradient, ...]:
        return lambda: _share(g, b, a), lambda: _share(g, a, b)


def _share(g: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """What the larger takes of g: all where a > b or one of them is NaN, half where equal, nothing where a < b, even of infinity."""
    return where(Tensor.wrap(a._array < b._array), 0.0, g * Tensor.wrap(1 - (a._array == b._array).astype(a.dtype) / 2))


class Where(Elementwise):
    """a where the condition holds, else b; inputs (condition, a, b), linear in a and b."""

    needs_inputs = (0,)

    def compute(self, xp: Any, condition: Array, a: Array, b: Array) -> Array:
        return xp.where(condition, a, b)  # type: ignore[no-any-return]

    def vjp(self, g: Tensor, condition: Tensor) -> tuple[Gradient, ...]:
        return None, lambda: where(condition, g, 0.0), lambda: where(condition, 0.0, g)


# -- the public functions -------------------------------------------------------------------------------------------------------


def add(a: Operand, b: Operand, *, alpha: float = 1) -> Tensor:
    """a + alpha b, broadcast. ValueError if the shapes do not broadcast, or a number does not fit an integer dtype."""
    return Add()(*operands("add", a, b if alpha == 1 else alpha * as_tensor(b, a if isinstance(a, Tensor) else None)))


def sub(a: Operand, b: Operand, *, alpha: float = 1) -> Tensor:
    """a - alpha b, broadcast. ValueError as of add, TypeError for two booleans, which have no difference."""
    a, b = operands("sub", a, b if alpha == 1 else alpha * as_tensor(b, a if isinstance(a, Tensor) else None))
    if a.dtype.kind == "b":
        raise TypeError("sub: booleans have no difference; compare them with !=, or cast them with .astype()")
    return Sub()(a, b)


def mul(a: Operand, b: Operand) -> Tensor:
    """a b, broadcast. ValueError as of add."""
    if isinstance(a, NUMBER) and isinstance(b, Tensor):
        a, b = b, a
    if isinstance(a, Tensor) and isinstance(b, NUMBER) and a.dtype.kind == "f":
        return Scale(float(b))(a)
    return Mul()(*operands("mul", a, b))


def div(a: Operand, b: Operand) -> Tensor:
    """a / b, broadcast; true division, float32 for integers. ValueError if the shapes do not broadcast."""
    if isinstance(a, Tensor) and isinstance(b, int | float) and a.dtype.kind == "f" and 2**-14 <= b <= 2**14 and math.frexp(b)[0] == 0.5:
        return Scale(1 / b)(a)  # exact for powers of two only
    for x, number in ((a, b), (b, a)):
        if isinstance(x, Tensor) and x.dtype == HALF and isinstance(number, NUMBER):  # which keeps its digits, as in a product
            return rounded(div(wide(x), number) if x is a else div(number, wide(x)), x)
        if isinstance(x, Tensor) and x.dtype.kind != "f" and isinstance(number, NUMBER):  # which need not fit an integer dtype
            return div(cast(x, "float32"), number) if x is a else div(number, cast(x, "float32"))
    a, b = operands("div", a, b)
    if a.dtype.kind != "f":
        a, b = cast(a, "float32"), cast(b, "float32")
    return Div()(a, b)


def neg(x: Operand) -> Tensor:
    """-x. TypeError for booleans, which have no negative."""
    x = as_tensor(x)
    if x.dtype.kind == "b":
        raise TypeError("neg: a boolean has no negative; use x == False to invert it, or cast it with .astype()")
    return Scale(-1.0)(x)


def pow(a: Operand, b: Operand) -> Tensor:
    """a ** b, broadcast. ValueError as of add, TypeError for two booleans, which have no power."""
    if isinstance(a, Tensor) and isinstance(b, int | float) and a.dtype.kind == "f":
        return Power(float(b))(a)
    a, b = operands("pow", a, b)
    if a.dtype.kind == "b":
        raise TypeError("pow: booleans have no power; cast them with .astype()")
    return PowerOf()(a, b)


@of_tensor
def square(x: Tensor) -> Tensor:
    """x ** 2."""
    return pow(x, 2)


@of_tensor
def exp(x: Tensor) -> Tensor:
    """e ** x; float32 for integers."""
    return Exp()(as_floating(x))


@of_tensor
def log(x: Tensor) -> Tensor:
    """Natural logarithm; float32 for integers."""
    return Log()(as_floating(x))


@of_tensor
def log1p(x: Tensor) -> Tensor:
    """log(1 + x), exact for small x."""
    return Log1p()(as_floating(x))


@of_tensor
def sqrt(x: Tensor) -> Tensor:
    """Square root; float32 for integers."""
    return Sqrt()(as_floating(x))


@of_tensor
def abs(x: Tensor) -> Tensor:
    """Absolute value; its derivative at 0 is 0."""
    return Abs()(x)


@of_tensor
def sign(x: Tensor) -> Tensor:
    """-1, 0 or 1; its derivative is 0. A boolean is its own sign."""
    kernels = kernels_of(x._array)
    return Tensor.wrap(kernels.map(kernels.xp.abs if x.dtype.kind == "b" else kernels.xp.sign, x._array))


@of_tensor
def clamp(x: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    """x limited to [min, max], to `max` where they cross. Integers with a limit that is none become float32.

    ValueError without limits and for limits that the dtype cannot hold, TypeError for limits that are no numbers.
    """
    if min is None and max is None:
        raise ValueError("clamp: give min, max or both")
    for limit in (min, max):
        if limit is not None and not isinstance(limit, NUMBER):
            raise TypeError(f"clamp: limits must be numbers, got {type(limit).__name__}; for those of a tensor use maximum and minimum")
    if any(isinstance(limit, float | np.floating) for limit in (min, max)):
        x = as_floating(x)
    return Clamp(*(None if limit is None else fitting(limit, x.dtype) for limit in (min, max)))(x)


def maximum(a: Operand, b: Operand) -> Tensor:
    """The larger of a and b, broadcast; equal elements share the gradient. ValueError as of add."""
    return Maximum()(*operands("maximum", a, b))


def minimum(a: Operand, b: Operand) -> Tensor:
    """The smaller of a and b, broadcast; equal elements share the gradient. ValueError as of add."""
    return Minimum()(*operands("minimum", a, b))


def where(condition: Operand, a: Operand, b: Operand) -> Tensor:
    """a where `condition` is true, else b, broadcast. ValueError as of add, for all three."""
    mask = cast(as_tensor(condition), bool)
    a, b = operands("where", a, b)
    check_backend("where", mask, a)
    return Where()(*together("where", mask, a, b))


def as_floating(x: Tensor) -> Tensor:
    """x, or float32 if it is no float: what functions with real values take."""
    return x if x.dtype.kind == "f" else cast(x, "float32")


register(add=add, sub=sub, mul=mul, div=div, pow=pow, neg=neg, abs=abs, exp=exp, log=log, sqrt=sqrt)
