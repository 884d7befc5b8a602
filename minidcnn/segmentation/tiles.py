"""Cutting an axis of an image into overlapping windows: plain integers and weights, no network.

The image is thought to go on for ever, mirrored at its edges. A network sees a window of it and answers for the window without `margin`
pixels on either side (0 for networks that pad, 92 for the U-Net of the paper).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..backend import Array
from ..models.segmenter import smallest_and_period

OVERLAP = 128  # pixels that tiles of a padding network share with a neighbour, half a tile at most: there, one fades into the other


@dataclass(frozen=True)
class Axis:
    """How one axis of an image is covered.

    size: pixels of the image. margin: pixels a network's answer lacks on either side. offset: pixels answered for before the image begins.
    windows: [begin, end) of each answer, counted from the first pixel answered for; together they cover the image.
    """

    size: int
    margin: int
    offset: int
    windows: tuple[tuple[int, int], ...]

    def source(self, i: int) -> Array:
        """(end - begin + 2 margin,) int64: which pixel of the image the network gets at each place of window `i`'s input."""
        begin, end = self.windows[i]
        return mirrored(np.arange(begin - self.margin, end + self.margin) - self.offset, self.size)

    def target(self, i: int, start: int = 0, stop: int | None = None) -> tuple[slice, slice]:
        """Where window `i` meets the image's pixels [start, stop): as a slice of the window's answer, and of those pixels."""
        begin, end = (n - self.offset for n in self.windows[i])
        low, high = max(begin, start), min(end, self.size if stop is None else stop)
        return slice(low - begin, max(high, low) - begin), slice(low - start, max(high, low) - start)

    def meeting(self, start: int, stop: int) -> list[int]:
        """The windows that answer for any of the image's pixels [start, stop)."""
        return [i for i, (begin, end) in enumerate(self.windows) if begin - self.offset < stop and end - self.offset > start]

    def weights(self, i: int) -> Array:
        """(end - begin,) float32: what window `i` counts at each of its pixels; the weights of all windows at one pixel sum to 1.

        Towards a neighbour a window fades out over all that both share, as smoothstep; at the ends of the axis it does not.
        """
        begin, end = self.windows[i]
        at = np.arange(begin, end)
        total = sum(self._raw(j, at) for j, (b, e) in enumerate(self.windows) if b < end and e > begin)
        return (self._raw(i, at) / total).astype(np.float32)

    def _raw(self, i: int, at: Array) -> Array:
        begin, end = self.windows[i]
        weight = np.ones(len(at))
        if i > 0:
            weight = _smoothstep((at + 0.5 - begin) / max(self.windows[i - 1][1] - begin, 1))
        if i + 1 < len(self.windows):
            weight = np.minimum(weight, _smoothstep((end - at - 0.5) / max(end - self.windows[i + 1][0], 1)))
        return weight

    def bands(self) -> list[tuple[int, int]]:
        """The image's pixels cut where a window begins, so that few windows meet each piece: [start, stop) in ascending order."""
        cuts = sorted({0, self.size, *(min(max(begin - self.offset, 0), self.size) for begin, _ in self.windows)})
        return list(pairwise(cuts))


def mirrored(index: Array, size: int) -> Array:
    """Places on the endless axis -> pixels [0, size): reflected at both ends without repeating the edge, again and again if need be."""
    if size == 1:
        return np.zeros_like(index)
    index = index % (2 * size - 2)
    return np.asarray(np.minimum(index, 2 * size - 2 - index))


def cut(size: int, suitable: Callable[[int], int], margin: int, tile: int | None) -> Axis:
    """Cover an axis of `size` pixels by one window, or by several whose inputs have at most `tile` pixels.

    suitable: the smallest input, of those the network takes, that answers for so many pixels. Windows begin at multiples of the network's
    stride, so that its poolings fall on the same pixels in each as they would on the whole image.
    ValueError if the network takes no input as small as `tile`.
    """
    whole = suitable(size) - 2 * margin  # pixels answered for, the image in their middle
    offset = (whole - size) // 2
    if tile is None or whole + 2 * margin <= tile:
        return Axis(size, margin, offset, ((0, whole),))
    smallest, period = tile_and_period(suitable, margin)
    if tile < smallest:
        raise ValueError(f"tile must be at least {smallest} pixels for this network, got {tile}")
    if suitable(tile - 2 * margin) != tile:
        tile -= (tile - smallest) % period
    length = tile - 2 * margin
    shared = 0 if margin else min(OVERLAP, length // 2)  # with a margin, every window's answer is exact to its edge
    step = max((length - shared) // period * period, period)
    count = 1 + -(-(whole - length) // step)
    last = -(-(whole - length) // period) * period  # the last window ends where the whole does
    begins = [min(i * step, last) for i in range(count)]
    return Axis(size, margin, offset, tuple((begin, min(begin + length, whole)) for begin in begins))


def tile_and_period(suitable: Callable[[int], int], margin: int) -> tuple[int, int]:
    """The smallest tile, and the distance at which tiles may begin: the network's stride."""
    smallest, period = smallest_and_period(suitable, margin)
    if period > 1:
        return smallest, period
    return 32 + max(32, smallest), 32  # it takes any size, which hides its stride; none here has more than 32. The last tile may be 31 less


def _smoothstep(t: Array) -> Array:
    """0 below 0, 1 above 1, smooth between; smoothstep(t) + smoothstep(1 - t) = 1."""
    t = t.clip(0, 1)
    return np.asarray(t * t * (3 - 2 * t))
