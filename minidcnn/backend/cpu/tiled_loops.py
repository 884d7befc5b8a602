"""The loops of `tiled`, compiled by numba around the blocks of `tiles`. Channels are multiples of 16.

Importing this module imports numba.
"""

from __future__ import annotations

from typing import NamedTuple

from ..arrays import Array
from .cache import depends
from .instructions import LANES
from .jit import _dispatcher as njit
from .product import pair_runs, round_line, round_run
from .routine import python_routine, routine
from .streaming import fence
from .tiles import AMX, SIDE, finish, finish_streamed, make_block, shift, tiles_start, tiles_stop
from .winograd_loops import fill, transpose

depends(__name__, AMX)
PANEL = 2 * SIDE  # columns of a block
DEEP = 256  # pairs along k at a time in sums: two tiles of them fill 32 KiB
block11, block12, block21, block22 = (make_block(tiles, vectors) for tiles in (1, 2) for vectors in (1, 2))


@routine
def block(
    tiles: int, vectors: int, a: int, a_down: int, a_row: int, a_step: int, a_run: int, runs: int, b: int, b_row: int,
    c: int, c_down: int, c_row: int, k: int, more: int, rows: int, chunk: int,
) -> None:  # fmt: skip
    """The block of so many tiles and vectors, 1 or 2."""
    if tiles == 2 and vectors == 2:
        block22(a, a_down, a_row, a_step, a_run, runs, b, b_row, c, c_down, c_row, k, more, rows, chunk)
    elif tiles == 2:
        block21(a, a_down, a_row, a_step, a_run, runs, b, b_row, c, c_down, c_row, k, more, rows, chunk)
    elif vectors == 2:
        block12(a, a_down, a_row, a_step, a_run, runs, b, b_row, c, c_down, c_row, k, more, rows, chunk)
    else:
        block11(a, a_down, a_row, a_step, a_run, runs, b, b_row, c, c_down, c_row, k, more, rows, chunk)


@python_routine
def same_block(a: int, b: int, c: int, k: int, times: int) -> None:
    """c (32, 32) = a (32, k) b (k, 32), again and again: what the unit can do at most."""
    tiles_start(SIDE, SIDE)
    for _ in range(times):
        block22(a, SIDE * k, k, SIDE, 0, 1, b, PANEL, c, SIDE * PANEL, PANEL, k, 0, SIDE, SIDE)
    tiles_stop()


# -- weights ------------------------------------------------------------------------------------------------------------------------------


@routine
def transpose_square(source: int, source_row: int, to: int, to_row: int) -> None:
    """to = source^T, 16 x 16."""
    for i in range(0, SIDE, LANES):
        for j in range(0, SIDE, LANES):
            transpose(source + 4 * (i * source_row + j), source_row, to + 4 * (j * to_row + i), to_row)


@njit
def pack(w, o, taps, c, packed, columns, rows, start, stop):  # type: ignore[no-untyped-def]
    """packed (panels, taps, C / 2, columns) = pairs along C of weights (O, taps, C), 0 beyond the last of O.

    An item is a tap of a panel, by way of rows (16, C / 2) and a square.
    """
    deep, here = c // 2, rows.ctypes.data
    square = here + 4 * SIDE * deep
    for item in range(start, stop):
        panel, tap = item // taps, item % taps
        for j0 in range(0, columns, SIDE):
            o0 = panel * columns + j0
            some = max(0, min(SIDE, o - o0))
            for j in range(some):
                round_run(w.ctypes.data + 4 * ((o0 + j) * taps + tap) * c, here + 4 * j * deep, c)
            fill(0, 0, here + 4 * some * deep, 0, 1, (SIDE - some) * deep, 0, 0)
            to = packed.ctypes.data + 4 * ((panel * taps + tap) * deep * columns + j0)
            for k in range(0, deep - SIDE + 1, SIDE):
                transpose_square(here + 4 * k, deep, to + 4 * k * columns, columns)
            if deep % SIDE > 0:  # the last ones, fewer than a square has
                k = deep - deep % SIDE
                fill(here + 4 * k, deep, square, SIDE, SIDE, 0, deep - k, SIDE - deep + k)
                transpose_square(square, SIDE, square + 4 * SIDE * SIDE, SIDE)
                fill(square + 4 * SIDE * SIDE, SIDE, to + 4 * k * columns, columns, deep - k, 0, SIDE, 0)


@njit
def pack_turned(w, o, taps, c, packed, columns, start, stop):  # type: ignore[no-untyped-def]
    """packed (panels, taps, O / 2, columns) = pairs along O of weights (O, taps, C), taps in turned order, 0 beyond the last of C.

    An item is a tap of 16 of O.
    """
    for item in range(start, stop):
        tap, first = item % taps, item // taps * SIDE
        for o0 in range(first, first + SIDE, 2):
            source = w.ctypes.data + 4 * (o0 * taps + taps - 1 - tap) * c
            for c0 in range(0, c, columns):
                some = min(columns, c - c0)
                to = packed.ctypes.data + 2 * ((c0 // columns * taps + tap) * o + o0) * columns
                pair_runs(source + 4 * c0, source + 4 * (taps * c + c0), to, some)
                fill(0, 0, to + 4 * some, 0, 1, columns - some, 0, 0)


# -- windows ------------------------------------------------------------------------------------------------------------------------------


class Walk(NamedTuple):
    """How windows (lines, OW) are taken: `step` lines of as many as `parted`, and some panels, to an item; and where lines of results lie."""

    lines: int
    parted: int  # lines that an item may not cross: of all images or, if an item rounds its own pixels, of one
    step: int
    panels: int
    together: int  # panels of an item: all, or one
    columns: int  # of a panel
    chunk: int  # pairs along k that a tile holds
    stride: int  # numbers from a panel of the weights to the next
    first: int  # results of line p are line first + every p
    every: int
    relu: int
    streamed: int
    high: int  # lines of rounded pixels that an item may need, or 0 if all have been rounded before
    top: int  # zeros above an image, and numbers of zeros to the left of a line
    left: int


@routine
def leave(
    sums: Array, columns: int, y: Array, pixel: int, channel: int, o: int, rows: int, walk: Walk, scale: Array, offset: Array, row: int
) -> None:
    """Pixels (rows, O) of y from `pixel` on, `columns` of O from `channel` on: scale times sums (32, columns), from a row on, plus offset."""
    wide = min(columns, o - channel)
    source, to = sums.ctypes.data + 4 * row * columns, y.ctypes.data + 4 * (pixel * o + channel)
    factors, terms = scale.ctypes.data + 4 * channel, offset.ctypes.data + 4 * channel
    if walk.streamed != 0:
        finish_streamed(source, columns, to, o, rows, wide, factors, terms, walk.relu)
    else:
        finish(source, columns, to, o, rows, wide, factors, terms, walk.relu)


@njit
def tile_windows(image, oh, row, pixel, run, runs, gap, packed, y, ow, walk, scale, offset, sums, lines, start, stop):  # type: ignore[no-untyped-def]
    """y (N OH, OW, O), flat, = scale times windows, as `Lines` has them, times packed weights, plus offset; by way of sums (32, columns).

    image (N, H, W C / 2) has been rounded, or it is (N, H, W C) and each item rounds what it needs to lines (high, W' C / 2).
    """
    line, o, columns = image.shape[2] if walk.high == 0 else lines.shape[1], scale.size, walk.columns
    rows, across = min(SIDE, ow), (ow + SIDE - 1) // SIDE  # windows of a tile, and tiles in a line: the last does some windows once more
    vectors, chunk, to = columns // SIDE, walk.chunk, sums.ctypes.data
    blocks, groups = (walk.parted + walk.step - 1) // walk.step, walk.panels // walk.together
    tiles_start(rows, chunk)
    for item in range(start, stop):
        block_of, begin = item // groups, item % groups * walk.together
        part = block_of // blocks * walk.parted
        top = part + block_of % blocks * walk.step
        stop_at = min(top + walk.step, part + walk.parted)
        base = image.ctypes.data
        if walk.high > 0:
            base = lines.ctypes.data - 4 * (top % oh * row) * line
            for k in range((stop_at - top - 1) * row + (runs - 1) * gap + 1):
                h = top % oh * row + k - walk.top
                source, here = image.ctypes.data + 4 * (top // oh * image.shape[1] + h) * image.shape[2], lines.ctypes.data + 4 * k * line
                if 0 <= h < image.shape[1]:
                    round_line(source, image.shape[2], walk.left, here, line)
                else:
                    fill(0, 0, here, 0, 1, line, 0, 0)
        high = image.shape[1] if walk.high == 0 else 0
        last = stop_at * across
        for t in range(top * across, last, 2):
            tiles = min(2, last - t)
            p, i = t // across, min(t % across * SIDE, ow - rows)
            q, j = (t + 1) // across, min((t + 1) % across * SIDE, ow - rows)
            first = (p // oh * high + p % oh * row) * line + i * pixel
            down = (q // oh * high + q % oh * row) * line + j * pixel - first
            one, two = (walk.first + walk.every * p) * ow + i, (walk.first + walk.every * q) * ow + j
            for panel in range(begin, begin + walk.together):
                a, b = base + 4 * first, packed.ctypes.data + 4 * panel * walk.stride
                block(tiles, vectors, a, down, pixel, chunk, gap * line, runs, b, columns, to, SIDE * columns, columns, run, 0, rows, chunk)
                leave(sums, columns, y, one, panel * columns, o, rows, walk, scale, offset, 0)
                if tiles == 2:
                    leave(sums, columns, y, two, panel * columns, o, rows, walk, scale, offset, SIDE)
    tiles_stop()
    fence()


# -- gradients of weights -----------------------------------------------------------------------------------------------------------------


class Paired(NamedTuple):
    """Lines of pixels in pairs, with zeros around them: hp to an image, `half` pairs to a line."""

    h: int  # of an image
    w: int
    c: int
    oh: int
    ow: int
    o: int
    ph: int  # padding
    pw: int
    hp: int
    half: int


@routine
def pair_line(source: int, w: int, c: int, left: int, half: int, to: int, zeros: int) -> None:
    """to (half, C) = pairs of `left` zeros, pixels (W, C) at `source`, and zeros."""
    for m in range(half):
        k = 2 * m - left
        one = source + 4 * k * c if 0 <= k < w else zeros
        two = source + 4 * (k + 1) * c if 0 <= k + 1 < w else zeros
        pair_runs(one, two, to + 4 * m * c, c)


@python_routine
def pair_pixels(x: Array, s: Paired, first: int, pairs: Array, plane: int, zeros: Array, start: int, stop: int) -> None:
    """Pixels of lines first + start .. of all images in pairs (lines, half, C) from even ones on and, `plane` numbers behind, from odd ones on."""
    line = s.half * s.c
    for p in range(start, stop):
        n, i = (first + p) // s.hp, (first + p) % s.hp
        h = i - s.ph
        even, odd = pairs.ctypes.data + 4 * p * line, pairs.ctypes.data + 4 * (p * line + plane)
        if 0 <= h < s.h and (n * s.h + h) * s.w * s.c < x.size:
            source, last = x.ctypes.data + 4 * (n * s.h + h) * s.w * s.c, 2 * s.half - 1 - s.pw
            pair_line(source, s.w, s.c, s.pw, s.half, even, zeros.ctypes.data)
            shift(even, odd, line - s.c, s.c)
            pair_runs(source + 4 * last * s.c if last < s.w else zeros.ctypes.data, zeros.ctypes.data, odd + 4 * (line - s.c), s.c)
        else:
            fill(0, 0, even, 0, 1, line, 0, 0)
            fill(0, 0, odd, 0, 1, line, 0, 0)


@python_routine
def pair_slopes(g: Array, s: Paired, first: int, slopes: Array, zeros: Array, start: int, stop: int) -> None:
    """Slopes of lines first + start .. in pairs (lines, half, O), with zeros behind those of each line and of each image."""
    for p in range(start, stop):
        n, i = (first + p) // s.hp, (first + p) % s.hp
        to = slopes.ctypes.data + 4 * p * s.half * s.o
        if i < s.oh:
            pair_line(g.ctypes.data + 4 * (n * s.oh + i) * s.ow * s.o, s.ow, s.o, 0, s.half, to, zeros.ctypes.data)
        else:
            fill(0, 0, to, 0, 1, s.half * s.o, 0, 0)


@python_routine
def end(s: Paired, high: int, lines: int, groups: int, pairs: Array, plane: int, slopes: Array) -> None:
    """Zeros behind so many lines of slopes and, for a kernel of `high` lines, of pixels, as far as so many groups of 16 pairs are read."""
    here = (lines + high - 1) * s.half * s.c
    for k in range(2):
        fill(0, 0, pairs.ctypes.data + 4 * (k * plane + here), 0, 1, plane - here, 0, 0)
    here = lines * s.half * s.o
    fill(0, 0, slopes.ctypes.data + 4 * here, 0, 1, groups * SIDE * s.o - here, 0, 0)


@python_routine
def turn(slopes: Array, o: int, turned: Array, start: int, stop: int) -> None:
    """turned (groups, O, 16) = groups `start` up to `stop` of 16 pairs of slopes (16 groups, O)."""
    for group in range(start, stop):
        for j in range(0, o, SIDE):
            at = 4 * group * SIDE * o
            transpose_square(slopes.ctypes.data + at + 4 * j, o, turned.ctypes.data + at + 4 * SIDE * j, SIDE)


class Taps(NamedTuple):
    """Where the first pair lies that a tap meets: `down` numbers for each line of the kernel, n for each two columns, `odd` more for odd ones."""

    high: int  # lines and columns of the kernel
    wide: int
    n: int  # channels
    down: int
    odd: int


@python_routine
def tile_sums(
    turned: Array, o: int, x: Array, at: Taps, groups: int, total: Array, more: int, sums: Array, ones: Array, start: int, stop: int
) -> None:
    """total (O, taps, N) = slopes times pairs of x, or += if `more`. An item is 32 of O and of N.

    By way of sums (taps, 32, 32), past the caches, unless it is empty.
    """
    n, taps, down = at.n, at.high * at.wide, (o + PANEL - 1) // PANEL
    tiles_start(SIDE, SIDE)
    for item in range(start, stop):
        j, k = item % down * PANEL, item // down * PANEL  # what all of O meet of x stays in the cache
        tiles, vectors = min(2, (o - j) // SIDE), min(2, (n - k) // SIDE)
        to, next_tap, row = total.ctypes.data + 4 * (j * taps * n + k), n, taps * n
        if sums.size > 0:
            to, next_tap, row = sums.ctypes.data, PANEL * PANEL, PANEL
        for first in range(0, groups, DEEP // SIDE):
            some = min(DEEP // SIDE, groups - first)
            a = turned.ctypes.data + 4 * (first * o + j) * SIDE
            for tap in range(taps):
                q = tap % at.wide
                b = x.ctypes.data + 4 * (tap // at.wide * at.down + q // 2 * n + q % 2 * at.odd + first * SIDE * n + k)
                c = to + 4 * tap * next_tap
                block(tiles, vectors, a, SIDE * SIDE, SIDE, SIDE * o, 0, 1, b, n, c, SIDE * row, row, some * SIDE, more + first, SIDE, SIDE)
        for tap in range(taps if sums.size > 0 else 0):
            source, result = to + 4 * tap * PANEL * PANEL, total.ctypes.data + 4 * ((j * taps + tap) * n + k)
            finish_streamed(
                source, PANEL, result, taps * n, SIDE * tiles, SIDE * vectors, ones.ctypes.data, ones.ctypes.data + 4 * PANEL, 0
            )
    tiles_stop()
    fence()


@njit
def sum_parts(x, g, s, at, some, lines, parts, totals, pairs, slopes, turned, zeros, nothing, start, stop):  # type: ignore[no-untyped-def]
    """totals (parts, O taps C): sums over blocks of `some` lines, each part over its share of the blocks."""
    blocks, known, line = (lines + some - 1) // some, at.high - 1, s.half * s.c
    for part in range(start, stop):
        begin = part * blocks // parts
        for i in range(begin, (part + 1) * blocks // parts):
            count, seen = min(some, lines - i * some), 0
            if i > begin:  # it begins with lines that the block before, of `some` lines, ended with
                seen = known
                for k in range(2 * seen):
                    to = pairs.ctypes.data + 4 * (k % 2 * at.odd + k // 2 * line)
                    fill(to + 4 * some * line, 0, to, 0, 1, 0, line, 0)
            pair_pixels(x, s, i * some, pairs, at.odd, zeros, seen, count + known)
            pair_slopes(g, s, i * some, slopes, zeros, 0, count)
            groups = (count * s.half + SIDE - 1) // SIDE
            end(s, at.high, count, groups, pairs, at.odd, slopes)
            turn(slopes, s.o, turned, 0, groups)
            items = ((s.o + PANEL - 1) // PANEL) * ((s.c + PANEL - 1) // PANEL)
            tile_sums(turned, s.o, pairs, at, groups, totals[part], i - begin, nothing, nothing, 0, items)
