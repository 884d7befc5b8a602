"""What the families of CUDA kernels share: the launcher, and channels-last images as the kernels take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...window import Pair, Window
from ..arrays import Array, nchw, nhwc
from ..reference import Kernels
from .launcher import Launcher


class CudaBase(Kernels):
    """The reference on `xp`, with a launcher beside it. Overrides fall back to the reference for what their kernels do not take."""

    def __init__(self, xp: Any, module: Callable[..., Any], precision: str = "float32") -> None:
        super().__init__(xp)
        self.precision = precision
        self.launcher = Launcher(xp, module)

    def images(self, x: Array) -> Array:
        """(N, C, H, W) -> (N, H, W, C) without gaps: a view of channels-last images, else a copy."""
        return self.xp.ascontiguousarray(nhwc(x))  # type: ignore[no-any-return]

    def new_images(self, n: int, c: int, size: Pair, dtype: Any) -> Array:
        """Uninitialised (N, H, W, C)."""
        return self.xp.empty((n, *size, c), dtype)  # type: ignore[no-any-return]


def geometry(n: int, c: int, window: Window, size: Pair, out: Pair) -> tuple[int, ...]:
    """The arguments that GEOMETRY_PARAMETERS of kernels/common.cuh expects."""
    return n, c, *size, *out, *window.kernel, *window.stride, *window.padding, *window.dilation


__all__ = ["CudaBase", "geometry", "nchw", "nhwc"]
