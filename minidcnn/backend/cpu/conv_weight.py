"""The gradient of a convolution with respect to its weight: sums over pixels of what a window saw times what came back.

In float32, where windows lie without gaps along a line, pixels are read where they lie. Else columns are made and BLAS multiplies them. In bf16,
where windows lie side by side, they are rounded and multiplied in pairs.
"""

from __future__ import annotations

import numpy as np

from ...window import Window
from ..arrays import Array
from .columns import BLOCK, geometry, im2col, one_tap, patches, windows_of
from .layout import images, rows
from .threads import MULTIPLY_ADDS, parallel, single_blas

SUMS = 8  # partial sums, each over its share of the pixels
MANY, SLICE = 1 << 20, 256  # numbers in a weight that has few pixels, so that threads share its columns, and columns of a part then
SHORT, NEAR = 32, 1 << 13  # windows in a line, and numbers that they stand on: with fewer, or with more than fit L1, BLAS is quicker
LARGE, HUGE = 1 << 17, 1 << 22  # numbers in a weight: of which there is one sum only, whose panels threads share; of which BLAS is quicker
PAIRS = 32  # pairs of windows: with fewer, BLAS is quicker
TOGETHER = 1 << 15  # numbers in lines that are read again and again while they are in the cache


def weight_gradient(x: Array, y: Array, window: Window, bf16: bool = False) -> Array:
    """x (N, C, H, W), y (N, O, OH, OW) -> w (O, KH KW C), float32 or float64."""
    if bf16 and x.dtype == np.float32 and window == Window(window.stride, window.stride):
        w = _by_pairs(x, y, window)
        if w is not None:
            return w
    if x.dtype == np.float32 and window.dilation[1] == 1 and window != Window((1, 1)):  # there, BLAS needs no columns either
        w = _by_lines(x, y, window)
        if w is not None:
            return w
    cells = patches(rows(x), x.shape[1], window, y.shape[2:])
    if cells is not None:
        n, oh, kh, ow, run = cells.shape
        whole = cells.strides[0] == oh * cells.strides[1]  # lines follow each other through all images
        return _by_patches(cells.reshape(1, n * oh, kh, ow, run) if whole else cells, images(y))
    many = x.shape[1] * y.shape[1] * window.taps > MANY
    return _by_taps(x, y, window) if many else _by_pixels(x, y, window)


def _by_lines(x: Array, y: Array, window: Window) -> Array | None:
    """The same without columns; None where that is slower, or where neither a window's runs nor the channels of y fill vectors."""
    from .instructions import LANES
    from .matmul import ADDS
    from .product import padded_lines, window_sums
    from .vector import panel_vectors

    c, (n, o, oh, ow) = x.shape[1], y.shape
    run, k, lines = window.kernel[1] * c, window.taps * c, n * oh
    turned = run % LANES > 0  # then sums lie as (KH, KW C, O), with spare rows
    few = o < LANES and not turned
    fast = o * k <= HUGE and (turned or (ow >= SHORT and (few or ow * window.stride[1] * c <= NEAR)))
    if not fast or (o % (LANES if turned else ADDS) and not few):
        return None
    slopes, made = images(y), o
    if o % ADDS:  # so few that more of them, of zeros, cost little
        o = -(-o // ADDS) * ADDS
        slopes = np.zeros((n, oh, ow, o), np.float32)
        slopes[..., :made] = images(y)
    high = -(-run // ADDS) * ADDS
    image = padded_lines(rows(x), c, window, (oh, ow), high - run)
    g, at, vectors = slopes.reshape(lines, ow, o), windows_of(c, window, oh), panel_vectors(o if turned else run)
    items = window.kernel[0] * ((o if turned else run) // (vectors * LANES))
    parts = min(SUMS, lines) if o * k <= LARGE else 1
    together = max(1, TOGETHER // (image.shape[2] + ow * o)) if parts > 1 else lines
    total = np.zeros((parts, (window.kernel[0] * high if turned else k) * o), np.float32)

    def some_lines(start: int, stop: int) -> None:
        for s in range(start, stop):
            window_sums(image, at, g, turned, vectors, total[s], s * lines // parts, (s + 1) * lines // parts, together, 0, items)

    def some_items(start: int, stop: int) -> None:
        window_sums(image, at, g, turned, vectors, total[0], 0, lines, together, start, stop)

    cost = lines * ow * k * o / MULTIPLY_ADDS
    if parts > 1:
        parallel(some_lines, parts, cost / parts)
    else:
        parallel(some_items, items, cost / items)
    w = added_up(total)
    return np.ascontiguousarray(w.reshape(-1, high, o)[:, :run].reshape(k, o).T) if turned else w.reshape(o, k)[:made]


def _by_pairs(x: Array, y: Array, window: Window) -> Array | None:
    """The same of windows side by side, with factors in bf16; None where channels do not fill vectors or windows are few."""
    from .instructions import LANES
    from .product import pair_sums, pair_windows
    from .vector import panel_vectors

    c, (n, o, oh, ow), kh = x.shape[1], y.shape, window.kernel[0]
    run, pairs = window.kernel[1] * c, -(-n * oh * ow // 2)
    if c % LANES or o % LANES or pairs < PAIRS:
        return None
    zeros, vectors = np.zeros(max(run, o), np.float32), panel_vectors(run)  # which divide run, as LANES does
    image, slopes = rows(x), rows(y)
    cells, g = np.empty((kh, pairs, run), np.float32), np.empty((1, pairs, o), np.float32)

    def pair(start: int, stop: int) -> None:
        pair_windows(image, oh, ow, kh, run, cells, zeros, start, stop)
        pair_windows(slopes, oh, ow, 1, o, g, zeros, start, stop)

    parallel(pair, pairs, kh * run + o)
    items, parts = kh * run // (vectors * LANES), min(SUMS, pairs // PAIRS) if kh * run * o <= LARGE else 1
    total = np.empty((parts, o, kh * run), np.float32)
    cost = pairs / parts * vectors * LANES * o / MULTIPLY_ADDS
    parallel(lambda a, b: pair_sums(g, cells, o, run, vectors, parts, total, a, b), items * parts, cost)
    return added_up(total).reshape(o, -1)


def added_up(total: Array) -> Array:
    """The sum of total (S, ...) over S, in memory that holds no more than that."""
    first: Array = total[0]
    if len(total) == 1:
        return first
    flat = total.reshape(len(total), -1)
    parallel(lambda a, b: np.add.reduce(flat[:, a:b], axis=0, out=flat[0, a:b]), first.size, len(total))
    return first.copy()


def _by_patches(cells: Array, g: Array) -> Array:
    """cells (N, OH, KH, OW, KW C), g (N, OH, OW, O) -> w (O, KH KW C), where columns are copies of whole lines."""
    (n, oh, kh, ow, run), o = cells.shape, g.shape[-1]
    lines, step = n * oh, max(1, max(1024, min(4096, BLOCK // (kh * run))) // ow)
    large = kh * run * o > MANY
    parts, part = (-(-run // SLICE), SLICE) if large else (1, run)
    sums = 1 if large else min(SUMS, -(-lines // step))
    total, flat = np.empty((sums, o, kh, run), cells.dtype), g.reshape(lines, ow, o)

    def work(start: int, stop: int) -> None:
        for item in range(start, stop):
            s, a, j = item // (kh * parts), item // parts % kh, item % parts * part
            to = total[s, :, a, j : j + part]
            first, last = s * lines // sums, (s + 1) * lines // sums
            p = first
            while p < last:
                q = min(p + step, last, (p // oh + 1) * oh)  # of one image
                some = cells[p // oh, p % oh : p % oh + q - p, a, :, j : j + part]
                columns, slopes = some.reshape(-1, some.shape[-1]), flat[p:q].reshape(-1, o)
                if p == first:
                    np.matmul(slopes.T, columns, out=to)
                else:
                    to += slopes.T @ columns
                p = q

    with single_blas():
        parallel(work, sums * kh * parts, lines / sums * ow * part * (1 + o / MULTIPLY_ADDS))
    return added_up(total).reshape(o, -1)


def _by_pixels(x: Array, y: Array, window: Window) -> Array:
    """x (N, C, H, W), y (N, O, OH, OW) -> w (O, KH KW C): each block's product is added to one of a few partial sums."""
    c, (n, o, oh, ow) = x.shape[1], y.shape
    k, pixels = window.taps * c, n * oh * ow
    image, g, at = rows(x), images(y).reshape(pixels, o), geometry(window)
    step = max(1024, min(4096, BLOCK // k // 64 * 64))
    count = -(-pixels // step)
    sums = min(SUMS, count)
    total: Array = np.empty((sums, o, k), x.dtype)

    def work(start: int, stop: int) -> None:
        scratch, product = np.empty((min(step, pixels), k), x.dtype), np.empty((o, k), x.dtype)
        for s in range(start, stop):
            first, last = s * count // sums, (s + 1) * count // sums
            for block in range(first, last):
                a, b = block * step, min(block * step + step, pixels)
                cols = scratch[: b - a]
                im2col(image, cols, a, oh, ow, c, at)
                np.matmul(g[a:b].T, cols, out=total[s] if block == first else product)
                if block > first:
                    total[s] += product

    with single_blas():
        parallel(work, sums, pixels / sums * k * (1 + o / MULTIPLY_ADDS))
    return added_up(total)


def _by_taps(x: Array, y: Array, window: Window) -> Array:
    """x (N, C, H, W), y (N, O, OH, OW) -> w (O, KH KW C): threads share the columns, since a large weight has few pixels."""
    c, (n, o, oh, ow) = x.shape[1], y.shape
    k, pixels = window.taps * c, n * oh * ow
    image, g, at = images(x), images(y).reshape(pixels, o), geometry(window)
    w = np.empty((o, k), x.dtype)
    part = -(-c // max(1, c // 256))  # channels at a time
    parts = -(-c // part)
    step = max(1024, BLOCK // part)

    def work(start: int, stop: int) -> None:
        scratch, product = np.empty((min(step, pixels), part), x.dtype), np.empty((o, part), x.dtype)
        for item in range(start, stop):
            tap, first = item // parts, item % parts * part
            last = min(first + part, c)
            for a in range(0, pixels, step):
                b = min(a + step, pixels)
                cols = scratch.reshape(-1)[: (b - a) * (last - first)].reshape(b - a, last - first)
                one_tap(image, cols, a, oh, ow, tap, first, at)
                to = w[:, tap * c + first : tap * c + last]
                np.matmul(g[a:b].T, cols, out=to if a == 0 else product[:, : last - first])
                if a:
                    to += product[:, : last - first]

    with single_blas():
        parallel(work, window.taps * parts, pixels * part * (1 + o / MULTIPLY_ADDS))
    return w
