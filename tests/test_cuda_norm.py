"""Batch norm on CUDA kernels: running statistics against the reference, runs of 16 bytes, and how many launches a layer takes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import cupy_stand_in
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import ON_DEVICE, simulated, why_not

import minidcnn
from minidcnn import Tensor, nn
from minidcnn.backend import Kernels, kernels, nchw, switch
from minidcnn.backend.cuda import CudaKernels
from minidcnn.backend.cuda.runs import runs
from minidcnn.testing import seeds, stored_dtypes

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "runs")

REFERENCE = Kernels(np)
Array = np.ndarray[Any, Any]
orders = st.sampled_from([{"order": 0}, {"order": 2}, {"mode": "check", "order": 1}])


# -- running statistics --------------------------------------------------------------------------------------------------------------------


@given(
    channels=st.integers(1, 300), count=st.integers(2, 50), dtype=stored_dtypes, order=orders, seed=seeds,
    momentum=st.sampled_from([0.0, 0.1, 1, np.float32(0.3), np.array(0.25)]), given=st.sampled_from(["both", "mean", "variance", "none"]),
)  # fmt: skip
def test_running_statistics_are_the_references(
    channels: int, count: int, dtype: Any, order: dict[str, Any], seed: int, momentum: Any, given: str
) -> None:
    """momentum: any number, or an array without axes, as the cumulative average has it."""
    rng, own = np.random.default_rng(seed), simulated(**order)
    mean, variance = rng.standard_normal(channels) * 10, rng.random(channels)
    running = rng.standard_normal(channels).astype(dtype), rng.random(channels).astype(dtype)
    results = []
    for k in (own, REFERENCE):
        kept = [v.copy() if given in ("both", name) else None for v, name in zip(running, ("mean", "variance"), strict=True)]
        results.append((k.batch_norm_track(mean, variance, count, 1e-5, momentum, *kept), *kept))
    rstd, *kept = results[0]
    np.testing.assert_allclose(rstd, results[1][0], rtol=1e-15)
    assert rstd.dtype == np.float64
    for a, b, before in zip(kept, results[1][1:], running, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == b.dtype == dtype
            np.testing.assert_allclose(a, b, rtol=2 * np.finfo(dtype).eps, atol=1e-14)
            assert momentum == 0 or (a != before).any()


def test_running_statistics_with_gaps_are_left_to_the_reference() -> None:
    buffer = np.zeros((7, 2), np.float32)
    simulated(mode="check").batch_norm_track(np.arange(7.0), np.ones(7), 3, 0.0, 0.5, buffer[:, 0], buffer[:, 1])
    np.testing.assert_array_equal(buffer, np.stack([np.arange(7) / 2, np.full(7, 0.75)], 1))


# -- runs of 16 bytes ----------------------------------------------------------------------------------------------------------------------


def shifted(array: Array) -> Array:
    """The same numbers in memory that begins on no 16 bytes."""
    memory = np.empty(array.size + 1, array.dtype)[1:].reshape(array.shape)
    memory[...] = array
    return memory


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [8, 24, 328])  # of 328, float64 makes more runs than a block has threads across
def test_runs_are_the_same_numbers(channels: int, dtype: Any) -> None:
    """Maps bit for bit, sums in another order; images in whole runs, or one of them not."""
    rng, kind = np.random.default_rng(0), np.float64 if dtype == np.float64 else np.float32
    x, g = rng.standard_normal((2, 2, 11, 13, channels)).astype(dtype)
    weight, bias = rng.standard_normal((2, channels)).astype(kind)
    own, tolerance = simulated(order=2), {"rtol": 0, "atol": 1e-12 if dtype == np.float64 else 1e-4}
    mean, variance = REFERENCE.batch_norm_stats(nchw(x))
    affine = mean, 1 / np.sqrt(variance), weight, bias
    plain = own.batch_norm_apply(nchw(shifted(x)), *affine)
    np.testing.assert_array_equal(own.batch_norm_apply(nchw(x), *affine), plain)
    np.testing.assert_allclose(plain, REFERENCE.batch_norm_apply(nchw(x), *affine), rtol=2 * np.finfo(dtype).eps, atol=1e-6)
    expected = own.batch_norm_grad(*map(nchw, map(shifted, (g, x))), *affine)
    for images in ((g, x), (shifted(g), x), (g, shifted(x))):
        a, b = map(nchw, images)
        for found, wanted in zip(own.batch_norm_grad(a, b, *affine), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=2 * np.finfo(dtype).eps, atol=tolerance["atol"])
        for found, wanted in zip(own.batch_norm_stats(b), (mean, variance), strict=True):
            np.testing.assert_allclose(found, wanted, **tolerance)
        np.testing.assert_allclose(own.sum(a, (0, 2, 3)), REFERENCE.sum(a, (0, 2, 3)), rtol=2 * np.finfo(dtype).eps, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_gradient_of_a_relu_at_zero_is_zero(dtype: Any) -> None:
    """As the reference and PyTorch have it: without a bias, what equals the mean comes out as 0."""
    own, kind = simulated(mode="check"), np.float64 if dtype == np.float64 else np.float32
    x = nchw(np.array([-2, 0, 1, 0, 1, 0], dtype).repeat(8).reshape(1, 2, 3, 8))
    g = np.asfortranarray(np.arange(1, 49).reshape(x.shape)).astype(dtype)
    affine = REFERENCE.batch_norm_stats(x)[0], np.full(8, 0.75), np.ones(8, kind), np.zeros(8, kind)
    assert (affine[0] == 0).all()
    found, expected = (k.batch_norm_grad(g, x, *affine) for k in (own, REFERENCE))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=4 * np.finfo(dtype).eps, atol=1e-6)
    np.testing.assert_array_equal(found[2], np.where(x > 0, g, 0).sum((0, 2, 3)))


def test_runs_are_taken_where_all_arrays_have_them() -> None:
    launcher = CudaKernels(np, lambda **_: None).launcher
    half, single, double = (np.zeros(64, dtype) for dtype in (np.float16, np.float32, np.float64))
    wide = ("WIDE=1",)
    assert runs(launcher, 24, half, None, half) == (8, wide)
    assert runs(launcher, 20, half) == (1, ())
    assert runs(launcher, 20, single, single[4:]) == (4, wide)
    assert runs(launcher, 20, single, single[2:]) == (1, ())
    assert runs(launcher, 6, double) == (2, wide)
    assert runs(launcher, 7, double) == (1, ())


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((16, 64, 256, 256), "float16"), ((1, 1024, 16, 16), "float32"), ((3, 5, 7, 9), "float64"), ((2, 1, 1, 1), "float32")],
)
def test_shares_cover_all_rows_and_none_is_empty(shape: tuple[int, ...], dtype: str) -> None:
    n, c, h, w = shape
    rows = np.broadcast_to(np.zeros((), dtype), (n * h * w, c))
    grid, block, defines, (count, channels, share) = CudaKernels(np, lambda **_: None)._shares(rows)
    run = 16 // np.dtype(dtype).itemsize if defines else 1
    assert (count, channels) == rows.shape and block[0] * block[1] == 256
    assert (grid[1] - 1) * share < count <= grid[1] * share
    assert (grid[0] - 1) * block[0] * run < c <= grid[0] * block[0] * run
    assert grid[0] * grid[1] <= 1024
    assert share >= min(count, 8 * block[1])


# -- launches ------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module `cupy` of a stand-in, whose recordings know what was launched."""
    monkeypatch.setitem(sys.modules, "cupy", cupy_stand_in.make_module())
    monkeypatch.setattr(switch, "_made", {})
    minidcnn.use("cupy")
    yield kernels().xp
    minidcnn.use("numpy")


def launches(xp: Any, work: Any) -> tuple[int, Any]:
    """How many operations on arrays of the device `work` takes, kernels and array code, and what it returns."""
    stream, pool = xp.cuda.Stream(non_blocking=True), xp.cuda.MemoryPool(lambda size: None)
    with stream, xp.cuda.using_allocator(pool.malloc):
        stream.begin_capture()
        result = work()
        graph = stream.end_capture()
    return len(graph.work), result


@pytest.mark.skipif(ON_DEVICE, reason="counts what the stand-in does")
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_layer_takes_few_launches(stand_in: Any, dtype: Any, relu: bool, momentum: float | None) -> None:
    """A launch takes microseconds, however few numbers it is for: what there is one of for each channel must not be computed by array code."""
    layer = nn.BatchNorm2d(5, momentum=momentum)
    layer = layer.double() if dtype == np.float64 else layer
    pixels = np.random.default_rng(0).standard_normal((2, 6, 7, 5)).astype(dtype)
    x = Tensor(nchw(stand_in.asarray(pixels)), requires_grad=True)
    forward, y = launches(stand_in, lambda: layer(x, relu))
    ones = Tensor.wrap(nchw(stand_in.ones((2, 6, 7, 5), dtype)))
    backward, gradients = launches(stand_in, lambda: minidcnn.grad(y, [x, *layer.parameters()], ones))
    # moments, combine_moments, track, normalize; the batches are counted, and divided by where that is the momentum
    assert forward == (5 if momentum else 6)
    assert backward == 3  # gradient_sums, add_shares, normalize_grad
    assert [g.shape for g in gradients] == [(2, 5, 6, 7), (5,), (5,)]
