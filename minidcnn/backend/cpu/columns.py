"""What windows see, as columns: made and added up again, for blocks of pixels. Loops over plain arrays, compiled by numba."""

from __future__ import annotations

from typing import NamedTuple

from ...window import Pair, Window
from ..arrays import Array
from .jit import jit

BLOCK = 1 << 18  # elements of columns in a block: 1 MiB of float32, about the L2 of one core

Geometry = tuple[int, int, int, int, int, int, int, int]


def geometry(window: Window) -> Geometry:
    return *window.kernel, *window.stride, *window.padding, *window.dilation


class Lines(NamedTuple):
    """How windows lie in an image (N, H, W C) without padding: each is `runs` runs of `run` numbers, `gap` lines apart."""

    oh: int  # lines of windows in an image
    row: int  # lines of pixels from one of them to the next
    step: int  # numbers from one window to the next
    run: int
    runs: int
    gap: int


def windows_of(c: int, window: Window, oh: int) -> Lines:
    """Where the windows of an image of c channels lie, if no pixel of a line is skipped (a dilation of 1)."""
    (kh, kw), (sh, sw) = window.kernel, window.stride
    return Lines(oh, sh, sw * c, kw * c, kh, window.dilation[0])


def patches(image: Array, c: int, window: Window, out: Pair) -> Array | None:
    """Images (N, H, W C) as (N, OH, KH, OW, KW C), a view, if windows at `out` positions lie side by side from the first pixel on; else None.

    Then columns are that with two axes exchanged.
    """
    n, (oh, ow), (kh, kw) = len(image), out, window.kernel
    run = kw * c
    if window != Window(window.stride, window.stride):
        return None
    return image[:, : oh * kh, : ow * run].reshape(n, oh, kh, ow, run)


def block_rows(k: int) -> int:
    """Rows of columns in a block."""
    return max(256, min(4096, BLOCK // k // 64 * 64))


@jit
def add_bias(y: Array, bias: Array) -> None:
    """y (P, O) += bias (O,)."""
    for p in range(y.shape[0]):
        for k in range(y.shape[1]):
            y[p, k] += bias[k]


@jit
def im2col(x: Array, cols: Array, start: int, oh: int, ow: int, c: int, at: Geometry) -> None:
    """Columns (P, KH KW C) of the window positions from `start` on, of x (N, H, W C); taps side by side are copied as one run."""
    kh, kw, sh, sw, ph, pw, dh, dw = at
    h, end = x.shape[1], x.shape[2]
    runs, run = (1, kw * c) if dw == 1 else (kw, c)
    n, p = start // (oh * ow), start % (oh * ow)
    i, j = p // ow, p % ow
    q = 0
    while q < cols.shape[0]:
        count = min(ow - j, cols.shape[0] - q)  # positions in this row
        for a in range(kh):
            row = i * sh + a * dh - ph
            line = x[n, min(max(row, 0), h - 1)]
            for r in range(runs):
                k = (a * runs + r) * run
                for u in range(count):
                    to = cols[q + u]
                    first = ((j + u) * sw + r * dw - pw) * c
                    if row < 0 or row >= h:
                        for t in range(run):
                            to[k + t] = 0
                    elif first >= 0 and first + run <= end:
                        for t in range(run):
                            to[k + t] = line[first + t]
                    else:
                        for t in range(run):
                            to[k + t] = line[first + t] if 0 <= first + t < end else 0
        q += count
        i, j = i + 1, 0
        if i == oh:
            n, i = n + 1, 0


@jit
def col2im(cols: Array, x: Array, top: int, bottom: int, q0: int, q1: int, ow: int, c: int, at: Geometry) -> None:
    """Rows top .. bottom of one image x (H, W C), from columns ((q1 - q0) OW, KH KW C) of all the window rows q0 .. q1 that reach them."""
    kh, kw, sh, sw, ph, pw, dh, dw = at
    end = x.shape[1]
    runs, run = (1, kw * c) if dw == 1 else (kw, c)
    for h in range(top, bottom):
        line = x[h]
        for t in range(end):
            line[t] = 0
        for a in range(kh):
            q = h + ph - a * dh
            if q < q0 * sh or q % sh != 0 or q // sh >= q1:
                continue
            for r in range(runs):
                k = (a * runs + r) * run
                for j in range(ow):
                    first = (j * sw + r * dw - pw) * c
                    low = max(first, 0)
                    high = max(low, min(first + run, end))  # never below 0: that would count from the end
                    to, column = line[low:high], cols[(q // sh - q0) * ow + j, k + low - first : k + high - first]
                    for t in range(to.size):  # two slices with one index: anything else is not turned into vector code
                        to[t] += column[t]


@jit
def one_tap(x: Array, cols: Array, start: int, oh: int, ow: int, tap: int, channel: int, at: Geometry) -> None:
    """What one tap sees: `cols` (P, C') of the window positions from `start` on, of the channels of x (N, H, W, C) from `channel` on."""
    _, kw, sh, sw, ph, pw, dh, dw = at
    n, p = start // (oh * ow), start % (oh * ow)
    i, j = p // ow, p % ow
    for q in range(cols.shape[0]):
        row, column = i * sh + tap // kw * dh - ph, j * sw + tap % kw * dw - pw
        to = cols[q]
        if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
            pixel = x[n, row, column, channel : channel + to.size]
            for t in range(to.size):
                to[t] = pixel[t]
        else:
            for t in range(to.size):
                to[t] = 0
        j += 1
        if j == ow:
            i, j = i + 1, 0
            if i == oh:
                n, i = n + 1, 0
