"""Softmax and cross-entropy in one, and the linear maps between pixels and their classes.

A target is an array of int64 class indices, -1 where a pixel is left out. Nothing here makes one-hot arrays: what belongs to a pixel's own
class is picked, or added, at its index.
"""

from __future__ import annotations

from ..arrays import Array
from .transfer import TransferKernels


class LossKernels(TransferKernels):
    """cross_entropy with its gradient; pick_class / place_class and at_class / class_sums, each beside its adjoint."""

    def clean_target(self, target: Array, classes: int, ignore_index: int) -> tuple[Array, Array]:
        """Any integers -> int64 with -1 for ignore_index and for what is no class; and the flat index of the first that is none, as an
        integer without axes, -1 if all are."""
        target = target.astype("int64")
        ignored = target == ignore_index
        wrong = ((target < 0) | (target >= classes)) & ~ignored
        return self.xp.where(ignored | wrong, -1, target), self.first(wrong)

    def cross_entropy(self, x: Array, target: Array, weight: Array, smoothing: float) -> tuple[Array, Array, Array]:
        """Logits x (N, C, ...), target (N, ...), weight (C,) -> losses, top = max(x) and logs = log(sum(exp(x - top))), each (N, ...).

        With y = target and r_c = top + logs - x_c, the loss is (1 - smoothing) weight_y r_y + smoothing / C sum_c weight_c r_c, 0
        where a pixel is left out, whatever its logits. The maximum is taken out first: nothing overflows, and losses keep
        their digits down to 1e-16, float32 ones too.
        """
        top = x.max(axis=1, keepdims=True)
        shifted = self.map(lambda x, top: x - top, x, top)
        logs = self.xp.log(self.map(self.xp.exp, shifted).sum(axis=1, dtype="float64"))
        losses = (1 - smoothing) * self.at_class(weight, target) * (logs - self.pick_class(shifted, target))
        if smoothing:
            along = weight.reshape(1, -1, *(1,) * (x.ndim - 2))
            weighted = self.map(lambda x, w: x * w, shifted, along).sum(axis=1, dtype="float64")
            losses = losses + smoothing / x.shape[1] * (weight.sum(dtype="float64") * logs - weighted)
        return self.xp.where(target >= 0, losses, 0.0).astype(x.dtype), top[:, 0], logs.astype(x.dtype)

    def cross_entropy_grad(self, g: Array, x: Array, top: Array, logs: Array, target: Array, weight: Array, smoothing: float) -> Array:
        """The gradient of <g, losses> with respect to x, in channels-last memory; top and logs are from cross_entropy.

        With a = (1 - smoothing) weight_y and b = smoothing / C, per pixel: g ((a + b sum(weight)) softmax(x) - a e_y - b weight), else 0.
        """
        kind, b = x.dtype.type, smoothing / x.shape[1]
        own = (1 - smoothing) * self.at_class(weight, target)
        scale = g * (own + b * weight.sum(dtype="float64"))
        dx = self.place_class((-g * own).astype(kind), target, x.shape[1])

        def rest(x: Array, top: Array, logs: Array, scale: Array, g: Array, weight: Array, kept: Array) -> Array:
            slope = scale * self.xp.exp(x - top - logs) - kind(b) * weight * g
            return self.xp.where(kept, slope, kind(0))  # type: ignore[no-any-return]

        pixels = (v[:, None] for v in (top, logs, scale.astype(kind), g))  # (N, 1, ...)
        dx += self.map(rest, x, *pixels, weight.reshape(1, -1, *(1,) * (x.ndim - 2)), (target >= 0)[:, None])
        return dx

    def pick_class(self, x: Array, target: Array) -> Array:
        """x (N, C, ...) -> (N, ...), the value at each pixel's own class; 0 where the pixel is left out."""
        picked = self.xp.take_along_axis(x, self.xp.maximum(target, 0)[:, None], 1)[:, 0]
        return self.xp.where(target >= 0, picked, x.dtype.type(0))  # type: ignore[no-any-return]

    def place_class(self, y: Array, target: Array, classes: int) -> Array:
        """The adjoint of pick_class: y (N, ...) -> (N, C, ...) in channels-last memory, y at each pixel's class and 0 elsewhere."""
        xp = self.xp
        rows = xp.zeros((y.size, classes), y.dtype)
        at = target.reshape(-1)
        rows[xp.arange(y.size), xp.maximum(at, 0)] = xp.where(at >= 0, y.reshape(-1), y.dtype.type(0))
        last = y.ndim  # of (N, ..., C)
        return rows.reshape(*y.shape, classes).transpose(0, last, *range(1, last))  # type: ignore[no-any-return]

    def at_class(self, v: Array, target: Array) -> Array:
        """v (C,) -> (N, ...), the value of each pixel's class; 0 where the pixel is left out."""
        return self.xp.where(target >= 0, v[self.xp.maximum(target, 0)], v.dtype.type(0))  # type: ignore[no-any-return]

    def class_sums(self, y: Array, target: Array, classes: int) -> Array:
        """The adjoint of at_class: y (N, ...) -> (C,), summed over the pixels of each class, in float64 and rounded once."""
        sums = self.xp.empty(classes, y.dtype)
        for c in range(classes):
            sums[c] = self.xp.where(target == c, y, y.dtype.type(0)).sum(dtype="float64")
        return sums  # type: ignore[no-any-return]
