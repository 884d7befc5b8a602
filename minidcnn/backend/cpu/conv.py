"""Convolution in blocks of pixels: the columns of one block are made, multiplied and thrown away while they are in the cache.

Whole columns are nine times as large as the image and go through memory twice; a block of them stays in L2. Blocks are cut by shape
alone, so results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import cache, partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...window import Pair, Window
from ..arrays import Array, nchw
from ..reference import Kernels
from ..reference.conv import Versioned
from .algorithm import algorithm, forced_algorithm
from .columns import BLOCK, Geometry, Lines, add_bias, block_rows, col2im, geometry, im2col, patches, windows_of
from .conv_weight import weight_gradient
from .kept import Kept
from .layout import images, plain, rows, suits
from .memory import empty
from .norm import normalize
from .threads import MULTIPLY_ADDS, parallel, single_blas

if TYPE_CHECKING:
    from .product import Product

FEW, FEW_BF16 = 512, 64  # with at most so many pixels, threads share the output channels of a product by BLAS instead; the same for bf16
SLICE = 128  # output channels of one part then
NARROW = 16  # with fewer channels NumPy's loops along them cost more than the work


class CpuConv(Kernels):
    """im2col, col2im and the three convolutions."""

    bf16 = False  # round the factors of float32 convolutions

    def __init__(self, xp: ModuleType) -> None:
        super().__init__(xp)
        self.kept = Kept()

    def constant_weights(self, weights: Iterable[tuple[Array, Versioned]]) -> AbstractContextManager[None]:
        return self.kept.constant(weights)

    def _on_tiles(self, x: Array, *channels: int) -> bool:
        """Whether a convolution of x between so many channels runs in bf16 on a matrix unit, if its windows suit."""
        return self.bf16 and x.dtype == np.float32 and not any(c % 16 for c in channels) and not forced_algorithm() and _has_tiles()

    def im2col(self, x: Array, window: Window, out: Pair) -> Array:
        if not suits(x) or 0 in out:
            return super().im2col(x, window, out)
        (n, c), (oh, ow) = x.shape[:2], out
        image, cols = rows(x), np.empty((n * oh * ow, window.taps * c), x.dtype)
        at = geometry(window)
        parallel(lambda a, b: im2col(image, cols[a:b], a, oh, ow, c, at), len(cols), cols.shape[1])
        return cols.reshape(n, oh, ow, *window.kernel, c).transpose(0, 5, 3, 4, 1, 2)

    def col2im(self, cols: Array, window: Window, size: Pair) -> Array:
        if not suits(cols):
            return super().col2im(cols, window, size)
        n, c, kh, kw, oh, ow = cols.shape
        flat = plain(cols.transpose(0, 4, 5, 2, 3, 1)).reshape(n, oh * ow, kh * kw * c)
        x = np.empty((n, size[0], size[1] * c), cols.dtype)
        _col2im(flat, x, ow, c, geometry(window))
        return nchw(x.reshape(n, *size, c))

    def conv2d(self, x: Array, w: Array, bias: Array | None, window: Window, out: Pair, groups: int = 1) -> Array:
        chosen = algorithm(x, x.shape[1], window, groups)
        if chosen == "reference" or not suits(x, w, bias):
            return super().conv2d(x, w, bias, window, out, groups)
        if self._on_tiles(x, x.shape[1], len(w)) and window.dilation[1] == 1:
            return _tiled().conv2d(x, w, bias, window, out, kept=self.kept)  # type: ignore[no-any-return]
        if chosen == "winograd":
            return _winograd().conv2d(x, w, bias, window, out, bf16=self.bf16, kept=self.kept)  # type: ignore[no-any-return]
        y = _convolve(x, _matrix(w), bias, window, out, bf16=self.bf16)
        return nchw(y.reshape(len(x), *out, len(w)))

    def conv2d_affine(
        self, x: Array, w: Array, scale: Array, offset: Array, relu: bool, window: Window, out: Pair, groups: int = 1
    ) -> Array:
        chosen = algorithm(x, x.shape[1], window, groups)
        if chosen == "reference" or not suits(x, w, scale, offset):
            return super().conv2d_affine(x, w, scale, offset, relu, window, out, groups)
        if self._on_tiles(x, x.shape[1], len(w)) and window.dilation[1] == 1:
            return _tiled().conv2d(x, w, offset, window, out, scale, relu, self.kept)  # type: ignore[no-any-return]
        if chosen == "winograd":
            return _winograd().conv2d(x, w, offset, window, out, scale, relu, self.bf16, self.kept)  # type: ignore[no-any-return]
        y = _convolve(x, _matrix(w), offset, window, out, scale, relu, self.bf16)
        return nchw(y.reshape(len(x), *out, len(w)))

    def conv_transpose2d(self, y: Array, w: Array, bias: Array | None, window: Window, size: Pair, groups: int = 1) -> Array:
        chosen = algorithm(y, len(w), window, groups)
        if chosen == "reference" or not suits(y, w, bias):
            return super().conv_transpose2d(y, w, bias, window, size, groups)
        if self._on_tiles(y, len(w), w.shape[1]) and _tiled().spreads(window, y.shape[2:], size):
            return _tiled().conv_transpose2d(y, w, bias, window, size, self.kept)  # type: ignore[no-any-return]
        if chosen == "winograd":
            return _winograd().conv_transpose2d(y, w, bias, window, size, self.bf16, self.kept)  # type: ignore[no-any-return]
        n, c = len(y), w.shape[1]
        before = (window.span[0] - 1 - window.padding[0], window.span[1] - 1 - window.padding[1])
        many = n * size[0] * size[1] > FEW and 4 * c > y.shape[1]  # else turning the weight, or the columns of y, cost more than they save
        if window.stride == (1, 1) and min(before) >= 0 and many:  # a convolution with the kernel turned by half a turn
            turned = w[:, :, ::-1, ::-1].transpose(2, 3, 0, 1).reshape(-1, c)  # (KH KW O, C)
            x = _convolve(y, turned, bias, Window(window.kernel, padding=before, dilation=window.dilation), size, bf16=self.bf16)
        else:
            x = _spread(y, _matrix(w).T, bias, window, size, self.bf16)
        return nchw(x.reshape(n, *size, c))

    def conv2d_weight(self, x: Array, y: Array, window: Window, groups: int = 1) -> Array:
        (c, o), (kh, kw) = (x.shape[1], y.shape[1]), window.kernel
        chosen = algorithm(x, min(c, o), window, groups)
        if chosen == "reference" or not suits(x, y):
            return super().conv2d_weight(x, y, window, groups)
        if self._on_tiles(x, c, o) and _tiled().sums(window):
            return _tiled().conv2d_weight(x, y, window)  # type: ignore[no-any-return]
        if chosen == "winograd":
            return _winograd().conv2d_weight(x, y, window, self.bf16)  # type: ignore[no-any-return]
        return nchw(weight_gradient(x, y, window, self.bf16).reshape(o, kh, kw, c))


@cache
def _winograd() -> Any:
    from . import winograd  # imports numba, as every kernel that runs does

    return winograd


@cache
def _has_tiles() -> bool:
    from .tiles import TILES

    return TILES


@cache
def _tiled() -> Any:
    from . import tiled

    return tiled


def _matrix(w: Array) -> Array:
    """Weights (O, C, KH, KW) -> (KH KW C, O), the transposed view of a matrix of rows."""
    return w.transpose(0, 2, 3, 1).reshape(len(w), -1).T


def _product(matrix: Array, bf16: bool) -> Product | None:
    """Our own product with a float32 matrix (K, N), which is quicker than BLAS; None for float64."""
    if matrix.dtype != np.float32:
        return None
    from .product import Product

    return Product(matrix, bf16)


def _fits_bf16(x: Array, run: int, columns: int) -> bool:
    """Whether bf16 fills vectors in products of runs of so many numbers with a matrix of so many columns."""
    from .instructions import LANES

    return x.dtype == np.float32 and run % LANES == 0 and columns >= LANES


def _fills(windows: int, columns: int) -> bool:
    """Whether a line of so many windows fills a block of our own product with a matrix of so many columns."""
    from .vector import ROWS, panel_vectors

    return windows >= ROWS[panel_vectors(columns) - 1]


def _matmul(matrix: Array, a: Array, y: Array) -> None:
    np.matmul(a, matrix, out=y)


def _col2im(cols: Array, x: Array, ow: int, c: int, at: Geometry) -> None:
    """Columns (N, OH OW, KH KW C) added up in x (N, H, W C)."""
    n, h, _ = x.shape

    def work(start: int, stop: int) -> None:
        for i in range(start // h, -(-stop // h)):
            a, b = max(start, i * h) - i * h, min(stop, i * h + h) - i * h
            col2im(cols[i], x[i], a, b, 0, cols.shape[1] // ow, ow, c, at)

    parallel(work, n * h, x.shape[2] * at[0] * at[1])


class _End(NamedTuple):
    """What is done to a convolution's sums while they are in the cache: (sums + bias), or scale sums + bias, and relu."""

    bias: Array | None
    scale: Array | None
    relu: bool

    def __call__(self, part: Array, a: int = 0, b: int | None = None) -> None:
        """Of some pixels' channels a .. b."""
        if self.bias is None:
            return
        bias, o = self.bias[a:b], part.shape[1]
        if self.scale is not None:
            least = part.dtype.type(0 if self.relu else -np.inf)
            normalize(part, part, np.zeros(o, part.dtype), plain(self.scale[a:b]), plain(bias), least, False, 0, len(part))
        elif o < NARROW:
            add_bias(part, plain(bias))
        else:
            part += bias


def _convolve(
    x: Array,
    matrix: Array,
    bias: Array | None,
    window: Window,
    out: Pair,
    scale: Array | None = None,
    relu: bool = False,
    bf16: bool = False,
) -> Array:
    """x (N, C, H, W), matrix (KH KW C, O) -> y (N OH OW, O), with `scale` (O,) scale y + bias, and `relu`."""
    (n, c), o, pixels = x.shape[:2], matrix.shape[1], len(x) * out[0] * out[1]
    y, end, bf16 = empty((pixels, o), x.dtype), _End(bias, scale, relu), bf16 and _fits_bf16(x, c, o)
    if pixels <= (FEW_BF16 if bf16 else FEW):
        _by_channels(rows(x), matrix, window, out, y, end)
        return y
    product = _product(matrix, bf16)
    if product is not None and window != Window((1, 1)) and window.dilation[1] == 1 and _fills(out[1], o):
        _by_lines(rows(x), c, product, window, out, y.reshape(n * out[0], out[1], o), end)
    else:
        _by_blocks(rows(x), c, product or partial(_matmul, matrix), window, out, y, end)
    return y


def _by_channels(image: Array, matrix: Array, window: Window, out: Pair, y: Array, end: _End) -> None:
    """Few pixels: all columns at once, of which each thread makes some channels, so that it reads its part of the weight once."""
    (pixels, o), k = y.shape, len(matrix)
    c = k // window.taps
    cells = patches(image, c, window, out)
    cols = np.empty((pixels, k), y.dtype) if cells is None else cells.transpose(0, 1, 3, 2, 4).reshape(pixels, k)
    if cells is None:
        at = geometry(window)
        parallel(lambda a, b: im2col(image, cols[a:b], a, *out, c, at), pixels, k)

    def channels(start: int, stop: int) -> None:
        for a in range(start * SLICE, min(stop * SLICE, o), SLICE):
            b = min(a + SLICE, o)
            np.matmul(cols, matrix[:, a:b], out=y[:, a:b])
            if end.scale is None:
                end(y[:, a:b], a, b)

    with single_blas():
        parallel(channels, -(-o // SLICE), pixels * k * SLICE / MULTIPLY_ADDS)
    if end.scale is not None:
        end(y)


def _by_lines(image: Array, c: int, product: Product, window: Window, out: Pair, y: Array, end: _End) -> None:
    """Windows without gaps along a line: read where they lie in a padded copy. y (N OH, OW, O)."""
    from .product import padded_lines

    (lines, ow, o), k = y.shape, window.taps * c
    padded = padded_lines(image, c, window, out, twos=product.twos)
    where, step = windows_of(c // product.per, window, out[0]), max(1, block_rows(k) // ow)  # lines at a time

    def some_lines(start: int, stop: int) -> None:
        for a in range(start * step, min(stop * step, lines), step):
            b = min(a + step, lines)
            product.lines(padded, where, y, a, b)
            end(y[a:b].reshape(-1, o))

    parallel(some_lines, -(-lines // step), step * ow * k * o / MULTIPLY_ADDS)


def _by_blocks(image: Array, c: int, times: Callable[[Array, Array], None], window: Window, out: Pair, y: Array, end: _End) -> None:
    """All else: columns, a block that fits the cache at a time; of 1 x 1 windows, the image is its columns."""
    (pixels, o), k, at = y.shape, window.taps * c, geometry(window)
    direct = window == Window((1, 1))
    step = block_rows(k)

    def blocks(start: int, stop: int) -> None:
        scratch = None if direct else np.empty((step, k), y.dtype)
        for a in range(start * step, min(stop * step, pixels), step):
            b = min(a + step, pixels)
            if scratch is None:
                cols = image.reshape(-1, c)[a:b]
            else:
                cols = scratch[: b - a]
                im2col(image, cols, a, *out, c, at)
            times(cols, y[a:b])
            end(y[a:b])

    with single_blas():
        parallel(blocks, -(-pixels // step), step * k * (1 + o / MULTIPLY_ADDS))


def _spread(y: Array, matrix: Array, bias: Array | None, window: Window, size: Pair, bf16: bool) -> Array:
    """y (N, O, OH, OW), matrix (O, KH KW C) -> x (N, H, W C): blocks of image rows, each from the rows of y that reach it."""
    (n, o, oh, ow), (h, w), k = y.shape, size, matrix.shape[1]
    c = k // window.taps
    bf16 = bf16 and _fits_bf16(y, o, c * window.kernel[1])
    image, x, at = images(y), empty((n, h, w * c), y.dtype), geometry(window)
    if n * oh * ow <= (FEW_BF16 if bf16 else FEW):
        few, cols = image.reshape(-1, o), np.empty((n * oh * ow, k), y.dtype)

        def columns(start: int, stop: int) -> None:
            for a in range(start * SLICE, min(stop * SLICE, k), SLICE):
                np.matmul(few, matrix[:, a : a + SLICE], out=cols[:, a : a + SLICE])

        with single_blas():
            parallel(columns, -(-k // SLICE), len(few) * o * SLICE / MULTIPLY_ADDS)
        cells = patches(x, c, window, (oh, ow))
        if cells is None:
            _col2im(cols.reshape(n, oh * ow, k), x, ow, c, at)
        else:
            x[...] = 0  # where no window reaches
            cells[...] = cols.reshape(n, oh, ow, window.kernel[0], -1).transpose(0, 1, 3, 2, 4)
        if bias is not None:
            add_bias(x.reshape(-1, c), plain(bias))
        return x
    row = None if bias is None else np.tile(bias, w)
    side_by_side = window == Window(window.stride, window.stride) and window.image_size((oh, ow)) == size
    if side_by_side and y.dtype == np.float32 and _fills(ow, window.kernel[1] * c):
        return _tile(image, matrix, row, x, window.stride[0], bf16)
    (sh, _), (ph, _), (span, _) = window.stride, window.padding, window.span
    step = sh * max(1, -(-span // sh), min(4096, BLOCK // k) // ow)  # image rows in a block
    count = -(-(h + ph) // step)  # blocks start at multiples of the stride, counted from the first padded row
    times = _product(matrix, bf16) or partial(_matmul, matrix)

    def blocks(start: int, stop: int) -> None:
        scratch = np.empty((-(-(step + span) // sh) * ow, k), y.dtype)
        for block in range(start, stop):
            i, first = block // count, block % count * step - ph
            a, b = max(first, 0), min(first + step, h)
            q0, q1 = max(0, -((span - 1 - ph - a) // sh)), min(oh, (b - 1 + ph) // sh + 1)
            if a >= b:
                continue
            q1 = max(q0, q1)
            cols = scratch[: (q1 - q0) * ow]
            if len(cols):
                times(image[i, q0:q1].reshape(-1, o), cols)
            col2im(cols, x[i], a, b, q0, q1, ow, c, at)
            if row is not None:
                x[i, a:b] += row

    with single_blas():
        parallel(blocks, n * count, step * ow * k / sh * (1 + o / MULTIPLY_ADDS))
    return x


def _tile(image: Array, matrix: Array, bias: Array | None, x: Array, kh: int, bf16: bool) -> Array:
    """x (N, H, W C) of windows that lie side by side, image (N, OH, OW, O): each line of x is a product, written where it belongs."""
    from .product import Product, padded_lines

    n, oh, ow, o = image.shape
    run = matrix.shape[1] // kh
    products = [Product(matrix[:, a * run : a * run + run], bf16) for a in range(kh)]  # one for each row of taps
    twos, deep = products[0].twos, o // products[0].per
    flat = padded_lines(image.reshape(n, oh, ow * o), o, Window((1, 1)), (oh, ow), twos=twos)
    where, lines = Lines(oh, 1, deep, deep, 1, 0), x.reshape(n * oh * kh, ow, run)

    step = max(1, block_rows(matrix.shape[1]) // ow)

    def some_lines(start: int, stop: int) -> None:
        for first in range(start * step, min(stop * step, n * oh), step):
            last = min(first + step, n * oh)
            for a, product in enumerate(products):
                product.lines(flat, where, lines, first, last, a, kh)
            if bias is not None:
                x.reshape(len(lines), -1)[first * kh : last * kh] += bias

    parallel(some_lines, -(-n * oh // step), step * ow * o * matrix.shape[1] / MULTIPLY_ADDS)
    return x
