"""Layers that change the resolution, and layers that pad."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import functional as F
from ..tensor import Tensor
from ..window import integers, listed
from .module import Module


class Upsample(Module):
    """(N, C, H, W) -> (N, C, H', W') with H' = size or floor(H scale_factor); mode "nearest" or "bilinear"; see functional.interpolate.

    ValueError unless one of size and scale_factor is given; called, errors as there.
    """

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        scale_factor: float | Sequence[float] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        super().__init__()
        if (size is None) == (scale_factor is None):
            raise ValueError("Upsample: give either size or scale_factor")
        self.size, self.mode, self.align_corners, self.recompute_scale_factor = size, mode, align_corners, recompute_scale_factor
        scales = listed(scale_factor)
        if scales is not None:
            self.scale_factor: Any = tuple(float(s) for s in scales)
        else:
            self.scale_factor = None if scale_factor is None else float(scale_factor)  # type: ignore[arg-type]

    def forward(self, input: Tensor) -> Tensor:
        return F.interpolate(input, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor)

    def extra_repr(self) -> str:
        size = f"size={self.size}" if self.scale_factor is None else f"scale_factor={self.scale_factor}"
        return f"{size}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """Upsample by repeating the nearest pixel. Errors as of Upsample."""

    def __init__(self, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None) -> None:
        super().__init__(size, scale_factor, "nearest")


class UpsamplingBilinear2d(Upsample):
    """Upsample bilinearly with the corner pixels aligned. Errors as of Upsample."""

    def __init__(self, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None) -> None:
        super().__init__(size, scale_factor, "bilinear", align_corners=True)


class PixelShuffle(Module):
    """(N, C r^2, H, W) -> (N, C, H r, W r): channels become sub-pixels (Shi et al., "Real-time single image super-resolution", 2016).

    Errors as of functional.pixel_shuffle, when it is called.
    """

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class _Pad(Module):
    """padding: one number, or (left, right, top, bottom); negative numbers crop where the mode allows it.

    ValueError for another count of numbers, TypeError for what is no integer; called, errors as of functional.pad.
    """

    mode = "constant"

    def __init__(self, padding: int | Sequence[int]) -> None:
        super().__init__()
        widths = integers(padding, f"{type(self).__name__}: padding")
        self.padding = widths * 4 if len(widths) == 1 else widths
        if len(self.padding) != 4:
            raise ValueError(f"{type(self).__name__}: padding must be a number or (left, right, top, bottom), got {padding}")

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, mode=self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ZeroPad2d(_Pad):
    """(N, C, H, W) with zeros around it: padding a number or (left, right, top, bottom), else ValueError."""


class ConstantPad2d(_Pad):
    """(N, C, H, W) with `value` around it. ValueError unless padding is a number or (left, right, top, bottom)."""

    def __init__(self, padding: int | Sequence[int], value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, mode="constant", value=self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ReflectionPad2d(_Pad):
    """(N, C, H, W) mirrored at its border pixels, which are not repeated. ValueError for padding of a whole side or more."""

    mode = "reflect"


class ReplicationPad2d(_Pad):
    """(N, C, H, W) with its border pixels repeated. ValueError for an image without pixels."""

    mode = "replicate"


class CircularPad2d(_Pad):
    """(N, C, H, W) repeated periodically. ValueError for padding of more than a side."""

    mode = "circular"
