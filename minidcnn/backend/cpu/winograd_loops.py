"""The loops of the Winograd convolution, compiled by numba around the vector code of `vector`.

Tiles are counted through all images, rows of tiles and columns of tiles. Transformed pixels lie as (values, tiles, channels), transformed
weights as (values, channels, columns of a panel) for each panel of output channels; consecutive ones of the 36 planes are `plane` numbers
apart, an odd number of cache lines, since at multiples of 4096 bytes they would throw each other out of the cache.

Importing this module imports numba.
"""

from __future__ import annotations

from typing import NamedTuple

from ..arrays import Array
from .instructions import LANES
from .jit import _dispatcher as njit
from .matmul import add, add_some, multiply
from .routine import python_routine, routine
from .streaming import fence
from .transforms import A_T, B_T, BF16_A_T, BF16_B_T, BF16_G, OUT, SIDE, TAPS, G, transposed
from .vector import ALONG, SECOND, make_fill, make_transform, make_transpose

input_map, gradient_map, back_map = make_transform(B_T), make_transform(transposed(A_T)), make_transform(transposed(G))
weight_map, output_map = make_transform(G, BF16_G), make_transform(A_T, BF16_A_T, affine=True)
output_stream = make_transform(A_T, BF16_A_T, affine=True, streamed=True)
input_along, weight_second = make_transform(BF16_B_T, write=ALONG), make_transform(BF16_G, write=SECOND)
input_second, gradient_second = make_transform(B_T, write=SECOND), make_transform(transposed(A_T), write=SECOND)
transpose, fill = make_transpose(), make_fill()

TAPS2 = TAPS * TAPS
BLOCK = TAPS2 * LANES * LANES  # scratch for the filters between LANES x LANES channels


class Shape(NamedTuple):
    """The sizes of one convolution, c -> o channels, in tiles of OUT x OUT outputs."""

    n: int
    h: int
    w: int
    c: int
    oh: int
    ow: int
    o: int
    ph: int  # padding
    pw: int
    th: int  # tiles in a column and in a row of an image
    tw: int
    tiles: int  # in all images
    vectors: int  # in a row of a panel
    columns: int  # of a panel
    wide: int  # columns of all panels
    row: int  # numbers from one tile's transformed pixels to the next one's
    g_row: int  # the same of its gradients
    across: int  # values of a transformed tile along each axis, and in all
    values: int


class Finish(NamedTuple):
    """What happens to outputs on their way out: scale y + offset by channel, and ReLU unless it is 0; past the caches, unless that is 0."""

    scale: Array
    offset: Array
    relu: int
    streamed: int


# -- transforms of images -------------------------------------------------------------------------------------------------------------


@routine
def copy_patch(x: Array, base: int, patch: Array, h: int, w: int, c: int, h0: int, w0: int, side: int) -> None:
    """The side x side pixels from (h0, w0) on, zeros outside the image: for tiles at the edge."""
    top, bottom = min(max(-h0, 0), side), max(min(h - h0, side), 0)
    left, right = min(max(-w0, 0), side), max(min(w - w0, side), 0)
    line, seen = side * c, max(right - left, 0)
    if top >= bottom or seen == 0:  # outside altogether
        fill(0, 0, patch.ctypes.data, 0, 1, side * line, 0, 0)
        return
    source = x.ctypes.data + 4 * (base + ((h0 + top) * w + w0 + left) * c)
    fill(0, 0, patch.ctypes.data, 0, 1, top * line, 0, 0)
    fill(source, w * c, patch.ctypes.data + 4 * top * line, line, bottom - top, left * c, seen * c, (side - left - seen) * c)
    fill(0, 0, patch.ctypes.data + 4 * bottom * line, 0, 1, (side - bottom) * line, 0, 0)


@python_routine
def input_tiles(x: Array, s: Shape, first: int, count: int, tiles: Array, at: int, plane: int, patch: Array, twos: int | None) -> None:
    """tiles (values, count, C) = B^T d B of the 6 x 6 pixels under each output tile; the first lies at tiles[at].

    twos: ALONG for (values, count, C / 2) pairs of channels in bf16, SECOND for (values, count / 2, C) pairs of tiles, the last one with 0 if it is
    alone.
    """
    c = s.c  # at least LANES
    for q in range(count):
        n, r = (first + q) // (s.th * s.tw), (first + q) % (s.th * s.tw)
        h0, w0, base = r // s.tw * OUT - s.ph, r % s.tw * OUT - s.pw, n * s.h * s.w * c
        if h0 >= 0 and w0 >= 0 and h0 + SIDE <= s.h and w0 + SIDE <= s.w:
            source, row = x.ctypes.data + 4 * (base + (h0 * s.w + w0) * c), s.w * c
        else:
            copy_patch(x, base, patch, s.h, s.w, c, h0, w0, SIDE)
            source, row = patch.ctypes.data, SIDE * c
        to = tiles.ctypes.data + 4 * at
        if twos is None:
            input_map(source, row, c, to + 4 * q * s.row, s.across * plane, plane, c)
        elif twos == ALONG:
            input_along(source, row, c, to + 4 * q * s.row, s.across * plane, plane, c)
        elif q % 2 == 0:
            input_map(source, row, c, to + 4 * (q // 2) * s.row, s.across * plane, plane, c)
        else:
            input_second(source, row, c, to + 4 * (q // 2) * s.row, s.across * plane, plane, c)
    if twos is not None and twos == SECOND and count % 2 > 0:
        fill(0, 0, patch.ctypes.data, 0, 1, SIDE * SIDE * c, 0, 0)
        input_second(patch.ctypes.data, SIDE * c, c, tiles.ctypes.data + 4 * (at + count // 2 * s.row), s.across * plane, plane, c)


@python_routine
def gradient_tiles(g: Array, s: Shape, first: int, count: int, tiles: Array, at: int, plane: int, patch: Array, twos: int | None) -> None:
    """tiles (values, count, wide) = A g A^T of each 4 x 4 tile of outputs; the first lies at tiles[at]. Unless `twos` is None, pairs of tiles."""
    o = s.o
    for q in range(count):
        n, r = (first + q) // (s.th * s.tw), (first + q) % (s.th * s.tw)
        h0, w0, base = r // s.tw * OUT, r % s.tw * OUT, n * s.oh * s.ow * o
        if h0 + OUT <= s.oh and w0 + OUT <= s.ow:
            source, row = g.ctypes.data + 4 * (base + (h0 * s.ow + w0) * o), s.ow * o
        else:
            copy_patch(g, base, patch, s.oh, s.ow, o, h0, w0, OUT)
            source, row = patch.ctypes.data, OUT * o
        to = tiles.ctypes.data + 4 * (at + (q if twos is None else q // 2) * s.g_row)
        if twos is None or q % 2 == 0:
            gradient_map(source, row, o, to, s.across * plane, plane, o)
        else:
            gradient_second(source, row, o, to, s.across * plane, plane, o)
    if twos is not None and count % 2 > 0:
        fill(0, 0, patch.ctypes.data, 0, 1, OUT * OUT * o, 0, 0)
        gradient_second(patch.ctypes.data, OUT * o, o, tiles.ctypes.data + 4 * (at + count // 2 * s.g_row), s.across * plane, plane, o)


@routine
def output_tiles(
    products: Array,
    row: int,
    plane: int,
    finish: Finish,
    y: Array,
    s: Shape,
    first: int,
    count: int,
    start: int,
    stop: int,
    patch: Array,
    twos: int | None,
) -> None:
    """Channels start .. stop of y = A^T m A for each tile, cut off where it hangs over the edge, and finished; m (values, count, row).

    If they do not fill a vector, so many are made on the way.
    """
    o, part = s.o, stop - start
    made = max(part, LANES)
    scale, offset = finish.scale.ctypes.data + 4 * start, finish.offset.ctypes.data + 4 * start
    for q in range(count):
        n, r = (first + q) // (s.th * s.tw), (first + q) % (s.th * s.tw)
        h0, w0, base = r // s.tw * OUT, r % s.tw * OUT, n * s.oh * s.ow * o + start
        inside = h0 + OUT <= s.oh and w0 + OUT <= s.ow and part >= LANES
        if inside:
            to, line, pixel = y.ctypes.data + 4 * (base + (h0 * s.ow + w0) * o), s.ow * o, o
        else:
            to, line, pixel = patch.ctypes.data, OUT * made, made
        source, value = products.ctypes.data + 4 * q * row, s.across * plane
        if inside and finish.streamed != 0:
            output_stream(source, value, plane, to, line, pixel, part, scale, offset, finish.relu, twos)
        else:
            output_map(source, value, plane, to, line, pixel, made, scale, offset, finish.relu, twos)
        if not inside:
            for i in range(min(OUT, s.oh - h0)):
                for j in range(min(OUT, s.ow - w0)):
                    at = base + ((h0 + i) * s.ow + w0 + j) * o
                    for k in range(part):
                        y[at + k] = patch[(i * OUT + j) * made + k]


# -- transforms of weights --------------------------------------------------------------------------------------------------------------


@routine
def load_filters(w: Array, o: int, c: int, o0: int, c0: int, block: Array) -> None:
    """block (LANES of C, 3, 3, LANES of O) = weights (O, 3, 3, C) from (o0, c0) on, 0 beyond the last: nine transposed squares."""
    for tap in range(block.size // (LANES * LANES)):  # all of them, without the compiler's knowing how many: it would write out each
        if o0 + LANES <= o and c0 + LANES <= c:
            source, to = w.ctypes.data + 4 * ((o0 * TAPS2 + tap) * c + c0), block.ctypes.data + 4 * tap * LANES
            transpose(source, TAPS2 * c, to, TAPS2 * LANES)
            continue
        for k in range(LANES):
            for j in range(LANES):
                inside = o0 + k < o and c0 + j < c
                block[(j * TAPS2 + tap) * LANES + k] = w[((o0 + k) * TAPS2 + tap) * c + c0 + j] if inside else 0


@routine
def store_filters(block: Array, w: Array, o: int, c: int, o0: int, c0: int) -> None:
    """The way back: weights (O, 3, 3, C) from (o0, c0) on = block (LANES of C, 3, 3, LANES of O)."""
    for tap in range(block.size // (LANES * LANES)):
        if o0 + LANES <= o and c0 + LANES <= c:
            source, to = block.ctypes.data + 4 * tap * LANES, w.ctypes.data + 4 * ((o0 * TAPS2 + tap) * c + c0)
            transpose(source, TAPS2 * LANES, to, TAPS2 * c)
            continue
        for k in range(min(LANES, o - o0)):
            for j in range(min(LANES, c - c0)):
                w[((o0 + k) * TAPS2 + tap) * c + c0 + j] = block[(j * TAPS2 + tap) * LANES + k]


@routine
def turned_filters(w: Array, s: Shape, o0: int, c0: int, u: Array, at: int, plane: int, block: Array, twos: int | None) -> None:
    """u (values, LANES of O, LANES of C) = G w G^T of weights (O, 3, 3, C) turned by half a turn, from (o0, c0) on, 0 beyond the last.

    What comes in here is what goes out elsewhere: O is s.c and C is s.o. Unless `twos` is None, two of O make a pair.
    """
    o, c = s.c, s.o
    for k in range(LANES):
        source, row = w.ctypes.data + 4 * ((o0 + k) * TAPS2 * c + c0), c
        if o0 + k >= o or c0 + LANES > c:
            for tap in range(TAPS2):
                for j in range(LANES):
                    inside = o0 + k < o and c0 + j < c
                    block[tap * LANES + j] = w[((o0 + k) * TAPS2 + tap) * c + c0 + j] if inside else 0
            source, row = block.ctypes.data, LANES
        source += 4 * (TAPS2 - 1) * row
        to = u.ctypes.data + 4 * (at + (k if twos is None else k // 2) * s.columns)
        if twos is None or k % 2 == 0:
            weight_map(source, -TAPS * row, -row, to, s.across * plane, plane, LANES, twos)
        else:
            weight_second(source, -TAPS * row, -row, to, s.across * plane, plane, LANES)


@python_routine
def filters(
    w: Array, s: Shape, turned: int, panel: int, first: int, count: int, u: Array, at: int, plane: int, block: Array, twos: int | None
) -> None:
    """u (values, count, columns) = G w G^T of one panel for `count` of the channels that are summed over, from `first` on; it lies at u[at].

    w is (O, 3, 3, C) or, `turned`, (C, 3, 3, O) and turned by half a turn. `count` is rounded up to LANES, with zeros for what is beyond.
    Unless `twos` is None, u is (values, count / 2, columns), pairs of channels.
    """
    for k0 in range(first, first + count, LANES):
        for j0 in range(0, s.columns, LANES):
            to, o0 = at + (k0 - first if twos is None else (k0 - first) // 2) * s.columns + j0, panel * s.columns + j0
            if turned:
                turned_filters(w, s, k0, o0, u, to, plane, block, twos)
                continue
            load_filters(w, s.o, s.c, o0, k0, block)
            for k in range(LANES):
                source = block.ctypes.data + 4 * k * TAPS2 * LANES
                target = u.ctypes.data + 4 * (to + (k if twos is None else k // 2) * s.columns)
                if twos is None or k % 2 == 0:
                    weight_map(source, TAPS * LANES, LANES, target, s.across * plane, plane, LANES, twos)
                else:
                    weight_second(source, TAPS * LANES, LANES, target, s.across * plane, plane, LANES)


@routine
def back(sums: int, row: int, plane: int, w: Array, s: Shape, o0: int, c0: int, count: int, rest: int, block: Array) -> None:
    """Weights (O, 3, 3, C) from (o0, c0) on = G^T m G of sums m (values, count of C, row) at an address, of which `rest` columns are used."""
    for k0 in range(0, count, LANES):
        for j0 in range(0, rest, LANES):
            for k in range(min(LANES, count - k0)):
                source = sums + 4 * ((k0 + k) * row + j0)
                back_map(source, s.across * plane, plane, block.ctypes.data + 4 * k * TAPS2 * LANES, TAPS * LANES, LANES, LANES)
            store_filters(block, w, s.o, s.c, o0 + j0, c0 + k0)


# -- whole convolutions -------------------------------------------------------------------------------------------------------------------


@njit
def image_blocks(x, u, u_plane, finish, y, s, step, tiles, t_plane, products, p_plane, patch, twos, start, stop):  # type: ignore[no-untyped-def]
    """y (N, OH, OW, O) of x (N, H, W, C) and all transformed weights, for blocks of `step` tiles."""
    deep = s.c if twos is None else s.c // 2
    for block in range(start, stop):
        first = block * step
        count = min(step, s.tiles - first)
        input_tiles(x, s, first, count, tiles, 0, t_plane, patch, twos)
        for xi in range(s.values):
            a, to = tiles.ctypes.data + 4 * xi * t_plane, products.ctypes.data + 4 * xi * p_plane
            for panel in range(s.wide // s.columns):
                b = u.ctypes.data + 4 * (panel * s.values + xi) * u_plane
                multiply(a, s.row, 0, 1, b, to + 4 * panel * s.columns, s.wide, deep, count, s.vectors, 0, twos)
        output_tiles(products, s.wide, p_plane, finish, y, s, first, count, 0, s.o, patch, twos)
    fence()


@njit
def weight_stream(w, turned, tiles, t_plane, finish, y, s, part, step, u, u_plane, products, p_plane, block, patch, twos, made, start, stop):  # type: ignore[no-untyped-def]  # fmt: skip
    """y of transformed pixels and weights (O, 3, 3, C) that are transformed on their way, `part` channels at a time: each is used at once.

    An item is `step` tiles of one panel. Unless `made` is 0, u holds all transformed weights, those of each panel's parts together.
    """
    steps = (s.tiles + step - 1) // step
    for item in range(start, stop):
        panel, first = item // steps, item % steps * step
        count = min(step, s.tiles - first)
        for c0 in range(0, s.c, part):
            channels = min(part, s.c - c0)
            begin, deep = (c0, channels) if twos is None else (c0 // 2, channels // 2)
            at = made * (panel * ((s.c + part - 1) // part) + c0 // part) * s.values * u_plane
            if made == 0:
                filters(w, s, turned, panel, c0, channels, u, 0, u_plane, block, twos)
            for xi in range(s.values):
                a = tiles.ctypes.data + 4 * (xi * t_plane + first * s.row + begin)
                b, to = u.ctypes.data + 4 * (at + xi * u_plane), products.ctypes.data + 4 * xi * p_plane
                add_some(a, s.row, 1, b, s.columns, to, s.columns, deep, count, s.vectors, c0, twos)
        o0 = panel * s.columns
        output_tiles(products, s.columns, p_plane, finish, y, s, first, count, o0, min(s.o, o0 + s.columns), patch, twos)
    fence()


@python_routine
def some_sums(
    tiles: Array,
    t_plane: int,
    gradients: Array,
    g_plane: int,
    s: Shape,
    count: int,
    total: Array,
    plane: int,
    more: int,
    twos: int | None,
    start: int,
    stop: int,
) -> None:
    """total (values, C, wide) = tiles^T gradients over `count` tiles or pairs, or += it if `more`; an item is one panel of one of the values."""
    panels = s.wide // s.columns
    for item in range(start, stop):
        xi, j0 = item // panels, item % panels * s.columns
        a, b = tiles.ctypes.data + 4 * xi * t_plane, gradients.ctypes.data + 4 * (xi * g_plane + j0)
        add(a, 1, s.row, b, s.g_row, total.ctypes.data + 4 * (xi * plane + j0), s.wide, count, s.c, s.vectors, more, twos)


@njit
def weight_parts(x, g, s, step, blocks, parts, total, plane, tiles, t_plane, gradients, g_plane, patch, twos, start, stop):  # type: ignore[no-untyped-def]
    """total (parts, 36, C, wide): sums over blocks of `step` tiles, each part over its share of the blocks."""
    for part in range(start, stop):
        begin = part * blocks // parts  # there are at least as many blocks as parts
        for block in range(begin, (part + 1) * blocks // parts):
            first = block * step
            count = min(step, s.tiles - first)
            input_tiles(x, s, first, count, tiles, 0, t_plane, patch, twos)
            gradient_tiles(g, s, first, count, gradients, 0, g_plane, patch, twos)
            deep, items = count if twos is None else (count + 1) // 2, s.values * (s.wide // s.columns)
            some_sums(tiles, t_plane, gradients, g_plane, s, deep, total[part], plane, block - begin, twos, 0, items)


@njit
def collect(total: Array, plane: int, parts: int, w: Array, s: Shape, block: Array, start: int, stop: int) -> None:
    """w = G^T m G of the sum of all parts, for items of LANES channels of C."""
    for item in range(start, stop):
        c0 = item * LANES
        count = min(LANES, s.c - c0)
        for part in range(1, parts):
            for xi in range(s.values):
                to = xi * plane + c0 * s.wide
                for k in range(to, to + count * s.wide):
                    total[0, k] += total[part, k]
        back(total.ctypes.data + 4 * c0 * s.wide, s.wide, plane, w, s, 0, c0, count, s.o, block)


@njit
def weight_items(tiles, t_plane, gradients, g_plane, s, part, w, sums, plane, block, twos, start, stop):  # type: ignore[no-untyped-def]
    """w = G^T (tiles^T gradients) G, for items of `part` channels of C and one panel of O: sums never leave the cache."""
    panels = s.wide // s.columns
    deep = s.tiles if twos is None else (s.tiles + 1) // 2
    for item in range(start, stop):
        c0, o0 = item // panels * part, item % panels * s.columns
        count = min(part, s.c - c0)
        for xi in range(s.values):
            a, b = tiles.ctypes.data + 4 * (xi * t_plane + c0), gradients.ctypes.data + 4 * (xi * g_plane + o0)
            to = sums.ctypes.data + 4 * xi * plane
            add(a, 1, s.row, b, s.g_row, to, s.columns, deep, count, s.vectors, 0, twos)
        back(sums.ctypes.data, s.columns, plane, w, s, o0, c0, count, min(s.columns, s.o - o0), block)
