"""Every compiled kernel against the reference: geometries, memory layouts, dtypes, threads, and what it may not do.

Images hold small whole numbers, so that sums of products are exact in any order and kernels must agree to the bit; only Winograd, which
divides by 24, is compared within its rounding errors, as are the kernels that are not sums of products.
"""

from __future__ import annotations

import inspect
import os
import pickle
import signal
import stat
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minidcnn.backend import Kernels, is_channels_last, nchw
from minidcnn.backend.cpu import CpuKernels, algorithm, conv, conv_weight, elementwise, memory, optim, product, threads, winograd
from minidcnn.backend.rules import AdamRule, SgdRule
from minidcnn.window import Window

REFERENCE, CPU = Kernels(np), CpuKernels()
FLOATS = ["f4", "f8"]
LAYOUTS = ["C", "channels-last", "sliced", "reversed", "read-only"]


def laid_out(values: np.ndarray, layout: str) -> np.ndarray:
    """`values` (N, C, H, W) in another memory layout."""
    if layout == "channels-last":
        return nchw(np.ascontiguousarray(values.transpose(0, 2, 3, 1)))
    if layout == "sliced":  # every second pixel of rows of a larger image
        n, c, h, w = values.shape
        large = np.full((n, h + 1, 2 * w, c + 2), 99, values.dtype)
        view = nchw(large[:, :h, ::2, 1 : c + 1])
        view[...] = values
        return view
    if layout == "reversed":
        return np.ascontiguousarray(values[:, ::-1, ::-1, ::-1])[:, ::-1, ::-1, ::-1]
    array = np.ascontiguousarray(values)
    array.flags.writeable = layout != "read-only"
    return array


def whole(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, layout: str = "C") -> np.ndarray:
    values = rng.integers(-3, 4, shape).astype(dtype)
    return laid_out(values, layout) if len(shape) == 4 else values


def equal(got: Any, expected: Any) -> None:
    """The same shapes, dtypes and values; 0.0 and -0.0 may differ in sign, NaN equals NaN."""
    if isinstance(expected, tuple):
        assert len(got) == len(expected)
        for g, e in zip(got, expected, strict=True):
            equal(g, e)
        return
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected, strict=True)


def both(name: str, *arguments: Any, **keywords: Any) -> None:
    """Kernel `name` gives what the reference gives, and neither writes to what it was given."""
    before = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
    expected = getattr(REFERENCE, name)(*arguments, **keywords)
    equal(getattr(CPU, name)(*arguments, **keywords), expected)
    for a, b in zip(arguments, before, strict=True):
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b)


pairs = st.tuples(st.integers(0, 3), st.integers(0, 3))
steps = st.tuples(st.integers(1, 3), st.integers(1, 3))
seeds = st.integers(0, 2**16)


@st.composite
def geometries(draw: st.DrawFn, pooling: bool = False) -> tuple[Window, tuple[int, int], tuple[int, int]]:
    """(window, image size, number of positions) that fit together."""
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel) if pooling else draw(pairs)
    window = Window(kernel, draw(steps), padding, draw(steps), draw(st.booleans()) if pooling else False)  # type: ignore[arg-type]
    size = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    assume(all(n + 2 * p >= span for n, p, span in zip(size, padding, window.span, strict=True)))
    return window, size, window.positions(size)


@pytest.fixture(params=["few pixels", "blocks"])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small images take the way of large ones as well."""
    if request.param == "blocks":
        monkeypatch.setattr(conv, "FEW", 0)


@pytest.fixture
def gemm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(algorithm.VARIABLE, "gemm")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is too small for the compiled elementwise kernels."""
    monkeypatch.setattr(elementwise, "LARGE", 1)


# -- convolution ----------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("few", "gemm")
@given(geometries(), st.integers(0, 2), st.integers(1, 5), st.integers(1, 5), st.sampled_from(FLOATS), st.sampled_from(LAYOUTS), seeds)
def test_the_convolution_triple(geometry, n, c, o, dtype, layout, seed) -> None:
    window, size, out = geometry
    rng = np.random.default_rng(seed)
    x, y = whole(rng, (n, c, *size), dtype, layout), whole(rng, (n, o, *out), dtype, layout)
    w = whole(rng, (o, c, *window.kernel), dtype, layout)
    both("conv2d", x, w, whole(rng, (o,), dtype), window, out)
    both("conv2d", x, w, None, window, out)
    scale, offset = whole(rng, (o,), dtype), whole(rng, (o,), dtype)
    for relu in (False, True):
        both("conv2d_affine", x, w, scale, offset, relu, window, out)
    both("conv_transpose2d", y, w, whole(rng, (c,), dtype), window, size)
    both("conv_transpose2d", y, w, None, window, size)
    both("conv2d_weight", x, y, window)


@pytest.mark.usefixtures("gemm")
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 5)), st.tuples(st.integers(1, 3), st.integers(1, 4)), st.tuples(st.integers(0, 2), st.integers(0, 3)),
    st.sampled_from([(1, 1), (2, 1), (1, 2)]), st.integers(1, 4), st.integers(14, 31), st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.integers(1, 2), st.integers(1, 3),
    st.sampled_from([1, 2, 15, 16, 17, 33, 64, 65]), seeds,
)  # fmt: skip
def test_windows_read_where_they_lie(kernel, stride, padding, dilation, oh, ow, rest, n, c, o, seed) -> None:
    """Lines wide enough for the product without columns, forward and, for stride 1, transposed; pixels that no window reaches; no padding; columns between."""
    padding = min(padding[0], kernel[0] * dilation[0] - 1), min(padding[1], kernel[1] * dilation[1] - 1)
    window = Window(kernel, stride, padding, dilation)
    size = tuple(max(1, m + min(r, s - 1)) for m, r, s in zip(window.image_size((oh, ow)), rest, stride, strict=True))
    out, rng = window.positions(size), np.random.default_rng(seed)
    x, y, w = whole(rng, (n, c, *size), "f4"), whole(rng, (n, o, *out), "f4"), whole(rng, (o, c, *kernel), "f4")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv, "FEW", 0)
        both("conv2d", x, w, whole(rng, (o,), "f4"), window, out)
        both("conv2d_affine", x, w, whole(rng, (o,), "f4"), whole(rng, (o,), "f4"), True, window, out)
        both("conv_transpose2d", y, w, whole(rng, (c,), "f4"), window, size)
        both("conv2d_weight", x, y, window)


@pytest.mark.usefixtures("gemm")
@given(
    st.integers(1, 3), st.sampled_from([(1, 16), (2, 8), (2, 16), (4, 4), (3, 16), (5, 16)]), st.tuples(st.integers(1, 3), st.integers(1, 4)),
    st.integers(0, 2), st.integers(1, 2), st.integers(1, 5), st.integers(1, 9), st.integers(1, 2), st.sampled_from([4, 8, 12, 20, 32]),
    st.sampled_from([1, conv_weight.LARGE]), seeds,
)  # fmt: skip
def test_sums_of_windows_read_where_they_lie(kh, kw_c, stride, padding, dilation, oh, ow, n, o, large, seed) -> None:
    """Weight gradients whose runs fill vectors, of few windows and many, with one sum and with several."""
    (kw, c), rng = kw_c, np.random.default_rng(seed)
    window = Window((kh, kw), stride, (min(padding, kh * dilation - 1), min(padding, kw - 1)), (dilation, 1))
    size = tuple(max(1, m) for m in window.image_size((oh, ow)))
    x, y = whole(rng, (n, c, *size), "f4"), whole(rng, (n, o, *window.positions(size)), "f4")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv_weight, "SHORT", 1)
        patch.setattr(conv_weight, "LARGE", large)
        both("conv2d_weight", x, y, window)


@pytest.mark.usefixtures("gemm")
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3)), st.integers(1, 3), st.integers(1, 31), st.integers(1, 2), st.integers(1, 40), st.integers(1, 20),
    st.booleans(), st.sampled_from(FLOATS), st.sampled_from([0, 1 << 9]), st.sampled_from([1, 1 << 20]), seeds,
)  # fmt: skip
def test_windows_side_by_side_are_written_where_they_belong(kernel, oh, ow, n, c, o, odd, dtype, few, many, seed) -> None:
    """U-Net's transposed convolutions, with and without a bias, and where the pooled image had an odd size."""
    window, rng = Window(kernel, kernel), np.random.default_rng(seed)
    size = window.image_size((oh, ow), (int(odd and kernel[0] > 1), int(odd and kernel[1] > 1)))
    x, y, w = whole(rng, (n, c, *size), dtype), whole(rng, (n, o, oh, ow), dtype), whole(rng, (o, c, *kernel), dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv, "FEW", few)
        patch.setattr(conv_weight, "MANY", many)
        patch.setattr(conv_weight, "SLICE", 7)
        for of_y, of_x in ((None, None), (whole(rng, (o,), dtype), whole(rng, (c,), dtype))):
            both("conv2d", x, w, of_y, window, (oh, ow))
            both("conv_transpose2d", y, w, of_x, window, size)
        both("conv2d_weight", x, y, window)


@given(
    st.integers(1, 40), st.integers(1, 80), st.sampled_from([1, 2, 15, 16, 17, 32, 33, 48, 64, 80, 128, 150]), st.booleans(), seeds,
)  # fmt: skip
def test_products_of_packed_panels(rows, k, n, turned, seed) -> None:
    """Exact in integers, for weights in either memory order; nothing beside y is touched."""
    rng = np.random.default_rng(seed)
    a, matrix = rng.integers(-3, 4, (rows, k)).astype("f4"), rng.integers(-3, 4, (k, n)).astype("f4", order="F" if turned else "C")
    y = np.full((rows + 2, n), 7, "f4")
    product.Product(matrix)(a, y[1:-1])
    np.testing.assert_array_equal(y[1:-1], a @ matrix)
    assert (y[[0, -1]] == 7).all()


@given(geometries(), st.integers(0, 2), st.integers(1, 5), st.sampled_from([*FLOATS, "f2", "i8"]), st.sampled_from(LAYOUTS), seeds)
def test_im2col_and_col2im(geometry, n, c, dtype, layout, seed) -> None:
    window, size, out = geometry
    rng = np.random.default_rng(seed)
    both("im2col", whole(rng, (n, c, *size), dtype, layout), window, out)
    cols = rng.integers(-3, 4, (n, c, *window.kernel, *out)).astype(dtype)
    both("col2im", cols, window, size)
    both("col2im", REFERENCE.im2col(whole(rng, (n, c, *size), dtype), window, out), window, size)


@pytest.mark.parametrize("dtype", [*FLOATS, "f2"])
@pytest.mark.parametrize("groups", [2, 3, 6])
def test_groups(groups: int, dtype: str, rng: np.random.Generator) -> None:
    window, size = Window((3, 2), (2, 1), (1, 1), (1, 2)), (9, 7)
    out = window.positions(size)
    x, y, w = whole(rng, (2, 6, *size), dtype), whole(rng, (2, 12, *out), dtype), whole(rng, (12, 6 // groups, 3, 2), dtype)
    both("conv2d", x, w, whole(rng, (12,), dtype), window, out, groups)
    both("conv_transpose2d", y, w, whole(rng, (6,), dtype), window, size, groups)
    both("conv2d_weight", x, y, window, groups)


@pytest.mark.usefixtures("gemm")
@pytest.mark.parametrize(
    ("n", "c", "o", "size", "window"),
    [
        (2, 16, 20, (37, 50), Window((3, 3), padding=(1, 1))),  # several blocks of pixels
        (1, 130, 140, (5, 40), Window((1, 1))),  # no columns are needed
        (2, 3, 8, (64, 50), Window((7, 7), (2, 2), (3, 3))),
        (3, 12, 6, (20, 34), Window((2, 2), (2, 2))),  # U-Net's transposed convolution
        (1, 3, 12, (47, 51), Window((11, 11), (4, 4), (2, 2))),  # AlexNet's first layer
        (1, 2, 2, (70, 100), Window((64, 64), (32, 32), (0, 0))),  # FCN's bilinear upsampling
        (1, 600, 260, (4, 3), Window((3, 3), padding=(1, 1))),  # a large weight and few pixels
        (2, 8, 520, (30, 20), Window((3, 2), (1, 1), (2, 1), (2, 1))),
    ],
)
@pytest.mark.parametrize("dtype", FLOATS)
def test_layers_larger_than_a_block(n, c, o, size, window, dtype, rng) -> None:
    out = window.positions(size)
    x, y = whole(rng, (n, c, *size), dtype, "channels-last"), whole(rng, (n, o, *out), dtype, "channels-last")
    w = whole(rng, (o, c, *window.kernel), dtype)
    both("conv2d", x, w, whole(rng, (o,), dtype), window, out)
    both("conv_transpose2d", y, w, whole(rng, (c,), dtype), window, size)
    both("conv2d_weight", x, y, window)


def test_results_lie_in_the_memory_that_the_next_layer_reads(rng: np.random.Generator) -> None:
    for window, size in ((Window((3, 3), padding=(1, 1)), (40, 30)), (Window((2, 2), (2, 2)), (8, 6)), (Window((1, 1)), (9, 7))):
        out = window.positions(size)
        x, y, w = whole(rng, (2, 8, *size), "f4"), whole(rng, (2, 12, *out), "f4"), whole(rng, (12, 8, *window.kernel), "f4")
        assert is_channels_last(CPU.conv2d(x, w, None, window, out))
        assert is_channels_last(CPU.conv_transpose2d(y, w, None, window, size))


# -- the choice of an algorithm -------------------------------------------------------------------------------------------------------

ALGORITHMS = ["reference", "gemm", "winograd", ""]


@pytest.mark.parametrize("chosen", ALGORITHMS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("n", "c", "o", "size", "window", "groups"),
    [
        (2, 24, 40, (17, 22), Window((3, 3), padding=(1, 1)), 1),
        (1, 70, 9, (9, 30), Window((3, 3)), 1),
        (1, 3, 5, (6, 7), Window((3, 3), padding=(1, 0)), 1),
        (1, 16, 16, (1, 1), Window((3, 3), padding=(1, 1)), 1),
        (0, 16, 16, (8, 8), Window((3, 3), padding=(1, 1)), 1),
        (2, 16, 16, (9, 12), Window((3, 3), padding=(3, 4)), 1),
        (2, 16, 24, (9, 12), Window((3, 3), (2, 1), (1, 1)), 1),
        (2, 16, 24, (9, 12), Window((3, 3), (1, 1), (2, 2), (2, 2)), 1),
        (2, 16, 24, (9, 12), Window((3, 3), padding=(1, 1)), 4),
        (2, 16, 24, (9, 12), Window((3, 2), padding=(1, 1)), 1),
    ],
)
def test_every_algorithm_agrees_with_the_reference(chosen, dtype, n, c, o, size, window, groups, monkeypatch, rng) -> None:
    monkeypatch.setenv(algorithm.VARIABLE, chosen)
    out = window.positions(size)
    x, y = rng.standard_normal((n, c, *size)).astype(dtype), rng.standard_normal((n, o, *out)).astype(dtype)
    w, b, b2 = (rng.standard_normal(s).astype(dtype) for s in ((o, c // groups, *window.kernel), (o,), (c,)))
    for name, arguments in (
        ("conv2d", (x, w, b, window, out, groups)),
        ("conv_transpose2d", (y, w, b2, window, size, groups)),
        ("conv2d_weight", (x, y, window, groups)),
    ):
        got, expected = getattr(CPU, name)(*arguments), getattr(REFERENCE, name)(*arguments)
        assert got.shape == expected.shape and got.dtype == expected.dtype
        tolerance = (1e-4 if dtype == "f4" else 1e-13) * max(1.0, np.abs(expected).max(initial=0))
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize(
    ("shape", "dtype", "o", "window", "groups", "expected"),
    [
        ((1, 16, 12, 4), "f4", 16, Window((3, 3), padding=(1, 1)), 1, "winograd"),
        ((1, 16, 8, 4), "f4", 16, Window((3, 3), padding=(1, 1)), 1, "gemm"),  # two tiles
        ((3, 16, 1, 1), "f4", 16, Window((3, 3), padding=(1, 1)), 1, "winograd"),
        ((3, 15, 16, 16), "f4", 16, Window((3, 3)), 1, "gemm"),
        ((3, 16, 16, 16), "f4", 15, Window((3, 3)), 1, "gemm"),
        ((3, 16, 16, 16), "f8", 16, Window((3, 3)), 1, "gemm"),
        ((3, 16, 16, 16), "f4", 16, Window((3, 3), (1, 2)), 1, "gemm"),
        ((3, 16, 16, 16), "f4", 16, Window((3, 3), dilation=(2, 1)), 1, "gemm"),
        ((3, 16, 16, 16), "f4", 16, Window((3, 3)), 2, "reference"),
    ],
)
def test_the_table_of_algorithms(shape, dtype, o, window, groups, expected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(algorithm.VARIABLE, raising=False)
    assert algorithm.algorithm(np.empty(shape, dtype), shape[1], o, window, groups) == expected


@pytest.mark.parametrize("o", [34, 65, 100])
def test_a_large_weight_whose_last_panel_fills_no_vector(o: int, rng: np.random.Generator) -> None:
    """Of 4, 8 or 16 lanes: vectors at its end must not reach back, to the panel before and to what lies in front of the sums."""
    window, size, c = Window((3, 3), padding=(1, 1)), (9, 10), -(-winograd.LARGE // o)
    x, w = rng.standard_normal((2, c, *size), dtype="f4"), rng.standard_normal((o, c, 3, 3), dtype="f4")
    scale, offset = rng.standard_normal((2, o), dtype="f4")
    for name, arguments in (
        ("conv2d", (x, w, offset, window, size)),
        ("conv2d_affine", (x, w, scale, offset, True, window, size)),
        ("conv_transpose2d", (x, w.transpose(1, 0, 2, 3), offset, window, size)),
    ):
        expected = getattr(REFERENCE, name)(*arguments)
        np.testing.assert_allclose(getattr(CPU, name)(*arguments), expected, rtol=0, atol=1e-4 * np.abs(expected).max(), err_msg=name)


def test_forcing_an_algorithm_forces_it(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Each gives its own rounding errors: that is how they are told apart."""
    window = Window((3, 3), padding=(1, 1))
    x, w = rng.standard_normal((1, 64, 40, 40), dtype="f4"), rng.standard_normal((64, 64, 3, 3), dtype="f4")
    results = {}
    for chosen in ALGORITHMS:
        monkeypatch.setenv(algorithm.VARIABLE, chosen)
        results[chosen] = CPU.conv2d(x, w, None, window, (40, 40))
    np.testing.assert_array_equal(results["reference"], REFERENCE.conv2d(x, w, None, window, (40, 40)))
    np.testing.assert_array_equal(results[""], results["winograd"])  # for this layer the table says so
    assert (results["winograd"] != results["gemm"]).any()


def test_an_unknown_algorithm_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(algorithm.VARIABLE, "fft")
    with pytest.raises(ValueError, match="MINIDCNN_CONV must be reference, gemm or winograd, got 'fft'; unset it"):
        CPU.conv2d(np.ones((1, 1, 3, 3), "f4"), np.ones((1, 1, 1, 1), "f4"), None, Window((1, 1)), (3, 3))


# -- pooling ------------------------------------------------------------------------------------------------------------------------


@given(geometries(pooling=True), st.integers(1, 2), st.integers(1, 20), st.sampled_from([*FLOATS, "f2"]), st.sampled_from(LAYOUTS), seeds)
def test_pooling(geometry, n, c, dtype, layout, seed) -> None:
    """Small whole numbers tie often, so the first maximum must win; a NaN here and there wins over all."""
    window, size, out = geometry
    rng = np.random.default_rng(seed)
    x, y = whole(rng, (n, c, *size), dtype, layout), whole(rng, (n, c, *out), dtype, layout)
    try:
        expected = REFERENCE.max_pool2d(x, window, out)
    except ValueError as error:  # a window in the padding
        with pytest.raises(ValueError) as caught:
            CPU.max_pool2d(x, window, out)
        assert str(caught.value) == str(error)
        return
    equal(CPU.max_pool2d(x, window, out), expected)
    taps = laid_out(expected[1], layout)
    both("pool_gather", x, taps, window)
    both("pool_scatter", y, taps, window, size)
    both("plane_indices", taps, window, size)
    holes = x.copy()
    holes[rng.random(x.shape) < 0.1] = np.nan
    both("max_pool2d", holes, window, out)
    both("max_pool2d", np.full_like(x, -np.inf), window, out)
    weight = (1 / rng.integers(1, 3, out)).astype(dtype)  # powers of two: exact
    both("avg_pool2d", x, window, weight)
    both("avg_pool2d_adjoint", y, window, weight, size)


@pytest.mark.parametrize(("kernel", "tap"), [((16, 16), np.uint8), ((1, 257), np.uint16), ((256, 257), np.uint32)])
def test_pooling_whatever_the_number_of_taps(kernel: tuple[int, int], tap: Any) -> None:
    """The winner is the window's last tap but two, whose number needs all bytes that a tap has."""
    window, size = Window(kernel, kernel), (kernel[0], 2 * kernel[1])
    x, last = np.zeros((1, 2, *size), np.float32), window.taps - 3
    x[0, 1, kernel[0] - 1, 2 * kernel[1] - 3] = 1  # in the second window
    expected = REFERENCE.max_pool2d(x, window, (1, 2))
    assert expected[1].dtype == tap and expected[1].ravel().tolist() == [0, 0, 0, last]
    equal(CPU.max_pool2d(x, window, (1, 2)), expected)
    both("pool_gather", x, expected[1], window)
    both("pool_scatter", expected[0], expected[1], window, size)
    both("plane_indices", expected[1], window, size)


@pytest.mark.parametrize("kernels", [REFERENCE, CPU], ids=["reference", "cpu"])
def test_means_over_large_windows_keep_their_digits(kernels: Kernels) -> None:
    """Windows of 60,000 pixels, and pixels in 60,000 windows: one sum of so many in float32 is wrong in the fourth digit."""
    window = Window((300, 200), (300, 200))
    y = kernels.avg_pool2d(np.full((1, 2, 300, 400), 0.7, "f4"), window, np.full((1, 2), 1 / 60000, "f4"))
    np.testing.assert_allclose(y, np.full((1, 2, 1, 2), 0.7), rtol=3e-5)
    around, size = Window((300, 200), padding=(298, 198)), (2, 3)
    out = around.positions(size)
    g, share = np.full((1, 2, *out), 0.7, "f4"), np.full(out, 1 / 60000, "f4")
    x = kernels.avg_pool2d_adjoint(g, around, share, size)
    np.testing.assert_allclose(x, REFERENCE.avg_pool2d_adjoint(g.astype("f8"), around, share.astype("f8"), size), rtol=3e-5)


@given(
    st.integers(0, 2), st.integers(1, 40), st.tuples(st.integers(1, 7), st.integers(1, 7)), st.tuples(st.integers(0, 6), st.integers(1, 6)),
    st.sampled_from([*FLOATS, "f2", "i8"]), st.sampled_from(LAYOUTS), seeds,
)  # fmt: skip
def test_gather_and_scatter_at_plane_indices(n, c, size, out, dtype, layout, seed) -> None:
    rng = np.random.default_rng(seed)
    indices = laid_out(rng.integers(0, size[0] * size[1], (n, c, *out)), layout)
    both("gather", whole(rng, (n, c, *size), dtype, layout), indices)
    both("scatter", whole(rng, (n, c, *out), dtype, layout), indices, size)
    both("gather", whole(rng, (n, c, *size), dtype), indices.astype(np.int32))


@pytest.mark.parametrize("index", [6, -1])
def test_an_index_outside_the_plane_is_an_error(index: int) -> None:
    indices = np.full((1, 1, 1, 2), index)
    with pytest.raises(IndexError, match="gather: an index lies outside"):
        CPU.gather(np.ones((1, 1, 2, 3)), indices)
    with pytest.raises(IndexError, match="scatter: an index lies outside"):
        CPU.scatter(np.ones((1, 1, 1, 2)), indices, (2, 3))


# -- sums and ReLU -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small")
@given(
    st.tuples(st.integers(0, 3), st.integers(1, 70), st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from([(0, 1, 2, 3), (0, 2, 3), (1,), (2, 3), (3, 2, 0), ()]),
    st.booleans(), st.sampled_from([*FLOATS, "f2", "i4"]), st.sampled_from(LAYOUTS), seeds,
)  # fmt: skip
def test_sum(shape, axes, keepdims, dtype, layout, seed) -> None:
    both("sum", whole(np.random.default_rng(seed), shape, dtype, layout), axes, keepdims)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 700), (4, 5, 6), (2, 3, 4, 5, 6)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_sum_of_other_shapes(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> None:
    x = rng.integers(-3, 4, shape).astype(dtype)
    for axes in (tuple(range(len(shape))), (0,) if shape else ()):
        both("sum", x, axes)
        both("sum", x.T, axes, True)


def test_sums_are_added_up_in_float64(rng: np.random.Generator) -> None:
    x = laid_out(rng.random((2, 3, 300, 200), dtype="f4"), "channels-last")
    for axes in ((0, 1, 2, 3), (0, 2, 3)):
        np.testing.assert_array_equal(CPU.sum(x, axes), x.astype("f8").sum(axes).astype("f4"))


@pytest.mark.usefixtures("small")
@given(
    st.tuples(st.integers(0, 2), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from([*FLOATS, "f2", "i4"]), st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS), seeds,
)  # fmt: skip
def test_relu_and_its_gradient(shape, dtype, layout, other, seed) -> None:
    rng = np.random.default_rng(seed)
    x, g = whole(rng, shape, dtype, layout), whole(rng, shape, dtype, other)
    both("relu", x)
    both("relu_grad", g, REFERENCE.relu(x))
    both("relu_grad", np.broadcast_to(g[:1, :, :1], shape), REFERENCE.relu(x))
    if dtype != "i4" and x.size:
        x = x.copy()
        x.flat[0], x.flat[-1] = np.nan, -np.inf
        both("relu", x)
        both("relu_grad", g, REFERENCE.relu(x))
        endless = np.where(x > 0, g, g.dtype.type(np.inf))  # where it does not count
        both("relu_grad", endless, REFERENCE.relu(x))
        equal(REFERENCE.relu_grad(endless, REFERENCE.relu(x)), REFERENCE.relu_grad(g, REFERENCE.relu(x)))


def test_relu_keeps_the_layout(rng: np.random.Generator) -> None:
    x = laid_out(rng.standard_normal((2, 16, 40, 30), dtype="f4"), "channels-last")
    y = CPU.relu(x)
    assert is_channels_last(y) and is_channels_last(CPU.relu_grad(x, y))


# -- joins, normalisation, losses, steps -----------------------------------------------------------------------------------------------


def near(name: str, *arguments: Any) -> None:
    """Kernel `name` gives what the reference gives up to rounding, and does not write to its arguments."""
    before = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
    for got, expected in zip(
        as_tuple(getattr(CPU, name)(*arguments)), as_tuple(getattr(REFERENCE, name)(*arguments)), strict=True
    ):  # fmt: skip
        assert got.shape == expected.shape and got.dtype == expected.dtype, name
        close(got, expected, name)
    for a, b in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(a, b)


def as_tuple(result: Any) -> tuple[np.ndarray, ...]:
    return result if isinstance(result, tuple) else (result,)


def close(got: np.ndarray, expected: np.ndarray, name: str) -> None:
    """Within a few roundings of the largest finite value; what is not finite must be the same."""
    finite = np.abs(expected[np.isfinite(expected)])
    tolerance = {"f2": 4e-3, "f4": 2e-6, "f8": 2e-14}[expected.dtype.str[1:]] * max(1.0, finite.max(initial=0))
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.usefixtures("small")
@given(
    st.integers(0, 2), st.lists(st.integers(1, 40), min_size=1, max_size=3), st.tuples(st.integers(1, 6), st.integers(1, 7)),
    st.sampled_from([0, 1, 2, 3]), st.sampled_from([*FLOATS, "f2", "i4"]), st.sampled_from(LAYOUTS), seeds,
)  # fmt: skip
def test_concatenate(n, channels, size, axis, dtype, layout, seed) -> None:
    rng = np.random.default_rng(seed)
    same = [channels[0] if axis != 1 else c for c in channels]
    parts = [whole(rng, (n, c, *size), dtype, layout) for c in same]
    both("concatenate", parts, axis)
    both("concatenate", [laid_out(p, "channels-last") for p in parts], axis)
    for first, last in ((0, parts[0].shape[1]), (1, parts[0].shape[1]), (0, 0)):
        both("channels", parts[0], first, last)
        both("channels", laid_out(parts[0], "channels-last"), first, last)


@pytest.mark.parametrize("channels", [(5,), (3, 5), (16, 1), (2, 3, 4), (1, 2, 3, 4)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_any_number_of_images_is_joined(channels: tuple[int, ...], dtype: str, small: None, rng: np.random.Generator) -> None:
    parts = [whole(rng, (2, c, 5, 4), dtype, "channels-last") for c in channels]
    both("concatenate", parts, 1)
    assert is_channels_last(CPU.concatenate(parts, 1))


def test_concatenate_refuses_what_the_reference_refuses(small: None, rng: np.random.Generator) -> None:
    parts = [laid_out(rng.random((1, 3, *size)), "channels-last") for size in ((4, 5), (5, 4))]
    for kernels in (CPU, REFERENCE):
        with pytest.raises(ValueError, match="must match exactly"):
            kernels.concatenate(parts, 1)


shapes = st.one_of(
    st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 40), st.integers(1, 9)), st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 30)),
)  # fmt: skip


@given(shapes, st.sampled_from([*FLOATS, "f2"]), st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS), seeds)
def test_batch_norm(shape, dtype, layout, other, seed) -> None:
    rng = np.random.default_rng(seed)
    place = laid_out if len(shape) == 4 else lambda a, _: a
    x, g = (place((rng.standard_normal(shape) + 3).astype(dtype), kind) for kind in (layout, other))
    weight, bias = (rng.standard_normal(shape[1]).astype(dtype) for _ in range(2))
    if dtype != "f2":  # in float16 the reference squares with other roundings
        near("batch_norm_stats", x)
    mean, variance = REFERENCE.batch_norm_stats(x)
    rstd = 1 / np.sqrt(variance + 1e-2)
    near("batch_norm_apply", x, mean, rstd, weight, bias)
    near("batch_norm_grad", g, x, mean, rstd, weight)
    near("batch_norm_grad", g, x, mean, rstd, weight, None, x)  # g + x
    near("batch_norm_apply", x, mean, rstd, weight, bias, True)
    if np.abs(REFERENCE.batch_norm_apply(x, mean, rstd, weight, bias)).min() > 1e-4:  # else rounding decides where ReLU is open
        near("batch_norm_grad", g, x, mean, rstd, weight, bias)
    x = x.copy()
    x.flat[0] = np.nan
    for relu in (False, True):
        near("batch_norm_apply", x, mean, rstd, weight, bias, relu)


@pytest.mark.parametrize("eps", [0.0, 1e-2])
@pytest.mark.parametrize("momentum", [0.0, 0.3, np.array(0.25), 1])
@pytest.mark.parametrize(("dtype", "every"), [("f4", 1), ("f8", 1), ("f2", 1), ("f4", 2)])
def test_running_statistics_follow_as_in_the_reference(eps, momentum, dtype, every, rng: np.random.Generator) -> None:
    """Of every dtype, without gaps or with, one of them or both; a channel of one value has no finite rstd without eps."""
    mean, variance = rng.standard_normal(5), rng.random(5)
    variance[2] = 0
    held = rng.standard_normal((2, 5 * every)).astype(dtype)
    for some in ([0, 1], [0], [1], []):
        results = []
        for kernels in (CPU, REFERENCE):
            both = held.copy()
            running = [both[i, ::every] if i in some else None for i in (0, 1)]
            with np.errstate(divide="ignore"):
                results.append((both, kernels.batch_norm_track(mean, variance, 7, eps, momentum, *running)))
        for got, expected in zip(*results, strict=True):
            close(got, expected, "batch_norm_track")


def test_statistics_keep_their_digits_far_from_zero(rng: np.random.Generator) -> None:
    """Squares minus the squared mean would lose all of them; blocks with different means are joined exactly."""
    x = rng.standard_normal((2, 7, 60, 90)) + 1e8
    x[1] += 5
    mean, variance = CPU.batch_norm_stats(x)
    np.testing.assert_allclose(variance, (x - 1e8).var((0, 2, 3)), rtol=1e-7)
    np.testing.assert_allclose(mean - 1e8, (x - 1e8).mean((0, 2, 3)), atol=1e-7)


@given(
    shapes, st.sampled_from([*FLOATS, "f2"]), st.sampled_from(LAYOUTS), st.sampled_from([0.0, 0.1, 1.0]),
    st.sampled_from([1.0, 30.0, 1000.0]), seeds,
)  # fmt: skip
def test_cross_entropy(shape, dtype, layout, smoothing, size, seed) -> None:
    rng = np.random.default_rng(seed)
    x = (size * rng.standard_normal(shape)).astype(dtype)
    x = laid_out(x, layout) if x.ndim == 4 else x
    target = rng.integers(-1, shape[1], (shape[0], *shape[2:]))
    weight = rng.random(shape[1]).astype(dtype)
    near("cross_entropy", x, target, weight, smoothing)
    _, top, logs = REFERENCE.cross_entropy(x, target, weight, smoothing)
    g = rng.standard_normal(target.shape).astype(dtype)
    near("cross_entropy_grad", g, x, top, logs, target, weight, smoothing)
    near("cross_entropy_grad", np.broadcast_to(g.dtype.type(0.5), g.shape), x, top, logs, target, weight, smoothing)


def test_cross_entropy_of_ignored_pixels_is_zero_whatever_their_logits() -> None:
    x = np.array([[[np.nan, 1.0, -np.inf]], [[1.0, 2.0, 3.0]]]).reshape(1, 2, 1, 3)
    target = np.array([[[-1, 1, -1]]])
    near("cross_entropy", x, target, np.ones(2), 0.1)
    losses, top, logs = CPU.cross_entropy(x, target, np.ones(2), 0.1)
    assert losses[0, 0, 0] == 0 == losses[0, 0, 2]
    dx = CPU.cross_entropy_grad(np.ones((1, 1, 3)), x, top, logs, target, np.ones(2), 0.1)
    assert not dx[..., ::2].any() and dx[..., 1].all()


@given(shapes, st.sampled_from(["i8", "u1", "?", "i4"]), st.sampled_from([-100, 0, 2, 255]), st.sampled_from([*FLOATS, "f2"]), seeds)
def test_targets_and_what_belongs_to_their_classes(shape, labels, ignore, dtype, seed) -> None:
    """Classes, what is none, and ignored ones: the same come out, and the same is the first that is wrong."""
    rng = np.random.default_rng(seed)
    classes, pixels = shape[1], (shape[0], *shape[2:])
    for low, high in ((0, classes), (-2, classes + 2), (254, 257)):
        target = rng.integers(low, high, pixels).astype(labels)
        before = target.copy()
        clean, wrong = CPU.clean_target(target, classes, ignore)
        expected = REFERENCE.clean_target(target, classes, ignore)
        np.testing.assert_array_equal(clean, expected[0], strict=True)
        assert wrong == expected[1] and wrong.shape == expected[1].shape == ()
        np.testing.assert_array_equal(target, before)
        near("at_class", rng.standard_normal(classes).astype(dtype), clean)


def test_a_target_that_is_no_class_is_an_error() -> None:
    x, target, weight = np.zeros((1, 2, 1, 1)), np.full((1, 1, 1), 2), np.ones(2)
    with pytest.raises(IndexError, match="a target is no class"):
        CPU.at_class(weight, target)
    with pytest.raises(IndexError, match="a target is no class"):
        CPU.cross_entropy(x, target, weight, 0.0)
    with pytest.raises(IndexError, match="a target is no class"):
        CPU.cross_entropy_grad(target * 1.0, x, x[:, 0], x[:, 0], target, weight, 0.0)


@pytest.mark.parametrize("layouts", [("C", "C"), ("channels-last", "channels-last"), ("C", "channels-last"), ("sliced", "reversed")])
@pytest.mark.parametrize("dtype", [*FLOATS, "f2"])
@pytest.mark.parametrize("shape", [(3, 2, 5, 4), (40, 30, 3, 3)])
def test_steps_change_parameter_and_state_as_the_reference_does(shape, dtype, layouts, rng: np.random.Generator) -> None:
    def fresh() -> list[np.ndarray]:
        values = [np.random.default_rng(i).standard_normal(shape).astype(dtype) for i in range(4)]
        return [laid_out(v, kind) for v, kind in zip(values, (layouts[0], layouts[1], *layouts), strict=True)]

    for first, momentum, dampening, decay, nesterov in (
        (True, 0.9, 0.3, 0.0, False), (False, 0.9, 0.3, 1e-2, False), (False, 0.9, 0.0, 1e-2, True), (True, 0.9, 0.0, 0.0, True), (True, 0.0, 0.0, 1e-2, False),
    ):  # fmt: skip
        results = []
        for kernels in (CPU, REFERENCE):
            p, g, buffer, _ = fresh()
            if first:
                buffer[...] = np.nan  # holds nothing yet
            kernels.sgd_step(p, g, buffer if momentum else None, first, SgdRule(0.1, momentum, dampening, decay, nesterov))
            np.testing.assert_array_equal(g, fresh()[1])
            results.append((p, buffer) if momentum else (p,))
        for got, expected in zip(*results, strict=True):
            close(got, expected, "sgd_step")
    for decay, decoupled, largest in ((0.0, False, False), (1e-2, False, False), (1e-2, True, False), (1e-2, True, True)):
        results = []
        for kernels in (CPU, REFERENCE):
            p, g, mean, square = fresh()
            np.square(square, out=square)
            state = (p, g, mean, square, square / 2 if largest else None)
            kernels.adam_step(*state, 3, AdamRule(0.1, 0.9, 0.99, 1e-3, decay, decoupled))
            np.testing.assert_array_equal(g, fresh()[1])
            results.append((p, mean, square))
        for got, expected in zip(*results, strict=True):
            close(got, expected, "adam_step")


@pytest.mark.parametrize("layout", [*LAYOUTS, "transposed"])
@pytest.mark.parametrize("power", [1.0, 2.0, 3.0, 0.5, np.inf])
def test_the_norm_of_many_gradients(power: float, layout: str, rng: np.random.Generator) -> None:
    """Lanes, chunks and arrays end where they like; dtypes are mixed; what is beyond float32 when squared, and what is not finite, is as in the reference."""
    name, chunk = "power_sum", optim.CHUNK
    shapes = [(3, 2, 5, 4), (0, 2, 3, 3), (1, 1, 1, 1), (40, 30, 6, 7), (1, 1, 1, 257), (2, chunk // 2, 1, 1), (3, 5, 1, chunk // 5)]
    arrays = [rng.standard_normal(shape).astype(("f4", "f8", "f2")[i % 3]) for i, shape in enumerate(shapes)]
    arrays[3] *= 1e30 if arrays[3].dtype == np.float32 else 1
    placed = [a.transpose(3, 1, 0, 2) if layout == "transposed" else laid_out(a, layout) for a in arrays]
    assert any(a.dtype == np.float32 and a.size > 1000 for a in placed)
    for some in (placed, placed[:3], placed[::-1], placed[3:4], []):
        found, expected = CPU.power_sum(some, power), REFERENCE.power_sum(some, power)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype) == ((), np.float64), name
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    for bad in (np.nan, np.inf, -np.inf):
        for i, at in ((3, 5039), (3, 256), (5, 0), (5, chunk - 1)):
            spoilt = [a.copy() for a in arrays]
            spoilt[i].flat[at] = bad
            np.testing.assert_equal(CPU.power_sum(spoilt, power), np.array(np.abs(bad)))


def test_whole_numbers_add_up_to_the_bit() -> None:
    for sizes in ([optim.LARGE], [optim.CHUNK - 1, optim.CHUNK, optim.CHUNK + 1], [255, 256, 257, 5000], [3 * optim.CHUNK + 7]):
        for dtype in FLOATS:
            arrays = [(np.arange(size) % 37 - 11 - i).astype(dtype) for i, size in enumerate(sizes)]
            for power in (1.0, 2.0, np.inf):
                assert CPU.power_sum(arrays, power) == REFERENCE.power_sum(arrays, power)


# -- what holds for all of them -------------------------------------------------------------------------------------------------------


def overrides() -> list[str]:
    return sorted(name for name in vars(Kernels) | dict(inspect.getmembers(Kernels, inspect.isfunction)) if changed(name))


def changed(name: str) -> bool:
    return not name.startswith("_") and getattr(CpuKernels, name, None) is not getattr(Kernels, name, None)


def test_every_override_is_in_these_tests_and_has_the_signature_of_the_reference() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    names = [name for name in overrides() if callable(getattr(Kernels, name))]
    assert len(names) >= 24
    for name in names:
        assert source.count(f'"{name}"') >= 2, f"{name} is not compared with the reference"
        assert inspect.signature(getattr(CpuKernels, name)) == inspect.signature(getattr(Kernels, name)), name


def test_a_fast_kernel_is_documented_by_the_reference() -> None:
    for name in overrides():
        if callable(getattr(Kernels, name)):
            assert inspect.getdoc(getattr(CpuKernels, name)), name


@pytest.fixture
def restore_threads() -> Iterator[None]:
    before = threads.num_threads()
    yield
    threads.set_num_threads(before)


def everything(rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """(name, result) of each kernel, on arrays that are split among threads, with real rounding errors."""

    def images(*shape: int) -> np.ndarray:
        return laid_out(rng.standard_normal(shape, dtype="f4"), "channels-last")

    for c, o, window, size in (
        (24, 40, Window((3, 3), padding=(1, 1)), (50, 61)),
        (200, 160, Window((3, 3), padding=(1, 1)), (17, 20)),
        (24, 40, Window((3, 2), (2, 1), (1, 1)), (50, 61)),
        (12, 24, Window((2, 2), (2, 2)), (64, 40)),
        (600, 250, Window((3, 3), padding=(1, 1)), (7, 5)),
        (40, 300, Window((1, 1)), (20, 30)),
    ):
        out = window.positions(size)
        x, y, w = images(2, c, *size), images(2, o, *out), rng.standard_normal((o, c, *window.kernel), dtype="f4")
        yield "conv2d", CPU.conv2d(x, w, None, window, out)
        scale, offset = rng.standard_normal((2, o), dtype="f4")
        yield "conv2d_affine", CPU.conv2d_affine(x, w, scale, offset, True, window, out)
        yield "conv_transpose2d", CPU.conv_transpose2d(y, w, None, window, size)
        yield "conv2d_weight", CPU.conv2d_weight(x, y, window)
        cols = CPU.im2col(x, window, out)
        yield "im2col", cols
        yield "col2im", CPU.col2im(cols, window, size)
    window, x = Window((3, 2), (2, 2), (1, 0)), images(2, 30, 80, 60)
    out = window.positions((80, 60))
    best, taps = CPU.max_pool2d(x, window, out)
    g, weight = images(2, 30, *out), rng.random(out, dtype="f4")
    indices = CPU.plane_indices(taps, window, (80, 60))
    yield from (("max_pool2d", best), ("max_pool2d", taps), ("plane_indices", indices))
    yield from (("pool_gather", CPU.pool_gather(x, taps, window)), ("pool_scatter", CPU.pool_scatter(g, taps, window, (80, 60))))
    yield from (("gather", CPU.gather(x, indices)), ("scatter", CPU.scatter(g, indices, (80, 60))))
    yield "avg_pool2d", CPU.avg_pool2d(x, window, weight)
    yield "avg_pool2d_adjoint", CPU.avg_pool2d_adjoint(g, window, weight, (80, 60))
    yield from (("sum", CPU.sum(x, (0, 2, 3))), ("sum", CPU.sum(x, (0, 1, 2, 3))))
    yield "concatenate", CPU.concatenate([x, x], 1)
    yield "channels", CPU.channels(x, 1, 2)
    mean, variance = CPU.batch_norm_stats(x)
    of_class = rng.standard_normal(30, dtype="f4")
    yield from (("batch_norm_stats", mean), ("batch_norm_stats", variance))
    yield "batch_norm_track", CPU.batch_norm_track(mean, variance, 7, 0.1, 0.1, mean.copy(), mean.copy())
    yield "batch_norm_apply", CPU.batch_norm_apply(x, mean, 1 / variance, of_class, of_class)
    yield from (("batch_norm_grad", v) for v in CPU.batch_norm_grad(x * x, x, mean, 1 / variance, of_class))
    clean, wrong = CPU.clean_target(taps_of(x), 29, 3)
    yield from (("clean_target", clean), ("clean_target", wrong), ("at_class", CPU.at_class(of_class, clean)))
    losses, top, logs = CPU.cross_entropy(x, taps_of(x), of_class, 0.1)
    yield from (("cross_entropy", losses), ("cross_entropy", logs))
    yield "cross_entropy_grad", CPU.cross_entropy_grad(losses, x, top, logs, taps_of(x), of_class, 0.1)
    p, state, square = images(300, 40, 7, 5), images(300, 40, 7, 5), np.abs(images(300, 40, 7, 5))
    CPU.sgd_step(p, square, state, False, SgdRule(0.1, 0.9, 0.0, 0.1))
    yield from (("sgd_step", p.copy()), ("sgd_step", state.copy()))
    CPU.adam_step(p, p * 2, state, square, None, 2, AdamRule(0.1, 0.9, 0.99, 1e-3, 0.1, True))
    yield from (("adam_step", p), ("adam_step", state), ("adam_step", square))
    yield from (("power_sum", CPU.power_sum([p, losses, state[:3], square, of_class], power)) for power in (1.0, 2.0, np.inf))
    yield from (("relu", CPU.relu(x)), ("relu_grad", CPU.relu_grad(x[:1], best[:1].mean() * x[:1])))


def taps_of(x: np.ndarray) -> np.ndarray:
    """A class for each pixel."""
    return x.argmax(1)


@pytest.mark.usefixtures("restore_threads")
def test_the_same_bits_with_any_number_of_threads_and_in_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """1, 2, 3 and 7 threads, each twice, and parts that are much smaller than they would be: work is cut by shape alone."""
    monkeypatch.setattr(threads, "WORTH", 1 << 10)
    first: list[tuple[str, np.ndarray]] = []
    for count in (1, 2, 3, 7, 2, 1):
        threads.set_num_threads(count)
        results = list(everything(np.random.default_rng(7)))
        first = first or results
        for (name, got), (_, expected) in zip(results, first, strict=True):
            np.testing.assert_array_equal(got, expected, err_msg=f"{name} with {count} threads")


def test_kernels_may_be_called_from_several_threads_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "WORTH", 1 << 10)
    expected = list(everything(np.random.default_rng(3)))
    failures: list[str] = []

    def run() -> None:
        for (name, got), (_, right) in zip(everything(np.random.default_rng(3)), expected, strict=True):
            if not np.array_equal(got, right):
                failures.append(name)

    callers = [threading.Thread(target=run) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not failures


def test_the_first_calls_of_a_process_may_come_from_several_threads_at_once() -> None:
    """They import numba, some by way of one of its modules and some by way of another."""
    code = (
        "import threading\nfrom minidcnn.window import Window\nx, w, window = np.ones((1, 8, 40, 40), 'f4'), np.ones((8, 8, 3, 3), 'f4'), Window((3, 3))\n"
        "k, gate, done = kernels(), threading.Barrier(4), []\n"
        "def run(i):\n    gate.wait()\n    y = k.conv2d(x, w, None, window, (38, 38)) if i % 2 else k.im2col(x, window, (38, 38))\n    done.append(y.shape)\n"
        "callers = [threading.Thread(target=run, args=(i,)) for i in range(4)]\nfor t in callers: t.start()\nfor t in callers: t.join()\nprint(len(done))"
    )
    ran = python(code)
    assert ran.stdout.strip() == "4", ran.stderr


@pytest.mark.usefixtures("restore_threads")
@pytest.mark.parametrize("count", [1, 2, 3])
def test_parallel_covers_the_range_once(count: int) -> None:
    threads.set_num_threads(count)
    for total in (0, 1, 5, 1000):
        seen: list[int] = []
        threads.parallel(lambda a, b: seen.extend(range(a, b)), total)  # noqa: B023
        assert sorted(seen) == list(range(total))


@pytest.mark.usefixtures("restore_threads")
def test_an_error_in_a_part_reaches_the_caller() -> None:
    threads.set_num_threads(3)

    def work(start: int, stop: int) -> None:
        raise RuntimeError(f"part {start}")

    with pytest.raises(RuntimeError, match="part"):
        threads.parallel(work, 100)


@pytest.mark.usefixtures("restore_threads")
def test_an_error_in_another_thread_reaches_the_caller_and_the_pool_goes_on() -> None:
    threads.set_num_threads(2)
    main, seen = threading.get_ident(), threading.Event()

    def work(start: int, stop: int) -> None:
        if threading.get_ident() != main:
            seen.set()
            raise FloatingPointError("in a helper")
        seen.wait(60)

    for _ in range(2):
        seen.clear()
        with pytest.raises(FloatingPointError, match="in a helper"):
            threads.parallel(work, 2)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="nothing interrupts a thread that waits")
@pytest.mark.usefixtures("restore_threads")
def test_an_interrupt_waits_for_the_threads_that_write_to_the_callers_memory() -> None:
    threads.set_num_threads(2)
    main, inside, interrupted, done = threading.main_thread(), threading.Event(), threading.Event(), threading.Event()

    def interrupt(signum: int, frame: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    def work(start: int, stop: int) -> None:
        if threading.current_thread() is main:
            inside.wait(60)
            return
        inside.set()
        time.sleep(0.1)  # the caller has nothing left to do and waits
        signal.pthread_kill(main.ident or 0, signal.SIGINT)
        interrupted.wait(60)
        time.sleep(0.1)
        done.set()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            threads.parallel(work, 2)
        assert interrupted.is_set() and done.is_set()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("restore_threads")
def test_nobody_goes_on_for_a_caller_who_was_interrupted_while_calling_for_help(monkeypatch: pytest.MonkeyPatch) -> None:
    threads.set_num_threads(2)
    calls: list[Callable[[], object]] = []

    class Interrupted:
        def put(self, call: Callable[[], object]) -> None:
            calls.append(call)
            raise KeyboardInterrupt

    monkeypatch.setattr(threads, "_pool", Interrupted)
    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        threads.parallel(lambda a, b: seen.append(a), 4)
    for call in calls:
        call()
    assert len(calls) == 1 and not seen


@pytest.mark.usefixtures("restore_threads")
def test_threads_that_come_late_hold_no_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    threads.set_num_threads(2)
    late: SimpleQueue[Callable[[], object]] = SimpleQueue()  # nobody comes
    monkeypatch.setattr(threads, "_pool", lambda: late)
    array = np.ones(4)
    held = weakref.ref(array)
    threads.parallel(lambda a, b, array=array: array[a:b].sum(), 4)
    del array
    assert held() is None and late.qsize() == 1
    late.get()()


@pytest.mark.usefixtures("restore_threads")
def test_settings_of_numpy_hold_in_all_threads() -> None:
    threads.set_num_threads(2)
    main, seen = threading.get_ident(), threading.Event()
    settings: list[str] = []

    def work(start: int, stop: int) -> None:
        settings.append(np.geterr()["divide"])
        if threading.get_ident() != main:
            seen.set()
        seen.wait(60)

    with np.errstate(divide="call"):
        threads.parallel(work, 2)
    assert seen.is_set() and settings == ["call"] * 2


@pytest.mark.usefixtures("restore_threads")
def test_small_work_is_not_split() -> None:
    threads.set_num_threads(2)
    for count, each, parts in (
        (100, 1, 1),
        (100, threads.WORTH / 100, 1),
        (100, threads.WORTH / 50, 2),
        (3, threads.WORTH, 3),
        (10**6, 1e6, 8),
    ):
        seen: list[tuple[int, int]] = []
        threads.parallel(lambda a, b: seen.append((a, b)), count, each)  # noqa: B023
        assert len(seen) == parts, (count, each)


@pytest.mark.usefixtures("restore_threads")
def test_threads_of_a_pool_that_is_replaced_go_home() -> None:
    for count in (4, 2, 3):
        threads.set_num_threads(count)
        threads.parallel(lambda a, b: None, 100)
    threads.set_num_threads(1)
    pool = [t for t in threading.enumerate() if t.name.startswith("minidcnn")]
    for thread in pool:
        thread.join(60)
    assert not any(thread.is_alive() for thread in pool)


def test_a_gradient_holds_no_more_memory_than_its_own(rng: np.random.Generator) -> None:
    """Partial sums are thrown away."""
    for window, size in (
        (Window((2, 2), (2, 2)), (128, 130)),
        (Window((7, 5), padding=(3, 2)), (90, 64)),
        (Window((5, 3), dilation=(1, 2)), (120, 99)),
    ):
        x, y = whole(rng, (2, 8, *size), "f4"), whole(rng, (2, 16, *window.positions(size)), "f4")
        owner = CPU.conv2d_weight(x, y, window)
        while owner.base is not None:
            owner = owner.base
        assert owner.size == 16 * 8 * window.taps


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_the_child_of_a_fork_has_threads_of_its_own() -> None:
    code = (
        "import os\nthreads.set_num_threads(2)\nthreads.parallel(lambda a, b: None, 100)\nchild = os.fork()\nseen = []\n"
        "threads.parallel(lambda a, b: seen.extend(range(a, b)), 100)\nassert sorted(seen) == list(range(100))\n"
        "if child == 0: os._exit(0)\nprint(os.waitpid(child, 0)[1])"
    )
    assert python(code).stdout.strip() == "0"


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`code` in another process, after the imports that all of these need."""
    environment = {k: v for k, v in os.environ.items() if k not in ("MINIDCNN_NUM_THREADS", "NUMBA_CACHE_DIR")} | variables
    start = "import numpy as np\nfrom minidcnn.backend import kernels\nfrom minidcnn.backend.cpu import threads\n"
    return subprocess.run([sys.executable, "-c", start + code], env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_environment_sets_the_number_of_threads() -> None:
    code = "import threading\nkernels().relu(np.ones((2, 64, 99, 99), 'f4'))\nprint(threads.num_threads(), threading.active_count())"
    assert python(code, MINIDCNN_NUM_THREADS="1").stdout.split() == ["1", "1"]
    assert python(code, MINIDCNN_NUM_THREADS="3").stdout.split() == ["3", "3"]
    for wrong in ("0", "two", "-1"):
        message = f"MINIDCNN_NUM_THREADS must be a whole number of threads, at least 1, got '{wrong}'"
        assert message in python(code, MINIDCNN_NUM_THREADS=wrong).stderr


def test_without_a_variable_it_is_all_that_the_process_may_use() -> None:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert python("print(threads.num_threads())").stdout.strip() == str(count)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="this is about glibc")
@pytest.mark.parametrize(
    ("text", "size"), [("1280K\n", 1280 << 10), ("2M", 2 << 20), ("49152", 49152), ("", 1 << 20), ("?", 1 << 20), (None, 1 << 20)]
)
def test_the_size_of_the_cache(text: str | None, size: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "size").write_text(text or "")
    where = tmp_path / ("size" if text is not None else "nowhere")
    monkeypatch.setattr(memory, "Path", lambda _: where)
    assert memory.second_level_cache() == size


def test_empty_arrays_start_at_cache_lines() -> None:
    for shape, dtype in (((3, 5), np.float32), ((7,), np.float64), ((), np.uint8)):
        array = memory.empty(shape, dtype)
        assert array.shape == shape and array.dtype == dtype and array.ctypes.data % 64 == 0
        assert array.flags.c_contiguous and array.flags.writeable


def test_scratch_memory_holds_no_denormal_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses and counts that lay in fresh memory are denormal as float32; products with them take 20 times as long."""
    monkeypatch.setattr(memory, "empty", lambda shape: np.full(shape, 1e-40, np.float32))
    scratch = memory.Scratch()
    assert not scratch("a", 7).any()
    scratch("a", 7)[...] = 3
    assert (scratch("a", 5) == 3).all() and not scratch("a", 8).any()


def test_freed_memory_is_used_again_unless_the_environment_says_otherwise() -> None:
    code = (
        "import resource, platform\nkernels()\n"
        "def faults():\n    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for turn in range(12):\n    if turn == 6: before = faults()\n    held = [np.ones(1 << size, 'f4') for size in (18, 20, 22, 24)]\n    del held\n"
        "print(platform.libc_ver()[0], faults() - before)"
    )
    libc, kept = python(code).stdout.split()
    if libc != "glibc":
        pytest.skip("this is about glibc")
    fresh = int(python(code, MINIDCNN_KEEP_MEMORY="0").stdout.split()[1])
    mine = int(python(code, MALLOC_MMAP_THRESHOLD_="131072").stdout.split()[1])
    assert int(kept) * 4 < fresh and int(kept) * 4 < mine


def test_set_num_threads_needs_at_least_one() -> None:
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        threads.set_num_threads(0)


@pytest.mark.parametrize("cache", ["read-only", "no folder"])
def test_kernels_run_where_nothing_can_be_cached(cache: str, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    if cache == "read-only":
        folder.mkdir()
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    else:
        folder.write_text("a file, where a folder should be", encoding="utf-8")
    code = "x = kernels().relu(np.full((1, 64, 99, 99), -1, 'f4'))\nassert x.max() == 0 == x.min()\nprint('ran')"
    done = python(code, NUMBA_CACHE_DIR=str(folder))
    assert done.stdout.strip() == "ran", done.stderr


def test_a_cache_written_once_is_used_again(tmp_path: Path) -> None:
    code = "kernels().relu(np.ones((1, 64, 99, 99), 'f4'))"
    for _ in range(2):
        assert python(code, NUMBA_CACHE_DIR=str(tmp_path)).returncode == 0
    written = list(tmp_path.rglob("*.nbc"))
    assert len(written) == 1  # one kernel for one combination of types, found the second time


@pytest.mark.parametrize("rest", [b"cminidcnn.backend.cpu.memory\nGone\n.", b""], ids=["names a class that is gone", "is cut off"])
def test_an_index_of_the_cache_that_cannot_be_read_is_written_anew(rest: bytes, tmp_path: Path) -> None:
    code = "kernels().relu(np.ones((1, 64, 99, 99), 'f4'))"
    assert python(code, NUMBA_CACHE_DIR=str(tmp_path)).returncode == 0
    (index,) = tmp_path.rglob("*.nbi")
    sound = index.read_bytes()
    version = pickle.dumps(pickle.loads(sound))  # noqa: S301  # numba's, which comes first in the file
    index.write_bytes(version + rest)
    done = python(code, NUMBA_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert index.read_bytes() == sound


def test_the_plain_python_behind_a_kernel_gives_the_same(rng: np.random.Generator) -> None:
    """What numba compiled is what is written: the loops run as Python too."""
    x = rng.standard_normal(50, dtype="f4")
    x[:2] = np.nan, -0.0
    compiled, plain = np.empty_like(x), np.empty_like(x)
    elementwise.relu(x, compiled, 0, 50)
    function: Callable[..., None] = elementwise.relu.function
    function(x, plain, 0, 50)
    np.testing.assert_array_equal(compiled, plain)


@pytest.mark.parametrize(("variable", "value"), [("MINIDCNN_NUM_THREADS", "0"), ("MINIDCNN_CONV", "fft"), ("MINIDCNN_LANES", "12")])
def test_a_training_with_a_wrong_variable_ends_before_it_begins(variable: str, value: str, tmp_path: Path) -> None:
    """One sentence and no folder of a run."""
    command = [sys.executable, str(Path(__file__).parent.parent / "examples" / "train_unet.py"), "--out", str(tmp_path / "run")]
    done = subprocess.run(command, env=os.environ | {variable: value}, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    assert done.stderr.startswith(f"error: {variable} must be ") and done.stderr.count("\n") == 1
