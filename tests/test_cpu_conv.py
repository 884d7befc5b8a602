"""Convolution on the CPU: every algorithm, window, layout and dtype against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cpu_kernels import CPU, FLOATS, LAYOUTS, REFERENCE, both, geometries, seeds, whole
from hypothesis import given
from hypothesis import strategies as st

from minidcnn.backend import is_channels_last, nchw
from minidcnn.backend.cpu import algorithm, conv, conv_weight, product, winograd
from minidcnn.window import Window

Array = np.ndarray


@pytest.fixture(params=["few pixels", "blocks"])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small images take the way of large ones as well."""
    if request.param == "blocks":
        monkeypatch.setattr(conv, "FEW", 0)


@pytest.fixture
def gemm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(algorithm.VARIABLE, "gemm")


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
    ("shape", "dtype", "window", "groups", "expected"),
    [
        ((1, 16, 12, 4), "f4", Window((3, 3), padding=(1, 1)), 1, "winograd"),
        ((1, 16, 8, 4), "f4", Window((3, 3), padding=(1, 1)), 1, "gemm"),  # two tiles
        ((3, 16, 1, 1), "f4", Window((3, 3), padding=(1, 1)), 1, "winograd"),
        ((3, 15, 16, 16), "f4", Window((3, 3)), 1, "gemm"),
        ((3, 16, 16, 16), "f8", Window((3, 3)), 1, "gemm"),
        ((3, 16, 16, 16), "f4", Window((3, 3), (1, 2)), 1, "gemm"),
        ((3, 16, 16, 16), "f4", Window((3, 3), dilation=(2, 1)), 1, "gemm"),
        ((3, 16, 16, 16), "f4", Window((3, 3)), 2, "reference"),
    ],
)
def test_the_table_of_algorithms(shape, dtype, window, groups, expected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(algorithm.VARIABLE, raising=False)
    assert algorithm.algorithm(np.empty(shape, dtype), shape[1], window, groups) == expected


@pytest.mark.parametrize(("c", "o", "expected"), [(16, 2, [1, 0, 0]), (2, 16, [0, 1, 0]), (16, 16, [1, 1, 1]), (15, 15, [0, 0, 0])])
def test_winograd_is_for_many_channels_that_are_summed_over(c: int, o: int, expected: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Channels are summed over forward, those of the result transposed; a weight's gradient has both as its sides."""
    monkeypatch.delenv(algorithm.VARIABLE, raising=False)
    called, window, size = [0, 0, 0], Window((3, 3), padding=(1, 1)), (9, 11)

    class Counter:
        def conv2d(self, x: Array, w: Array, *rest: Any, **_: Any) -> Array:
            called[0] += 1
            return x[:, :1]

        def conv_transpose2d(self, y: Array, w: Array, *rest: Any) -> Array:
            called[1] += 1
            return y[:, :1]

        def conv2d_weight(self, x: Array, y: Array, *rest: Any) -> Array:
            called[2] += 1
            return x[:, :1]

    monkeypatch.setattr(conv, "_winograd", Counter)
    x, y, w = np.zeros((1, c, *size), "f4"), np.zeros((1, o, *size), "f4"), np.zeros((o, c, 3, 3), "f4")
    CPU.conv2d(x, w, None, window, size)
    CPU.conv_transpose2d(y, w, None, window, size)
    CPU.conv2d_weight(x, y, window)
    assert called == expected


@pytest.mark.parametrize("o", [1, 2, 3, 5, 11, 15])
@pytest.mark.parametrize(("c", "size"), [(64, (12, 150)), (16, (20, 33)), (32, (9, 20))])  # lines that L1 does not hold, short ones
def test_few_results_of_many_channels_are_exact(o: int, c: int, size: tuple[int, int], rng: np.random.Generator) -> None:
    """The last layer of a network: its channels are the classes. Sums of whole numbers have no rounding."""
    window = Window((3, 3), padding=(1, 1))
    x, y, w = (nchw(rng.integers(-3, 4, (1, *s)).astype("f4")) for s in ((*size, c), (*size, o), (3, 3, c)))
    w = np.repeat(w, o, 0) * np.arange(1, o + 1, dtype="f4").reshape(-1, 1, 1, 1)
    np.testing.assert_array_equal(CPU.conv2d_weight(x, y, window), REFERENCE.conv2d_weight(x, y, window))
    expected = REFERENCE.conv2d(x, w, None, window, size)
    np.testing.assert_allclose(CPU.conv2d(x, w, None, window, size), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


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
