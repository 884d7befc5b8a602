"""Where the pixels of a map lie: each layer moves coordinates by x -> scale x + shift, and layers compose.

A window of K = dilation (k - 1) + 1 pixels, stride s, padding p puts what lies at x of its input at (x + p - (K - 1) / 2) / s of its
output, the centre of a window onto its output pixel; a transposed window does the reverse, x -> x s + (K - 1) / 2 - p. All is exact, in
rationals. That is what the crop offsets of FCN come from (Shelhamer, Long & Darrell, "Fully convolutional networks for semantic
segmentation", 2017; the published networks write the numbers out).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from .. import nn
from ..window import Window, same_padding


@dataclass(frozen=True)
class Placement:
    """Along one axis, x of the image lies at scale x + shift of a map."""

    scale: Fraction = Fraction(1)
    shift: Fraction = Fraction(0)

    def window(self, window: Window, axis: int = 0) -> Placement:
        """Behind a convolution or pooling."""
        s, offset = window.stride[axis], window.padding[axis] - Fraction(window.span[axis] - 1, 2)
        return Placement(self.scale / s, (self.shift + offset) / s)

    def transposed(self, window: Window, axis: int = 0) -> Placement:
        """Behind the transposed convolution of `window`."""
        s, offset = window.stride[axis], Fraction(window.span[axis] - 1, 2) - window.padding[axis]
        return Placement(self.scale * s, self.shift * s + offset)

    def through(self, layers: Iterable[nn.Module], axis: int = 0) -> Placement:
        """Behind several layers; those without a window move nothing."""
        placement = self
        for layer in layers:
            window = window_of(layer)
            if window is not None:
                placement = placement.transposed(window, axis) if isinstance(layer, nn.ConvTranspose2d) else placement.window(window, axis)
        return placement

    def offset(self, other: Placement) -> int:
        """How many pixels of this map lie before the first of `other`: where to begin to crop this one so that the two match.

        ValueError if they have different resolutions or are a fraction of a pixel apart.
        """
        difference = self.shift - other.shift
        if self.scale != other.scale or difference.denominator != 1:
            raise ValueError(
                f"maps that place x at {self.scale} x + {self.shift} and at {other.scale} x + {other.shift} cannot be matched by cropping"
            )
        return int(difference)


def window_of(layer: nn.Module) -> Window | None:
    """The window of a convolution, transposed convolution or pooling layer; None for other layers.

    ValueError for padding="same" around an even span, which is no window of one padding.
    """
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        window = Window(layer.kernel_size, layer.stride, (0, 0), layer.dilation)
        padding = layer.padding
        if isinstance(padding, str):
            sides = same_padding(window) if padding == "same" else ((0, 0), (0, 0))
            if any(before != after for before, after in sides):
                raise ValueError(f'{type(layer).__name__}: padding="same" of kernel {layer.kernel_size} is not the same on both sides')
            padding = (sides[0][0], sides[1][0])
        return window._replace(padding=padding)
    if isinstance(layer, nn.MaxPool2d):
        return Window.of(layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode)
    if isinstance(layer, nn.AvgPool2d):
        return Window.of(layer.kernel_size, layer.stride, layer.padding, 1, layer.ceil_mode)
    return None


def size_behind(layers: Iterable[nn.Module], n: int) -> int:
    """The size of the map that `layers` make of n pixels, along the height; 0 if the image is too small for one of them."""
    for layer in layers:
        window = window_of(layer)
        if window is None:
            continue
        if isinstance(layer, nn.ConvTranspose2d):
            n = window.image_size((n, n))[0]
        else:
            try:
                n = window.positions((n, n))[0]
            except ValueError:
                return 0
    return n
