"""Normalisation over the channels, axis 1 of (N, C, ...): statistics, the affine map that uses them, and its gradient with them."""

from __future__ import annotations

from typing import Any

from ..arrays import Array
from ..half import in_float32, sum_dtype
from .base import BaseKernels


class NormKernels(BaseKernels):
    """Batch norm in three kernels, one pass each where they are fast, and sums over neighbouring channels."""

    def batch_norm_stats(self, x: Array) -> tuple[Array, Array]:
        """x (N, C, ...) -> mean (C,) and biased variance (C,) over all other axes, in float64. The mean is taken out before squaring."""
        axes = _others(x)
        mean = x.mean(axis=axes, dtype="float64")
        squares = self.map(lambda x, mean: (x - mean) ** 2, x, _along(mean, x))
        return mean, squares.mean(axis=axes)

    def batch_norm_track(
        self, mean: Array, variance: Array, count: int, eps: float, momentum: Any, running_mean: Array | None, running_var: Array | None
    ) -> Array:
        """rstd = (variance + eps)^(-1/2), (C,) float64, of statistics over `count` values; the running ones, unless None, follow in place.

        new = (1 - momentum) old + momentum batch, in float64, with the unbiased variance. momentum: a number, or an array without axes.
        """
        for running, batch in ((running_mean, mean), (running_var, variance * (count / (count - 1)))):
            if running is not None:
                running[...] = (1 - momentum) * running.astype("float64") + momentum * batch
        return 1 / self.xp.sqrt(variance + eps)  # type: ignore[no-any-return]

    def batch_norm_apply(self, x: Array, mean: Array, rstd: Array, weight: Array, bias: Array, relu: bool = False) -> Array:
        """(x - mean) rstd weight + bias, for x (N, C, ...) and (C,) float64 mean and rstd; in x's dtype; channels-last images stay so.

        With `relu`, max of that and 0. weight and bias are in x's dtype, or in float32 for float16.
        """
        kind, scale = sum_dtype(x.dtype), rstd * weight
        terms = (_along(v.astype(kind), x) for v in (mean, scale, bias))
        y = self.map(lambda x, mean, scale, bias: (x - mean) * scale + bias, x, *terms)
        return (self.relu(y) if relu else y).astype(x.dtype, copy=False)

    def batch_norm_grad(
        self, g: Array, x: Array, mean: Array, rstd: Array, weight: Array, gate: Array | None = None
    ) -> tuple[Array, Array, Array]:
        """The gradients (dx, dweight, dbias) of <g, batch_norm_apply(x, mean(x), rstd(x), weight, bias)>, in x's and weight's dtypes.

        `gate` is the bias if ReLU follows: g then counts only where (x - mean) rstd weight + gate is above 0.
        With z = (x - mean) rstd and m values in a channel: dbias = sum g, dweight = sum g z, dx = weight rstd (g - dbias / m - z dweight / m)
        (Ioffe & Szegedy, "Batch normalization", 2015, section 3, simplified).
        """
        kind, axes, count, stored = sum_dtype(x.dtype), _others(x), x.size // x.shape[1], x.dtype
        x, g = x.astype(kind, copy=False), g.astype(kind, copy=False)
        if gate is not None:
            g = self.relu_grad(g, self.batch_norm_apply(x, mean, rstd, weight, gate))
        at, spread = (_along(v.astype(kind), x) for v in (mean, rstd))
        z = self.map(lambda x, at, spread: (x - at) * spread, x, at, spread)
        dbias = self.sum(g, axes)
        dweight = self.sum(self.map(lambda g, z: g * z, g, z), axes)
        terms = (_along(v.astype(kind), x) for v in (rstd * weight, dbias / count, dweight / count))
        dx = self.map(lambda g, z, scale, b, w: scale * (g - b - z * w), g, z, *terms)
        return dx.astype(stored, copy=False), dweight.astype(weight.dtype, copy=False), dbias.astype(weight.dtype, copy=False)

    @in_float32
    def channel_sum(self, x: Array, before: int, after: int) -> Array:
        """x (N, C, ...) -> sums over the channels c - before ... c + after that exist. The adjoint is channel_sum(g, after, before)."""
        c = x.shape[1]
        y = self.xp.zeros_like(x)
        for shift in range(-min(before, c - 1), min(after, c - 1) + 1):
            y[:, max(0, -shift) : c - max(0, shift)] += x[:, max(0, shift) : c - max(0, -shift)]
        return y  # type: ignore[no-any-return]


def _others(x: Array) -> tuple[int, ...]:
    """All axes but the channels."""
    return (0, *range(2, x.ndim))


def _along(v: Array, x: Array) -> Array:
    """v (C,) as (1, C, 1, ...), to go with x (N, C, ...)."""
    return v.reshape(1, -1, *(1,) * (x.ndim - 2))
