"""The CUDA kernels of a training step against the reference, on the simulator; then a whole U-Net step on nothing but them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import simulated, why_not

import minidcnn
from minidcnn import Tensor, optim
from minidcnn import functional as F
from minidcnn.backend import Kernels
from minidcnn.backend.cuda import CudaKernels
from minidcnn.backend.rules import AdamRule, SgdRule
from minidcnn.models import UNet
from minidcnn.testing import float_dtypes, lay_out, layouts, seeds, stored_dtypes

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "runs")

REFERENCE = Kernels(np)
Array = np.ndarray[Any, Any]
orders = st.sampled_from([{"order": 0}, {"order": 1}, {"order": 2}, {"mode": "check", "order": 0}, {"mode": "check", "order": 2}])
shapes = st.one_of(
    st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 40), st.integers(1, 70)),
)


def close(result: Any, expected: Any, dtype: Any) -> None:
    """Equal to rounding in `dtype`, relative to the largest number; same shapes and dtypes."""
    results, wanted = (r if isinstance(r, tuple) else (r,) for r in (result, expected))
    for a, b in zip(results, wanted, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_allclose(a, b, rtol=0, atol=200 * np.finfo(dtype).eps * max(1.0, float(np.abs(b).max(initial=0))))


def normal(shape: tuple[int, ...], seed: int, dtype: Any) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@given(shape=shapes, dtype=float_dtypes, layout=layouts, order=orders, seed=seeds, offset=st.sampled_from([0.0, 100.0]))
def test_batch_norm(shape: tuple[int, ...], dtype: Any, layout: str, order: dict[str, Any], seed: int, offset: float) -> None:
    kernels, c = simulated(**order), shape[1]
    x, g = lay_out(normal(shape, seed, dtype) + dtype.type(offset), layout), lay_out(normal(shape, seed + 1, dtype), layout)
    weight, bias = normal((c,), seed + 2, dtype), normal((c,), seed + 3, dtype)
    mean, var = REFERENCE.batch_norm_stats(x)
    own_mean, own_var = kernels.batch_norm_stats(x)
    close(own_mean, mean, dtype)
    np.testing.assert_allclose(own_var, var, rtol=200 * np.finfo(dtype).eps, atol=200 * np.finfo(dtype).eps)  # whatever the mean
    rstd = 1 / np.sqrt(var + 1e-5)
    if var.min() > 1e-3:
        close(kernels.batch_norm_apply(x, mean, rstd, weight, bias), REFERENCE.batch_norm_apply(x, mean, rstd, weight, bias), dtype)
        close(kernels.batch_norm_grad(g, x, mean, rstd, weight), REFERENCE.batch_norm_grad(g, x, mean, rstd, weight), dtype)
        y = REFERENCE.batch_norm_apply(x, mean, rstd, weight, bias, relu=True)
        close(kernels.batch_norm_apply(x, mean, rstd, weight, bias, relu=True), y, dtype)
        if np.abs(REFERENCE.batch_norm_apply(x, mean, rstd, weight, bias)).min() > 1e-4:  # else rounding decides where ReLU is open
            results = (k.batch_norm_grad(g, x, mean, rstd, weight, bias) for k in (kernels, REFERENCE))
            close(*results, dtype)
    if x.ndim == 4:
        close(kernels.sum(g, (0, 2, 3)), REFERENCE.sum(g, (0, 2, 3)), dtype)
        close(kernels.sum(g, (0, 2, 3), keepdims=True), REFERENCE.sum(g, (0, 2, 3), keepdims=True), dtype)


def test_statistics_of_many_rows_in_many_shares(rng: np.random.Generator) -> None:
    x = (rng.standard_normal((2, 3, 60, 70)) * [[[1]], [[5]], [[0.1]]] + [[[1000]], [[0]], [[-3]]]).astype(np.float32)
    mean, var = simulated(order=2).batch_norm_stats(x)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean((0, 2, 3)), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(var, wide.var((0, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e6])
def test_statistics_keep_their_digits_whatever_the_mean(offset: float) -> None:
    """In float64, over more shares than threads take at a time, the last smaller than the others."""
    x = normal((2, 9, 197, 179), 0, np.float64) * np.linspace(0.1, 3, 9)[:, None, None] + offset
    mean, var = simulated(order=2).batch_norm_stats(x)
    wide = x.astype(np.longdouble)
    exact = wide.mean((0, 2, 3))
    np.testing.assert_allclose(mean - exact, 0, atol=4e-16 * max(1.0, abs(offset)))
    np.testing.assert_allclose(var, ((wide - exact[:, None, None]) ** 2).mean((0, 2, 3)), rtol=1e-11)


@pytest.mark.parametrize("where", [(0, 0, 0), (1, 30, 65)])
def test_statistics_around_one_pixel_unlike_the_others(where: tuple[int, int, int]) -> None:
    """Squared distances from it would hide those of all the others: it is the shift of one share at most."""
    x = np.full((2, 3, 60, 70), 0.1, np.float32)
    x[where[0], :, where[1], where[2]] = 1000.3, -77.7, 0.2
    mean, var = simulated(order=2).batch_norm_stats(x)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(var, wide.var((0, 2, 3)), rtol=2e-5)


@given(shape=shapes, dtype=float_dtypes, layout=layouts, order=orders, seed=seeds, smoothing=st.sampled_from([0.0, 0.2]))
def test_cross_entropy(shape: tuple[int, ...], dtype: Any, layout: str, order: dict[str, Any], seed: int, smoothing: float) -> None:
    kernels, c = simulated(**order), shape[1]
    x = lay_out(normal(shape, seed, dtype) * 5, layout)
    pixels = shape[0], *shape[2:]
    target = np.random.default_rng(seed).integers(-1, c, pixels)  # -1: left out
    weight, g = abs(normal((c,), seed + 1, dtype)), normal(pixels, seed + 2, dtype)
    losses, top, logs = REFERENCE.cross_entropy(x, target, weight, smoothing)
    close(kernels.cross_entropy(x, target, weight, smoothing), (losses, top, logs), dtype)
    arguments = g, x, top, logs, target, weight, smoothing
    close(kernels.cross_entropy_grad(*arguments), REFERENCE.cross_entropy_grad(*arguments), dtype)


@given(shape=shapes, dtype=stored_dtypes, layout=layouts, order=orders, seed=seeds)
def test_relu_and_dropout(shape: tuple[int, ...], dtype: Any, layout: str, order: dict[str, Any], seed: int) -> None:
    kernels = simulated(**order)
    x, g = lay_out(normal(shape, seed, dtype), layout), lay_out(normal(shape, seed + 1, dtype), "C")
    y = REFERENCE.relu(x)
    np.testing.assert_array_equal(kernels.relu(x), y)
    endless = np.where(y > 0, g, g.dtype.type(np.inf))  # where it does not count
    for slope in (g, endless):
        np.testing.assert_array_equal(kernels.relu_grad(slope, y), REFERENCE.relu_grad(g, y))
    for mask in {shape, (*shape[:2], 1, 1) if len(shape) == 4 else shape}:
        np.testing.assert_array_equal(kernels.dropout(x, 0.3, seed, mask), REFERENCE.dropout(x, 0.3, seed, mask))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_relu_keeps_nan(dtype: Any) -> None:
    x = np.array([[np.nan, -1, 0, 2, -0.0, np.inf, -np.inf, 3]], dtype)
    for numbers in (x, x[:, :7].copy()):  # a run of 16 bytes, and not
        np.testing.assert_array_equal(
            simulated(mode="check").relu(numbers), np.array([[np.nan, 0, 0, 2, 0, np.inf, 0, 3]])[:, : numbers.size]
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("settings", [(0.0, 0.0, False), (0.9, 0.0, False), (0.9, 0.1, False), (0.9, 0.0, True)])
def test_sgd_step(rng: np.random.Generator, dtype: Any, settings: tuple[float, float, bool]) -> None:
    momentum, dampening, nesterov = settings
    kernels = simulated(mode="check", order=2)
    p = np.asfortranarray(rng.standard_normal((6, 5)).astype(dtype))  # any memory order
    mine, theirs = [p.copy("K"), np.zeros_like(p)], [p.copy("K"), np.zeros_like(p)]
    for step in range(3):
        g = rng.standard_normal(p.shape).astype(dtype)
        for k, (q, buffer) in ((kernels, mine), (REFERENCE, theirs)):
            k.sgd_step(q, g, buffer if momentum else None, step == 0, SgdRule(0.1, momentum, dampening, 0.01, nesterov))
    for a, b in zip(mine, theirs, strict=True):
        close(a, b, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_adam_step(rng: np.random.Generator, dtype: Any, decoupled: bool, amsgrad: bool) -> None:
    kernels = simulated(mode="check", order=1)
    p = rng.standard_normal((3, 4, 2)).astype(dtype)
    states = [[p.copy(), *(np.zeros_like(p) for _ in range(3))] for _ in range(2)]
    for step in range(1, 4):
        g = rng.standard_normal(p.shape).astype(dtype)
        for k, (q, mean, square, largest) in zip((kernels, REFERENCE), states, strict=True):
            k.adam_step(q, g, mean, square, largest if amsgrad else None, step, AdamRule(0.1, 0.9, 0.99, 1e-8, 0.01, decoupled))
    for a, b in zip(*states, strict=True):
        close(a, b, dtype)


class Counting(CudaKernels):
    """Simulated kernels that remember which of them were launched."""

    launched: set[str]

    @classmethod
    def of(cls, kernels: CudaKernels) -> Counting:
        counting = cls(np, kernels.launcher._module)
        counting.launched = set()
        launch = counting.launcher.launch

        def remember(grid: Any, block: Any, file: str, kernel: str, *rest: Any, **named: Any) -> None:
            counting.launched.add(kernel)
            launch(grid, block, file, kernel, *rest, **named)

        counting.launcher.launch = remember  # type: ignore[method-assign]
        return counting


def train(kernels: Kernels, steps: int, size: tuple[int, int] = (16, 32)) -> tuple[list[float], list[Array]]:
    """A few steps of a small U-Net: losses, and all state afterwards."""
    rng = np.random.default_rng(5)
    images, masks = rng.standard_normal((2, 3, *size)), rng.integers(0, 3, (2, *size))
    masks[0, :4] = 255
    with minidcnn.use_kernels(kernels):
        minidcnn.manual_seed(0)
        model = UNet(3, 3, base=2, padding="same", norm="batch", depth=2).double()
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
        losses = []
        for _ in range(steps):
            loss = F.cross_entropy(model(Tensor(images)), Tensor(masks), ignore_index=255)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses, list(model.state_dict().values())


def test_a_unet_trains_on_the_simulated_kernels_as_on_numpy() -> None:
    kernels = Counting.of(simulated())
    losses, state = train(kernels, 3)
    expected, wanted = train(REFERENCE, 3)
    np.testing.assert_allclose(losses, expected, rtol=1e-10)
    for a, b in zip(state, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)
    assert losses[-1] < losses[0]
    assert kernels.launched >= {
        "conv_forward",
        "conv_transposed",
        "conv_weight",
        "sum_parts",
        "max_pool",
        "pool_scatter",
        "moments",
        "normalize",
        "normalize_grad",
        "row_sums",
        "cross_entropy",
        "cross_entropy_grad",
        "sgd_step",
    }


def test_a_training_step_has_no_findings_in_check_mode() -> None:
    losses, _ = train(simulated(mode="check", order=2), 1, (8, 12))
    np.testing.assert_allclose(losses, train(REFERENCE, 1, (8, 12))[0], rtol=1e-10)
