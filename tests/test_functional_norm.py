"""Batch norm and local response norm: their definitions, derivatives to third order, PyTorch's numbers, statistics, layouts, errors."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from peer import agree

from minidcnn import Tensor, check_adjoint, check_grads, grad, no_grad, use_kernels
from minidcnn import functional as F
from minidcnn.backend import Kernels, kernels_of
from minidcnn.functional.norm import ChannelSum
from minidcnn.testing import LAYOUTS, float_dtypes, integers, lay_out, layouts, seeds, tie_free

Array = np.ndarray[Any, Any]
both_kernels = pytest.mark.parametrize("kernels", ["fast", "reference"])

SHAPES = [(5, 3), (2, 3, 4), (2, 3, 4, 5), (1, 2, 3, 1), (2, 1, 2, 1, 3)]
each_shape = pytest.mark.parametrize("shape", SHAPES)


def parameters(c: int, dtype: Any = np.float64) -> tuple[Array, Array]:
    return (tie_free((c,), 3) + 1.5).astype(dtype), tie_free((c,), 4).astype(dtype)


def running(c: int, dtype: Any = np.float64) -> tuple[Array, Array]:
    return tie_free((c,), 5).astype(dtype), (tie_free((c,), 6) + 1.5).astype(dtype)


def along(v: Array, x: Array) -> Array:
    return v.reshape(1, -1, *(1,) * (x.ndim - 2))


def others(x: Array) -> tuple[int, ...]:
    return (0, *range(2, x.ndim))


# -- derivatives -------------------------------------------------------------------------------------------------------------------


@each_shape
def test_derivatives_to_third_order_while_training(shape: tuple[int, ...]) -> None:
    check_grads(lambda x, w, b: F.batch_norm(x, None, None, w, b, True, eps=0.1), [tie_free(shape), *parameters(shape[1])], 3)
    check_grads(lambda x: F.batch_norm(x, None, None, training=True), [tie_free(shape, 1)], 3)


@each_shape
def test_derivatives_to_third_order_with_running_statistics(shape: tuple[int, ...]) -> None:
    mean, var = map(Tensor, running(shape[1]))
    check_grads(lambda x, w, b: F.batch_norm(x, mean, var, w, b), [tie_free(shape), *parameters(shape[1])], 3)
    check_grads(lambda x: F.batch_norm(x, mean, var), [tie_free(shape)], 3)


@each_shape
def test_derivatives_to_third_order_with_relu(shape: tuple[int, ...]) -> None:
    check_grads(lambda x, w, b: F.batch_norm(x, None, None, w, b, True, eps=0.1, relu=True), [tie_free(shape), *parameters(shape[1])], 3)
    mean, var = map(Tensor, running(shape[1]))
    check_grads(lambda x, w, b: F.batch_norm(x, mean, var, w, b, relu=True), [tie_free(shape), *parameters(shape[1])], 3)


@both_kernels
@given(shape=st.sampled_from(SHAPES), seed=seeds, dtype=float_dtypes, layout=layouts, training=st.booleans())
def test_with_relu_it_is_relu_of_it(kernels: str, shape: tuple[int, ...], seed: int, dtype: Any, layout: str, training: bool) -> None:
    """Values to the bit, gradients to rounding; and nothing is kept for the ReLU while training."""
    results = []
    for relu in (False, True):
        x = Tensor.wrap(lay_out(tie_free(shape, seed, dtype), layout)).requires_grad_()
        w, b = (Tensor(p, requires_grad=True) for p in parameters(shape[1], dtype))
        with use_kernels(kernels):
            y = F.batch_norm(x, *map(Tensor, running(shape[1], dtype)), w, b, training, relu=relu)
            y = y if relu else F.relu(y)
            if relu and training:
                assert [t is x or t is w or t is b for t, *_ in y._node.saved] == [True] * 3
            y.backward(tie_free(shape, seed + 1, dtype))
        results.append([t.numpy() for t in (y, x.grad, w.grad, b.grad)])
    np.testing.assert_array_equal(*(r[0] for r in results))
    assert (results[0][0] == 0).any() and (results[0][0] > 0).any()
    for plain, fused in zip(*results, strict=True):
        np.testing.assert_allclose(fused, plain, rtol=0, atol=50 * np.finfo(dtype).eps * max(1, np.abs(plain).max()))


@pytest.mark.parametrize("used", [(True, False, False), (False, True, False), (False, False, True), (False, True, True)])
@pytest.mark.parametrize("relu", [False, True])
def test_gradients_of_each_gradient_alone(used: tuple[bool, ...], relu: bool) -> None:
    """The fused gradient has three results; whichever of them are used, its own gradient is right."""

    def f(x: Tensor, w: Tensor, b: Tensor, g: Tensor) -> Tensor:
        for t in (x, w, b, g):
            t.requires_grad_()
        grads = grad(F.batch_norm(x, None, None, w, b, True, relu=relu), (x, w, b), g, create_graph=True)
        return F.cat([F.reshape(t, (-1,)) for t, wanted in zip(grads, used, strict=True) if wanted])

    x = tie_free((3, 2, 2, 3))
    check_grads(f, [x, *parameters(2), tie_free(x.shape, 7)], 2)


@both_kernels
@given(seed=seeds, n=st.integers(2, 4), c=st.integers(1, 20), h=st.integers(1, 5))
def test_the_gradient_is_orthogonal_to_shifts_and_scalings(kernels: str, seed: int, n: int, c: int, h: int) -> None:
    """Batch norm does not feel x + a or a x (with eps = 0), so its gradient has no part along 1 or along x - mean."""
    x, g = tie_free((n, c, h, 3), seed), tie_free((n, c, h, 3), seed + 1)
    t, (weight, bias) = Tensor(x, requires_grad=True), parameters(c)
    with use_kernels(kernels):
        F.batch_norm(t, None, None, Tensor(weight), Tensor(bias), True, eps=0.0).backward(g)
    dx = t.grad.numpy()
    size = np.abs(g).sum(others(x)) * np.abs(weight) / x.std(others(x)) + 1e-3  # of the terms, which may cancel
    assert (np.abs(dx.sum(others(x))) < 1e-12 * size).all()
    assert (np.abs((dx * (x - x.mean(others(x), keepdims=True))).sum(others(x))) < 1e-12 * size).all()


# -- values ------------------------------------------------------------------------------------------------------------------------


@both_kernels
@given(shape=st.sampled_from(SHAPES), seed=seeds, dtype=float_dtypes, layout=layouts)
def test_it_is_its_formula_and_so_are_the_gradients(kernels: str, shape: tuple[int, ...], seed: int, dtype: Any, layout: str) -> None:
    """In any layout and dtype, against the definition and its chain rule in float64."""
    x, g = tie_free(shape, seed, dtype), tie_free(shape, seed + 1, dtype)
    w, b = parameters(shape[1], dtype)
    t, u, v = Tensor.wrap(lay_out(x, layout)).requires_grad_(), Tensor(w, requires_grad=True), Tensor(b, requires_grad=True)
    with use_kernels(kernels):
        y = F.batch_norm(t, None, None, u, v, True, eps=0.01)
        y.backward(lay_out(g, layout))
    assert {a.dtype for a in (y, t.grad, u.grad, v.grad)} == {np.dtype(dtype)}
    if layout == "channels-last" and len(shape) > 2:
        assert all(np.moveaxis(a._array, 1, -1).flags.c_contiguous for a in (y, t.grad))
    x, g, axes = x.astype(np.float64), g.astype(np.float64), others(x)
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    z, r = (x - mean) / np.sqrt(var + 0.01), 1 / np.sqrt(var + 0.01)
    dz = g * along(w, x)
    dvar = (-0.5 * dz * (x - mean) * r**3).sum(axes, keepdims=True)
    dmean = (-dz * r).sum(axes, keepdims=True)
    dx = dz * r + dvar * 2 * (x - mean) / (x.size // shape[1]) + dmean / (x.size // shape[1])
    eps = 40 * np.finfo(dtype).eps
    for got, expected in ((y, z * along(w, x) + along(b, x)), (t.grad, dx), (u.grad, (g * z).sum(axes)), (v.grad, g.sum(axes))):
        np.testing.assert_allclose(got.numpy(), expected, rtol=eps, atol=eps * max(1.0, float(np.abs(expected).max(initial=0))))


@both_kernels
@given(seed=seeds, dtype=float_dtypes, c=st.integers(1, 40), spread=st.floats(0.1, 10), centre=st.floats(-10, 10))
def test_statistics_of_the_output(kernels: str, seed: int, dtype: Any, c: int, spread: float, centre: float) -> None:
    """Each channel comes out with mean bias and standard deviation |weight|, whatever it was."""
    x = (tie_free((3, c, 4, 5), seed) * spread + centre).astype(dtype)
    w, b = parameters(c, dtype)
    with use_kernels(kernels):
        y = F.batch_norm(Tensor(x), None, None, Tensor(w), Tensor(b), True, eps=0.0).numpy().astype(np.float64)
    loose = 100 * np.finfo(dtype).eps * (1 + abs(centre) / spread)
    np.testing.assert_allclose(y.mean((0, 2, 3)), b, rtol=loose, atol=loose)
    np.testing.assert_allclose(y.std((0, 2, 3)), np.abs(w), rtol=loose, atol=loose)


@both_kernels
@pytest.mark.parametrize("layout", ["C", "channels-last"])
def test_statistics_lose_no_digits_far_from_zero(kernels: str, layout: str, rng: np.random.Generator) -> None:
    """Sums in float64: a mean of 10^4 and a deviation of 1 in float32, over 10^5 values, where sums in float32 go wrong."""
    x = lay_out((1e4 + rng.standard_normal((2, 3, 250, 200))).astype(np.float32), layout)
    with use_kernels(kernels):
        mean, var = kernels_of(x).batch_norm_stats(x)
    assert mean.dtype == var.dtype == np.float64
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(var, exact.var((0, 2, 3)), rtol=1e-7)
    with use_kernels(kernels):
        constant = np.full((2, 3, 64, 63), 12345.678, x.dtype)
        assert (np.abs(kernels_of(x).batch_norm_stats(lay_out(constant, layout))[1]) < 1e-9).all()


@both_kernels
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_images_agree_with_the_reference(kernels: str, layout: str, dtype: Any, rng: np.random.Generator) -> None:
    """Sizes at which fast kernels split their work, with a channel count that fills no vector."""
    x, g = (lay_out(rng.standard_normal((2, 19, 37, 41)).astype(dtype), layout) for _ in range(2))
    weight, bias = parameters(19, dtype)
    reference = Kernels(np)
    with use_kernels(kernels):
        k = kernels_of(x)
        mean, var = k.batch_norm_stats(x)
        rstd = 1 / np.sqrt(var + 1e-5)
        results = (mean, var, k.batch_norm_apply(x, mean, rstd, weight, bias), *k.batch_norm_grad(g, x, mean, rstd, weight))
    exact_mean, exact_var = reference.batch_norm_stats(x.astype(np.float64))
    wide = [v.astype(np.float64) for v in (g, x, weight, bias)]
    expected = (
        exact_mean,
        exact_var,
        reference.batch_norm_apply(wide[1], exact_mean, rstd, wide[2], wide[3]),
        *reference.batch_norm_grad(wide[0], wide[1], exact_mean, rstd, wide[2]),
    )
    eps = np.finfo(dtype).eps
    for i, (got, exact) in enumerate(zip(results, expected, strict=True)):
        size = max(1.0, float(np.abs(exact).max()))  # values have size 1: a sum of them that is small by chance is no more exact for it
        np.testing.assert_allclose(got, exact, rtol=8 * eps, atol=8 * eps * size, err_msg=str(i))


@each_shape
@pytest.mark.parametrize("training", [True, False])
def test_it_agrees_with_pytorch(shape: tuple[int, ...], training: bool) -> None:
    """With weight and bias, one of them, or none; with and without running statistics; the statistics afterwards."""
    c, state = shape[1], {}

    def f(f: Any, x: Any, *rest: Any, names: tuple[str, ...], track: bool, dtype: Any) -> Any:
        make = f.torch.tensor if hasattr(f, "torch") else Tensor
        mean, var = (make(v.copy()) for v in running(c, dtype)) if track else (None, None)
        y = f.batch_norm(x, mean, var, training=training, momentum=0.3, eps=0.02, **dict(zip(names, rest, strict=True)))
        if track:
            state[hasattr(f, "torch")] = np.stack([mean.numpy(), var.numpy()])
        return y

    for names in ((), ("weight",), ("bias",), ("weight", "bias")):
        for track in (True, False) if training else (True,):
            for dtype, eps in ((np.float64, 1e-12), (np.float32, 2e-5)):
                given_ = [v for v, name in zip(parameters(c, dtype), ("weight", "bias"), strict=True) if name in names]
                x = tie_free(shape, 0, dtype)
                order = 1 if names == ("bias",) else 2  # PyTorch's second derivative fails there
                call = lambda g, *a, k=(names, track, dtype): f(g, *a, names=k[0], track=k[1], dtype=k[2])
                agree(call, x, *given_, order=order, rtol=eps, atol=eps)
                if track:
                    np.testing.assert_allclose(state[False], state[True], rtol=eps)


def test_running_statistics_are_updated_in_place_and_only_while_training() -> None:
    x = tie_free((3, 2, 4, 5)) * 2
    mean, var = map(Tensor, running(2, np.float32))
    arrays, before = (mean._array, var._array), (mean.numpy().copy(), var.numpy().copy())
    F.batch_norm(Tensor(x), mean, var)
    np.testing.assert_array_equal(np.stack([mean.numpy(), var.numpy()]), np.stack(before))
    with no_grad():
        F.batch_norm(Tensor(x), mean, var, training=True, momentum=0.25)
    assert mean._array is arrays[0] and var._array is arrays[1] and mean.dtype == np.float32
    np.testing.assert_allclose(mean.numpy(), 0.75 * before[0] + 0.25 * x.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(var.numpy(), 0.75 * before[1] + 0.25 * x.var((0, 2, 3), ddof=1), rtol=1e-6)


def test_updating_the_statistics_does_not_reach_an_earlier_forward_pass() -> None:
    x, w, (mean, var) = Tensor(tie_free((3, 2, 4, 5)), requires_grad=True), Tensor(np.ones(2), requires_grad=True), map(Tensor, running(2))
    y = F.batch_norm(x, mean, var, w)
    r = 1 / np.sqrt(along(var.numpy(), x.numpy()) + 1e-5)
    dw = ((x.numpy() - along(mean.numpy(), x.numpy())) * r).sum((0, 2, 3))
    F.batch_norm(x, mean, var, training=True, momentum=1.0)
    for got, expected in zip(grad(y.sum(), (x, w)), (np.broadcast_to(r, x.shape), dw), strict=True):
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-13)


def test_a_graph_that_needs_the_old_statistics_refuses_to_run_backward() -> None:
    a, (mean, var) = Tensor(np.ones(2), requires_grad=True), map(Tensor, running(2))
    for statistic in (mean, var):
        y = (a * statistic).sum()
        F.batch_norm(Tensor(tie_free((3, 2, 4))), mean, var, training=True)
        with pytest.raises(RuntimeError, match="changed in place after the forward pass"):
            y.backward()


@both_kernels
@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 3, 0, 5), (0, 3)])
@pytest.mark.parametrize("training", [True, False])
def test_an_empty_batch_stays_empty_and_teaches_nothing(kernels: str, shape: tuple[int, ...], training: bool) -> None:
    mean, var = map(Tensor, running(3))
    before = mean.numpy().copy()
    x, w, b = (Tensor(a, requires_grad=True) for a in (np.zeros(shape), *parameters(3)))
    with use_kernels(kernels):
        y = F.batch_norm(x, mean, var, w, b, training)
        y.sum().backward()
    assert y.shape == x.grad.shape == shape
    np.testing.assert_array_equal(np.stack([w.grad.numpy(), b.grad.numpy()]), 0)
    np.testing.assert_array_equal(mean.numpy(), before)


# -- local response norm -----------------------------------------------------------------------------------------------------------


@given(seed=seeds, c=st.integers(1, 6), before=st.integers(0, 7), after=st.integers(0, 7), layout=layouts, dtype=float_dtypes)
def test_channel_sums_are_sums_exactly_and_adjoint_the_other_way_round(
    seed: int, c: int, before: int, after: int, layout: str, dtype: Any
) -> None:
    x, y = integers((2, c, 3, 4), seed, dtype), integers((2, c, 3, 4), seed + 1, dtype)
    total = ChannelSum(before, after)(Tensor.wrap(lay_out(x, layout)))
    expected = np.stack([x[:, max(0, i - before) : i + after + 1].sum(1) for i in range(c)], 1)
    np.testing.assert_array_equal(total.numpy(), expected)
    check_adjoint(lambda v: ChannelSum(before, after)(Tensor(v)).numpy(), lambda v: ChannelSum(after, before)(Tensor(v)).numpy(), x, y)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 12])
def test_local_response_norm(size: int) -> None:
    """The formula by loops, PyTorch's numbers and derivatives, and derivatives to third order."""
    x = tie_free((2, 4, 3, 5)) * 2
    expected = np.empty_like(x)
    for c in range(4):
        neighbours = x[:, max(0, c - size // 2) : c + (size - 1) // 2 + 1]
        expected[:, c] = x[:, c] / (1.5 + 0.4 / size * (neighbours**2).sum(1)) ** 0.75
    y = F.local_response_norm(Tensor.wrap(lay_out(x, "channels-last")), size, 0.4, 0.75, 1.5)
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-14)
    assert y._array.transpose(0, 2, 3, 1).flags.c_contiguous
    for dtype, eps in ((np.float64, 1e-12), (np.float32, 2e-6)):
        agree(lambda f, x: f.local_response_norm(x, size, 0.4, 0.6, 1.5), x.astype(dtype), rtol=eps, atol=eps)
        agree(lambda f, x: f.local_response_norm(x, size), x[:, :, 0].astype(dtype), rtol=eps, atol=eps)
    check_grads(lambda x: F.local_response_norm(x, size, 0.4, 0.75, 1.5), [x[:1, :, :2, :2]], 3)
    assert F.local_response_norm(Tensor(np.ones((0, 4, 3, 5))), size).shape == (0, 4, 3, 5)


# -- errors ------------------------------------------------------------------------------------------------------------------------


def ones(*shape: int, dtype: Any = np.float64) -> Tensor:
    return Tensor(np.ones(shape, dtype))


@pytest.mark.parametrize("call, message", [
    (lambda: F.batch_norm(ones(1, 3, 1, 1), None, None, training=True),
     "batch_norm: training needs more than one value per channel, got input (1, 3, 1, 1); give a larger batch or image, or use eval()"),
    (lambda: F.batch_norm(ones(1, 3), None, None, training=True), "more than one value per channel, got input (1, 3)"),
    (lambda: F.batch_norm(ones(2, 3), None, ones(3)), "batch_norm: running_mean and running_var are needed unless training=True"),
    (lambda: F.batch_norm(ones(2, 3, 4), ones(4), ones(3)),
     "batch_norm: running_mean must have one value for each of 3 channels, got shape (4,) (input (2, 3, 4))"),
    (lambda: F.batch_norm(ones(2, 3), None, None, ones(3, 1), training=True), "batch_norm: weight must have one value for each of 3 channels"),
    (lambda: F.batch_norm(ones(2, 3), None, None, None, ones(3, dtype=np.float32), True),
     "batch_norm: input is float64 but bias is float32; cast one with .astype()"),
    (lambda: F.batch_norm(ones(3), None, None, training=True), "batch_norm: input must be (N, C, ...), got shape (3,)"),
    (lambda: F.batch_norm(ones(2, 3, dtype=np.int64), None, None, training=True), "batch_norm: input must be floating-point, got int64"),
    (lambda: F.local_response_norm(ones(2, 3), 0), "local_response_norm: size must be at least 1, got 0"),
    (lambda: F.local_response_norm(ones(3), 2), "local_response_norm: input must be (N, C, ...), got shape (3,)"),
])  # fmt: skip
def test_errors_are_sentences(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        call()


def test_one_value_per_channel_is_enough_to_evaluate() -> None:
    y = F.batch_norm(ones(1, 2, 1, 1), Tensor(np.zeros(2)), Tensor(np.full(2, 3.0)), eps=1.0)
    assert y.numpy().reshape(-1).tolist() == [0.5, 0.5] and math.prod(y.shape) == 2
