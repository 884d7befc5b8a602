"""Convolution in one dimension and linear maps as matrices, small enough to be written down: what docs/math computes with.

Everything here calls the engine, on images of one row, so that what holds for these rows is a fact about `functional.conv2d` and
`functional.conv_transpose2d`, not about a second implementation. Integers stay integers: results can be compared with ==.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
from numpy.typing import ArrayLike

from . import functional as F
from .backend import Array
from .tensor import Tensor


def conv1d(x: ArrayLike, w: ArrayLike, stride: int = 1, padding: int = 0, dilation: int = 1) -> Array:
    """x: (n,), w: (k,) -> y: (m,) with y[i] = sum of w[a] x[i stride + a dilation - padding] over a, where x is 0 outside.

    m = floor((n + 2 padding - dilation (k - 1) - 1) / stride) + 1, as in functional.conv2d, which computes it. x and w are integers
    or floats, brought to a common dtype. ValueError if x or w is not one row of numbers or the kernel does not fit.
    """
    image, weight = _rows("conv1d", x, w)
    return F.conv2d(image, weight, None, (1, stride), (0, padding), (1, dilation)).numpy().ravel()


def conv_transpose1d(y: ArrayLike, w: ArrayLike, stride: int = 1, padding: int = 0, output_padding: int = 0, dilation: int = 1) -> Array:
    """y: (m,), w: (k,) -> x: (n,): every y[i] adds y[i] w[a] to x[i stride + a dilation - padding], unless that lies outside.

    n = (m - 1) stride - 2 padding + dilation (k - 1) + 1 + output_padding, as in functional.conv_transpose2d, which computes it: the
    adjoint of conv1d with the same w. ValueError as for conv1d, and if output_padding is not smaller than stride or dilation.
    """
    image, weight = _rows("conv_transpose1d", y, w)
    return F.conv_transpose2d(image, weight, None, (1, stride), (0, padding), (0, output_padding), 1, (1, dilation)).numpy().ravel()


def overlap(m: int, k: int, stride: int = 1, padding: int = 0, output_padding: int = 0, dilation: int = 1) -> Array:
    """How many of the m windows of k taps cover each pixel: (n,), whole numbers. A transposed convolution of ones with ones."""
    return conv_transpose1d(np.ones(m, np.int64), np.ones(k, np.int64), stride, padding, output_padding, dilation)


def matrix(f: Callable[[Array], Array | Tensor], shape: int | tuple[int, ...]) -> Array:
    """The matrix of a linear map f, which takes arrays of `shape`: column j is f of the j-th unit array, flattened row by row.

    So matrix(f, shape) @ x.ravel() is f(x).ravel() for every x. The unit arrays hold int64; f may return an array or a Tensor.
    ValueError if `shape` has no elements.
    """
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    size = prod(shape)
    if size < 1:
        raise ValueError(f"matrix: a map from arrays of shape {shape} has no columns")
    columns = (f(unit.reshape(shape)) for unit in np.eye(size, dtype=np.int64))
    return np.stack([(c.numpy() if isinstance(c, Tensor) else np.asarray(c)).ravel() for c in columns], 1)


def _rows(name: str, x: ArrayLike, w: ArrayLike) -> tuple[Tensor, Tensor]:
    """Two lists of numbers as images of one row, (1, 1, 1, n) and (1, 1, 1, k), of one dtype."""
    rows = [np.asarray(numbers) for numbers in (x, w)]
    for kind, row in zip(("the image", "the kernel"), rows, strict=True):
        if row.ndim != 1 or not row.size:
            raise ValueError(f"{name}: {kind} must be a list of numbers, got shape {row.shape}; functional has the same in two dimensions")
    dtype = np.result_type(*rows)  # of [1, 2] and [0.5]: float64
    image, weight = (Tensor(row.astype(dtype).reshape(1, 1, 1, -1)) for row in rows)
    return image, weight
