"""Winograd convolution F(4x4, 3x3): 36 products instead of 144 for 16 outputs (Lavin & Gray, 2016, "Fast Algorithms for CNNs").

A 3-tap filter on 6 pixels gives 4 outputs. Filter and pixels are the coefficients of polynomials; their product is known from its values
at 0, 1, -1, 2, -2 and infinity, six multiplications where the definition needs twelve. As maps: y = A^T [(G w) * (B^T x)], in two
dimensions on both sides. It is the same linear map as the definition, factored differently, so the adjoints come from the same three
matrices: x from y is the convolution by the turned filter, and the weight's gradient is G^T [(B^T x B) * (A y A^T)] G.

Each block of tiles goes through transform, product and transform back while it is in L2. Rounding errors are about 12 times those of the
definition in float32, 1e-5 of the largest output; float64 is left to the definition.

Importing this module imports numba.
"""

from __future__ import annotations

import math
import threading
from fractions import Fraction

import numpy as np

from ...window import Pair, Window
from ..arrays import Array, nchw, nhwc
from .jit import _dispatcher as njit
from .threads import parallel
from .vector import LANES, ROWS, Matrix, make_product, make_transform, make_transpose

OUT, TAPS, POINTS = 4, 3, (0, 1, -1, 2, -2)
SIDE = OUT + TAPS - 1
XI = SIDE * SIDE  # products per tile, each a matrix product over all tiles
ONE = POINTS.index(1) * (SIDE + 1)  # the product at point (1, 1): what is added there is added to every output, so the bias goes there


def matrices(outputs: int = OUT, taps: int = TAPS, points: tuple[int, ...] = POINTS) -> tuple[Matrix, Matrix, Matrix]:
    """(A^T, G, B^T) of shapes (m, n), (n, r), (n, n) with n = m + r - 1, exact: y = A^T [(G w) * (B^T x)] is y_i = sum_j w_j x_(i+j).

    Row p of G evaluates the filter at point p, divided by the product of p's distances to the other points (Lagrange); the last row is
    the value at infinity, the leading coefficient. Column p of A^T are the powers of p. Row p of B^T are the coefficients of the
    polynomial with all other points as roots, the last one of that with all points as roots (Toom, Cook; Blahut 1985, section 5.2).
    """
    n = outputs + taps - 1
    finite = [Fraction(p) for p in points]

    def with_roots(roots: list[Fraction]) -> list[Fraction]:
        coefficients = [Fraction(1)]
        for root in roots:
            coefficients = [a - root * b for a, b in zip([Fraction(0), *coefficients], [*coefficients, Fraction(0)], strict=True)]
        return coefficients + [Fraction(0)] * (n - len(coefficients))

    others = [[q for q in finite if q != p] for p in finite]
    powers = [[p**i for i in range(n)] for p in finite]
    scale = [math.prod((p - q for q in rest), start=Fraction(1)) for p, rest in zip(finite, others, strict=True)]
    infinity = [[Fraction(int(i == size - 1)) for i in range(size)] for size in (outputs, taps)]
    a = [*(row[:outputs] for row in powers), infinity[0]]
    g = [*([v / f for v in row[:taps]] for row, f in zip(powers, scale, strict=True)), infinity[1]]
    b = [*(with_roots(rest) for rest in others), with_roots(finite)]
    return transposed(a), g, b


def transposed(matrix: Matrix) -> Matrix:
    return [list(row) for row in zip(*matrix, strict=True)]


A_T, G, B_T = matrices()
ROWS1, ROWS2, ROWS3, ROWS4 = ROWS
product1, product2, product3, product4 = (make_product(rows, vectors, False) for vectors, rows in enumerate(ROWS, 1))
add1, add2, add3, add4 = (make_product(4, vectors, True) for vectors in (1, 2, 3, 4))
input_map, input_rest = make_transform(B_T, LANES), make_transform(B_T, 1)
output_map, output_rest = make_transform(A_T, LANES), make_transform(A_T, 1)
weight_map, weight_rest = make_transform(G, LANES), make_transform(G, 1)
gradient_map, gradient_rest = make_transform(transposed(A_T), LANES), make_transform(transposed(A_T), 1)
back_map, back_rest = make_transform(transposed(G), LANES), make_transform(transposed(G), 1)
transpose = make_transpose()


# -- the three convolutions -----------------------------------------------------------------------------------------------------------


def conv2d(x: Array, w: Array, bias: Array | None, window: Window, out: Pair) -> Array:
    """x (N, C, H, W), w (O, C, 3, 3), bias (O,) or None -> y (N, O, *out), float32."""
    c, o = x.shape[1], len(w)
    weights = np.ascontiguousarray(w.transpose(2, 3, 1, 0)).reshape(-1)
    vectors = _vectors(o)
    u = _scratch("weights", XI * c * _padded(o))
    parallel(lambda a, b: weight_tiles(weights, c, o, u, vectors, a, b), c, 8)
    return _forward(x, u, bias, window.padding, o, out)


def conv_transpose2d(y: Array, w: Array, bias: Array | None, window: Window, size: Pair) -> Array:
    """y (N, O, OH, OW), w (O, C, 3, 3), bias (C,) or None -> x (N, C, *size): conv2d by the weight turned by half a turn."""
    o, c = w.shape[:2]
    weights = np.ascontiguousarray(w.transpose(2, 3, 1, 0)).reshape(-1)
    vectors = _vectors(c)
    u = _scratch("weights", XI * o * _padded(c))

    def work(start: int, stop: int) -> None:
        turned_weight_tiles(weights, c, o, u, vectors, _scratch("block", (XI + TAPS * TAPS + 1) * LANES * LANES), start, stop)

    parallel(work, _padded(c) // LANES)
    padding = (TAPS - 1 - window.padding[0], TAPS - 1 - window.padding[1])
    return _forward(y, u, bias, padding, c, size)


def conv2d_weight(x: Array, y: Array, window: Window) -> Array:
    """x (N, C, H, W), y (N, O, OH, OW) -> w (O, C, 3, 3) in (3, 3, C, O) memory; one partial sum for each thread."""
    (n, c, h, w), (_, o, oh, ow) = x.shape, y.shape
    (ph, pw), vectors, wide, high = window.padding, _vectors(o), _padded(o), -(-c // 4) * 4
    th, tw = -(-oh // OUT), -(-ow // OUT)
    images, gradients = (np.ascontiguousarray(nhwc(a)).reshape(-1) for a in (x, y))
    step = _block(c, wide, 1)
    blocks, parts = -(-n * th * tw // step), 4
    parts = min(parts, blocks)
    sums = _scratch("sums", parts * XI * high * wide).reshape(parts, -1)

    def work(start: int, stop: int) -> None:
        tiles, products = _scratch("tiles", XI * step * c + 4), _scratch("products", XI * step * wide)
        patch = _scratch("patch", XI * max(c, o))
        for part in range(start, stop):
            first, last = part * blocks // parts, (part + 1) * blocks // parts
            weight_blocks(
                images,
                gradients,
                sums[part],
                n,
                h,
                w,
                c,
                oh,
                ow,
                o,
                ph,
                pw,
                th,
                tw,
                high,
                wide,
                vectors,
                step,
                tiles,
                products,
                patch,
                first,
                last,
            )

    parallel(work, parts)
    result = np.empty((TAPS, TAPS, c, o), np.float32)
    flat = result.reshape(-1)
    parallel(lambda a, b: weight_from_tiles(sums.reshape(-1), flat, c, o, high, wide, parts, a, b), c, 8)
    return result.transpose(3, 2, 0, 1)


def _forward(x: Array, u: Array, bias: Array | None, padding: Pair, o: int, out: Pair) -> Array:
    """x (N, C, H, W) and transformed weights -> y (N, O, *out)."""
    (n, c, h, w), (oh, ow), (ph, pw) = x.shape, out, padding
    th, tw, vectors, wide = -(-oh // OUT), -(-ow // OUT), _vectors(o), _padded(o)
    images, y = np.ascontiguousarray(nhwc(x)).reshape(-1), np.empty((n, oh, ow, o), np.float32)
    flat, offsets = y.reshape(-1), np.zeros(o, np.float32) if bias is None else np.ascontiguousarray(bias)
    step = _block(c, wide, ROWS[vectors - 1])

    def work(start: int, stop: int) -> None:
        tiles, products = _scratch("tiles", XI * step * c), _scratch("products", XI * step * wide)
        patch = _scratch("patch", XI * max(c, o))
        image_blocks(
            images, u, offsets, flat, n, h, w, c, oh, ow, o, ph, pw, th, tw, wide, vectors, step, tiles, products, patch, start, stop
        )

    parallel(work, -(-n * th * tw // step))
    return nchw(y)


def _vectors(columns: int) -> int:
    """Vectors in a panel of the weights: as many as waste the fewest columns, four if there is a choice."""
    return min((4, 3, 2, 1), key=lambda v: (-(-columns // (v * LANES)) * v, -v))


def _padded(columns: int) -> int:
    wide = _vectors(columns) * LANES
    return -(-columns // wide) * wide


def _block(c: int, wide: int, rows: int) -> int:
    """Tiles in a block: transformed pixels and products in about 256 KiB; more where the weights do not stay in L2 either."""
    tiles = max(12, (1 << 18) // (4 * XI * (c + wide))) if c * wide < 256 * 256 else 48
    return -(-tiles // rows) * rows


class _Buffers(threading.local):
    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}


_buffers = _Buffers()


def _scratch(name: str, size: int) -> Array:
    """`size` uninitialised numbers, this thread's own until it asks for the same name again: fresh pages would cost more than the work."""
    array = _buffers.arrays.get(name)
    if array is None or array.size < size:
        array = _buffers.arrays[name] = np.empty(size, np.float32)
    return array[:size]


# -- the loops: tiles are counted through all images, rows of tiles and columns of tiles -------------------------------------------------


@njit
def image_blocks(x, u, bias, y, n, h, w, c, oh, ow, o, ph, pw, th, tw, wide, vectors, step, tiles, products, patch, start, stop):  # type: ignore[no-untyped-def]
    """y (N, OH, OW, O) from x (N, H, W, C), in blocks of `step` tiles from block `start` up to `stop`."""
    for block in range(start, stop):
        first = block * step
        count = min(step, n * th * tw - first)
        input_tiles(x, h, w, c, th, tw, ph, pw, first, count, step, tiles, patch)
        multiply(tiles, u, products, step, count, c, wide, vectors)
        for t in range(count):
            for k in range(o):
                products[(ONE * step + t) * wide + k] += bias[k]
        output_tiles(products, step, wide, y, oh, ow, o, th, tw, first, count, patch)


@njit
def weight_blocks(x, g, total, n, h, w, c, oh, ow, o, ph, pw, th, tw, high, wide, vectors, step, tiles, products, patch, start, stop):  # type: ignore[no-untyped-def]
    """total (36, C, O) = sum over the tiles of blocks `start` up to `stop` of (B^T x B) (A g A^T)."""
    for i in range(total.size):
        total[i] = 0
    for block in range(start, stop):
        first = block * step
        count = min(step, n * th * tw - first)
        input_tiles(x, h, w, c, th, tw, ph, pw, first, count, step, tiles, patch)
        gradient_tiles(g, oh, ow, o, wide, th, tw, first, count, step, products, patch)
        accumulate(tiles, products, total, step, count, c, high, wide, vectors)


@njit
def copy_patch(x, base, patch, h, w, c, h0, w0, side):  # type: ignore[no-untyped-def]
    """The side x side pixels from (h0, w0) on, zeros outside the image: for tiles at the edge."""
    for i in range(side):
        for j in range(side):
            at, row, column = (i * side + j) * c, h0 + i, w0 + j
            if 0 <= row < h and 0 <= column < w:
                source = base + (row * w + column) * c
                for k in range(c):
                    patch[at + k] = x[source + k]
            else:
                for k in range(c):
                    patch[at + k] = 0


@njit
def input_tiles(x, h, w, c, th, tw, ph, pw, first, count, step, tiles, patch):  # type: ignore[no-untyped-def]
    """tiles (36, step, C) = B^T d B of the 6 x 6 pixels under each output tile."""
    whole = c // LANES * LANES
    for q in range(count):
        n, r = (first + q) // (th * tw), (first + q) % (th * tw)
        h0, w0, base = r // tw * OUT - ph, r % tw * OUT - pw, n * h * w * c
        if h0 >= 0 and w0 >= 0 and h0 + SIDE <= h and w0 + SIDE <= w:
            source, row = x.ctypes.data + 4 * (base + (h0 * w + w0) * c), w * c
        else:
            copy_patch(x, base, patch, h, w, c, h0, w0, SIDE)
            source, row = patch.ctypes.data, SIDE * c
        to = tiles.ctypes.data + 4 * q * c
        input_map(source, row, c, to, SIDE * step * c, step * c, 0, whole)
        input_rest(source, row, c, to, SIDE * step * c, step * c, whole, c)


@njit
def gradient_tiles(g, h, w, c, wide, th, tw, first, count, step, tiles, patch):  # type: ignore[no-untyped-def]
    """tiles (36, step, wide) = A g A^T of each 4 x 4 tile of outputs."""
    whole = c // LANES * LANES
    for q in range(count):
        n, r = (first + q) // (th * tw), (first + q) % (th * tw)
        h0, w0, base = r // tw * OUT, r % tw * OUT, n * h * w * c
        if h0 + OUT <= h and w0 + OUT <= w:
            source, row = g.ctypes.data + 4 * (base + (h0 * w + w0) * c), w * c
        else:
            copy_patch(g, base, patch, h, w, c, h0, w0, OUT)
            source, row = patch.ctypes.data, OUT * c
        to = tiles.ctypes.data + 4 * q * wide
        gradient_map(source, row, c, to, SIDE * step * wide, step * wide, 0, whole)
        gradient_rest(source, row, c, to, SIDE * step * wide, step * wide, whole, c)


@njit
def output_tiles(products, step, wide, y, h, w, c, th, tw, first, count, patch):  # type: ignore[no-untyped-def]
    """y = A^T m A for each tile, cut off where it hangs over the edge."""
    whole = c // LANES * LANES
    for q in range(count):
        n, r = (first + q) // (th * tw), (first + q) % (th * tw)
        h0, w0, base = r // tw * OUT, r % tw * OUT, n * h * w * c
        inside = h0 + OUT <= h and w0 + OUT <= w
        if inside:
            to, row = y.ctypes.data + 4 * (base + (h0 * w + w0) * c), w * c
        else:
            to, row = patch.ctypes.data, OUT * c
        source = products.ctypes.data + 4 * q * wide
        output_map(source, SIDE * step * wide, step * wide, to, row, c, 0, whole)
        output_rest(source, SIDE * step * wide, step * wide, to, row, c, whole, c)
        if not inside:
            for i in range(min(OUT, h - h0)):
                for j in range(min(OUT, w - w0)):
                    at = base + ((h0 + i) * w + w0 + j) * c
                    for k in range(c):
                        y[at + k] = patch[(i * OUT + j) * c + k]


@njit
def weight_tiles(weights, c, o, u, vectors, start, stop):  # type: ignore[no-untyped-def]
    """u (36, panels, C, columns of a panel) = G w G^T from weights (3, 3, C, O), for input channels `start` up to `stop`; 0 beyond O."""
    columns = vectors * LANES
    panels = (o + columns - 1) // columns
    plane = panels * c * columns
    for i in range(start, stop):
        for p in range(panels):
            count = min(columns, o - p * columns)
            whole = count // LANES * LANES
            source = weights.ctypes.data + 4 * (i * o + p * columns)
            at = (p * c + i) * columns
            weight_map(source, TAPS * c * o, c * o, u.ctypes.data + 4 * at, SIDE * plane, plane, 0, whole)
            weight_rest(source, TAPS * c * o, c * o, u.ctypes.data + 4 * at, SIDE * plane, plane, whole, count)
            if count < columns:
                for xi in range(XI):
                    for k in range(count, columns):
                        u[xi * plane + at + k] = 0


@njit
def turned_weight_tiles(weights, c, o, u, vectors, block, start, stop):  # type: ignore[no-untyped-def]
    """The same of the weight turned by half a turn, with C and O exchanged: u (36, panels, O, columns), for blocks of LANES columns.

    weights (3, 3, C, O) are read LANES x LANES channels at a time, and each of the 36 results is transposed on its way.
    """
    columns, size = vectors * LANES, LANES * LANES
    plane = (c + columns - 1) // columns * o * columns
    taps, held = XI * size, (XI + TAPS * TAPS) * size  # after the 36 blocks: the block's weights, and one result
    for b in range(start, stop):
        c0 = b * LANES
        p, shift = c0 // columns, c0 % columns
        for o0 in range(0, o, LANES):
            rows = min(LANES, o - o0)
            if c0 + LANES <= c and rows == LANES:
                source, tap, channel = weights.ctypes.data + 4 * (8 * c * o + c0 * o + o0), -c * o, o
            else:
                for i in range(TAPS * TAPS):
                    for j in range(LANES):
                        for k in range(LANES):
                            inside = c0 + j < c and k < rows
                            block[taps + (i * LANES + j) * LANES + k] = weights[(i * c + c0 + j) * o + o0 + k] if inside else 0
                source, tap, channel = block.ctypes.data + 4 * (taps + 8 * size), -size, LANES
            for j in range(LANES):
                weight_map(source + 4 * j * channel, TAPS * tap, tap, block.ctypes.data + 4 * j * LANES, SIDE * size, size, 0, LANES)
            for xi in range(XI):
                at = xi * plane + (p * o + o0) * columns + shift
                if rows == LANES:
                    transpose(block.ctypes.data + 4 * xi * size, LANES, u.ctypes.data + 4 * at, columns, 0, 0, 0, 0)
                else:
                    transpose(block.ctypes.data + 4 * xi * size, LANES, block.ctypes.data + 4 * held, LANES, 0, 0, 0, 0)
                    for k in range(rows):
                        for j in range(LANES):
                            u[at + k * columns + j] = block[held + k * LANES + j]


@njit
def multiply(tiles, u, products, step, count, c, wide, vectors):  # type: ignore[no-untyped-def]
    """products (36, step, wide) = tiles (36, step, C) u (36, C, wide), in the blocks of rows and columns that fit the registers."""
    columns = vectors * LANES
    panels = wide // columns
    for xi in range(XI):
        a = tiles.ctypes.data + 4 * xi * step * c
        for p in range(panels):
            b = u.ctypes.data + 4 * (xi * panels + p) * c * columns
            to = products.ctypes.data + 4 * (xi * step * wide + p * columns)
            if vectors == 4:
                for t in range(0, count, ROWS4):
                    product4(a + 4 * t * c, c, 1, b, columns, to + 4 * t * wide, wide, c)
            elif vectors == 3:
                for t in range(0, count, ROWS3):
                    product3(a + 4 * t * c, c, 1, b, columns, to + 4 * t * wide, wide, c)
            elif vectors == 2:
                for t in range(0, count, ROWS2):
                    product2(a + 4 * t * c, c, 1, b, columns, to + 4 * t * wide, wide, c)
            else:
                for t in range(0, count, ROWS1):
                    product1(a + 4 * t * c, c, 1, b, columns, to + 4 * t * wide, wide, c)


@njit
def accumulate(tiles, gradients, total, step, count, c, high, wide, vectors):  # type: ignore[no-untyped-def]
    """total (36, high, wide) += tiles (36, step, C)^T gradients (36, step, wide), four channels of C at a time."""
    columns = vectors * LANES
    for xi in range(XI):
        for p in range(0, wide, columns):
            b = gradients.ctypes.data + 4 * (xi * step * wide + p)
            for k in range(0, c, 4):
                a = tiles.ctypes.data + 4 * (xi * step * c + k)
                to = total.ctypes.data + 4 * ((xi * high + k) * wide + p)
                if vectors == 4:
                    add4(a, 1, c, b, wide, to, wide, count)
                elif vectors == 3:
                    add3(a, 1, c, b, wide, to, wide, count)
                elif vectors == 2:
                    add2(a, 1, c, b, wide, to, wide, count)
                else:
                    add1(a, 1, c, b, wide, to, wide, count)


@njit
def weight_from_tiles(sums, result, c, o, high, wide, parts, start, stop):  # type: ignore[no-untyped-def]
    """result (3, 3, C, O) = G^T total G, total being the sum of all parts, for input channels `start` up to `stop`."""
    whole, size = o // LANES * LANES, XI * high * wide
    for i in range(start, stop):
        for part in range(1, parts):
            for xi in range(XI):
                at = (xi * high + i) * wide
                for k in range(o):
                    sums[at + k] += sums[part * size + at + k]
        source, to = sums.ctypes.data + 4 * i * wide, result.ctypes.data + 4 * i * o
        back_map(source, SIDE * high * wide, high * wide, to, TAPS * c * o, c * o, 0, whole)
        back_rest(source, SIDE * high * wide, high * wide, to, TAPS * c * o, c * o, whole, o)
