"""What losses share: the linear maps between pixels and their classes, each beside its adjoint; targets checked; means that are never NaN.

A target is int64 class indices, -1 where a pixel is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autograd import Function, Gradient
from ..backend import Array, kernels_of
from ..tensor import Tensor
from ..window import integer
from .activation import floating
from .common import cast, check_backend, operands, wide
from .elementwise import Elementwise, where
from .reduce import sum
from .shape import reshape


@dataclass(frozen=True)
class PickClass(Function):
    """x (N, C, ...), target (N, ...) -> (N, ...), x at each pixel's class, 0 where it is left out; the adjoint of PlaceClass."""

    classes: int
    needs_inputs = (1,)

    def forward(self, x: Array, target: Array) -> Array:
        return kernels_of(x).pick_class(x, target)

    def vjp(self, g: Tensor, target: Tensor) -> tuple[Gradient, ...]:
        return PlaceClass(self.classes)(g, target), None


@dataclass(frozen=True)
class PlaceClass(Function):
    """y (N, ...), target (N, ...) -> (N, C, ...), y at each pixel's class, 0 elsewhere; the adjoint of PickClass."""

    classes: int
    needs_inputs = (1,)

    def forward(self, y: Array, target: Array) -> Array:
        return kernels_of(y).place_class(y, target, self.classes)

    def vjp(self, g: Tensor, target: Tensor) -> tuple[Gradient, ...]:
        return PickClass(self.classes)(g, target), None


@dataclass(frozen=True)
class AtClass(Function):
    """v (C,), target (N, ...) -> (N, ...), the value of each pixel's class, 0 where it is left out; the adjoint of ClassSums."""

    classes: int
    needs_inputs = (1,)

    def forward(self, v: Array, target: Array) -> Array:
        return kernels_of(v).at_class(v, target)

    def vjp(self, g: Tensor, target: Tensor) -> tuple[Gradient, ...]:
        return ClassSums(self.classes)(g, target), None


@dataclass(frozen=True)
class ClassSums(Function):
    """y (N, ...), target (N, ...) -> (C,), y summed over the pixels of each class; the adjoint of AtClass."""

    classes: int
    needs_inputs = (1,)

    def forward(self, y: Array, target: Array) -> Array:
        return kernels_of(y).class_sums(y, target, self.classes)

    def vjp(self, g: Tensor, target: Tensor) -> tuple[Gradient, ...]:
        return AtClass(self.classes)(g, target), None


class Quotient(Elementwise):
    """a / b, and 0 where b is 0, whatever a is: a mean over nothing."""

    needs_inputs = (0, 1)

    def compute(self, xp: Any, a: Array, b: Array) -> Array:
        nothing = b == 0
        return xp.where(nothing, a.dtype.type(0), a / xp.where(nothing, b.dtype.type(1), b))  # type: ignore[no-any-return]

    def vjp(self, g: Tensor, a: Tensor, b: Tensor) -> tuple[Gradient, ...]:
        return lambda: self(g, b), lambda: -self(g * self(a, b), b)


# -- what the losses share ---------------------------------------------------------------------------------------------------------------


def scores(name: str, input: Tensor) -> Tensor:
    """What a loss is computed from: `input`, or if that is float16 the same in float32, and so is the loss. TypeError unless it is floating."""
    return wide(floating(name, input))


def classified(name: str, input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:
    """(input (N, C, ...), target (N, ...) int64 with -1 for ignored pixels, weight (C,) in input's dtype, ones if None), all checked.

    An input (C,) with a target () becomes a batch of one. ValueError for shapes that do not fit and for targets that are neither a class
    nor ignore_index; TypeError for other dtypes, for mixed backends, and for an ignore_index that is no int.
    """
    x = scores(name, input)
    check_backend(name, x, target, *(() if weight is None else (weight,)))
    if not x.ndim or not x.shape[min(1, x.ndim - 1)]:
        raise ValueError(f"{name}: input must be (N, C, ...) or (C,) with at least one class, got shape {x.shape}")
    classes = x.shape[min(1, x.ndim - 1)]
    wanted = (*x.shape[:1], *x.shape[2:]) if x.ndim > 1 else ()
    if target.dtype.kind not in "iub":
        raise TypeError(
            f"{name}: target must hold class indices as integers, got {target.dtype} of shape {target.shape} for input {x.shape}"
        )
    if target.shape != wanted:
        extra = x.ndim > 1 and target.shape == (x.shape[0], 1, *x.shape[2:])
        way = "; take its channel axis away with target[:, 0]" if extra else ""
        raise ValueError(
            f"{name}: target must hold one class index per pixel, shape {wanted} for input {x.shape}, got shape {target.shape}{way}"
        )
    kernels = kernels_of(x._array)
    if weight is None:
        weight = Tensor.wrap(kernels.xp.ones(classes, x.dtype))
    elif weight.shape != (classes,):
        raise ValueError(f"{name}: weight must have one number for each of {classes} classes, got shape {weight.shape}")
    labels = target._array
    clean, wrong = kernels.clean_target(labels, classes, integer(ignore_index, f"{name}: ignore_index"))

    def no_class(index: int) -> ValueError:
        at = tuple(int(i) for i in np.unravel_index(index, wanted)) if wanted else ()
        value = int(labels.reshape(-1)[index])
        return ValueError(
            f"{name}: target{list(at) if at else ''} is {value}, which is none of the input's {classes} classes, 0 to {classes - 1}; map it to "
            f"one (masks are often saved as 0 and 255, or as colours), or leave such pixels out with ignore_index={value}"
        )

    kernels.demand(wrong, no_class)
    if x.ndim == 1:
        x, clean = reshape(x, (1, classes)), clean.reshape(1)
    return x, Tensor.wrap(clean), cast(weight, x.dtype)


def reduced(name: str, losses: Tensor, reduction: str, weights: Tensor | None = None) -> Tensor:
    """losses for "none", their sum for "sum", and for "mean" the sum over that of `weights`, or their count: 0 where that is 0."""
    if reduction == "none":
        return losses
    total = sum(losses)
    if reduction == "sum":
        return total
    if reduction != "mean":
        raise ValueError(f'{name}: reduction must be "none", "mean" or "sum", got {reduction!r}')
    if weights is None:
        return total * (1 / losses.size if losses.size else 0.0)
    return Quotient()(*operands(name, total, sum(weights)))


def weighed(name: str, losses: Tensor, weights: Tensor, target: Tensor | None, pixel_weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """losses and weights, both (N, ...), times pixel_weights; where `target` leaves a pixel out its weight may be anything, NaN too."""
    if pixel_weights is None:
        return losses, weights
    check_backend(name, losses, pixel_weights)
    if pixel_weights.shape != losses.shape:
        raise ValueError(f"{name}: pixel_weights must have one number per pixel, shape {losses.shape}, got shape {pixel_weights.shape}")
    factor = cast(pixel_weights, losses.dtype)
    if target is not None:
        factor = where(target >= 0, factor, 0.0)
    return losses * factor, weights * factor
