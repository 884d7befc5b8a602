"""Matrix products by kernels/gemm.cu against the reference, on the simulator: shapes, strides, dtypes, precisions, and in check mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import ON_DEVICE, simulated, why_not

import minidcnn
from minidcnn import check_grads
from minidcnn import functional as F
from minidcnn.backend import Kernels
from minidcnn.backend.cuda import CudaKernels
from minidcnn.backend.cuda.base import TENSOR
from minidcnn.testing import integers, seeds, stored_dtypes
from minidcnn.window import Window

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "runs")
watched = pytest.mark.skipif(ON_DEVICE, reason="looks into simulated kernels")

REFERENCE = Kernels(np)
Array = np.ndarray[Any, Any]
orders = st.sampled_from([{"order": 0}, {"order": 1}, {"order": 2}, {"mode": "check", "order": 0}, {"mode": "check", "order": 2}])
sizes = st.sampled_from([1, 2, 3, 7, 17, 63, 64, 65, 70])
depths = st.sampled_from([1, 2, 5, 8, 9, 31, 300, 513, 0])
PERMUTED = ("C", "transposed", "batch last", "backwards")
LAYOUTS = (*PERMUTED, "sliced", "reversed")


def lay_out(array: Array, layout: str) -> Array:
    """`array`, lying in memory as `layout` says."""
    axes = list(range(array.ndim))
    if layout in ("sliced", "reversed"):
        larger = np.full([2 * n + 1 for n in array.shape], np.nan, array.dtype)
        view = larger[tuple(slice(1, 1 + 2 * n, 2) if layout == "sliced" else slice(n, 0, -1) for n in array.shape)]
        view[...] = array
        return view
    if layout == "transposed":
        axes[-2:] = axes[:-3:-1]
    elif layout == "batch last":
        axes = axes[1:] + axes[:1]
    elif layout == "backwards":
        axes = axes[::-1]
    return np.ascontiguousarray(array.transpose(axes)).transpose(np.argsort(axes))


@st.composite
def factors(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes (..., M, K) and (..., K, N) whose leading axes broadcast."""
    m, n, k = draw(sizes), draw(sizes), draw(depths)
    leading = draw(st.lists(st.sampled_from([1, 2, 3, 0]), max_size=3))
    own: list[tuple[int, ...]] = []
    for _ in range(2):
        axes = [1 if draw(st.integers(0, 3)) == 0 else size for size in leading]
        own.append(tuple(axes[draw(st.integers(0, len(axes))) if draw(st.booleans()) else 0 :]))
    return (*own[0], m, k), (*own[1], k, n)


def same(result: Array, expected: Array) -> None:
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected)


@given(
    shapes=factors(), layout=st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)), dtype=stored_dtypes, order=orders, seed=seeds
)
def test_products(shapes: Any, layout: tuple[str, str], dtype: Any, order: dict[str, Any], seed: int) -> None:
    a, b = (lay_out(integers(shape, seed + i, dtype), how) for i, (shape, how) in enumerate(zip(shapes, layout, strict=True)))
    same(simulated(**order).matmul(a, b), REFERENCE.matmul(a, b))


@st.composite
def whole_factors(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes whose axes are all multiples of 8: every run of 16 bytes is whole, whatever the layout."""
    m, n, k = (8 * draw(st.sampled_from(some)) for some in ([1, 2, 9], [1, 3, 9], [1, 2, 5, 40]))
    batches = draw(st.sampled_from([(), (8,), (16,)]))
    return (*batches, m, k), (*(batches if draw(st.booleans()) else ()), k, n)


@given(shapes=whole_factors(), layout=st.tuples(st.sampled_from(PERMUTED), st.sampled_from(PERMUTED)), dtype=stored_dtypes, late=st.booleans(),
       precision=st.sampled_from(["float32", "tf32x3", "tf32", "bf16"]), seed=seeds)  # fmt: skip
def test_whole_runs_are_copied_at_once(shapes: Any, layout: tuple[str, str], dtype: Any, late: bool, precision: str, seed: int) -> None:
    """By cp.async where the device can, else number by number: the same bits."""
    a, b = (lay_out(integers(shape, seed + i, dtype), to) for i, (shape, to) in enumerate(zip(shapes, layout, strict=True)))
    wanted = REFERENCE.matmul(a, b)
    for capability in ((8, 0), (7, 5)):
        kernels = simulated(precision=precision, late_copies=late, mode="check", order=2)
        kernels.launcher.capability = capability
        seen = defined(kernels)
        same(kernels.matmul(a, b), wanted)
        runs = all(v.strides[-1] == v.itemsize or v.strides[-2] == v.itemsize for v in (a, b))  # along k or along rows
        assert f"ASYNC={int(runs and capability == (8, 0))}" in seen


@pytest.mark.parametrize("gap", ["k", "rows", "columns", "address"])
def test_runs_that_are_not_whole_are_fetched_number_by_number(gap: str) -> None:
    m, n, k = (8 + 2 * (gap == name) for name in ("rows", "columns", "k"))
    a, b = integers((m * k + 1,), 0, np.float32), integers((k, n), 1, np.float32)
    a = a[1:] if gap == "address" else a[:-1].copy()
    a = a.reshape(k, m).T if gap == "rows" else a.reshape(m, k)
    kernels = simulated(mode="check")
    seen = defined(kernels)
    same(kernels.matmul(a, b), REFERENCE.matmul(a, b))
    if not (ON_DEVICE and gap == "address"):  # where arrays are moved to memory that is aligned
        assert "ASYNC=0" in seen


def defined(kernels: Any) -> set[str]:
    """The definitions of every launch from now on."""
    seen: set[str] = set()
    launch = kernels.launcher.launch

    def spy(*arguments: Any, defines: Any = (), **named: Any) -> None:
        seen.update(defines)
        launch(*arguments, defines=defines, **named)

    kernels.launcher.launch = spy
    return seen


@given(shapes=factors(), layout=st.sampled_from(PERMUTED), order=orders, seed=seeds, precision=st.sampled_from(["tf32x3", "tf32", "bf16"]))
def test_products_on_tensor_cores(shapes: Any, layout: str, order: dict[str, Any], seed: int, precision: str) -> None:
    """Small whole numbers are exact in tf32 and bf16: the results are the reference's, bit for bit."""
    a, b = (lay_out(integers(shape, seed + i, np.float32), layout) for i, shape in enumerate(shapes))
    same(simulated(precision=precision, **order).matmul(a, b), REFERENCE.matmul(a, b))
    a, b = a.astype(np.float64) / 3, b.astype(np.float64)
    np.testing.assert_allclose(simulated(precision=precision, **order).matmul(a, b), a @ b, rtol=1e-12, atol=1e-12)  # float64 stays float64


def test_tensor_cores_round_the_factors(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((2, 20, 40)).astype(np.float32), rng.standard_normal((40, 24)).astype(np.float32)
    exact = a.astype(np.float64) @ b
    errors = [float(abs(simulated(precision=p).matmul(a, b) - exact).max()) for p in ("float32", "tf32", "bf16")]
    assert errors[0] < 1e-5 < 10 * errors[0] < errors[1] < 0.02 and 3 * errors[1] < errors[2] < 0.2, errors


@pytest.mark.parametrize("precision", ["float32", "tf32x3", "tf32"])
def test_products_of_large_tiles(rng: np.random.Generator, precision: str) -> None:
    kernels = simulated(order=2, precision=precision)
    kernels.tile = lambda *_: ((128, 128), ("SMALL=0", f"TENSOR={TENSOR[precision]}"))
    a, b = rng.integers(-3, 4, (2, 130, 600)).astype(np.float32), rng.integers(-3, 4, (600, 131)).astype(np.float32)
    for left in (a, lay_out(a, "transposed")):
        for right in (b, lay_out(b, "transposed")):
            same(kernels.matmul(left, right), REFERENCE.matmul(left, right))


LARGE, TALL, SQUARE = ((128, 128), ("SMALL=0",)), ((128, 64), ("SMALL=1", "TALL=1")), ((64, 64), ("SMALL=1",))


@pytest.mark.parametrize(
    ("rows", "columns", "times", "expected"),
    [
        (1 << 15, 128, 1, LARGE),
        (1 << 15, 64, 1, TALL),  # few columns
        (1 << 15, 8, 1, TALL),
        (1024, 512, 1, SQUARE),  # few tiles
        (1024, 1152, 1, TALL),  # twice as many
        (512, 576, 32, LARGE),  # few tiles, but many parts of their sums
        (128, 64, 200, TALL),
        (64, 576, 200, SQUARE),  # half of each would be zeros
        (65, 65, 132, LARGE),
        (65, 65, 65, SQUARE),
    ],
)
def test_the_tile_by_the_work(rows: int, columns: int, times: int, expected: tuple[tuple[int, int], tuple[str, ...]]) -> None:
    """Large tiles only where there are enough of them; float64 has small ones only; wgmma takes the tiles of 128 rows."""
    kernels = CudaKernels(np, lambda **_: None, "bf16")
    kernels.launcher.capability = (9, 0)
    size, shape = expected
    for dtype, tensor in ((np.float32, "TENSOR=2"), (np.float16, "TENSOR=3"), (np.float64, "TENSOR=0")):
        found = kernels.tile(rows, columns, np.zeros(1, dtype), times)
        assert found == ((size, (*shape, tensor)) if dtype != np.float64 else ((64, 64), ("SMALL=1", tensor)))
        copied = (*found[1], "ASYNC=1")
        assert kernels.fastest(copied, along_k=False) == ((*copied, "WGMMA=1") if tensor == "TENSOR=3" and size[0] == 128 else copied)


@pytest.mark.skipif(ON_DEVICE, reason="launches nothing")
def test_parts_of_a_long_sum_count_for_the_tile() -> None:
    """One tile of 128 x 128, or four of 64 x 64, are few; split into parts of a long k they are many, and larger ones ask for less."""
    kernels, grids = simulated(), []
    kernels.launcher.launch = lambda grid, block, file, kernel, *rest, defines, **named: grids.append((kernel, grid, defines[0]))
    kernels.matmul(np.empty((128, 1 << 17), np.float32), np.empty((1 << 17, 128), np.float32))
    kernels.matmul(np.empty((128, 1 << 10), np.float32), np.empty((1 << 10, 128), np.float32))
    assert [launch for launch in grids if launch[0] == "gemm"] == [("gemm", (256,), "SMALL=0"), ("gemm", (16,), "SMALL=1")]


def test_the_same_bits_in_every_order(rng: np.random.Generator) -> None:
    """k is split into parts here, which are added up in their order."""
    a, b = rng.standard_normal((5, 3000)).astype(np.float32), rng.standard_normal((3000, 7)).astype(np.float32)
    runs = [simulated(**how).matmul(a, b) for how in ({"order": 0}, {"order": 1}, {"order": 2, "seed": 1}, {"order": 2, "host_threads": 2})]
    for run in runs[1:]:
        same(run, runs[0])
    np.testing.assert_allclose(runs[0], a.astype(np.float64) @ b, rtol=1e-4, atol=1e-4)


@watched
def test_factors_without_gaps_are_read_where_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels, copies = simulated(mode="check"), []
    real = kernels.plain
    monkeypatch.setattr(kernels, "plain", lambda a: copies.append(a.shape) or real(a))
    for shape in ((4, 6), (3, 4, 6), (2, 3, 4, 6)):
        for layout in LAYOUTS:
            a = lay_out(integers(shape, 1, np.float32), layout)
            copies.clear()
            kernels.matmul(a, np.ones((6, 5), np.float32))
            assert copies == ([] if layout in PERMUTED else [shape]), (shape, layout)


@watched
def test_more_batch_axes_than_strides_are_copied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """(2, 1, 3) and (1, 4, 1) have no two strides for their 24 products: both are spread out, and the numbers are the same."""
    a, b = integers((2, 1, 3, 4, 5), 0), integers((1, 4, 1, 5, 6), 1)
    same(simulated(mode="check").matmul(a, b), REFERENCE.matmul(a, b))
    heads = lay_out(integers((2, 3, 4, 5), 2), "backwards")  # two batch axes that no single stride reaches
    same(simulated(mode="check").matmul(heads, heads.swapaxes(2, 3)), REFERENCE.matmul(heads, heads.swapaxes(2, 3)))


@watched
def test_what_the_kernel_does_not_take_goes_to_the_reference() -> None:
    def refuse(**_: Any) -> Any:
        raise AssertionError("compiled a kernel")

    kernels = CudaKernels(np, refuse)
    for shapes in (((0, 3), (3, 2)), ((2, 0), (0, 3)), ((2, 3), (3, 0)), ((0, 2, 3), (3, 2))):
        a, b = (np.ones(shape, np.float32) for shape in shapes)
        same(kernels.matmul(a, b), a @ b)
    whole = np.arange(6).reshape(2, 3)
    same(kernels.matmul(whole, whole.T), whole @ whole.T)
    single, double = np.ones((2, 3), np.float32), np.ones((3, 2))
    same(kernels.matmul(single, double), single @ double)


def test_groups_of_convolution_use_it(rng: np.random.Generator) -> None:
    """Depthwise and in two groups, several tiles of positions, at every precision that whole numbers survive."""
    window = Window((3, 2), (1, 2), (1, 0))
    for precision in ("float32", "bf16"):
        for channels, outputs, groups in ((4, 8, 4), (6, 4, 2)):
            kernels = simulated(mode="check", precision=precision)
            x, out = integers((2, channels, 13, 14), 0, np.float32), window.positions((13, 14))
            w, bias = integers((outputs, channels // groups, 3, 2), 1, np.float32), integers((outputs,), 2, np.float32)
            y = integers((2, outputs, *out), 3, np.float32)
            same(kernels.conv2d(x, w, bias, window, out, groups), REFERENCE.conv2d(x, w, bias, window, out, groups))
            arguments = (y, w, None, window, (13, 14), groups)
            same(kernels.conv_transpose2d(*arguments), REFERENCE.conv_transpose2d(*arguments))
            same(kernels.conv2d_weight(x, y, window, groups), REFERENCE.conv2d_weight(x, y, window, groups))


@watched
def test_derivatives_of_layers_on_it(rng: np.random.Generator) -> None:
    with minidcnn.use_kernels(simulated(mode="check")):
        x, weight, bias = rng.standard_normal((3, 5)), rng.standard_normal((4, 5)), rng.standard_normal(4)
        check_grads(F.linear, [x, weight, bias])
        check_grads(F.matmul, [rng.standard_normal((2, 3, 4)), rng.standard_normal((4, 2))])


@watched
def test_bugs_planted_in_the_product_are_found() -> None:
    a, b = integers((2, 65, 301), 0, np.float32), integers((301, 66), 1, np.float32)
    planted = [
        ("if (m >= rows || n >= columns) continue;", ""),
        ("min(begin + share, depth)", "begin + share"),
        ("z / inner * a_outer + z % inner * a_inner", "0"),
        ("(part * batches + z)", "part"),
        ("for (int p = 0; p < part_count; p++)", "for (int p = 1; p < part_count; p++)"),
    ]
    for bug in planted:
        try:
            found = simulated(planted=bug, mode="check").matmul(a, b)
        except RuntimeError:
            continue
        assert not np.array_equal(found, a @ b), bug
