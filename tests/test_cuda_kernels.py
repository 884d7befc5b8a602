"""The CUDA kernels against the reference, run on the CPU by the simulator: geometries, dtypes, thread orders, and in check mode."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest
from cpu_kernels import means_keep_their_digits
from hypothesis import given
from hypothesis import strategies as st
from simulated import simulated, why_not

from minidcnn.backend import Kernels, nchw, sum_dtype
from minidcnn.backend.axis_map import AxisMap
from minidcnn.backend.cuda import CudaKernels, base, launcher, source
from minidcnn.backend.reference.pool import first_taps
from minidcnn.testing import Conv, Pool, convs, integers, lay_out, layouts, pools, seeds, stored_dtypes
from minidcnn.window import Window

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "runs")

REFERENCE = Kernels(np)
Array = np.ndarray[Any, Any]

# How the simulator runs the threads: forwards, backwards, at random; and once with every access checked.
orders = st.sampled_from([{"order": 0}, {"order": 1}, {"order": 2}, {"mode": "check", "order": 0}, {"mode": "check", "order": 2}])


def same(result: Any, expected: Any) -> None:
    """Equal numbers, bit for bit (the data are whole numbers), and equal shapes and dtypes."""
    results, wanted = (r if isinstance(r, tuple) else (r,) for r in (result, expected))
    for a, b in zip(results, wanted, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@given(case=convs(), dtype=stored_dtypes, layout=layouts, order=orders, seed=seeds)
def test_convolution(case: Conv, dtype: Any, layout: str, order: dict[str, Any], seed: int) -> None:
    kernels = simulated(**order)
    out = case.window.positions(case.size)
    x, w, y = (lay_out(integers(shape, seed + i, dtype), layout) for i, shape in enumerate((case.x, case.w, case.y)))
    bias, back = integers((case.outputs,), seed, dtype), integers((case.channels,), seed, dtype)
    for b in (bias, None):
        same(kernels.conv2d(x, w, b, case.window, out, case.groups), REFERENCE.conv2d(x, w, b, case.window, out, case.groups))
    scale = integers((case.outputs,), seed + 3, dtype)
    for relu in (False, True):
        affine = (x, w, scale, bias, relu, case.window, out, case.groups)
        same(kernels.conv2d_affine(*affine), REFERENCE.conv2d_affine(*affine))
    for b in (back, None):
        arguments = (y, w, b, case.window, case.size, case.groups)
        same(kernels.conv_transpose2d(*arguments), REFERENCE.conv_transpose2d(*arguments))
    same(kernels.conv2d_weight(x, y, case.window, case.groups), REFERENCE.conv2d_weight(x, y, case.window, case.groups))


@given(case=convs(), dtype=stored_dtypes, layout=layouts, order=orders, seed=seeds)
def test_im2col_and_col2im(case: Conv, dtype: Any, layout: str, order: dict[str, Any], seed: int) -> None:
    kernels = simulated(**order)
    out, x = case.window.positions(case.size), lay_out(integers(case.x, seed, dtype), layout)
    cols = REFERENCE.im2col(x, case.window, out)
    same(kernels.im2col(x, case.window, out), cols)
    same(kernels.col2im(cols, case.window, case.size), REFERENCE.col2im(cols, case.window, case.size))


@given(case=pools(), dtype=stored_dtypes, layout=layouts, order=orders, seed=seeds)
def test_pooling(case: Pool, dtype: Any, layout: str, order: dict[str, Any], seed: int) -> None:
    kernels = simulated(**order)
    out = case.window.positions(case.size)
    x, g = (
        lay_out(integers(case.x, seed, dtype), layout),
        lay_out(integers(case.y, seed + 1, dtype), layout),
    )  # whole numbers: with many ties
    y, taps = REFERENCE.max_pool2d(x, case.window, out)
    same(kernels.max_pool2d(x, case.window, out), (y, taps))
    same(kernels.pool_gather(x, taps, case.window), REFERENCE.pool_gather(x, taps, case.window))
    same(kernels.pool_scatter(g, taps, case.window, case.size), REFERENCE.pool_scatter(g, taps, case.window, case.size))
    weight = (integers(out, seed + 2, sum_dtype(dtype)) + 5) / 4
    same(kernels.avg_pool2d(x, case.window, weight), REFERENCE.avg_pool2d(x, case.window, weight))
    arguments = (g, case.window, weight, case.size)
    same(kernels.avg_pool2d_adjoint(*arguments), REFERENCE.avg_pool2d_adjoint(*arguments))


@given(case=pools(), dtype=stored_dtypes, layout=layouts, order=orders, seed=seeds)
def test_gather_and_scatter_at_indices_that_repeat(case: Pool, dtype: Any, layout: str, order: dict[str, Any], seed: int) -> None:
    kernels = simulated(**order)
    x, y = lay_out(integers(case.x, seed, dtype), layout), lay_out(integers(case.y, seed + 1, dtype), layout)
    indices = np.random.default_rng(seed).integers(0, case.size[0] * case.size[1], case.y)
    same(kernels.gather(x, indices), REFERENCE.gather(x, indices))
    same(kernels.scatter(y, indices, case.size), REFERENCE.scatter(y, indices, case.size))


@st.composite
def axis_maps(draw: st.DrawFn) -> AxisMap:
    """A sparse map with rows of no, one and several taps, and weights in quarters or none."""
    size, counts = draw(st.integers(1, 6)), draw(st.lists(st.integers(0, 3), min_size=1, max_size=7))
    indices = draw(st.lists(st.integers(0, size - 1), min_size=sum(counts), max_size=sum(counts)))
    weights = np.arange(1, len(indices) + 1) / 4 if draw(st.booleans()) else None
    return AxisMap(size, np.concatenate([[0], np.cumsum(counts)]), np.array(indices, np.int64), weights)


@given(rows=axis_maps(), columns=axis_maps(), dtype=stored_dtypes, layout=layouts, order=orders, seed=seeds)
def test_maps_along_axes(rows: AxisMap, columns: AxisMap, dtype: Any, layout: str, order: dict[str, Any], seed: int) -> None:
    kernels = simulated(**order)
    channels = 3 + seed % 2 * 5  # no run of 16 bytes, or some
    x = lay_out(integers((2, channels, rows.size, columns.size), seed, dtype), layout)
    same(kernels.resample(x, rows, columns), REFERENCE.resample(x, rows, columns))
    y = integers((2, channels, rows.outputs, columns.outputs), seed, dtype)
    same(kernels.resample(y, rows.transposed, columns.transposed), REFERENCE.resample(y, rows.transposed, columns.transposed))


@pytest.mark.parametrize("channels", [1, 3, 33, 150])
@pytest.mark.parametrize("dilation", [1, 2])
def test_pooling_of_many_channels_and_columns(channels: int, dilation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of both than the threads of a block; and more of both than blocks, of which there are few here."""
    window, size = Window((3, 2), (2, 1), (1, 0), (1, dilation)), (6, 300)
    out = window.positions(size)
    x, g = integers((2, channels, *size), 0, np.float32), integers((2, channels, *out), 1, np.float32)
    weight, (y, taps) = integers(out, 2, np.float32), REFERENCE.max_pool2d(x, window, out)
    for most in (65535, 1):
        monkeypatch.setattr(base, "MOST", most)
        kernels = simulated(mode="check", order=2)
        same(kernels.max_pool2d(x, window, out), (y, taps))
        same(kernels.pool_gather(x, taps, window), REFERENCE.pool_gather(x, taps, window))
        same(kernels.pool_scatter(g, taps, window, size), REFERENCE.pool_scatter(g, taps, window, size))
        same(kernels.avg_pool2d(x, window, weight), REFERENCE.avg_pool2d(x, window, weight))
        same(kernels.avg_pool2d_adjoint(g, window, weight, size), REFERENCE.avg_pool2d_adjoint(g, window, weight, size))
        rows, columns = (AxisMap(n, np.arange(0, 2 * n + 1, 2), np.arange(2 * n) * 3 % n, np.arange(2 * n) / 4) for n in size)
        same(kernels.resample(x, rows, columns), REFERENCE.resample(x, rows, columns))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [5, 8, 24, 264])  # no run, one, some and more than the threads of a block have across
@pytest.mark.parametrize(
    ("window", "own"),
    [
        (Window((2, 2), (2, 2)), True),
        (Window((2, 2), (2, 2), ceil_mode=True), True),
        (Window((3, 3), (2, 2), ceil_mode=True), True),
        (Window((3, 3), (2, 1)), False),
        (Window((3, 3), (2, 2), (1, 0)), False),
    ],
)
def test_usual_windows_have_kernels_of_their_own(window: Window, own: bool, channels: int, dtype: Any) -> None:
    """The same numbers, from channels in runs of 16 bytes where they come in such."""
    kernels, compiled = simulated(mode="check", order=2), []
    function = kernels.launcher.function
    kernels.launcher.function = lambda file, kernel, dtype, defines: (compiled.extend(defines), function(file, kernel, dtype, defines))[1]
    size = 7, 8
    out = window.positions(size)
    x, g = nchw(integers((2, *size, channels), 0, dtype)), nchw(integers((2, *out, channels), 1, dtype))
    y, taps = REFERENCE.max_pool2d(x, window, out)
    same(kernels.max_pool2d(x, window, out), (y, taps))
    same(kernels.pool_gather(x, taps, window), REFERENCE.pool_gather(x, taps, window))
    same(kernels.pool_scatter(g, taps, window, size), REFERENCE.pool_scatter(g, taps, window, size))
    assert any(d.startswith("WINDOW=") for d in compiled) is own
    weight = (integers(out, 2, sum_dtype(np.dtype(dtype))) + 5) / 4
    same(kernels.avg_pool2d(x, window, weight), REFERENCE.avg_pool2d(x, window, weight))
    same(kernels.avg_pool2d_adjoint(g, window, weight, size), REFERENCE.avg_pool2d_adjoint(g, window, weight, size))
    assert ("WIDE=1" in compiled) is (channels % 8 == 0)


@pytest.mark.parametrize(("kernel", "tap"), [((16, 16), np.uint8), ((1, 257), np.uint16), ((256, 257), np.uint32)])
def test_pooling_whatever_the_number_of_taps(kernel: tuple[int, int], tap: Any) -> None:
    """The winner is the window's last tap but two, whose number needs all bytes that a tap has."""
    window, size = Window(kernel, kernel), (kernel[0], 2 * kernel[1])
    x, last = np.zeros((1, 2, *size), np.float32), window.taps - 3
    x[0, 1, kernel[0] - 1, 2 * kernel[1] - 3] = 1  # in the second window
    expected = REFERENCE.max_pool2d(x, window, (1, 2))
    assert expected[1].dtype == tap and expected[1].ravel().tolist() == [0, 0, 0, last]
    kernels = simulated(mode="check")
    same(kernels.max_pool2d(x, window, (1, 2)), expected)
    same(kernels.pool_gather(x, expected[1], window), REFERENCE.pool_gather(x, expected[1], window))
    same(kernels.pool_scatter(*expected, window, size), REFERENCE.pool_scatter(*expected, window, size))


def test_means_over_large_windows_keep_their_digits() -> None:
    means_keep_their_digits(simulated())


def test_windows_in_the_padding_are_refused_and_looked_for_once() -> None:
    kernels, x = simulated(), np.zeros((1, 2, 7, 5), np.float32)
    with pytest.raises(ValueError, match="max_pool2d: window 0 along the width touches padding only"):
        kernels.max_pool2d(x, Window((1, 2), padding=(0, 3)), (7, 10))
    looked, window = first_taps.cache_info().misses, Window((3, 2), (2, 2), (1, 0))
    for _ in range(3):
        kernels.max_pool2d(x, window, (4, 2))
    assert first_taps.cache_info().misses <= looked + 1


def test_nan_and_infinities_win_as_in_the_reference() -> None:
    x = np.full((1, 2, 4, 6), -np.inf, np.float32)
    x[0, 0, 1, 1] = np.nan
    x[0, 1, 3, 5] = np.inf
    window = Window((2, 3), (2, 3))
    same(simulated(mode="check").max_pool2d(x, window, (2, 2)), REFERENCE.max_pool2d(x, window, (2, 2)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_results_larger_than_a_tile(rng: np.random.Generator, dtype: Any) -> None:
    """Several tiles in each direction, the tile of 128 as well as that of 64, and a weight gradient in several parts."""
    window = Window((3, 3), padding=(1, 1))
    x, w = rng.integers(-3, 4, (2, 17, 30, 34)).astype(dtype), rng.integers(-3, 4, (70, 17, 3, 3)).astype(dtype)
    y = rng.integers(-3, 4, (2, 70, 30, 34)).astype(dtype)
    for large in (False, True):
        kernels = simulated(order=2)
        if large:
            kernels.tile = lambda *_: ((128, 128), ("SMALL=0", "TENSOR=0"))  # type: ignore[method-assign]
        same(kernels.conv2d(x, w, None, window, (30, 34)), REFERENCE.conv2d(x, w, None, window, (30, 34)))
        same(kernels.conv_transpose2d(y, w, None, window, (30, 34)), REFERENCE.conv_transpose2d(y, w, None, window, (30, 34)))
        same(kernels.conv2d_weight(x, y, window), REFERENCE.conv2d_weight(x, y, window))


@given(case=convs(), layout=layouts, order=orders, seed=seeds, precision=st.sampled_from(["tf32", "bf16"]))
def test_convolution_on_tensor_cores(case: Conv, layout: str, order: dict[str, Any], seed: int, precision: str) -> None:
    """Small whole numbers are exact in tf32 and bf16, and their sums in float32: the results are the reference's, bit for bit."""
    kernels = simulated(precision=precision, **order)
    out = case.window.positions(case.size)
    x, w, y = (lay_out(integers(shape, seed + i, np.float32), layout) for i, shape in enumerate((case.x, case.w, case.y)))
    same(kernels.conv2d(x, w, None, case.window, out, case.groups), REFERENCE.conv2d(x, w, None, case.window, out, case.groups))
    arguments = (y, w, None, case.window, case.size, case.groups)
    same(kernels.conv_transpose2d(*arguments), REFERENCE.conv_transpose2d(*arguments))
    same(kernels.conv2d_weight(x, y, case.window, case.groups), REFERENCE.conv2d_weight(x, y, case.window, case.groups))


@pytest.mark.parametrize(("precision", "bits"), [("tf32", 10), ("bf16", 7)])
def test_tensor_cores_round_the_factors_and_nothing_else(rng: np.random.Generator, precision: str, bits: int) -> None:
    x, w = rng.standard_normal((1, 40, 9, 12)).astype(np.float32), rng.standard_normal((20, 40, 3, 3)).astype(np.float32)
    window = Window((3, 3), padding=(1, 1))

    def rounded(a: Array) -> Array:
        mantissa, exponent = np.frexp(a.astype(np.float64))
        scaled = mantissa * 2.0 ** (bits + 1)
        nearest = (
            np.round(scaled) if precision == "bf16" else np.trunc(scaled + np.copysign(0.5, scaled))
        )  # ties to even, or away from zero
        return np.ldexp(nearest / 2.0 ** (bits + 1), exponent)

    y = simulated(precision=precision).conv2d(x, w, None, window, (9, 12))
    np.testing.assert_allclose(y, REFERENCE.conv2d(rounded(x), rounded(w), None, window, (9, 12)), rtol=0, atol=2e-4)
    exact = REFERENCE.conv2d(x, w, None, window, (9, 12))
    assert abs(y - exact).max() > 2.0 ** -(bits + 4)  # it really rounded


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_tensor_core_results_larger_than_a_tile(rng: np.random.Generator, precision: str) -> None:
    window = Window((3, 3), padding=(1, 1))
    x, w = rng.integers(-3, 4, (1, 19, 14, 34)).astype(np.float32), rng.integers(-3, 4, (130, 19, 3, 3)).astype(np.float32)
    kernels = simulated(order=2, precision=precision)
    tensor = {"tf32": 1, "bf16": 2}[precision]
    kernels.tile = lambda *_: ((128, 128), ("SMALL=0", f"TENSOR={tensor}"))  # type: ignore[method-assign]
    same(kernels.conv2d(x, w, None, window, (14, 34)), REFERENCE.conv2d(x, w, None, window, (14, 34)))


def test_the_same_bits_in_every_order(rng: np.random.Generator) -> None:
    """Sums of fractions depend on the order of addition; ours is fixed, whatever the order of threads and blocks."""
    window = Window((3, 2), (2, 1), (1, 1))
    x, g = rng.standard_normal((2, 5, 19, 12)).astype(np.float32), rng.standard_normal((2, 8, 10, 13)).astype(np.float32)
    indices = rng.integers(0, 40, (2, 8, 10, 13))
    runs = []
    for settings in ({"order": 0}, {"order": 1}, {"order": 2, "seed": 1}, {"order": 2, "seed": 2, "host_threads": 2}):
        kernels = simulated(**settings)
        runs.append((kernels.conv2d_weight(x, g, window), kernels.scatter(g, indices, (5, 8))))
    for run in runs[1:]:
        same(run, runs[0])


def test_every_override_has_the_signature_of_the_reference() -> None:
    compared = 0
    for name, method in inspect.getmembers(Kernels, inspect.isfunction):
        own = getattr(CudaKernels, name)
        if own is not method and not name.startswith("__"):
            compared += 1
            assert inspect.signature(own) == inspect.signature(method), name
    assert compared > 8


def test_what_the_kernels_do_not_take_goes_to_the_reference() -> None:
    """Long doubles and empty arrays: no kernel is compiled, and the result is the reference's."""

    def refuse(**_: Any) -> Any:
        raise AssertionError("compiled a kernel")

    kernels, window = CudaKernels(np, refuse), Window((2, 2))
    long = np.arange(9, dtype=np.longdouble).reshape(1, 1, 3, 3)
    same(kernels.max_pool2d(long, window, (2, 2)), REFERENCE.max_pool2d(long, window, (2, 2)))
    empty = np.zeros((0, 2, 3, 3), np.float32)
    assert kernels.conv2d(empty, np.ones((4, 2, 2, 2), np.float32), None, window, (2, 2)).shape == (0, 4, 2, 2)


def test_what_is_too_large_to_count_in_32_bits_goes_to_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """The result alone is so in all of these: no kernel is compiled. Where one element more can be counted, the kernel is asked for."""
    window, small, out = Window((3, 2), (3, 2)), (6, 8), (2, 4)
    x, y = integers((1, 2, *small), 0, np.float32), integers((1, 2, *out), 1, np.float32)
    w, taps, weight = integers((3, 2, 3, 2), 2, np.float32), REFERENCE.max_pool2d(x, window, out)[1], np.ones(out, np.float32)
    indices, wide = np.zeros((1, 2, 7, 9), np.int64), Window((3, 2), padding=(1, 1))
    grown = wide.positions(small)
    columns = AxisMap(small[1], np.arange(10), np.arange(9) % small[1], None)
    calls: dict[str, tuple[int, tuple[Any, ...]]] = {  # elements of the result, arguments
        "max_pool2d": (2 * math.prod(grown), (x, wide, grown)),
        "pool_gather": (2 * math.prod(grown), (x, np.zeros((1, 2, *grown), np.uint8), wide)),
        "pool_scatter": (96, (y, taps, window, small)),
        "gather": (126, (x, indices)),
        "scatter": (126, (x, np.zeros(x.shape, np.int64), (7, 9))),
        "avg_pool2d": (2 * math.prod(grown), (x, wide, np.ones(grown, np.float32))),
        "avg_pool2d_adjoint": (96, (y, window, weight, small)),
        "im2col": (96, (x[:, :, :5], Window((3, 2), (2, 2)), (2, 4))),
        "col2im": (120, (np.ones((1, 2, 3, 2, 2, 4), np.float32), window, (10, 6))),
        "conv2d": (3 * math.prod(grown), (x, w, None, wide, grown)),
        "conv2d_affine": (3 * math.prod(grown), (x, w, *np.ones((2, 3), np.float32), False, wide, grown)),
        "conv_transpose2d": (96, (integers((1, 3, *out), 3, np.float32), w, None, window, small)),
        "conv2d_weight": (36, (x[:, :, :3, :4], integers((1, 3, 1, 3), 3, np.float32), Window((3, 2)))),
        "resample": (108, (x, AxisMap.identity(small[0]), columns)),
        "matmul": (72, (np.ones((9, 2), np.float32), np.ones((2, 8), np.float32))),
    }

    def refuse(**_: Any) -> Any:
        raise AssertionError("compiled a kernel")

    for name, (count, arguments) in calls.items():
        expected, kernels = getattr(REFERENCE, name)(*arguments), CudaKernels(np, refuse)
        assert (expected[0] if isinstance(expected, tuple) else expected).size == count, name
        assert all(a.size < count for a in arguments if isinstance(a, np.ndarray) and a.dtype.kind == "f"), name
        monkeypatch.setattr(launcher, "LIMIT", count)
        same(getattr(kernels, name)(*arguments), expected)
        monkeypatch.setattr(launcher, "LIMIT", count + 1)
        with pytest.raises(RuntimeError, match="compiled a kernel"):
            getattr(kernels, name)(*arguments)


def test_headers_are_part_of_the_source() -> None:
    """CuPy's cache knows a module by its text, so a changed header must change the text; each header stands in it once."""
    text = source.source("conv.cu")
    assert "#include" not in text
    assert text.count("struct Geometry {") == 1
    assert text.index("struct Geometry {") < text.index("struct Tile :") < text.index("conv_forward(")


def test_a_refused_launch_names_kernel_grid_and_arguments() -> None:
    kernels = simulated()
    with pytest.raises(
        RuntimeError, match=r"kernel max_pool of pool\.cu, grid \(1,\), block \(2048,\), arguments \(\(2, 3\), .*no GPU accepts"
    ):
        kernels.launcher.launch(
            (1,), (2048,), "pool.cu", "max_pool", "float32", *[np.zeros((2, 3), np.float32)] * 2, np.zeros(6, np.uint8), *[1] * 14
        )
    with pytest.raises(RuntimeError, match=r"kernel no_such_kernel of pool\.cu does not compile for float64: .* has no kernel"):
        kernels.launcher.function("pool.cu", "no_such_kernel", "float64")
    with pytest.raises(ValueError, match=r"argument 0: the array of shape \(3, 2\) must be C-contiguous"):
        kernels.launcher.over(6, "pool.cu", "scatter_sum", "float32", np.zeros((2, 3), np.float32).T, 1, 1, 1, 6)
    with pytest.raises(ValueError, match=r"argument 4: 4294967296 does not fit 32 bits"):
        kernels.launcher.over(6, "pool.cu", "scatter_sum", "float32", None, None, None, None, 1 << 32)
