"""Images made larger or smaller: padding and cropping, and any map that is linear along rows and along columns.

Bilinear and nearest interpolation, adaptive average pooling, and padding by mirrors, borders or periods are one kernel, `resample`; the
adjoint of each is the same kernel on the transposed maps. Padding with a constant has negative widths for cropping, and its linear part
is adjoint to padding with the widths negated.
"""

from __future__ import annotations

from typing import Any

from ..arrays import Array, inverse, memory_order, nchw, nhwc
from ..axis_map import AxisMap
from ..half import in_float32
from .transfer import TransferKernels

NHWC = (0, 2, 3, 1)


class ResizeKernels(TransferKernels):
    """pad, which also crops, and resample."""

    def pad(self, x: Array, widths: tuple[tuple[int, int], ...], value: float = 0) -> Array:
        """x with (before, after) = widths[i] elements of `value` along axis i; negative widths crop. Images get channels-last memory."""
        shape = [n + before + after for n, (before, after) in zip(x.shape, widths, strict=True)]
        order = NHWC if x.ndim == 4 else memory_order(x) or tuple(range(x.ndim))
        out: Array = self.xp.full([shape[i] for i in order], value, x.dtype).transpose(inverse(order))
        kept = [max(0, n + min(before, 0) + min(after, 0)) for n, (before, after) in zip(x.shape, widths, strict=True)]
        to = tuple(slice(max(before, 0), max(before, 0) + m) for (before, _), m in zip(widths, kept, strict=True))
        source = tuple(slice(max(-before, 0), max(-before, 0) + m) for (before, _), m in zip(widths, kept, strict=True))
        out[to] = x[source]
        return out

    @in_float32
    def resample(self, x: Array, rows: AxisMap, columns: AxisMap) -> Array:
        """x (N, C, H, W) -> (N, C, OH, OW): `rows` along the height, then `columns` along the width. Where maps gather, any dtype."""
        return nchw(self._along(self._along(nhwc(x), 1, rows), 2, columns))

    def _along(self, x: Array, axis: int, to: AxisMap) -> Array:
        """The map `to` along `axis` of x (N, H, W, C)."""
        if to.is_identity:
            return x
        xp, before = self.xp, (slice(None),) * axis
        y: Array = xp.zeros((*x.shape[:axis], to.outputs, *x.shape[axis + 1 :]), x.dtype)
        for k, (outputs, inputs, weights) in enumerate(to.rounds(x.dtype)):
            gathered: tuple[Any, ...] = (*before, self.constant(inputs))
            part = x[gathered]
            if weights is not None:
                part = part * self.constant(weights).reshape(-1, *(1,) * (3 - axis))
            at = (*before, outputs if isinstance(outputs, slice) else self.constant(outputs))
            if k == 0:
                y[at] = part
            else:
                y[at] += part  # no output is named twice in one round
        return y
