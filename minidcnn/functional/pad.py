"""Padding and cropping. Padding with zeros and cropping are adjoint; padding with the image's own pixels gathers, its adjoint adds up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..autograd import Function, Gradient
from ..backend import Array, AxisMap, kernels_of
from ..tensor import Tensor
from ..window import Pair, integers
from ..window import pair as pair_of
from .common import check_backend
from .resize import Resample
from .shape import Index, reshape

MODES = ("constant", "reflect", "replicate", "circular")


@dataclass(frozen=True)
class Pad(Function):
    """x with (before, after) elements of `value` along each axis; negative widths crop. Its linear part is adjoint to the negated widths."""

    widths: tuple[Pair, ...]
    value: float = 0.0

    def forward(self, x: Array) -> Array:
        return kernels_of(x).pad(x, self.widths, self.value)

    def vjp(self, g: Tensor, *_: Tensor) -> tuple[Gradient, ...]:
        return (Pad(tuple((-before, -after) for before, after in self.widths))(g),)


@dataclass(frozen=True, eq=False)
class Mirror(Resample):
    """x with pixels of its own around it, or fewer, `before` of them above and to the left; the adjoint adds them up where they came from."""

    before: Pair


@lru_cache(512)
def border(n: int, before: int, after: int, mode: str) -> AxisMap:
    """n -> n + before + after pixels along an axis: the pixels of the image that `mode` puts at each place. Negative widths crop.

    reflect mirrors at the border pixels, which are not repeated; replicate repeats them; circular goes on at the opposite side of what
    is left after cropping.
    """
    i = np.arange(-before, n + after)
    if mode == "reflect":
        i = n - 1 - abs(n - 1 - abs(i))
    elif mode == "replicate":
        i = np.clip(i, 0, n - 1)
    else:
        first = max(-before, 0)
        i = first + (i - first) % (n - first + min(after, 0)) if len(i) else i
    return AxisMap.gather(i, n, ("border", mode, before, after))


# -- the public functions -----------------------------------------------------------------------------------------------------------


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """input with pad = (left, right, top, bottom, ...) elements before and after each axis, last axis first; negative numbers crop.

    mode "constant" fills with `value` (0) along any number of axes of any tensor. Along the last axis or the last two of images, (N, C,
    H, W) with or without leading axes, "reflect" mirrors (fewer than H pixels), "replicate" repeats the border, "circular" goes on at
    the other side (at most H pixels). ValueError for widths that do not fit the input or the mode.
    """
    widths = _widths(input, pad)
    if mode not in MODES:
        raise ValueError(f'pad: mode "{mode}" is unknown; use one of {", ".join(MODES)}')
    for axis, (n, (before, after)) in enumerate(zip(input.shape, widths, strict=True)):
        least = n + (min(before, after, before + after, 0) if mode in ("constant", "circular") else before + after)
        if least < 0:  # mirrors and borders are found outside of what is left as well
            raise ValueError(f"pad: widths ({before}, {after}) crop more than axis {axis} has, {n} (input {input.shape})")
    if mode == "constant":
        return _constant(input, widths, 0 if value is None else value)
    if value is not None:
        raise ValueError(f'pad: value belongs to mode "constant", mode "{mode}" takes it from the image; leave it out')
    if len(pad) > 4 or input.ndim > 4:
        raise ValueError(f'pad: mode "{mode}" pads the last one or two axes of at most 4, got {len(pad)} numbers for input {input.shape}')
    for axis, (n, (before, after)) in enumerate(zip(input.shape, widths, strict=True)):
        _check_border(mode, input.shape, axis, n, before, after)
    x = input if input.ndim == 4 else reshape(input, ((1,) * (4 - input.ndim) + input.shape))
    (top, bottom), (left, right) = ((0, 0), *widths)[-2:]
    y = Mirror(border(x.shape[2], top, bottom, mode), border(x.shape[3], left, right, mode), (top, left))(x)
    return y if input.ndim == 4 else reshape(y, y.shape[4 - input.ndim :])


def crop(input: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    """input: (..., H, W) -> (..., height, width), from row `top` and column `left` on: a view. ValueError if it reaches out of the image."""
    check_backend("crop", input)
    if input.ndim < 2:
        raise ValueError(f"crop: input must be (..., H, W), got shape {input.shape}")
    (h, w), (row, column), (m, n) = (
        input.shape[-2:],
        pair_of((top, left), "crop: (top, left)"),
        pair_of((height, width), "crop: (height, width)"),
    )
    if row + m > h or column + n > w:
        raise ValueError(f"crop: {m}x{n} pixels from ({row}, {column}) on reach out of an image of {h}x{w} (input {input.shape})")
    if (m, n) == (h, w):
        return input
    return Index((..., slice(row, row + m), slice(column, column + n)), input.shape)(input)


def center_crop(input: Tensor, size: int | Sequence[int]) -> Tensor:
    """input: (..., H, W) -> (..., *size), from row floor((H - height) / 2) and column floor((W - width) / 2) on: a view.

    What U-Net does to its skip connections (Ronneberger et al., 2015): an odd pixel is lost below and on the right. FCN's crops are not
    centred; they begin at an offset, as `crop` does. ValueError if the image is smaller than `size`.
    """
    check_backend("center_crop", input)
    if input.ndim < 2:
        raise ValueError(f"center_crop: input must be (..., H, W), got shape {input.shape}")
    (h, w), (m, n) = input.shape[-2:], pair_of(size, "center_crop: size")
    if m > h or n > w:
        raise ValueError(
            f"center_crop: an image of {h}x{w} is too small for a crop of {m}x{n} (input {input.shape}); crop to at most its own size"
        )
    return crop(input, (h - m) // 2, (w - n) // 2, m, n)


# -- checks -------------------------------------------------------------------------------------------------------------------------


def _widths(input: Tensor, pad: Sequence[int]) -> tuple[Pair, ...]:
    """`pad`, last axis first, as (before, after) for every axis in order."""
    check_backend("pad", input)
    numbers = integers(pad, "pad: pad")
    if len(numbers) % 2:
        raise ValueError(
            f"pad: pad must hold two numbers for each axis, (left, right, top, bottom, ...), got {len(numbers)} numbers {numbers}"
        )
    if len(numbers) > 2 * input.ndim:
        raise ValueError(f"pad: {len(numbers)} numbers pad {len(numbers) // 2} axes, but the input has {input.ndim} (shape {input.shape})")
    named = list(zip(numbers[::2], numbers[1::2], strict=True))[::-1]
    return (*((0, 0),) * (input.ndim - len(named)), *named)


def _constant(x: Tensor, widths: tuple[Pair, ...], value: float) -> Tensor:
    if not _holds(x.dtype, value):
        raise ValueError(f"pad: value {value} does not fit a tensor of {x.dtype}; cast it with .astype()")
    if not any(before or after for before, after in widths):
        return x
    if all(before <= 0 and after <= 0 for before, after in widths):  # a crop is a view
        return Index(tuple(slice(-before, n + after) for n, (before, after) in zip(x.shape, widths, strict=True)), x.shape)(x)
    return Pad(widths, value)(x)


def _holds(dtype: Any, value: float) -> bool:
    """Whether an array of `dtype` can hold `value`."""
    if dtype.kind not in "iu":
        return dtype.kind == "f" or value in (0, 1)
    return float(value).is_integer() and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max


def _check_border(mode: str, shape: tuple[int, ...], axis: int, n: int, before: int, after: int) -> None:
    """ValueError where `mode` does not find enough pixels along the axis."""
    most = max(before, after)
    if most <= 0:
        return
    if mode == "circular":
        n += min(before, 0) + min(after, 0)
    limit = {"reflect": n - 1, "circular": n, "replicate": most if n else 0}[mode]
    if most > limit:
        raise ValueError(
            f'pad: mode "{mode}" can add at most {max(limit, 0)} pixels to the {n} of axis {axis}, got ({before}, {after}) (input {shape}); '
            f'use a larger image or mode "{"constant" if mode == "replicate" else "replicate"}"'
        )
