"""Winograd convolution F(4x4, 3x3): 36 products instead of 144 for 16 outputs, in float32; with factors in bf16 49 for images, 36 for weights.

As maps: y = A^T [(G w) * (B^T x)], in two dimensions on both sides, with the matrices of `transforms`. It is the same linear map as the
definition, factored differently, so the adjoints come from the same three matrices: x from y is the convolution by the turned filter, and
the weight's gradient is G^T [(B^T x B) * (A y A^T)] G.

With many tiles, blocks of them go through transform, product and transform back: as many as L2 holds, or with large weights so many that
it pays to read these for each block. With large weights and few tiles it is the weights that pass by: transformed a part at a time, used
for all tiles, never stored. However work is cut, every sum is added up in the same order, and where it is split, by shape alone: results
do not depend on the number of threads. Rounding errors are about 5 times those of the definition, a few 1e-6 of the largest output.

bf16: two transformed numbers share the place of one. What is summed over makes pairs: channels, in a weight's gradient tiles.

Importing this module imports numba.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ...window import Pair, Window
from ..arrays import Array, nchw, nhwc
from .instructions import LANES
from .kept import Kept
from .layout import plain
from .matmul import ADDS
from .memory import LINE, Scratch, empty, second_level_cache, streams
from .threads import MULTIPLY_ADDS, num_threads, parallel
from .transforms import BF16_VALUES, OUT, SIDE, TAPS, VALUES
from .vector import ALONG, ROWS, SECOND, panel_vectors
from .winograd_loops import (
    BLOCK,
    Finish,
    Shape,
    collect,
    filters,
    gradient_tiles,
    image_blocks,
    input_tiles,
    some_sums,
    weight_items,
    weight_parts,
    weight_stream,
)

LARGE = 1 << 14  # c o of weights that do not stay in L2
MANY = 144  # tiles of a block that is worth reading large weights for
STEP = 256  # tiles that meet weights on their way
PART = (32, 128)  # channels of weights that are transformed at a time, at least and at most
HIGH = (64, 128)  # rows of weights, transformed or summed, that a thread takes at a time, at least and at most
L2 = int(0.15 * second_level_cache())  # numbers of transformed pixels and products in a block: 0.6 of it; the rest is for weights
SUMS, PARTS = 1 << 19, 8  # numbers in a sum of weights of which each part of the tiles may have its own, and parts
_scratch = Scratch()
TILES = 1 << 22  # numbers in transformed pixels and gradients that are held at a time: 16 MiB


def conv2d(
    x: Array,
    w: Array,
    bias: Array | None,
    window: Window,
    out: Pair,
    scale: Array | None = None,
    relu: bool = False,
    bf16: bool = False,
    kept: Kept | None = None,
) -> Array:
    """x (N, C, H, W), w (O, C, 3, 3), bias (O,) or None -> y (N, O, *out), float32; with `scale` (O,) scale y + bias, and `relu`."""
    if x.shape[1] < LANES:
        return conv2d(_pad(x, 1), _pad(w, 1), bias, window, out, scale, relu)
    return _convolve(x, w, bias, 0, window.padding, len(w), out, scale, relu, bf16, kept)


def conv_transpose2d(
    y: Array, w: Array, bias: Array | None, window: Window, size: Pair, bf16: bool = False, kept: Kept | None = None
) -> Array:
    """y (N, O, OH, OW), w (O, C, 3, 3), bias (C,) or None -> x (N, C, *size): conv2d by the weight turned by half a turn."""
    o, c = w.shape[:2]
    if o < LANES:
        return conv_transpose2d(_pad(y, 1), _pad(w, 0), bias, window, size)
    padding = (TAPS - 1 - window.padding[0], TAPS - 1 - window.padding[1])
    return _convolve(y, w, bias, 1, padding, c, size, bf16=bf16, kept=kept)


def conv2d_weight(x: Array, y: Array, window: Window, bf16: bool = False) -> Array:
    """x (N, C, H, W), y (N, O, OH, OW) -> w (O, C, 3, 3) in channels-last memory."""
    c, o = x.shape[1], y.shape[1]
    if min(c, o) < LANES:
        return _cut(conv2d_weight(_pad(x, 1), _pad(y, 1), window)[:o], c)
    twos = SECOND if bf16 and c % LANES == o % LANES == 0 else None
    s = _shape(x.shape, o, window.padding, y.shape[2:], twos)
    images, gradients = (plain(nhwc(a)).reshape(-1) for a in (x, y))
    w = np.empty((s.o, TAPS, TAPS, s.c), np.float32)
    per = 1 if twos is None else 2  # tiles in one place
    block = per * max(12, L2 // (s.values * (s.c + s.wide)))
    held = max(64, min(_up(s.tiles, per), TILES * per // (s.values * (s.c + s.wide)) // per * per))
    if s.values * _sums_plane(s) <= SUMS and s.tiles > block:
        _sums_in_parts(images, gradients, w.reshape(-1), s, twos, block)
    elif held >= s.tiles:
        _sums_in_panels(images, gradients, w.reshape(-1), s, twos)
    else:
        _sums_in_turns(images, gradients, w.reshape(-1), s, twos, held)
    return nchw(w)


def _sums_in_parts(images: Array, gradients: Array, w: Array, s: Shape, twos: int | None, step: int) -> None:
    """w of images and gradients, `step` tiles at a time: each part of the tiles adds up its own sums, then parts are added up."""
    plane, blocks, places = _sums_plane(s), -(-s.tiles // step), step if twos is None else step // 2
    parts = min(PARTS, blocks)
    total = _scratch("sums", parts * s.values * plane).reshape(parts, -1)
    t_plane, g_plane = _odd(places * s.row), _odd(places * s.g_row)

    def some(start: int, stop: int) -> None:
        tiles, products = _scratch("tiles", s.values * t_plane + ADDS), _scratch("products", s.values * g_plane)
        patch = _scratch("patch", s.values * max(s.c, s.o))
        weight_parts(images, gradients, s, step, blocks, parts, total, plane, tiles, t_plane, products, g_plane, patch, twos, start, stop)

    parallel(some, parts, s.values * s.tiles / parts * (s.c + s.wide + s.c * s.wide / MULTIPLY_ADDS))
    _gather(total, w, s)


def _sums_in_panels(images: Array, gradients: Array, w: Array, s: Shape, twos: int | None) -> None:
    """w of images and gradients, all of whose tiles are transformed first: sums of a panel of w never leave the cache."""
    tiles, t_plane, products, g_plane = _transform_some(images, gradients, s, twos, 0, s.tiles)
    wanted = s.c * (s.wide // s.columns) // (2 * num_threads())  # two items a thread, if they do not become too small
    part = min(HIGH[1], max(HIGH[0], _up(wanted, LANES)))
    size = _odd(part * s.columns)

    def items(start: int, stop: int) -> None:
        sums, block = _scratch("sums", s.values * size), _scratch("block", BLOCK)
        weight_items(tiles, t_plane, products, g_plane, s, part, w, sums, size, block, twos, start, stop)

    parallel(items, -(-s.c // part) * (s.wide // s.columns), s.values * part * s.columns * (1 + s.tiles / MULTIPLY_ADDS))


def _sums_in_turns(images: Array, gradients: Array, w: Array, s: Shape, twos: int | None, held: int) -> None:
    """w of images and gradients whose tiles are transformed `held` at a time: sums are added to in turns."""
    plane, per = _sums_plane(s), 1 if twos is None else 2
    total = _scratch("sums", s.values * plane).reshape(1, -1)
    for first in range(0, s.tiles, held):
        count = min(held, s.tiles - first)
        tiles, t_plane, products, g_plane = _transform_some(images, gradients, s, twos, first, count)
        places = -(-count // per)
        parallel(
            lambda a, b: some_sums(tiles, t_plane, products, g_plane, s, places, total[0], plane, first, twos, a, b),  # noqa: B023
            s.values * (s.wide // s.columns),
            s.c * s.columns * places / MULTIPLY_ADDS,
        )
    _gather(total, w, s)


def _transform_some(images: Array, gradients: Array, s: Shape, twos: int | None, first: int, count: int) -> tuple[Array, int, Array, int]:
    """`count` tiles of images and of gradients from `first` on, transformed, and how far each of the values is from the next."""
    per = 1 if twos is None else 2
    places = -(-count // per)
    t_plane, g_plane = _odd(places * s.row), _odd(places * s.g_row)
    tiles, products = _scratch("all tiles", s.values * t_plane + ADDS), _scratch("all gradients", s.values * g_plane)

    def some(start: int, stop: int) -> None:
        patch, at = _scratch("patch", s.values * max(s.c, s.o)), first + start * per
        number = min(stop * per, count) - start * per
        input_tiles(images, s, at, number, tiles, start * s.row, t_plane, patch, twos)
        gradient_tiles(gradients, s, at, number, products, start * s.g_row, g_plane, patch, twos)

    parallel(some, places, per * s.values * (s.c + s.wide))
    return tiles, t_plane, products, g_plane


def _gather(total: Array, w: Array, s: Shape) -> None:
    """w = G^T m G of the sums of all parts in total (parts, values, C, wide)."""
    plane, parts = _sums_plane(s), len(total)
    parallel(
        lambda a, b: collect(total, plane, parts, w, s, _scratch("block", BLOCK), a, b), -(-s.c // LANES), s.values * LANES * s.wide * parts
    )


def _sums_plane(s: Shape) -> int:
    """How far sums (C, wide) of one of the values are from those of the next."""
    return _odd(_up(s.c, ADDS) * s.wide)


def _convolve(
    x: Array,
    w: Array,
    bias: Array | None,
    turned: int,
    padding: Pair,
    o: int,
    out: Pair,
    scale: Array | None = None,
    relu: bool = False,
    bf16: bool = False,
    kept: Kept | None = None,
) -> Array:
    """x (N, C, H, W) and weights (O, C, 3, 3) or, if `turned` is 1, (C, O, 3, 3) -> y (N, O, *out)."""
    twos = ALONG if bf16 and x.shape[1] % LANES == o % LANES == 0 else None
    s = _shape(x.shape, o, padding, out, twos)
    y = empty((s.n, *out, o))
    offset, factors = (_pad(np.full(o, i, np.float32) if v is None else plain(v), 0) for i, v in enumerate((bias, scale)))
    streamed = streams(y, o) and 4 * LANES == LINE  # a vector is a line: shorter ones would write it in parts
    finish = Finish(factors, offset, int(relu), int(streamed))
    last = o - (s.wide // s.columns - 1) * s.columns  # channels of the last panel: by itself, it must fill a vector
    few = s.c * o >= LARGE and s.tiles <= o and last >= LANES  # transformed pixels are fewer numbers than transformed weights
    (_weights_pass if few else _tiles_pass)(plain(nhwc(x)).reshape(-1), w, turned, finish, y.reshape(-1), s, twos, kept)
    return nchw(y)


def _weights_pass(images: Array, w: Array, turned: int, finish: Finish, y: Array, s: Shape, twos: int | None, kept: Kept | None) -> None:
    """y of images, all of whose tiles are transformed first: each part of the weights is transformed on its way, or has been kept."""
    per = 1 if twos is None else 2  # channels in one place
    held = None if kept is None else kept.of(w, (turned, twos, PART[1]), lambda: _transformed(w, turned, s, twos, PART[1]))
    weights = plain(nhwc(w)).reshape(-1)
    panels, side = s.wide // s.columns, SIDE * SIDE * max(s.c, s.o)
    steps = max(-(-s.tiles // STEP), -(-num_threads() // panels))
    rows = _up(-(-s.tiles // steps), ADDS)
    part = per * min(max(PART[0], _up(2 * rows - PART[0], PART[0])), PART[1])  # what is read again for each part weighs like the part
    part = part if held is None else PART[1]
    t_plane, u_plane, p_plane = _odd((s.tiles + ADDS) * s.row), _odd(part // per * s.columns), _odd(rows * s.columns)
    tiles = _scratch("all tiles", s.values * t_plane)

    def transform(start: int, stop: int) -> None:
        input_tiles(images, s, start, stop - start, tiles, start * s.row, t_plane, _scratch("patch", side), twos)

    def panels_of_rows(start: int, stop: int) -> None:
        u = _scratch("u", s.values * u_plane) if held is None else held
        products, square, patch = _scratch("products", s.values * p_plane), _scratch("block", BLOCK), _scratch("patch", side)
        made = int(held is not None)
        weight_stream(
            weights, turned, tiles, t_plane, finish, y, s, part, rows, u, u_plane, products, p_plane, square, patch, twos, made, start, stop
        )

    parallel(transform, s.tiles, s.values * s.c)
    parallel(panels_of_rows, panels * -(-s.tiles // rows), s.values * s.c * s.columns * (1 + rows / MULTIPLY_ADDS))


def _tiles_pass(images: Array, w: Array, turned: int, finish: Finish, y: Array, s: Shape, twos: int | None, kept: Kept | None) -> None:
    """y of images, a block of tiles at a time: all weights are transformed first, or have been kept."""
    per = 1 if twos is None else 2  # channels in one place
    together = _up(s.c, LANES)
    held = None if kept is None else kept.of(w, (turned, twos, together), lambda: _transformed(w, turned, s, twos, together))
    u = _transformed(w, turned, s, twos, together, _scratch) if held is None else held
    step = max(12, L2 // (s.values * (s.c // per + s.wide)))
    if s.c * s.o >= LARGE:
        count = _up(-(-s.tiles // MANY), num_threads())
        step = max(step, -(-s.tiles // count))
    step = _up(step, ROWS[s.vectors - 1])
    u_plane, t_plane, p_plane = _odd(together // per * s.columns), _odd(step * s.row), _odd(step * s.wide)
    side = SIDE * SIDE * max(s.c, s.o)

    def blocks(start: int, stop: int) -> None:
        tiles, products, patch = _scratch("tiles", s.values * t_plane), _scratch("products", s.values * p_plane), _scratch("patch", side)
        image_blocks(images, u, u_plane, finish, y, s, step, tiles, t_plane, products, p_plane, patch, twos, start, stop)

    parallel(blocks, -(-s.tiles // step), s.values * step * (s.c + s.o + s.c * s.o / MULTIPLY_ADDS))


def _transformed(w: Array, turned: int, s: Shape, twos: int | None, together: int, scratch: Scratch | None = None) -> Array:
    """All weights transformed: (panels, parts of so many channels, values, channels, columns), with gaps behind each of the values."""
    weights, per, parts = plain(nhwc(w)).reshape(-1), 1 if twos is None else 2, -(-s.c // together)
    plane, panels, steps = _odd(together // per * s.columns), s.wide // s.columns, -(-together // HIGH[0])
    size = panels * parts * s.values * plane
    u = empty((size,)) if scratch is None else scratch("all weights", size)

    def some(start: int, stop: int) -> None:
        square = _scratch("block", BLOCK)
        for item in range(start, stop):
            block, first = item // steps, item % steps * HIGH[0]
            begin = block % parts * together + first
            count = min(HIGH[0], together - first, s.c - begin)
            if count > 0:
                at = block * s.values * plane + first // per * s.columns
                filters(weights, s, turned, block // parts, begin, count, u, at, plane, square, twos)

    parallel(some, panels * parts * steps, 8 * min(HIGH[0], s.c) * s.columns)
    return u


def _pad(x: Array, axis: int) -> Array:
    """x with zeros up to LANES channels: vectors are at least full once. The choice by shape leaves so few channels to other algorithms."""
    missing = LANES - x.shape[axis]
    if missing <= 0:
        return x
    zeros = np.zeros((*x.shape[:axis], missing, *x.shape[axis + 1 :]), x.dtype)
    return np.concatenate([x, zeros], axis)


def _cut(y: Array, channels: int) -> Array:
    """The first channels of y (N, C, H, W), channels-last without gaps."""
    return nchw(plain(nhwc(y[:, :channels])))


@lru_cache(1024)
def _shape(shape: tuple[int, ...], o: int, padding: Pair, out: Pair, twos: int | None) -> Shape:
    """The sizes of a convolution of images (N, C, H, W) to o channels; twos: see input_tiles."""
    n, c, h, w = shape
    th, tw = -(-out[0] // OUT), -(-out[1] // OUT)
    vectors = panel_vectors(o)
    columns = vectors * LANES
    wide = _up(o, columns)
    row, across = (_row(c // 2), BF16_VALUES) if twos == ALONG else (_row(c), VALUES)
    return Shape(n, h, w, c, *out, o, *padding, th, tw, n * th * tw, vectors, columns, wide, row, _row(wide), across, across * across)


def _row(size: int) -> int:
    """`size`, or so much more that a part of many rows does not share a quarter of L1's sets or less."""
    return size if size < 256 else _odd(size)


def _up(size: int, multiple: int) -> int:
    """`size` rounded up to a multiple."""
    return -(-size // multiple) * multiple


def _odd(size: int) -> int:
    """`size` rounded up to an odd number of cache lines of 16 numbers."""
    return (-(-size // 16) | 1) * 16
