"""Interpolation, adaptive pooling and padding by pixels on the GPU: kernels/resize.cu."""

from __future__ import annotations

import math

from ..arrays import Array, nchw
from ..axis_map import AxisMap
from ..half import sum_dtype
from .base import CudaBase
from .runs import runs


class CudaResize(CudaBase):
    """Any map that is linear along rows and along columns; between the two, float16 images are rounded once more."""

    def resample(self, x: Array, rows: AxisMap, columns: AxisMap) -> Array:
        n, c, h, w = x.shape
        largest = n * c * max(h, rows.outputs) * max(w, columns.outputs)
        if not self.launcher.suits(x, result=largest) or not rows.outputs * columns.outputs:
            return super().resample(x, rows, columns)
        return nchw(self._axis(self._axis(self.images(x), 1, rows), 2, columns))

    def _axis(self, x: Array, axis: int, to: AxisMap) -> Array:
        """The map `to` along `axis` of x (N, H, W, C) without gaps."""
        if to.is_identity:
            return x
        xp = self.xp
        y: Array = xp.empty((*x.shape[:axis], to.outputs, *x.shape[axis + 1 :]), x.dtype)
        starts, indices = (self.constant(a.astype("int32")) for a in (to.starts, to.indices))
        weights = None if to.weights is None else self.constant(to.weights.astype(sum_dtype(x.dtype)))
        inner = math.prod(x.shape[axis + 1 :])
        run, wide = runs(self.launcher, inner, x, y)
        shape, arguments = (
            (math.prod(x.shape[:axis]), to.outputs, inner // run),
            (x, y, starts, indices, weights, to.size, to.outputs, inner),
        )
        self.over_rows(shape, "resize.cu", "along_axis", x.dtype, *arguments, defines=wide)
        return y
