"""Pooling and unpooling: at fixed winners max pooling is a gather, and unpooling its adjoint, a scatter-add."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..autograd import Function, Gradient
from ..backend import Array, AxisMap, kernels_of, sum_dtype
from ..tensor import Tensor
from ..window import Pair, Window, integer, integers, listed, pair
from .activation import floating
from .common import check_backend
from .conv import images
from .reduce import mean
from .resize import Resample
from .shape import reshape


@dataclass(frozen=True)
class MaxPool2d(Function):
    """x (N, C, H, W) -> maxima (N, C, *out) and, without gradient, the winning taps. Its derivative is the gather at those taps."""

    window: Window
    out: Pair
    size: Pair
    needs_outputs = (1,)

    def forward(self, x: Array) -> tuple[Array, Array]:
        return kernels_of(x).max_pool2d(x, self.window, self.out)

    def vjp(self, g: Tensor, taps: Tensor) -> tuple[Gradient, ...]:
        return (PoolScatter(taps._array, self.window, self.size)(g),)


@dataclass(frozen=True, eq=False)
class PoolGather(Function):
    """x (N, C, H, W) at the winning taps (N, C, OH, OW) of each window: a linear map, adjoint of PoolScatter."""

    taps: Array
    window: Window
    size: Pair

    def forward(self, x: Array) -> Array:
        return kernels_of(x).pool_gather(x, self.taps, self.window)

    def vjp(self, g: Tensor, *_: Tensor) -> tuple[Gradient, ...]:
        return (PoolScatter(self.taps, self.window, self.size)(g),)


@dataclass(frozen=True, eq=False)
class PoolScatter(Function):
    """g (N, C, OH, OW) added at the winning taps into (N, C, *size): the adjoint of PoolGather."""

    taps: Array
    window: Window
    size: Pair

    def forward(self, g: Array) -> Array:
        return kernels_of(g).pool_scatter(g, self.taps, self.window, self.size)

    def vjp(self, g: Tensor, *_: Tensor) -> tuple[Gradient, ...]:
        return (PoolGather(self.taps, self.window, self.size)(g),)


@dataclass(frozen=True)
class Gather(Function):
    """x (N, C, *size) at flat plane indices h W + w (N, C, OH, OW) -> (N, C, OH, OW): the adjoint of Scatter."""

    size: Pair
    window: Window  # of the pooling that found the indices
    needs_inputs = (1,)

    def forward(self, x: Array, indices: Array) -> Array:
        return kernels_of(x).gather(x, indices)

    def vjp(self, g: Tensor, indices: Tensor) -> tuple[Gradient, ...]:
        return Scatter(self.size, self.window)(g, indices), None


@dataclass(frozen=True)
class Scatter(Function):
    """y and indices (N, C, OH, OW) -> (N, C, *size), added where indices repeat: max unpooling, the adjoint of Gather."""

    size: Pair
    window: Window
    needs_inputs = (1,)

    def forward(self, y: Array, indices: Array) -> Array:
        return kernels_of(y).scatter(y, indices, self.size)

    def vjp(self, g: Tensor, indices: Tensor) -> tuple[Gradient, ...]:
        return Gather(self.size, self.window)(g, indices), None


@dataclass(frozen=True, eq=False)
class AvgPool2d(Function):
    """Sums over windows times weight (OH, OW): a linear map, adjoint of AvgPool2dAdjoint."""

    window: Window
    weight: Array
    size: Pair

    def forward(self, x: Array) -> Array:
        return kernels_of(x).avg_pool2d(x, self.window, self.weight)

    def vjp(self, g: Tensor, *_: Tensor) -> tuple[Gradient, ...]:
        return (AvgPool2dAdjoint(self.window, self.weight, self.size)(g),)


@dataclass(frozen=True, eq=False)
class AvgPool2dAdjoint(Function):
    """g (N, C, OH, OW) times weight, added to every pixel of its window: the adjoint of AvgPool2d."""

    window: Window
    weight: Array
    size: Pair

    def forward(self, g: Array) -> Array:
        return kernels_of(g).avg_pool2d_adjoint(g, self.window, self.weight, self.size)

    def vjp(self, g: Tensor, *_: Tensor) -> tuple[Gradient, ...]:
        return (AvgPool2d(self.window, self.weight, self.size)(g),)


# -- the public functions -------------------------------------------------------------------------------------------------------


def max_pool2d(
    input: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """input: (N, C, H, W) or (C, H, W) -> (N, C, H', W') or (C, H', W'); with `return_indices` also int64 flat plane indices h W + w.

    Padding is -inf, so that it never wins; of equal maxima the first in row-major order wins. stride defaults to kernel_size.
    ValueError if padding exceeds half the window or the window does not fit.
    """
    x, batched = images("max_pool2d", input)
    floating("max_pool2d", x)
    function = _max_pool2d(x.shape[2:], Window.of(kernel_size, stride, padding, dilation, ceil_mode, name="max_pool2d"))
    y, taps = function.outputs(x)
    if not batched:
        y = reshape(y, y.shape[1:])
    if not return_indices:
        return y
    indices = kernels_of(taps._array).plane_indices(taps._array, function.window, function.size)
    return y, Tensor.wrap(indices if batched else indices[0])


@lru_cache(1024)
def _max_pool2d(size: Pair, window: Window) -> MaxPool2d:
    """The function for images of this size, checked once for each geometry."""
    _check_padding("max_pool2d", window)
    out = window.positions(size, "max_pool2d")
    window.first_taps(size, out, "max_pool2d")
    return MaxPool2d(window, out, size)


def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """input and indices: (N, C, H, W) or (C, H, W) -> (N, C, H', W'), input put at its flat plane indices into zeros.

    H' = (H - 1) stride - 2 padding + kernel unless `output_size` (its last two numbers) says otherwise: say it where pooling rounded.
    Repeated indices add, which makes this the adjoint of the gather; PyTorch overwrites. ValueError for indices outside the output, for other
    shapes than input's and for an output_size a stride or more off; TypeError for indices that are no integers.
    """
    y, batched = images("max_unpool2d", input)
    check_backend("max_unpool2d", input, indices)
    if indices.shape != input.shape:
        raise ValueError(f"max_unpool2d: indices {indices.shape} and input {input.shape} must have the same shape")
    if indices.dtype.kind not in "iu":
        raise TypeError(f"max_unpool2d: indices must be integers, got {indices.dtype}")
    window = Window.of(kernel_size, stride, padding, name="max_unpool2d")
    size = window.image_size((y.shape[2], y.shape[3]))
    if output_size is not None:
        wanted = pair(integers(output_size, "max_unpool2d: output_size")[-2:], "max_unpool2d: output_size", 1)
        if any(not n - s < m < n + s for n, m, s in zip(size, wanted, window.stride, strict=True)):
            raise ValueError(
                f"max_unpool2d: output_size {wanted} is not within stride {window.stride} of {size}, which input {input.shape} suggests"
            )
        size = wanted
    if min(size) < 1:
        raise ValueError(
            f"max_unpool2d: input {input.shape} with padding {window.padding} gives an output of size {size}; use less padding"
        )
    at, kernels = indices._array, kernels_of(indices._array)
    inside, wrong = kernels.within(at, size[0] * size[1])
    kernels.demand(
        wrong,
        lambda _: ValueError(
            f"max_unpool2d: indices reach from {int(at.min())} to {int(at.max())}, outside an output of {size[0]}x{size[1]} = {size[0] * size[1]} "
            f"pixels; pass output_size=, the size before pooling"
        ),
    )
    places = indices if inside is at else Tensor.wrap(inside)
    x = Scatter(size, window)(y, places if batched else reshape(places, (1, *indices.shape)))
    return x if batched else reshape(x, x.shape[1:])


def avg_pool2d(
    input: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """input: (N, C, H, W) or (C, H, W) -> (N, C, H', W') or (C, H', W'), the mean of each window.

    Padding counts as zeros, or with `count_include_pad=False` not at all; `divisor_override` replaces the number of pixels. ValueError if
    padding exceeds half the window, the window does not fit or divisor_override is 0.
    """
    x, batched = images("avg_pool2d", input)
    floating("avg_pool2d", x)
    window = Window.of(kernel_size, stride, padding, 1, ceil_mode, name="avg_pool2d")
    _check_padding("avg_pool2d", window)
    if divisor_override is not None and integer(divisor_override, "avg_pool2d: divisor_override") == 0:
        raise ValueError("avg_pool2d: divisor_override must not be 0")
    size = (x.shape[2], x.shape[3])
    out = window.positions(size, "avg_pool2d")
    counts = []
    for n, m, k, s, p in zip(size, out, window.kernel, window.stride, window.padding, strict=True):
        start = np.arange(m) * s - p
        end = np.minimum(start + k, n + p)
        counts.append(end - start if count_include_pad else np.minimum(end, n) - np.maximum(start, 0))
    divisor = np.full(out, divisor_override) if divisor_override is not None else np.outer(counts[0], counts[1])
    weight = kernels_of(x._array).constant((1 / divisor).astype(sum_dtype(x.dtype)))
    y = AvgPool2d(window, weight, size)(x)
    return y if batched else reshape(y, y.shape[1:])


@lru_cache(512)
def even_windows(n: int, m: int) -> AxisMap:
    """n -> m means along an axis, over windows from floor(i n / m) up to ceil((i + 1) n / m): as even as they can be, overlapping if need be."""
    i = np.arange(m)
    starts, ends = i * n // m, -(-(i + 1) * n // m)
    lengths = ends - starts
    first = np.concatenate([[0], np.cumsum(lengths)])
    indices = np.arange(first[-1]) - np.repeat(first[:-1] - starts, lengths)
    return AxisMap(n, first, indices, np.repeat(1 / lengths, lengths), ("mean",)) if n != m else AxisMap.identity(n, ("mean",))


def adaptive_avg_pool2d(input: Tensor, output_size: int | Sequence[int | None] | None) -> Tensor:
    """input: (N, C, H, W) or (C, H, W) -> (N, C, *output_size) or (C, *output_size), means over windows that divide the image evenly.

    Along an axis of n pixels, output i of m is the mean from floor(i n / m) up to ceil((i + 1) n / m): a linear map, whose adjoint shares
    each gradient out among its window. None keeps the size of an axis. ValueError if the image or the output has no pixels.
    """
    x, batched = images("adaptive_avg_pool2d", input)
    floating("adaptive_avg_pool2d", x)
    size = (x.shape[2], x.shape[3])
    if min(size) < 1:
        raise ValueError(f"adaptive_avg_pool2d: input {input.shape} has no pixels to average")
    wanted = listed(output_size)
    wanted = (output_size, output_size) if wanted is None else wanted
    if len(wanted) != 2:
        raise ValueError(f"adaptive_avg_pool2d: output_size must be a number or a pair (height, width), got {wanted}")
    out = pair([n if m is None else m for n, m in zip(size, wanted, strict=True)], "adaptive_avg_pool2d: output_size", 1)
    y = mean(x, (2, 3), keepdim=True) if out == (1, 1) else Resample(even_windows(size[0], out[0]), even_windows(size[1], out[1]))(x)
    return y if batched else reshape(y, y.shape[1:])


def _check_padding(name: str, window: Window) -> None:
    if any(2 * p > span for p, span in zip(window.padding, window.span, strict=True)):
        raise ValueError(
            f"{name}: padding {window.padding} must be at most half the window's span {window.span}, or some windows see padding only"
        )
