"""Arrays as the compiled kernels want them: channels last, without gaps, float32 or float64, writable.

numba compiles a kernel anew for every dtype, layout and writability, so whatever else comes is copied into this form first: fewer
versions, less waiting for the compiler. Inside the library nearly all images are in it already.
"""

from __future__ import annotations

import numpy as np

from ..arrays import Array, nhwc

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def suits(*arrays: Array | None) -> bool:
    """Whether the compiled kernels take these arrays: not empty, all float32 or all float64 in the machine's byte order."""
    some = [a for a in arrays if a is not None]
    kind = some[0].dtype
    for a in some:
        if a.dtype != kind or a.size == 0:
            return False
    return kind in FLOATS


def plain(x: Array) -> Array:
    """x itself if it lies in C order, aligned and writable, else a copy that does."""
    return x if x.flags.carray else np.array(x, order="C")


def images(x: Array) -> Array:
    """(N, C, H, W) -> (N, H, W, C) without gaps: a view of channels-last images, else a copy."""
    return plain(nhwc(x))


def rows(x: Array) -> Array:
    """(N, C, H, W) -> (N, H, W C) without gaps: a view of channels-last images, else a copy."""
    n, c, h, w = x.shape
    return images(x).reshape(n, h, w * c)
