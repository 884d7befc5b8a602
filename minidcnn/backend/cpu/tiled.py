"""Convolution in bf16 by the definition, on a processor's matrix unit: so many products in so little time that Winograd's transforms do not pay.

Images are rounded to lines with the zeros around them, and tiles of 16 windows are read where they lie. Sums of a weight's gradient run
over pairs of neighbouring pixels: of images there are two copies, pairs that begin at even and at odd pixels, one for each parity of a tap.

Importing this module imports numba.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ...window import Pair, Window
from ..arrays import Array, nchw, nhwc
from .columns import windows_of
from .conv_weight import added_up
from .kept import Kept
from .layout import plain, rows
from .memory import Scratch, empty, second_level_cache, streams
from .product import padded_lines, pair_windows
from .threads import MULTIPLY_ADDS, parallel
from .tiled_loops import (
    PANEL,
    Paired,
    Taps,
    Walk,
    end,
    pack,
    pack_turned,
    pair_pixels,
    pair_slopes,
    sum_parts,
    tile_sums,
    tile_windows,
    turn,
)
from .tiles import SIDE

WINDOWS, ITEMS = 2048, 8  # of an item of work, unless a line has more; items at least, if there are so many lines
NEAR = int(0.19 * second_level_cache())  # numbers of weights that stay in L2: three quarters of it
SUMS, PARTS = 1 << 19, 8  # numbers in a sum of weights of which each part of the lines may have its own, and parts
BLOCK = 1 << 18  # numbers of paired pixels and slopes in a block of such a part: 1 MiB
HELD = 1 << 23  # the same where threads share a sum
TILED = 8 * MULTIPLY_ADDS  # multiply-adds on tiles, in the time of one number
_scratch = Scratch()


def conv2d(
    x: Array,
    w: Array,
    bias: Array | None,
    window: Window,
    out: Pair,
    scale: Array | None = None,
    relu: bool = False,
    kept: Kept | None = None,
) -> Array:
    """x (N, C, H, W), w (O, C, KH, KW), bias (O,) or None -> y (N, O, *out), float32; with `scale` (O,) scale y + bias, and `relu`.

    C is a multiple of 16, and no pixel of a line is skipped (a dilation of 1).
    """
    (n, c), o = x.shape[:2], len(w)
    y = empty((n * out[0], out[1], o))
    _windows(rows(x), c, window, out, _packed(w, window.taps, False, kept), y, bias, scale, relu)
    return nchw(y.reshape(n, *out, o))


def conv_transpose2d(y: Array, w: Array, bias: Array | None, window: Window, size: Pair, kept: Kept | None = None) -> Array:
    """y (N, O, OH, OW), w (O, C, KH, KW), bias (C,) or None -> x (N, C, *size), float32: of windows of stride 1, or side by side.

    O and C are multiples of 16.
    """
    (n, o, *out), (c, kh, kw) = y.shape, w.shape[1:]
    if window.stride == (1, 1):  # a convolution by the kernel turned by half a turn
        before = (window.span[0] - 1 - window.padding[0], window.span[1] - 1 - window.padding[1])
        turned = Window(window.kernel, padding=before, dilation=window.dilation)
        x = empty((n * size[0], size[1], c))
        _windows(rows(y), o, turned, size, _packed(w, window.taps, True, kept), x, bias)
        return nchw(x.reshape(n, *size, c))
    x = empty((n * size[0], out[1], kw * c))  # each line is a product
    bias = None if bias is None else np.tile(bias, kw)
    packed = _packed(w, kh, True, kept).reshape(-1, kh, o // 2 * _columns(kw * c))
    for a in range(kh):
        _windows(rows(y), o, Window((1, 1)), (out[0], out[1]), packed[:, kh - 1 - a], x, bias, first=a, every=kh)
    return nchw(x.reshape(n, *size, c))


def conv2d_weight(x: Array, y: Array, window: Window) -> Array:
    """x (N, C, H, W), y (N, O, OH, OW) -> w (O, C, KH, KW), float32, in channels-last memory: of windows of stride and dilation 1, or side by side.

    C and O are multiples of 16.
    """
    c, o, (kh, kw) = x.shape[1], y.shape[1], window.kernel
    w = _touching(x, y, window) if window == Window(window.stride, window.stride) else _overlapping(x, y, window)
    return nchw(w.reshape(o, kh, kw, c))


def spreads(window: Window, out: Pair, size: Pair) -> bool:
    """Whether conv_transpose2d takes such windows at `out` positions of images of such a size."""
    if window.stride == (1, 1):  # it is a convolution by the kernel turned by half a turn, if no more than all its zeros are cut off
        return window.dilation[1] == 1 and all(span - 1 >= padding for span, padding in zip(window.span, window.padding, strict=True))
    return window == Window(window.stride, window.stride) and window.image_size(out) == size


def sums(window: Window) -> bool:
    """Whether conv2d_weight takes such windows."""
    return window in (Window(window.kernel, padding=window.padding), Window(window.stride, window.stride))


def _columns(n: int) -> int:
    """Of a panel, for so many channels."""
    return PANEL if n > SIDE else SIDE


def _packed(w: Array, taps: int, turned: bool, kept: Kept | None) -> Array:
    """Weights (O, C, KH, KW), with what is beyond the taps counted to C, as panels of pairs of C and columns of O: (panels, taps, C / 2, columns).

    `turned`, of pairs of O and columns of C, and the taps from the last one on.
    """
    weights, o = plain(nhwc(w)).reshape(-1), len(w)
    c = weights.size // (o * taps)
    summed, made = (o, c) if turned else (c, o)
    columns = _columns(made)
    panels = -(-made // columns)
    size = panels * taps * summed // 2 * columns

    def make() -> Array:
        return pack_into(empty((size,)))

    def pack_into(packed: Array) -> Array:
        def some(start: int, stop: int) -> None:
            if turned:
                pack_turned(weights, o, taps, c, packed, columns, start, stop)
            else:
                pack(weights, o, taps, c, packed, columns, _scratch("rows", SIDE * c // 2 + 2 * SIDE * SIDE), start, stop)

        parallel(some, (o // SIDE if turned else panels) * taps, c * (SIDE if turned else columns))
        return packed

    held = None if kept is None else kept.of(w, ("tiles", taps, turned), make)
    return (pack_into(_scratch("weights", size)) if held is None else held).reshape(panels, -1)


def _windows(
    x: Array, c: int, window: Window, out: Pair, packed: Array, y: Array,
    bias: Array | None, scale: Array | None = None, relu: bool = False, first: int = 0, every: int = 1,
) -> None:  # fmt: skip
    """Lines first, first + every .. of y (lines, OW, N) = scale times windows of x (N, H, W C) times packed weights (panels, numbers), plus bias."""
    at, ow, n = windows_of(c // 2, window, out[0]), y.shape[1], y.shape[2]
    lines, columns, parts = len(x) * out[0], _columns(n), -(-at.run // SIDE)
    while at.run % parts:
        parts += 1
    panels = -(-n // columns)
    near = panels * at.runs * at.run * columns <= NEAR
    together = panels if near else 1
    step = max(1, min(WINDOWS // ow, -(-lines * panels // (together * ITEMS))))
    high, wide = (step - 1) * at.row + (at.runs - 1) * at.gap + 1, window.buffer((x.shape[1], x.shape[2] // c), out)[1] * c // 2
    image, parted = x, out[0]
    if not near:
        image, parted, high = padded_lines(x, c, window, out, twos=1), lines, 0
    walk = Walk(
        lines, parted, step, panels, together, columns, at.run // parts, packed.strides[0] // 4, first, every, int(relu), int(streams(y, n)),
        high, window.padding[0], window.padding[1] * c,
    )  # fmt: skip
    factors = np.ones(n, np.float32) if scale is None else plain(scale)
    offsets, flat = np.zeros(n, np.float32) if bias is None else plain(bias), y.reshape(-1)

    def some(start: int, stop: int) -> None:
        sums, strip = _scratch("sums", 2 * SIDE * columns), _scratch("strip", high * wide).reshape(-1, wide)
        tile_windows(image, *at, packed, flat, ow, walk, factors, offsets, sums, strip, start, stop)

    items = lines // parted * -(-parted // step) * (panels // together)
    parallel(some, items, step * ow * together * columns * (1 + at.runs * at.run / TILED))


def _touching(x: Array, y: Array, window: Window) -> Array:
    """(O, KH KW C) of windows side by side: pairs of them are counted through all images."""
    (n, o, oh, ow), (kh, kw) = y.shape, window.kernel
    run, pairs = kw * x.shape[1], -(-n * oh * ow // 2)
    groups = -(-pairs // SIDE)
    zeros, image, slopes = np.zeros(max(run, o), np.float32), rows(x), rows(y)
    pixels, g = _scratch("pairs", kh * groups * SIDE * run), _scratch("slopes", groups * SIDE * o)
    cells, lines = pixels.reshape(kh, -1, run), g.reshape(1, -1, o)
    cells[:, pairs:], lines[:, pairs:] = 0, 0

    def pair(start: int, stop: int) -> None:
        pair_windows(image, oh, ow, kh, run, cells, zeros, start, stop)
        pair_windows(slopes, oh, ow, 1, o, lines, zeros, start, stop)

    parallel(pair, pairs, kh * run + o)
    total = empty((o * kh * run,))
    _sums(g, o, pixels, Taps(kh, 1, run, groups * SIDE * run, 0), groups, total, 0, True)
    return total


def _overlapping(x: Array, y: Array, window: Window) -> Array:
    """(O, KH KW C) of windows of stride and dilation 1: lines of pairs are counted through all images, kept apart by lines of zeros of the slopes."""
    (n, c, h, w), (o, oh, ow), (kh, kw) = x.shape, y.shape[1:], window.kernel
    half = -(-(ow + kw - 1) // 2)
    s = Paired(h, w, c, oh, ow, o, *window.padding, oh + kh - 1, half)
    lines, each, size = n * s.hp - (kh - 1), half * (2 * c + 2 * o), o * kh * kw * c  # `each`: numbers that a line takes
    some = min(lines, max(1, (BLOCK if size <= SUMS else HELD) // each))  # lines at a time
    blocks, groups = -(-lines // some), -(-some * half // SIDE)
    plane = (groups * SIDE + (kh - 1) * half + kw // 2) * c
    at = Taps(kh, kw, c, half * c, plane)
    images, slopes, zeros = plain(nhwc(x)).reshape(-1), plain(nhwc(y)).reshape(-1), np.zeros(max(c, o), np.float32)

    if size <= SUMS:
        parts = min(PARTS, blocks)
        totals = empty((parts, size))

        def part(start: int, stop: int) -> None:
            pairs, g, turned = _scratch("pairs", 2 * plane), _scratch("slopes", groups * SIDE * o), _scratch("turned", groups * SIDE * o)
            sum_parts(images, slopes, s, at, some, lines, parts, totals, pairs, g, turned, zeros, zeros[:0], start, stop)

        parallel(part, parts, lines / parts * half * o * c * kh * kw / TILED)
        return added_up(totals)

    total, pairs, g = empty((size,)), _scratch("pairs", 2 * plane), _scratch("slopes", groups * SIDE * o)
    for first in range(0, lines, some):
        count = min(some, lines - first)
        used = -(-count * half // SIDE)
        parallel(partial(pair_pixels, images, s, first, pairs, plane, zeros), count + kh - 1, 2 * half * c)
        parallel(partial(pair_slopes, slopes, s, first, g, zeros), count, half * o)
        end(s, kh, count, used, pairs, plane, g)
        _sums(g, o, pairs, at, used, total, first, blocks == 1)
    return total


def _sums(slopes: Array, o: int, pixels: Array, at: Taps, groups: int, total: Array, more: int, all_at_once: bool) -> None:
    """total (O, taps, N) = slopes^T pixels over groups of 16 pairs, or += it if `more`."""
    turned, taps = _scratch("turned", groups * SIDE * o), at.high * at.wide
    parallel(lambda a, b: turn(slopes, o, turned, a, b), groups, SIDE * o)
    ones = np.repeat(np.array([1, 0], np.float32), PANEL)

    def some(start: int, stop: int) -> None:
        sums = _scratch("all sums", taps * PANEL * PANEL if all_at_once else 0)
        tile_sums(turned, o, pixels, at, groups, total, more, sums, ones, start, stop)

    parallel(some, -(-o // PANEL) * -(-at.n // PANEL), taps * PANEL * PANEL * (1 + groups * SIDE / TILED))
