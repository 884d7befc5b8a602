"""Sliding-window geometry in plain integers: every size formula and every size error of the library.

Convolution, transposed convolution, pooling, unpooling, im2col and col2im all slide one window over an image. Per axis, with image
size n, kernel k, stride s, padding p and dilation d, tap a of position i touches pixel i s + a d - p. All else follows from that line
(Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", 2016, sections 2 and 4).
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

Pair: TypeAlias = tuple[int, int]
Slices: TypeAlias = tuple[slice, slice]


def listed(value: Any) -> tuple[Any, ...] | None:
    """The members of a sequence or of an array with one axis; None for anything else."""
    if (isinstance(value, Sequence) and not isinstance(value, str)) or getattr(value, "ndim", 0) == 1:
        return tuple(value)
    return None


def integer(value: Any, name: str, minimum: int | None = None) -> int:
    """An int, Python's or NumPy's, as Python's. TypeError if it is none, a bool too; ValueError if it is below `minimum`."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:  # some arrays have __index__ but no index
        number = None
    if number is None:
        raise TypeError(f"{name} must be an int, got {value!r}")
    if minimum is not None and number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return number


def fraction(value: Any, name: str, besides: str = "") -> None:
    """ValueError unless `value` is a number from 0 to 1. `besides`: what else it may be, for the sentence."""
    if not hasattr(value, "__float__") or not 0 <= value <= 1:
        raise ValueError(f"{name} must lie between 0 and 1{besides}, got {value}")


def integers(value: Any, name: str) -> tuple[int, ...]:
    """An int, or several in a sequence or an array with one axis, as a tuple. TypeError if it is neither."""
    values = listed(value)
    try:
        return tuple(integer(v, name) for v in ((value,) if values is None else values))
    except TypeError:
        raise TypeError(f"{name} must be an int or a sequence of ints, got {value!r}") from None


def pair(value: int | Sequence[int], name: str, minimum: int = 0) -> Pair:
    """An int or a pair of ints as (height, width). ValueError if it is neither or below `minimum`, TypeError if not integers."""
    if type(value) is tuple and len(value) == 2 and type(value[0]) is type(value[1]) is int and min(value) >= minimum:
        return value  # as from a layer
    if type(value) is int and value >= minimum:
        return value, value
    values = listed(value)
    if values is None:
        values = (value, value)
    if len(values) == 1:
        values = (values[0], values[0])
    if len(values) != 2:
        raise ValueError(f"{name} must be an int or a pair (height, width), got {len(values)} numbers {values}")
    try:
        height, width = integers(values, name)
    except TypeError:
        raise TypeError(f"{name} must be an int or a pair of ints, got {value!r}") from None
    if min(height, width) < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return height, width


class Window(NamedTuple):
    """A window sliding over an image; every field is (height, width).

    `ceil_mode` (pooling) keeps a last window that hangs over the right or lower edge, if it starts inside the image or its left padding.
    """

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    ceil_mode: bool = False

    @classmethod
    def of(
        cls,
        kernel: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        ceil_mode: bool = False,
        *,
        name: str = "window",
    ) -> Window:
        """A window from ints or pairs, as users write them. `stride=None` means the kernel size, as in pooling.

        ValueError for a kernel, stride or dilation below 1, a negative padding, and more numbers than two; TypeError for what is no int.
        """
        size = pair(kernel, f"{name}: kernel_size", 1)
        step = size if stride is None else pair(stride, f"{name}: stride", 1)
        return cls(size, step, pair(padding, f"{name}: padding"), pair(dilation, f"{name}: dilation", 1), ceil_mode)

    @property
    def span(self) -> Pair:
        """Pixels from the first tap to the last: d (k - 1) + 1 per axis."""
        (kh, kw), (dh, dw) = self.kernel, self.dilation
        return dh * (kh - 1) + 1, dw * (kw - 1) + 1

    @property
    def taps(self) -> int:
        """Number of kernel taps."""
        return self.kernel[0] * self.kernel[1]

    def positions(self, size: Pair, name: str = "window") -> Pair:
        """Number of positions on an image of `size`: floor((n + 2p - span) / s) + 1 per axis, ceil in `ceil_mode`.

        ValueError if the window does not fit the padded image; in `ceil_mode` the first one may hang over by less than a stride.
        """
        counts = []
        for n, span, s, p in zip(size, self.span, self.stride, self.padding, strict=True):
            room = n + 2 * p - span
            if n < 1 or room < (1 - s if self.ceil_mode else 0):
                spans, padded = "x".join(map(str, self.span)), "x".join(str(m + 2 * q) for m, q in zip(size, self.padding, strict=True))
                raise ValueError(
                    f"{name}: a window spanning {spans} pixels does not fit an image of {size[0]}x{size[1]} padded to {padded}; "
                    f"use a larger image, more padding or a smaller kernel"
                )
            count = room // s + 1
            if self.ceil_mode and room % s and count * s < n + p:
                count += 1  # the extra window starts at count * s - p, inside the image or its left padding
            counts.append(count)
        return counts[0], counts[1]

    def image_size(self, positions: Pair, output_padding: Pair = (0, 0)) -> Pair:
        """The image size that a transposed convolution of `positions` produces: (m - 1) s - 2p + span + output_padding per axis."""
        return tuple(  # type: ignore[return-value]
            (m - 1) * s - 2 * p + span + extra
            for m, s, p, span, extra in zip(positions, self.stride, self.padding, self.span, output_padding, strict=True)
        )

    def reach(self, positions: Pair) -> Pair:
        """Pixels that `positions` windows touch, counted from the first padded pixel: (m - 1) s + span per axis."""
        return tuple((m - 1) * s + span if m else 0 for m, s, span in zip(positions, self.stride, self.span, strict=True))  # type: ignore[return-value]

    def buffer(self, size: Pair, positions: Pair) -> Pair:
        """Size of a buffer that holds the padded image and all that `positions` windows touch."""
        return tuple(max(n + p, r) for n, p, r in zip(size, self.padding, self.reach(positions), strict=True))  # type: ignore[return-value]

    def each_tap(self, positions: Pair) -> Iterator[tuple[int, int, Slices]]:
        """For each kernel tap (i, j), in row-major order: the slices of the padded image that it touches over all `positions`."""
        (kh, kw), (sh, sw), (dh, dw), (oh, ow) = self.kernel, self.stride, self.dilation, positions
        for i in range(kh):
            for j in range(kw):
                rows = slice(i * dh, i * dh + sh * (oh - 1) + 1 if oh else i * dh, sh)
                yield i, j, (rows, slice(j * dw, j * dw + sw * (ow - 1) + 1 if ow else j * dw, sw))

    def first_taps(self, size: Pair, positions: Pair, name: str = "window") -> tuple[list[int], list[int]]:
        """Per axis, for each position the first kernel tap that touches the image itself and not its padding.

        ValueError if some window touches padding only: nothing could be chosen there.
        """
        found: list[list[int]] = []
        for axis, (n, m, k, s, p, d) in enumerate(zip(size, positions, self.kernel, self.stride, self.padding, self.dilation, strict=True)):
            firsts = [next((a for a in range(k) if 0 <= i * s + a * d - p < n), -1) for i in range(m)]
            if -1 in firsts:
                side = ("height", "width")[axis]
                raise ValueError(
                    f"{name}: window {firsts.index(-1)} along the {side} touches padding only (image {n}, kernel {k}, stride {s}, "
                    f"padding {p}, dilation {d}); use padding of at most half the kernel or a smaller dilation"
                )
            found.append(firsts)
        return found[0], found[1]


def same_padding(window: Window) -> tuple[Pair, Pair]:
    """Padding (before, after) per axis that keeps the size at stride 1, as PyTorch's padding='same': the odd pixel goes after."""
    total = [span - 1 for span in window.span]
    return (total[0] // 2, total[0] - total[0] // 2), (total[1] // 2, total[1] - total[1] // 2)
