"""Sizes against counting: every formula of window.py is compared with windows laid out one by one in plain Python."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minidcnn import Tensor, use_kernels
from minidcnn import functional as F
from minidcnn.testing import Pool, pairs, pools
from minidcnn.window import Pair, Window, pair, same_padding

# one axis: image n, kernel k, stride s, padding p, dilation d
axes = st.tuples(st.integers(1, 12), st.integers(1, 5), st.integers(1, 6), st.integers(0, 6), st.integers(1, 3))


def starts(n: int, k: int, s: int, p: int, d: int, ceil_mode: bool = False) -> list[int]:
    """First pixel of every window position along one axis, found by trying them in turn; the padding begins at -p."""
    found, start = [], -p
    while True:
        last = start + d * (k - 1)
        inside = last < n + p
        # in ceil_mode one more window, if the one before did not reach the edge and it starts inside the image or its left padding
        hanging = ceil_mode and not inside and last - s < n + p - 1 and start < n
        if not inside and not hanging:
            return found
        found.append(start)
        if not inside:
            return found
        start += s


def window_of(axis: tuple[int, ...], ceil_mode: bool = False) -> tuple[Window, Pair]:
    """A window whose height is `axis` and whose width is trivial."""
    n, k, s, p, d = axis
    return Window((k, 1), (s, 1), (p, 0), (d, 1), ceil_mode), (n, 1)


@given(axis=axes)
def test_positions_are_the_windows_that_fit(axis: tuple[int, ...]) -> None:
    window, size = window_of(axis)
    expected = starts(*axis)
    if expected:
        assert window.positions(size) == (len(expected), 1)
    else:
        with pytest.raises(ValueError, match="does not fit an image"):
            window.positions(size)


@given(axis=axes)
def test_positions_in_ceil_mode_keep_a_window_that_hangs_over_but_starts_inside(axis: tuple[int, ...]) -> None:
    window, size = window_of(axis, ceil_mode=True)
    expected = starts(*axis, ceil_mode=True)
    if expected:
        assert window.positions(size) == (len(expected), 1)
    else:
        with pytest.raises(ValueError, match="does not fit an image"):
            window.positions(size)


@pytest.mark.parametrize("n, k, s", [(n, k, s) for n in range(1, 5) for k in range(1, 6) for s in range(1, 5)])
def test_ceil_mode_on_images_smaller_than_the_kernel_is_pytorchs(n: int, k: int, s: int) -> None:
    torch = pytest.importorskip("torch")
    x = np.arange(2.0 * n * n).reshape(1, 2, n, n)[..., ::-1].copy()
    for kernels in ("reference", None):
        with use_kernels(kernels) if kernels else nullcontext():
            try:
                theirs, at = torch.nn.functional.max_pool2d(torch.tensor(x), k, s, ceil_mode=True, return_indices=True)
            except RuntimeError:
                with pytest.raises(ValueError, match="does not fit an image"):
                    F.max_pool2d(Tensor(x), k, s, ceil_mode=True)
                continue
            t = Tensor(x, requires_grad=True)
            ours, indices = F.max_pool2d(t, k, s, ceil_mode=True, return_indices=True)
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
            np.testing.assert_array_equal(indices.numpy(), at.numpy())
            ours.sum().backward()
            assert t.grad is not None and t.grad.numpy().sum() == theirs.numel()
            mean = torch.nn.functional.avg_pool2d(torch.tensor(x), k, s, ceil_mode=True)
            np.testing.assert_allclose(F.avg_pool2d(Tensor(x), k, s, ceil_mode=True).numpy(), mean.numpy(), rtol=1e-12)


def test_ceil_mode_drops_a_window_that_starts_in_the_right_padding() -> None:
    """n 6, kernel 2, stride 3: positions 0 and 3; a third would start at 6, outside the image."""
    assert Window((2, 2), (3, 3), ceil_mode=True).positions((6, 7)) == (2, 3)
    assert Window((2, 2), (2, 2), (1, 0), ceil_mode=True).positions((3, 3)) == (2, 2)  # -1 and 1; a third would start at 3


@given(case=pools())
def test_ceil_mode_is_pytorchs(case: Pool) -> None:
    torch = pytest.importorskip("torch")
    assume(case.in_pytorch)
    theirs = torch.nn.functional.max_pool2d(torch.zeros(1, 1, *case.size), **case.options)
    assert case.window.positions(case.size) == tuple(theirs.shape[2:])


@given(axis=axes, ceil_mode=st.booleans())
def test_each_tap_reads_the_pixel_that_the_definition_names(axis: tuple[int, ...], ceil_mode: bool) -> None:
    """Tap a of position i is pixel i s + a d - p, read out of a line that holds each pixel's own number."""
    n, k, _, p, d = axis
    first = starts(*axis, ceil_mode=ceil_mode)
    if not first:
        return
    window, size = window_of(axis, ceil_mode)
    positions = window.positions(size)
    padded = np.arange(-p, -p + window.buffer(size, positions)[0])[:, None]
    taps = list(window.each_tap(positions))
    assert [(i, j) for i, j, _ in taps] == [(i, 0) for i in range(k)]
    for a, _, at in taps:
        assert padded[at].reshape(-1).tolist() == [start + a * d for start in first]
    assert window.span == (d * (k - 1) + 1, 1)
    assert window.taps == k
    assert window.reach(positions)[0] == first[-1] + d * (k - 1) + 1 + p
    assert window.buffer(size, positions)[0] >= max(n + p, window.reach(positions)[0])


def test_each_tap_goes_through_the_kernel_in_row_major_order() -> None:
    window = Window((2, 3), (2, 1), dilation=(3, 2))
    image = np.arange(6 * 8).reshape(6, 8)
    seen = {(i, j): image[at].tolist() for i, j, at in window.each_tap((2, 4))}
    assert list(seen) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert seen[1, 2] == [[3 * 8 + 4, 3 * 8 + 5, 3 * 8 + 6, 3 * 8 + 7], [5 * 8 + 4, 5 * 8 + 5, 5 * 8 + 6, 5 * 8 + 7]]


def test_no_positions_touch_nothing() -> None:
    window = Window((3, 2), (2, 1))
    assert window.reach((0, 0)) == (0, 0)
    for *_, at in window.each_tap((0, 0)):
        assert np.zeros((9, 9))[at].size == 0


@given(axis=axes)
def test_a_transposed_convolution_comes_back_to_every_size_with_that_many_windows(axis: tuple[int, ...]) -> None:
    """conv_size(image_size(m, op)) = m exactly for 0 <= op < s: the preimage of m is {n0, ..., n0 + s - 1} (T3)."""
    _, k, s, p, d = axis
    window, _ = window_of(axis)
    for m in (1, 2, 5):
        least = window.image_size((m, 1))[0]
        preimage = [n for n in range(1, least + 3 * s + 3) if len(starts(n, k, s, p, d)) == m]
        assert preimage == [n for n in range(least, least + s) if n >= 1]
        for op in range(s):
            assert window.image_size((m, 1), (op, 0)) == (least + op, 1)


@given(axis=axes, ceil_mode=st.booleans())
def test_first_taps_are_the_first_inside_the_image(axis: tuple[int, ...], ceil_mode: bool) -> None:
    n, k, _, _, d = axis
    window, size = window_of(axis, ceil_mode)
    first = starts(*axis, ceil_mode=ceil_mode)
    if not first:
        return
    inside = [[a for a in range(k) if 0 <= start + a * d < n] for start in first]
    if all(inside):
        assert window.first_taps(size, window.positions(size)) == ([taps[0] for taps in inside], [0])
    else:
        at = inside.index([])
        with pytest.raises(ValueError, match=f"pool: window {at} along the height touches padding only"):
            window.first_taps(size, window.positions(size), "pool")


@given(kernel=pairs(1, 6), dilation=pairs(1, 4), size=pairs(1, 9))
def test_same_padding_keeps_the_size_and_puts_the_odd_pixel_after(kernel: Pair, dilation: Pair, size: Pair) -> None:
    window = Window(kernel, dilation=dilation)
    sides = same_padding(window)
    for axis, (before, after) in enumerate(sides):
        assert before + after == window.span[axis] - 1
        assert after - before in (0, 1)
    padded = (size[0] + sum(sides[0]), size[1] + sum(sides[1]))
    assert window.positions(padded) == size


# -- as users write them, and what is refused ----------------------------------------------------------------------------------


def test_ints_and_pairs() -> None:
    assert pair(3, "x") == pair((3,), "x") == pair([3, 3], "x") == (3, 3)
    assert pair((1, 2), "x") == (1, 2)
    assert pair(np.int64(4), "x") == (4, 4)
    assert all(type(v) is int for v in pair((np.int32(4), np.int64(5)), "x"))
    assert Window.of(2) == Window((2, 2), (2, 2))  # as in pooling, the stride is the kernel
    assert Window.of((3, 2), 1, (1, 0), (1, 2), True) == Window((3, 2), (1, 1), (1, 0), (1, 2), True)


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (
            lambda: pair((1, 2, 3), "conv2d: stride"),
            ValueError,
            r"conv2d: stride must be an int or a pair \(height, width\), got 3 numbers \(1, 2, 3\)",
        ),
        (lambda: pair((), "x"), ValueError, "got 0 numbers"),
        (lambda: pair(1.5, "x"), TypeError, "x must be an int or a pair of ints, got 1.5"),
        (lambda: pair((1, 2.0), "x"), TypeError, r"x must be an int or a pair of ints, got \(1, 2.0\)"),
        (lambda: pair(True, "x"), TypeError, "got True"),
        (lambda: pair("same", "x"), TypeError, "x must be an int or a pair of ints, got 'same'"),
        (lambda: pair("3", "x"), TypeError, "x must be an int or a pair of ints, got '3'"),
        (lambda: pair(-1, "x"), ValueError, "x must be at least 0, got -1"),
        (lambda: pair((2, 0), "x", 1), ValueError, r"x must be at least 1, got \(2, 0\)"),
        (lambda: Window.of(0, name="conv2d"), ValueError, "conv2d: kernel_size must be at least 1, got 0"),
        (lambda: Window.of(2, 0, name="pool"), ValueError, "pool: stride must be at least 1, got 0"),
        (lambda: Window.of(2, 1, -1), ValueError, "window: padding must be at least 0, got -1"),
        (lambda: Window.of(2, 1, 0, 0), ValueError, "window: dilation must be at least 1, got 0"),
        (
            lambda: Window((3, 2), padding=(0, 1), dilation=(2, 1)).positions((4, 9), "conv2d"),
            ValueError,
            "conv2d: a window spanning 5x2 pixels does not fit an image of 4x9 padded to 4x11; use a larger image, more padding or a smaller kernel",
        ),
        (lambda: Window((1, 1), padding=(3, 3)).positions((0, 5)), ValueError, "does not fit an image of 0x5"),
        (
            lambda: Window((1, 2), padding=(0, 3)).first_taps((4, 4), (4, 9), "max_pool2d"),
            ValueError,
            r"max_pool2d: window 0 along the width touches padding only \(image 4, kernel 2, stride 1, padding 3, dilation 1\); use padding of at most half",
        ),
    ],
)
def test_what_is_refused(make: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        make()
