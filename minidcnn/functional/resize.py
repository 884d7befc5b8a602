"""Resizing: maps that are linear along the rows and along the columns, each adjoint to the one with both axes transposed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..autograd import Function, Gradient
from ..backend import Array, AxisMap, float_dtype, kernels_of
from ..tensor import Tensor
from ..window import integer, listed, pair
from .common import check_backend
from .shape import permute, reshape


@dataclass(frozen=True, eq=False)
class Resample(Function):
    """x (N, C, H, W) -> (N, C, OH, OW), `rows` along the height and `columns` along the width; the adjoint transposes both."""

    rows: AxisMap
    columns: AxisMap

    @property
    def view(self) -> bool:  # type: ignore[override]
        """Where nothing is resized, the kernel returns x itself."""
        return self.rows.is_identity and self.columns.is_identity

    def forward(self, x: Array) -> Array:
        return kernels_of(x).resample(x, self.rows, self.columns)

    def vjp(self, g: Tensor, *_: Tensor) -> tuple[Gradient, ...]:
        return (Resample(self.rows.transposed, self.columns.transposed)(g),)


# -- interpolation along one axis ---------------------------------------------------------------------------------------------------


@lru_cache(512)
def nearest(n: int, m: int, scale: float | None = None) -> AxisMap:
    """n -> m pixels: output i is input floor(i n / m), or floor(i / scale).

    PyTorch computes this in float32 whatever the dtype of the image, so that where i n / m is a whole number, rounding may take the
    pixel before; as pictures have to agree, so does this.
    """
    made = "nearest", scale
    if n == m:
        return AxisMap.identity(n, made)
    if m == 2 * n:
        return AxisMap.gather(np.arange(m) // 2, n, made)
    step = np.float32(n) / np.float32(m) if scale is None else np.float32(1 / scale)
    return AxisMap.gather(np.minimum(np.floor(np.arange(m, dtype=np.float32) * step).astype(np.int64), n - 1), n, made)


@lru_cache(512)
def linear(n: int, m: int, scale: float | None = None, align_corners: bool = False) -> AxisMap:
    """n -> m pixels: output i lies at x = (i + 1/2) n / m - 1/2 (or (i + 1/2) / scale - 1/2) of the input, at least 0: pixels are squares.

    With `align_corners` at x = i (n - 1) / (m - 1): pixels are points, the first and last of both images coincide. Its neighbours
    floor(x) and floor(x) + 1 get the weights 1 - frac(x) and frac(x); beyond the last pixel's centre that pixel alone counts.
    """
    made = "linear", scale, align_corners
    if n == m:
        return AxisMap.identity(n, made)
    i: Array = np.arange(m)
    if align_corners:
        x, unit = i * (n - 1), max(m - 1, 1)  # x in whole parts of a pixel: exact
    elif scale is None:
        x, unit = (2 * i + 1) * n - m, 2 * m
    else:
        x, unit = (i + 0.5) / scale - 0.5, 1
    x = np.maximum(x, 0)
    low = np.minimum(x // unit, n - 1).astype(np.int64)
    share = np.where(low < n - 1, (x - low * unit) / unit, 0)  # of the pixel after
    weights = np.stack([1 - share, share], 1)
    taps = weights > 0  # no tap with weight 0: it would turn an infinite neighbour into NaN
    return AxisMap(n, np.concatenate([[0], np.cumsum(taps.sum(1))]), np.stack([low, low + 1], 1)[taps], weights[taps], made)


# -- the public functions -----------------------------------------------------------------------------------------------------------


def interpolate(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
) -> Tensor:
    """input: (N, C, H, W) -> (N, C, H', W') with H' = size or floor(H scale_factor), up or down; mode "nearest" or "bilinear".

    Nearest repeats or drops pixels, of any dtype. Bilinear weighs the four neighbours; with `align_corners` the centres of the corner
    pixels coincide, else the corners of the images. Downsampling does not smooth. A given `scale_factor` is the distance of the samples
    even where H' was rounded, unless `recompute_scale_factor`. ValueError for sizes, scales or modes that do not fit, TypeError for
    integers in mode "bilinear".
    """
    check_backend("interpolate", input)
    if input.ndim != 4:
        raise ValueError(
            f"interpolate: input must be (N, C, H, W), got shape {input.shape}; give a single image a batch axis with unsqueeze(image, 0)"
        )
    if mode not in ("nearest", "bilinear"):
        raise ValueError(f'interpolate: mode "{mode}" is unknown; use "nearest" or "bilinear"')
    if mode == "nearest" and align_corners is not None:
        raise ValueError('interpolate: align_corners belongs to mode "bilinear"; leave it out with mode "nearest"')
    if mode == "bilinear" and not float_dtype(input.dtype):
        raise TypeError(
            f'interpolate: mode "bilinear" needs floating-point images, got {input.dtype}; cast with .astype() or use mode "nearest"'
        )
    (n, m), scales = input.shape[2:], _scales(scale_factor)
    if (size is None) == (scales is None):
        raise ValueError(f"interpolate: give either size or scale_factor, got size={size} and scale_factor={scale_factor}")
    if scales is None:
        out = pair(size, "interpolate: size", 1)  # type: ignore[arg-type]
        if recompute_scale_factor:
            raise ValueError("interpolate: recompute_scale_factor belongs to scale_factor; leave it out with size")
    else:
        out = math.floor(n * scales[0]), math.floor(m * scales[1])
        if recompute_scale_factor:
            scales = None
    if min(n, m, *out) < 1:
        raise ValueError(
            f"interpolate: an image of {n}x{m} cannot become {out[0]}x{out[1]}; both need at least one pixel (input {input.shape})"
        )
    y, x = (None, None) if scales is None else scales
    if mode == "nearest":
        return Resample(nearest(n, out[0], y), nearest(m, out[1], x))(input)
    align = bool(align_corners)
    return Resample(linear(n, out[0], y, align), linear(m, out[1], x, align))(input)


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """input: (..., C r^2, H, W) -> (..., C, H r, W r): channel c r^2 + i r + j becomes sub-pixel (i, j) (Shi et al., 2016, section 3.2).

    The adjoint, and the inverse, is pixel_unshuffle. ValueError unless r^2 divides the channels.
    """
    r = _factor("pixel_shuffle", input, upscale_factor)
    *batch, c, h, w = input.shape
    if c % (r * r):
        raise ValueError(
            f"pixel_shuffle: {c} channels cannot become sub-pixels of {r}x{r}; upscale_factor^2 = {r * r} must divide them (input {input.shape})"
        )
    x = _flat(input)
    n, c = x.shape[0], c // (r * r)
    x = reshape(permute(x, (0, 2, 3, 1)), (n, h, w, c, r, r))  # in channels-last order, so that the result lies in it
    x = reshape(permute(x, (0, 1, 4, 2, 5, 3)), (n, h * r, w * r, c))  # (N, H, R, W, R, C)
    return reshape(permute(x, (0, 3, 1, 2)), (*batch, c, h * r, w * r))


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """input: (..., C, H r, W r) -> (..., C r^2, H, W): sub-pixel (i, j) becomes channel c r^2 + i r + j; adjoint and inverse of pixel_shuffle.

    ValueError unless r divides height and width.
    """
    r = _factor("pixel_unshuffle", input, downscale_factor)
    *batch, c, h, w = input.shape
    if h % r or w % r:
        raise ValueError(
            f"pixel_unshuffle: an image of {h}x{w} cannot be cut into {r}x{r} pixels; downscale_factor must divide both (input {input.shape})"
        )
    x = _flat(input)
    n, h, w = x.shape[0], h // r, w // r
    x = reshape(permute(x, (0, 2, 3, 1)), (n, h, r, w, r, c))
    x = reshape(permute(x, (0, 1, 3, 5, 2, 4)), (n, h, w, c * r * r))  # (N, H, W, C, R, R)
    return reshape(permute(x, (0, 3, 1, 2)), (*batch, c * r * r, h, w))


# -- checks -------------------------------------------------------------------------------------------------------------------------


def _scales(scale_factor: float | Sequence[float] | None) -> tuple[float, float] | None:
    """scale_factor as (height, width)."""
    if scale_factor is None:
        return None
    values = listed(scale_factor)
    if values is None:
        values = (scale_factor, scale_factor)
    if len(values) != 2:
        raise ValueError(f"interpolate: scale_factor must be a number or a pair (height, width), got {len(values)} numbers {values}")
    try:
        height, width = float(values[0]), float(values[1])
    except TypeError:
        raise TypeError(f"interpolate: scale_factor must be a number or a pair of numbers, got {scale_factor!r}") from None
    if not (0 < height < math.inf and 0 < width < math.inf):
        raise ValueError(f"interpolate: scale_factor must be greater than 0 and finite, got {scale_factor}")
    return height, width


def _factor(name: str, input: Tensor, factor: int) -> int:
    check_backend(name, input)
    if input.ndim < 3:
        raise ValueError(f"{name}: input must be (..., C, H, W), got shape {input.shape}")
    return integer(factor, f"{name}: the factor", 1)


def _flat(x: Tensor) -> Tensor:
    """(..., C, H, W) -> (N, C, H, W), without a copy of channels-last images."""
    return x if x.ndim == 4 else reshape(x, (math.prod(x.shape[:-3]), *x.shape[-3:]))
