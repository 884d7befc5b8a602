"""unfold and fold: the windows of an image as columns, and columns added up to an image. im2col and col2im, an adjoint pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..autograd import Function, Gradient
from ..backend import Array, kernels_of
from ..tensor import Tensor
from ..window import Pair, Window, pair
from .common import check_backend
from .conv import images, window_of
from .shape import reshape


@dataclass(frozen=True)
class Im2col(Function):
    """x (N, C, H, W) -> columns (N, C, KH, KW, OH, OW)."""

    window: Window
    out: Pair
    size: Pair

    def forward(self, x: Array) -> Array:
        return kernels_of(x).im2col(x, self.window, self.out)

    def vjp(self, g: Tensor, *_: Tensor) -> tuple[Gradient, ...]:
        return (Col2im(self.window, self.size, self.out)(g),)


@dataclass(frozen=True)
class Col2im(Function):
    """Columns (N, C, KH, KW, OH, OW) -> x (N, C, *size), overlaps added up."""

    window: Window
    size: Pair
    out: Pair

    def forward(self, cols: Array) -> Array:
        return kernels_of(cols).col2im(cols, self.window, self.size)

    def vjp(self, g: Tensor, *_: Tensor) -> tuple[Gradient, ...]:
        return (Im2col(self.window, self.out, self.size)(g),)


def unfold(
    input: Tensor,
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    stride: int | Sequence[int] = 1,
) -> Tensor:
    """im2col: (N, C, H, W) or (C, H, W) -> (N, C KH KW, L) or (C KH KW, L), one column for each of the L = H' W' window positions.

    ValueError if the window does not fit.
    """
    x, batched = images("unfold", input)
    window = window_of("unfold", kernel_size, stride, padding, dilation)
    n, c, h, w = x.shape
    out = window.positions((h, w), "unfold")
    cols = Im2col(window, out, (h, w))(x)
    return reshape(cols, (*((n,) if batched else ()), c * window.taps, out[0] * out[1]))


def fold(
    input: Tensor,
    output_size: int | Sequence[int],
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    stride: int | Sequence[int] = 1,
) -> Tensor:
    """col2im, the adjoint of unfold: (N, C KH KW, L) or (C KH KW, L) -> (N, C, *output_size) or (C, *output_size), overlaps added up.

    ValueError unless the rows divide by KH KW and L is the number of window positions on `output_size`.
    """
    check_backend("fold", input)
    window = window_of("fold", kernel_size, stride, padding, dilation)
    size = pair(output_size, "fold: output_size", 1)
    out = window.positions(size, "fold")
    if input.ndim not in (2, 3):
        raise ValueError(f"fold: input must be (N, C KH KW, L) or (C KH KW, L), got shape {input.shape}")
    n, (rows, length) = (input.shape[0] if input.ndim == 3 else 1), input.shape[-2:]
    if rows % window.taps:
        raise ValueError(
            f"fold: {rows} rows are no multiple of the {window.taps} taps of kernel_size {window.kernel} (input {input.shape})"
        )
    if length != out[0] * out[1]:
        raise ValueError(
            f"fold: output_size {size} has {out[0]} x {out[1]} = {out[0] * out[1]} window positions, input {input.shape} has {length} columns"
        )
    c = rows // window.taps
    x = Col2im(window, size, out)(reshape(input, (n, c, *window.kernel, *out)))
    return x if input.ndim == 3 else reshape(x, (c, *size))
