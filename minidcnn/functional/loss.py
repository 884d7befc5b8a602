"""Losses. Pixels with `ignore_index` count nowhere, and a mean over nothing is 0 with gradient 0, never NaN.

From float16 scores, losses are computed in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..autograd import Function, Gradient
from ..backend import Array, kernels_of
from ..recording import is_grad_enabled
from ..tensor import Tensor
from ..window import fraction
from .activation import log_softmax, sigmoid, softmax
from .classes import AtClass, PickClass, classified, reduced, scores, weighed
from .common import cast, check_backend
from .elementwise import Elementwise, abs, clamp, pow
from .reduce import sum
from .shape import reshape, unsqueeze

# -- softmax and cross-entropy in one ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CrossEntropy(Function):
    """Logits x (N, C, ...), target (N, ...), weight (C,) -> losses (N, ...) and, without gradient, top = max(x) and
    logs = log(sum(exp(x - top))) over C, from which the backward pass has softmax(x) again."""

    smoothing: float
    needs_inputs = (0, 1, 2)
    needs_outputs = (1, 2)

    def forward(self, x: Array, target: Array, weight: Array) -> tuple[Array, Array, Array]:
        return kernels_of(x).cross_entropy(x, target, weight, self.smoothing)

    def vjp(self, g: Tensor, x: Tensor, target: Tensor, weight: Tensor, top: Tensor, logs: Tensor) -> tuple[Gradient, ...]:
        return CrossEntropyGrad(self.smoothing)(g, x, top, logs, target, weight), None, None


@dataclass(frozen=True)
class CrossEntropyGrad(Function):
    """The gradient of <g, losses> with respect to x: g (t softmax(x) - what does not depend on x), with t the pixel's total weight."""

    smoothing: float
    needs_inputs = (0, 1, 2, 3, 4, 5)

    def forward(self, g: Array, x: Array, top: Array, logs: Array, target: Array, weight: Array) -> Array:
        return kernels_of(x).cross_entropy_grad(g, x, top, logs, target, weight, self.smoothing)

    def vjp(self, h: Tensor, g: Tensor, x: Tensor, top: Tensor, logs: Tensor, target: Tensor, weight: Tensor) -> tuple[Gradient, ...]:
        def by_g() -> Tensor:
            one = Tensor.wrap(kernels_of(g._array).xp.ones(g.shape, g.dtype))
            return sum(h * self(one, x, top, logs, target, weight), 1)

        def by_x() -> Tensor:
            classes, s = x.shape[1], softmax(x, 1)
            every = weight * (1 - self.smoothing) + sum(weight) * (self.smoothing / classes)  # (C,): t, if that were the pixel's class
            total = AtClass(classes)(every, target)
            return s * (h - sum(s * h, 1, keepdim=True)) * unsqueeze(g * total, 1)

        return by_g, by_x, None, None, None, None


class Softplus(Elementwise):
    """log(1 + exp(x)), without overflow."""

    needs_inputs = (0,)

    def compute(self, xp: Any, x: Array) -> Array:
        return xp.maximum(x, x.dtype.type(0)) + xp.log1p(xp.exp(-xp.abs(x)))  # type: ignore[no-any-return]

    def vjp(self, g: Tensor, x: Tensor) -> tuple[Gradient, ...]:
        return (g * sigmoid(x),)


class Expm1(Elementwise):
    """exp(x) - 1, exact for small x."""

    needs_outputs = (0,)

    def compute(self, xp: Any, x: Array) -> Array:
        return xp.expm1(x)  # type: ignore[no-any-return]

    def vjp(self, g: Tensor, y: Tensor) -> tuple[Gradient, ...]:
        return (g * (y + 1),)


# -- the public functions -------------------------------------------------------------------------------------------------------------


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    pixel_weights: Tensor | None = None,
) -> Tensor:
    """input: logits (N, C, ...) or (C,); target: class indices (N, ...) or (), or probabilities of input's shape -> (), or unreduced (N, ...).

    -log(softmax(input)) at each pixel's class, times weight (C,) of that class and pixel_weights (N, ...), one of each pixel. "mean" is the weighted
    mean: the sum over that of all these weights, 0 if that is 0; so it does not change when all weights are doubled. label_smoothing e mixes
    the target with the uniform distribution, (1 - e) target + e / C. Probabilities are floating; their mean is over pixels, whatever `weight`,
    as in PyTorch, and ignore_index does not apply. Szegedy et al., "Rethinking the inception architecture", 2016, section 7 (smoothing);
    Ronneberger et al., "U-Net", 2015, section 3 (pixel weights).
    ValueError for shapes that do not fit and for a target that is neither a class nor ignore_index (an int: without it, every pixel counts);
    TypeError for other dtypes; RuntimeError for class indices and a weight that requires gradients, for which there is no derivative.
    """
    name = "cross_entropy"
    check_backend(name, input, target)
    fraction(label_smoothing, f"{name}: label_smoothing")
    alone = input.ndim == 1
    if pixel_weights is not None and alone:
        pixel_weights = reshape(pixel_weights, (1,))
    if target.dtype.kind == "f" and target.shape == input.shape:
        x, t, w = _probabilities(name, input, target, weight)
        logs = log_softmax(x, 1)
        if label_smoothing:
            t = t * (1 - label_smoothing) + label_smoothing / x.shape[1]
        losses = -sum(logs * t if w is None else logs * t * w, 1)
        ones = Tensor.wrap(kernels_of(losses._array).xp.ones(losses.shape, losses.dtype))
        losses, weights = weighed(name, losses, ones, None, pixel_weights)
    else:
        x, t, w = classified(name, input, target, weight, ignore_index)
        if w.requires_grad and is_grad_enabled():
            raise RuntimeError(f"{name}: weight has no derivative here; pass weight.detach(), or probabilities as the target")
        losses = CrossEntropy(float(label_smoothing))(x, t, w)
        losses, weights = weighed(name, losses, AtClass(x.shape[1])(w, t), t, pixel_weights)
    return reduced(name, reshape(losses, ()) if alone else losses, reduction, weights)


def _probabilities(name: str, input: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """input and target as (N, C, ...) and weight as (1, C, 1, ...), all in input's dtype."""
    x = scores(name, input)
    check_backend(name, x, target, *(() if weight is None else (weight,)))
    if x.ndim == 1:
        x, target = reshape(x, (1, -1)), reshape(target, (1, -1))
    classes = x.shape[1] if x.ndim else 0
    if not classes:
        raise ValueError(f"{name}: input must be (N, C, ...) or (C,) with at least one class, got shape {input.shape}")
    if weight is not None:
        if weight.shape != (classes,):
            raise ValueError(f"{name}: weight must have one number for each of {classes} classes, got shape {weight.shape}")
        weight = reshape(cast(weight, x.dtype), (1, classes, *(1,) * (x.ndim - 2)))
    return x, cast(target, x.dtype), weight


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """input: log-probabilities (N, C, ...) or (C,); target: class indices (N, ...) or () -> (), or target's shape for reduction "none".

    -input at each pixel's class times its weight (C,); cross_entropy without the softmax, with the same mean and the same errors.
    """
    x, t, w = classified("nll_loss", input, target, weight, ignore_index)
    weights = AtClass(x.shape[1])(w, t)
    losses = -(PickClass(x.shape[1])(x, t) * weights)
    return reduced("nll_loss", reshape(losses, ()) if input.ndim == 1 else losses, reduction, weights)


def focal_loss(
    input: Tensor,
    target: Tensor,
    gamma: float = 2.0,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """input: logits (N, C, ...) or (C,); target: class indices (N, ...) or () -> (), or target's shape for reduction "none".

    -weight_y (1 - p)^gamma log(p), with p = softmax(input) at the pixel's class y: what is classified well already counts less. weight (C,)
    is the paper's alpha. Means as in cross_entropy, which it is for gamma=0. Lin et al., "Focal loss for dense object detection", 2017,
    section 3. ValueError for a negative gamma, else as in cross_entropy.
    """
    if gamma < 0:
        raise ValueError(f"focal_loss: gamma must not be negative, got {gamma}")
    x, t, w = classified("focal_loss", input, target, weight, ignore_index)
    one = Tensor.wrap(kernels_of(x._array).xp.ones(x.shape[1], x.dtype))
    entropy, weights = CrossEntropy(0.0)(x, t, one), AtClass(x.shape[1])(w, t)
    losses = entropy * weights
    if gamma:  # 1 - p by expm1: exact where p is nearly 1; kept off 0, where roots have no slope
        losses = losses * pow(clamp(-Expm1()(-entropy), min=1e-12), gamma)
    return reduced("focal_loss", reshape(losses, ()) if input.ndim == 1 else losses, reduction, weights)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """input: logits, any shape; target: probabilities in [0, 1], same shape, any dtype -> (), or that shape for reduction "none".

    -weight (pos_weight target log(p) + (1 - target) log(1 - p)), p = sigmoid(input), without overflow; weight and pos_weight broadcast. The
    mean is over all elements, whatever the weights, as in PyTorch. ValueError for other shapes and for targets outside [0, 1].
    """
    name = "binary_cross_entropy_with_logits"
    x = scores(name, input)
    _same_shape(name, x, target)
    t = cast(target, x.dtype)
    kernels, values = kernels_of(t._array), t._array

    def outside(_: int) -> ValueError:
        low, high = float(values.min()), float(values.max())
        return ValueError(f"{name}: target must lie between 0 and 1, got values from {low:g} to {high:g}; divide masks of 0 and 255 by 255")

    kernels.demand(kernels.first(kernels.map(lambda v: ~((v >= 0) & (v <= 1)), values)), outside)
    positive = t if pos_weight is None else t * cast(pos_weight, x.dtype)
    losses = positive * Softplus()(-x) + (1 - t) * Softplus()(x)
    if weight is not None:
        losses = losses * cast(weight, x.dtype)
    return reduced(name, losses, reduction)


def mse_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """(input - target)^2, same shapes -> (), or that shape for reduction "none". ValueError if the shapes differ."""
    _same_shape("mse_loss", input, target)
    return reduced("mse_loss", pow(scores("mse_loss", input) - target, 2), reduction)


def l1_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """|input - target|, same shapes -> (), or that shape for reduction "none". ValueError if the shapes differ."""
    _same_shape("l1_loss", input, target)
    return reduced("l1_loss", abs(scores("l1_loss", input) - target), reduction)


def _same_shape(name: str, input: Tensor, target: Tensor) -> None:
    check_backend(name, input, target)
    if input.shape != target.shape:
        raise ValueError(f"{name}: target must have the input's shape {input.shape}, got {target.shape}; reshape or broadcast it first")
