"""Batch norm on CUDA kernels: running statistics against the reference, and how many launches a layer takes."""

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
from minidcnn.testing import seeds, stored_dtypes

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "runs")

REFERENCE = Kernels(np)
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
