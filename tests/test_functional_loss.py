"""Losses: their definitions by loops, derivatives to third order, PyTorch's numbers, ignored pixels, extremes, sentences for wrong masks."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from peer import agree

from minidcnn import Tensor, check_adjoint, check_grads, grad, nn, no_grad, use_kernels
from minidcnn import functional as F
from minidcnn.functional.classes import AtClass, ClassSums, PickClass, PlaceClass, Quotient
from minidcnn.functional.loss import Expm1, Softplus
from minidcnn.testing import float_dtypes, integers, lay_out, layouts, seeds, tie_free

Array = np.ndarray[Any, Any]
both_kernels = pytest.mark.parametrize("kernels", ["fast", "reference"])
NAN, INF = np.nan, np.inf
REDUCTIONS = ("mean", "sum", "none")

SHAPES = [(2, 3, 4, 5), (4, 3), (1, 2, 1, 1), (2, 4, 3), (2, 3, 2, 1, 2)]
shapes = st.sampled_from([*SHAPES, (0, 3, 4, 5), (2, 1, 2, 3)])


def pixels(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:1], *shape[2:])


def labels(shape: tuple[int, ...], seed: int = 0, ignore: int | None = -100, dtype: Any = np.int64) -> Array:
    """Classes for logits of `shape`, of all kinds, about a fifth of them ignored."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, shape[1], pixels(shape))
    if ignore is not None:
        target[rng.random(target.shape) < 0.2] = ignore
    return target.astype(dtype)


def class_weights(c: int, dtype: Any = np.float64) -> Array:
    return (tie_free((c,), 3) + 1.5).astype(dtype)


def maps(shape: tuple[int, ...], seed: int = 0, dtype: Any = np.float64) -> Array:
    """Pixel weights, some of them 0."""
    return np.maximum(tie_free(pixels(shape), seed) + 0.7, 0).astype(dtype)


# -- the linear maps between pixels and classes ---------------------------------------------------------------------------------------


@both_kernels
@given(shape=shapes, seed=seeds, dtype=float_dtypes, layout=layouts)
def test_pick_and_place_at_class_and_sums_are_adjoint_pairs(
    kernels: str, shape: tuple[int, ...], seed: int, dtype: Any, layout: str
) -> None:
    c, t = shape[1], labels(shape, seed, -1)
    target = Tensor.wrap(lay_out(t, layout))
    x, y, v = integers(shape, seed, dtype), integers(t.shape, seed + 1, dtype), integers((c,), seed + 2, dtype)
    a, b = Tensor.wrap(lay_out(x, layout)), Tensor.wrap(lay_out(y, layout))
    with use_kernels(kernels):
        picked, placed = PickClass(c)(a, target).numpy(), PlaceClass(c)(b, target).numpy()
        at, sums = AtClass(c)(Tensor(v), target).numpy(), ClassSums(c)(b, target).numpy()
    one_hot = np.moveaxis(np.eye(c + 1)[t][..., :c], -1, 1)  # the row of -1, the last, is cut off
    np.testing.assert_array_equal(picked, (x * one_hot).sum(1))
    np.testing.assert_array_equal(placed, y[:, None] * one_hot)
    np.testing.assert_array_equal(at, (v.reshape(1, -1, *(1,) * (x.ndim - 2)) * one_hot).sum(1))
    np.testing.assert_array_equal(sums, (placed).sum((0, *range(2, x.ndim))))
    check_adjoint(lambda _: picked, lambda _: placed, x, y)
    check_adjoint(lambda _: at, lambda _: sums, v, y)
    assert {r.dtype for r in (picked, placed, at, sums)} == {np.dtype(dtype)}
    assert np.moveaxis(placed, 1, -1).flags.c_contiguous


# -- cross-entropy: the definition -------------------------------------------------------------------------------------------------------


def by_loops(x: Array, t: Array, w: Array, smoothing: float, p: Array, ignore: int) -> tuple[Array, float]:
    """Losses and the sum of the weights, one pixel at a time, in float64."""
    losses, mass, c = np.zeros(t.shape), 0.0, x.shape[1]
    for at in np.ndindex(*t.shape):
        if t[at] == ignore:
            continue
        z = x[(at[0], slice(None), *at[1:])].astype(np.float64)
        logs = z - z.max() - np.log(np.exp(z - z.max()).sum())
        soft = np.full(c, smoothing / c)
        losses[at] = -((1 - smoothing) * w[t[at]] * logs[t[at]] + (soft * w * logs).sum()) * p[at]
        mass += w[t[at]] * p[at]
    return losses, mass


@both_kernels
@given(shape=shapes, seed=seeds, dtype=float_dtypes, layout=layouts, smoothing=st.sampled_from([0.0, 0.1, 1.0]), weighted=st.booleans(),
       mapped=st.booleans(), ignore=st.sampled_from([-100, 255, 1]), kind=st.sampled_from([np.int64, np.int32, np.int16]))  # fmt: skip
def test_cross_entropy_is_its_definition(kernels: str, shape: tuple[int, ...], seed: int, dtype: Any, layout: str, smoothing: float,
                                         weighted: bool, mapped: bool, ignore: int, kind: Any) -> None:  # fmt: skip
    """Any layout, dtype and combination of options, with its gradient (t softmax(x) - target) g."""
    x, t = tie_free(shape, seed, dtype) * 4, labels(shape, seed, ignore, kind)
    w = class_weights(shape[1], dtype) if weighted else None
    p = maps(shape, seed, dtype) if mapped else None
    weight, map_ = (None if v is None else Tensor(v) for v in (w, p))
    filled = (np.ones(shape[1]) if w is None else w, np.ones(t.shape) if p is None else p)
    losses, mass = by_loops(x, t, filled[0], smoothing, filled[1], ignore)
    expected = {"none": losses, "sum": losses.sum(), "mean": losses.sum() / mass if mass else 0.0}
    eps = 16 * np.finfo(dtype).eps
    for reduction, value in expected.items():
        a = Tensor.wrap(lay_out(x, layout)).requires_grad_()
        with use_kernels(kernels):
            y = F.cross_entropy(a, Tensor.wrap(lay_out(t, layout)), weight, ignore, reduction, smoothing, map_)
            y.sum().backward()
        assert y.dtype == a.grad.dtype == dtype and y.shape == np.shape(value)
        np.testing.assert_allclose(y.numpy(), value, rtol=eps, atol=eps)
        soft = np.exp(x - x.max(1, keepdims=True)).astype(np.float64)
        soft /= soft.sum(1, keepdims=True)
        own = np.moveaxis(np.eye(shape[1])[np.where(t == ignore, 0, t)], -1, 1) * (1 - smoothing) + smoothing / shape[1]
        own *= filled[0].reshape(1, -1, *(1,) * (x.ndim - 2)) * np.where(t == ignore, 0, filled[1])[:, None]
        slope = own.sum(1, keepdims=True) * soft - own
        np.testing.assert_allclose(a.grad.numpy(), slope / (mass or 1) if reduction == "mean" else slope, rtol=eps, atol=eps)
        assert np.moveaxis(a.grad._array, 1, -1).flags.c_contiguous


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_agrees_with_pytorch(shape: tuple[int, ...], reduction: str, smoothing: float, weighted: bool) -> None:
    """Class indices, ignored pixels, and probabilities; values, gradients, gradients of gradients; weights are constants."""
    options = {"reduction": reduction, "label_smoothing": smoothing}

    def f(f: Any, x: Any, t: Any, **more: Any) -> Any:
        weight = None
        if weighted:
            array = class_weights(shape[1], np.float32 if "32" in str(x.dtype) else np.float64)
            weight = f.torch.tensor(array) if hasattr(f, "torch") else Tensor(array)
        return f.cross_entropy(x, t, weight, **options, **more)

    x, probable = tie_free(shape) * 3, np.abs(tie_free(shape, 2))
    for dtype, eps in ((np.float64, 1e-12), (np.float32, 3e-6)):
        agree(f, x.astype(dtype), labels(shape, 1, None), rtol=eps, atol=eps)
        agree(lambda g, x, t: f(g, x, t, ignore_index=255), x.astype(dtype), labels(shape, 1, 255), rtol=eps, atol=eps)
        agree(f, x.astype(dtype), probable.astype(dtype), rtol=eps, atol=eps)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_losses_agree_with_pytorch(reduction: str) -> None:
    x, t, y = tie_free((2, 3, 4, 5)) * 3, labels((2, 3, 4, 5), 1), np.abs(tie_free((2, 3, 4, 5), 2))

    def const(f: Any, x: Any, array: Array) -> Any:
        array = array.astype(np.float32 if "32" in str(x.dtype) else np.float64)
        return f.torch.tensor(array) if hasattr(f, "torch") else Tensor(array)

    bce = lambda f, x, y, **k: f.binary_cross_entropy_with_logits(x, y, reduction=reduction, **k)
    for dtype, eps in ((np.float64, 1e-12), (np.float32, 3e-6)):
        a, b = x.astype(dtype), y.astype(dtype)
        agree(lambda f, x, t: f.nll_loss(f.log_softmax(x, 1), t, reduction=reduction), a, t, rtol=eps, atol=eps)
        agree(lambda f, x, t: f.nll_loss(x, t, const(f, x, class_weights(3)), reduction=reduction), a, t, order=1, rtol=eps, atol=eps)
        agree(lambda f, x, y: f.mse_loss(x, y, reduction=reduction), a, b, rtol=eps, atol=eps)
        agree(lambda f, x, y: f.l1_loss(x, y, reduction=reduction), a, b, order=1, rtol=eps, atol=eps)
        agree(bce, a, b, rtol=eps, atol=eps)
        agree(lambda f, x, y: bce(f, x, y, pos_weight=const(f, x, class_weights(3).reshape(3, 1, 1))), a, b, rtol=eps, atol=eps)
        agree(lambda f, x, y: bce(f, x, y, weight=const(f, x, class_weights(5))), a, b, rtol=eps, atol=eps)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_one_sample_without_a_batch_axis(reduction: str) -> None:
    x, t = tie_free((4,)), np.array(2)
    agree(lambda f, x, t: f.cross_entropy(x, t, reduction=reduction, label_smoothing=0.1), x, t)
    agree(lambda f, x, t: f.cross_entropy(x, t, reduction=reduction, label_smoothing=0.1), x, np.abs(x))
    agree(lambda f, x, t: f.nll_loss(x, t, reduction=reduction), x, t)
    for f in (F.cross_entropy, F.nll_loss, F.focal_loss):
        assert f(Tensor(x), Tensor(np.array(-100)), reduction=reduction).item() == 0
    weighed = F.cross_entropy(Tensor(x), Tensor(t), reduction="sum", pixel_weights=Tensor(3.0))
    np.testing.assert_allclose(weighed.item(), 3 * F.cross_entropy(Tensor(x), Tensor(t)).item(), rtol=1e-15)


# -- derivatives -------------------------------------------------------------------------------------------------------------------------

T = Tensor
W = Tensor(class_weights(3))
t = Tensor(labels((2, 3, 2, 3), 4, 255))
positive = Tensor(class_weights(3).reshape(3, 1, 1))

LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "cross_entropy": lambda x: F.cross_entropy(x, t, ignore_index=255),
    "cross_entropy none": lambda x: F.cross_entropy(x, t, W, 255, "none"),
    "cross_entropy smooth": lambda x: F.cross_entropy(x, t, W, 255, "sum", 0.3),
    "nll_loss": lambda x: F.nll_loss(x * x, t, W, 255),
    "focal_loss": lambda x: F.focal_loss(x, t, weight=W, ignore_index=255),
    "focal_loss 3.5": lambda x: F.focal_loss(x, t, 3.5, ignore_index=255, reduction="none"),
    "focal_loss 0.5": lambda x: F.focal_loss(x, t, 0.5, ignore_index=255),
    "dice_loss": lambda x: F.dice_loss(x, t, ignore_index=255),
    "dice_loss squared": lambda x: F.dice_loss(x, t, 0.1, W, 255, "none", squared=True),
    "tversky_loss": lambda x: F.tversky_loss(x, t, weight=W, ignore_index=255),
    "bce": lambda x: F.binary_cross_entropy_with_logits(x, Tensor(np.abs(tie_free(x.shape))), pos_weight=positive),
    "mse_loss": lambda x: F.mse_loss(x, x * x),
    "l1_loss": lambda x: F.l1_loss(x * x, Tensor(np.full(x.shape, 0.3))),
}


@pytest.mark.parametrize("name", LOSSES)
def test_derivatives_to_third_order(name: str) -> None:
    check_grads(LOSSES[name], [tie_free((2, 3, 2, 3)) * 2], 3)


def test_derivatives_by_targets_and_pixel_weights() -> None:
    x, y = tie_free((2, 3, 2, 3)) * 2, np.abs(tie_free((2, 3, 2, 3), 1)) * 0.9 + 0.05
    check_grads(lambda x, y: F.cross_entropy(x, y, W, label_smoothing=0.1), [x, y], 2)
    check_grads(lambda x, y: F.binary_cross_entropy_with_logits(x, y, weight=W[0], pos_weight=positive), [x, y], 2)
    check_grads(lambda x, p: F.cross_entropy(x, t, W, 255, label_smoothing=0.1, pixel_weights=p), [x, maps(x.shape) + 0.1], 2)
    check_grads(lambda x, y: F.mse_loss(x, y), [x, y], 2)
    for f in (Softplus(), Expm1()):
        check_grads(f, [x], 3)


# -- ignored pixels, empty batches -----------------------------------------------------------------------------------------------------------

ignoring: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": F.cross_entropy,
    "smoothed": lambda *a, **k: F.cross_entropy(*a, label_smoothing=0.2, **k),
    "weighted": lambda *a, **k: F.cross_entropy(*a, weight=Tensor(class_weights(3, np.float32)), **k),
    "mapped": lambda x, t, **k: F.cross_entropy(x, t, pixel_weights=Tensor(np.ones(t.shape, np.float32)), **k),
    "nll_loss": F.nll_loss,
    "focal_loss": F.focal_loss,
    "dice_loss": F.dice_loss,
    "dice_loss, unsmoothed": lambda *a, **k: F.dice_loss(*a, smooth=0.0, **k),
    "tversky_loss": F.tversky_loss,
    "tversky_loss, unsmoothed": lambda *a, **k: F.tversky_loss(*a, smooth=0.0, **k),
}
each = pytest.mark.parametrize("name", ignoring)


@both_kernels
@each
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 3, 1, 1), (0, 3, 4, 5), (3, 3)])
def test_a_batch_without_a_counted_pixel_has_loss_and_gradient_zero(kernels: str, name: str, shape: tuple[int, ...]) -> None:
    x = Tensor(tie_free(shape, 0, np.float32), requires_grad=True)
    with use_kernels(kernels):
        y = ignoring[name](x, Tensor(np.full(pixels(shape), 255, np.uint8)), ignore_index=255)
        (dx,) = grad(y, x, create_graph=True)
        (ddx,) = grad((dx * dx).sum(), x) if dx.requires_grad else (dx,)
    assert y.item() == 0 and y.dtype == np.float32
    for g in (dx, ddx):
        np.testing.assert_array_equal(g.numpy(), np.zeros(shape))


@both_kernels
@each
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_ignored_pixels_count_nowhere(kernels: str, name: str, reduction: str) -> None:
    """The loss is that of the other pixels alone, whatever the logits of the ignored ones."""
    x, target = tie_free((1, 3, 4, 5), 0, np.float32), labels((1, 3, 4, 5), 2, 255)
    kept = target[0] != 255
    alone = x[:, :, kept][..., None], target[:, kept][..., None]
    a = Tensor(x, requires_grad=True)
    with use_kernels(kernels):
        y = ignoring[name](a, Tensor(target), ignore_index=255, reduction=reduction)
        y.backward()
        expected = ignoring[name](Tensor(alone[0]), Tensor(alone[1]), reduction=reduction)
        x[:, :, ~kept] *= 7
        again = ignoring[name](Tensor(x), Tensor(target), ignore_index=255, reduction=reduction)
    np.testing.assert_allclose(y.item(), expected.item(), rtol=2e-6)
    np.testing.assert_allclose(again.item(), y.item(), rtol=2e-6)
    assert (a.grad.numpy()[:, :, ~kept] == 0).all() and (a.grad.numpy()[:, :, kept] != 0).any(1).all()


@both_kernels
def test_even_nan_in_an_ignored_pixel_does_no_harm(kernels: str) -> None:
    """A network may overflow where nobody looks, and weight maps are often undefined there."""
    x, target = tie_free((2, 3, 4, 5), 0, np.float32), labels((2, 3, 4, 5), 0, None)
    p = np.ones(target.shape, np.float32)
    target[1, 2, 3] = 255
    expected = F.cross_entropy(Tensor(x), Tensor(target), None, 255, label_smoothing=0.1).item()
    x[1, :, 2, 3] = p[1, 2, 3] = np.nan
    a = Tensor(x, requires_grad=True)
    with use_kernels(kernels):
        y = F.cross_entropy(a, Tensor(target), None, 255, label_smoothing=0.1, pixel_weights=Tensor(p))
        y.backward()
    assert abs(y.item() - expected) < 1e-6 and np.isfinite(a.grad.numpy()).all()


@both_kernels
def test_a_quotient_by_zero_is_zero_and_so_are_its_gradients(kernels: str) -> None:
    """Whatever was divided, NaN too; elsewhere it is the quotient, with all its derivatives."""
    check_grads(Quotient(), [tie_free((2, 3)), np.abs(tie_free((2, 3), 1)) + 0.3], 3)
    a, b = (Tensor(np.array(v), requires_grad=True) for v in ([6.0, 5.0, 0.0, np.nan, np.inf], [-3.0, 0.0, 0.0, 0.0, -0.0]))
    with use_kernels(kernels):
        y = Quotient()(a, b)
        by_a, by_b = grad(y, [a, b], Tensor(np.ones(5)))
    assert [t.numpy().tolist() for t in (y, by_a, by_b)] == [[-2, 0, 0, 0, 0], [-1 / 3, 0, 0, 0, 0], [-2 / 3, 0, 0, 0, 0]]


def test_weights_of_zero_give_zero() -> None:
    x, target = Tensor(tie_free((2, 3, 4, 5)), requires_grad=True), Tensor(labels((2, 3, 4, 5), 0, None) * 0)
    for options in ({"weight": Tensor(np.array([0.0, 1, 1]))}, {"pixel_weights": Tensor(np.zeros((2, 4, 5)))}):
        for smoothing in (0.0, 0.1):
            y = F.cross_entropy(x, target, label_smoothing=smoothing, **options)
            assert y.item() == 0 and (grad(y, x)[0].numpy() == 0).all()


@pytest.mark.parametrize("f", [F.binary_cross_entropy_with_logits, F.mse_loss, F.l1_loss])
def test_a_mean_over_nothing_is_zero(f: Callable[..., Tensor]) -> None:
    x = Tensor(np.zeros((0, 3), np.float32), requires_grad=True)
    y = f(x, Tensor(np.zeros((0, 3), np.float32)))
    y.backward()
    assert y.item() == 0 and x.grad.shape == (0, 3)


# -- numbers that are hard to compute ------------------------------------------------------------------------------------------------------


@both_kernels
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_logits_neither_overflow_nor_lose_small_losses(kernels: str, dtype: Any) -> None:
    x = Tensor(np.array([[1e4, -1e4], [-1e4, 1e4], [0, 20], [1e30, 1e30], [0, -np.inf]], dtype), requires_grad=True)
    with use_kernels(kernels):
        y = F.cross_entropy(x, Tensor(np.array([0, 0, 1, 1, 0])), reduction="none")
        y.sum().backward()
    np.testing.assert_allclose(y.numpy(), [0, 2e4, np.log1p(np.exp(-20.0)), np.log(2.0), 0], rtol=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), [[0, 0], [-1, 1], [np.exp(-20.0), -np.exp(-20.0)], [0.5, -0.5], [0, 0]], atol=1e-7)
    z, ones = Tensor(np.array([-1e30, -80, -40, 0, 40, 80, 1e30], dtype), requires_grad=True), Tensor(np.ones(7))
    for target, expected in ((1, -z.numpy()), (0, z.numpy())):
        y = F.binary_cross_entropy_with_logits(z, ones * target, reduction="none")
        value = np.where(expected > 0, expected, 0) + np.log1p(np.exp(-np.abs(expected.astype(np.float64))))
        np.testing.assert_allclose(y.numpy(), value, rtol=1e-6)
        assert np.isfinite(grad(y.sum(), z)[0].numpy()).all()


@both_kernels
def test_sums_over_many_pixels_are_exact(kernels: str, rng: np.random.Generator) -> None:
    """A mean over 2 million equal losses in float32 is that loss."""
    x = np.zeros((1, 2, 1024, 1023), np.float32)
    x[:, 0] = 0.1
    with use_kernels(kernels):
        y = F.cross_entropy(Tensor(x), Tensor(np.zeros((1, 1024, 1023), np.uint8)))
    np.testing.assert_allclose(y.item(), np.log1p(np.exp(-np.float64(np.float32(0.1)))), rtol=1e-7)


@both_kernels
def test_large_batches_agree_with_the_definition(kernels: str, rng: np.random.Generator) -> None:
    """Sizes at which fast kernels split their work, with a class count that fills no vector."""
    x, target = rng.standard_normal((2, 21, 70, 60)).astype(np.float32), rng.integers(0, 21, (2, 70, 60))
    target[:, 10:20] = 255
    w = class_weights(21)
    a = Tensor(lay_out(x, "channels-last"), requires_grad=True)
    with use_kernels(kernels):
        y = F.cross_entropy(a, Tensor(target), Tensor(w.astype(np.float32)), 255, label_smoothing=0.1)
        y.backward()
    b = Tensor(x.astype(np.float64), requires_grad=True)
    logs = F.log_softmax(b, 1)
    one_hot = np.moveaxis(np.eye(21)[np.where(target == 255, 0, target)], -1, 1) * 0.9 + 0.1 / 21
    one_hot *= (target != 255)[:, None] * w.reshape(1, -1, 1, 1)
    mass = float((w[np.where(target == 255, 0, target)] * (target != 255)).sum())
    z = -(logs * Tensor(one_hot)).sum() / mass
    z.backward()
    np.testing.assert_allclose(y.item(), z.item(), rtol=1e-6)
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=2e-5, atol=1e-9)


# -- what losses mean ------------------------------------------------------------------------------------------------------------------------


@given(seed=seeds, factor=st.floats(0.1, 10))
def test_weights_count_in_proportion(seed: int, factor: float) -> None:
    """A weighted mean does not change when all weights do; a pixel of weight 2 counts as two pixels."""
    x, target, p = tie_free((2, 3, 4, 5), seed), labels((2, 3, 4, 5), seed), maps((2, 3, 4, 5), seed)
    w = class_weights(3)
    plain = F.cross_entropy(T(x), T(target), T(w), pixel_weights=T(p)).item()
    np.testing.assert_allclose(F.cross_entropy(T(x), T(target), T(w * factor), pixel_weights=T(p * factor)).item(), plain, rtol=1e-12)
    double = F.cross_entropy(
        T(np.concatenate([x, x])), T(np.concatenate([target, target])), T(w), pixel_weights=T(np.concatenate([p, p]))
    ).item()
    twice = F.cross_entropy(T(x), T(target), T(w), pixel_weights=T(2 * p), reduction="sum").item()
    np.testing.assert_allclose(double, plain, rtol=1e-12)
    np.testing.assert_allclose(twice, 2 * F.cross_entropy(T(x), T(target), T(w), pixel_weights=T(p), reduction="sum").item(), rtol=1e-12)


@given(seed=seeds, gamma=st.floats(0, 5))
def test_focal_loss_by_its_formula(seed: int, gamma: float) -> None:
    x, target, w = tie_free((2, 3, 4, 5), seed) * 3, labels((2, 3, 4, 5), seed), class_weights(3)
    p = F.softmax(T(x), 1).numpy()
    kept, own = target >= 0, np.maximum(target, 0)
    p = np.take_along_axis(p, own[:, None], 1)[:, 0]
    losses = -w[own] * (1 - p) ** gamma * np.log(p) * kept
    mass = (w[own] * kept).sum()
    for reduction, value in (("none", losses), ("sum", losses.sum()), ("mean", losses.sum() / mass)):
        np.testing.assert_allclose(F.focal_loss(T(x), T(target), gamma, T(w), reduction=reduction).numpy(), value, rtol=1e-9, atol=1e-14)
    same = F.cross_entropy(T(x), T(target), T(w)).item()
    np.testing.assert_allclose(F.focal_loss(T(x), T(target), 0.0, T(w)).item(), same, rtol=1e-14)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_loss_of_what_is_certain_is_zero_with_gradient_zero(gamma: float) -> None:
    x = Tensor(np.array([[1e4, 0.0], [0.0, 1e3]]), requires_grad=True)
    (dx,) = grad(F.focal_loss(x, Tensor(np.array([0, 1])), gamma), x, create_graph=True)
    assert (dx.numpy() == 0).all() and (grad(dx.sum(), x)[0].numpy() == 0).all()


@given(seed=seeds, smooth=st.sampled_from([0.0, 0.5, 1.0]), alpha=st.floats(0, 1), beta=st.floats(0.01, 1))
def test_overlap_losses_by_their_formulas(seed: int, smooth: float, alpha: float, beta: float) -> None:
    x, target = tie_free((2, 3, 4, 5), seed) * 3, labels((2, 3, 4, 5), seed)
    w, p, kept = class_weights(3), F.softmax(T(x), 1).numpy(), (target >= 0)[:, None]
    own = np.moveaxis(np.eye(3)[np.maximum(target, 0)], -1, 1) * kept
    p, axes = p * kept, (0, 2, 3)
    hits, false, missed = (p * own).sum(axes), (p * (1 - own)).sum(axes), ((1 - p) * own).sum(axes)
    dice = 1 - (2 * hits + smooth) / (p.sum(axes) + own.sum(axes) + smooth)
    squared = 1 - (2 * hits + smooth) / ((p * p).sum(axes) + own.sum(axes) + smooth)
    tversky = 1 - (hits + smooth) / (hits + alpha * false + beta * missed + smooth)
    for losses, f in (
        (dice, lambda **k: F.dice_loss(T(x), T(target), smooth, **k)),
        (squared, lambda **k: F.dice_loss(T(x), T(target), smooth, squared=True, **k)),
        (tversky, lambda **k: F.tversky_loss(T(x), T(target), alpha, beta, smooth, **k)),
    ):
        np.testing.assert_allclose(f(reduction="none").numpy(), losses, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(f().item(), losses.mean(), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(f(weight=T(w)).item(), (losses * w).sum() / w.sum(), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(f(weight=T(w), reduction="sum").item(), (losses * w).sum(), rtol=1e-10, atol=1e-12)
    half = F.tversky_loss(T(x), T(target), 0.5, 0.5, smooth).numpy()
    np.testing.assert_allclose(half, F.dice_loss(T(x), T(target), 2 * smooth).numpy(), rtol=1e-12, atol=1e-12)


def test_overlap_losses_of_right_and_wrong_predictions() -> None:
    target = labels((2, 3, 4, 5), 0, None)
    right = np.moveaxis(np.eye(3)[target], -1, 1) * 100
    for f in (F.dice_loss, F.tversky_loss):
        assert f(T(right), T(target)).item() < 1e-12
        assert f(T(-right), T(target), smooth=0.0).item() > 1 - 1e-12
    only = T(np.zeros_like(target))  # classes that neither occur nor are predicted cost nothing
    sure = np.zeros((2, 3, 4, 5))
    sure[:, 0] = 1e4
    np.testing.assert_array_equal(F.dice_loss(T(sure), only, smooth=0.0, reduction="none").numpy(), 0)


# -- masks as people save them, and other errors -------------------------------------------------------------------------------------------


def logits(*shape: int, dtype: Any = np.float32) -> Tensor:
    return Tensor(np.zeros(shape, dtype))


def mask(*shape: int, at: tuple[int, ...] = (), value: int = 0, dtype: Any = np.int64) -> Tensor:
    array = np.zeros(shape, dtype)
    if shape:
        array[at or (0,)] = value
    return Tensor(array)


EVERYDAY = (
    "cross_entropy: target[1, 2, 3] is 255, which is none of the input's 3 classes, 0 to 2; map it to one (masks are often saved as 0 and "
    "255, or as colours), or leave such pixels out with ignore_index=255"
)
CHANNEL = (
    "cross_entropy: target must hold one class index per pixel, shape (2, 4, 5) for input (2, 3, 4, 5), got shape (2, 1, 4, 5); take its "
    "channel axis away with target[:, 0]"
)


@pytest.mark.parametrize("call, message", [
    (lambda: F.cross_entropy(logits(2, 3, 4, 5), mask(2, 4, 5, at=(1, 2, 3), value=255, dtype=np.uint8)), EVERYDAY),
    (lambda: F.cross_entropy(logits(2, 3, 4, 5), mask(2, 4, 5, at=(0, 1, 2), value=-1), ignore_index=255), "target[0, 1, 2] is -1"),
    (lambda: F.cross_entropy(logits(3), Tensor(np.array(3))), "cross_entropy: target is 3, which is none of the input's 3 classes"),
    (lambda: F.nll_loss(logits(4, 3), mask(4, at=(2,), value=3)), "nll_loss: target[2] is 3, which is none of the input's 3 classes, 0 to 2"),
    (lambda: F.focal_loss(logits(4, 3), mask(4, at=(2,), value=-100), ignore_index=0), "focal_loss: target[2] is -100"),
    (lambda: F.dice_loss(logits(1, 2, 3, 4), mask(1, 3, 4, at=(0, 2, 3), value=2)), "dice_loss: target[0, 2, 3] is 2"),
    (lambda: F.tversky_loss(logits(1, 2, 3, 4), mask(1, 3, 4, at=(0, 0, 1), value=7)), "tversky_loss: target[0, 0, 1] is 7"),
    (lambda: F.cross_entropy(logits(2, 3, 4, 5), mask(2, 1, 4, 5)), CHANNEL),
    (lambda: F.cross_entropy(logits(2, 3, 4, 5), mask(2, 5, 4)), "shape (2, 4, 5) for input (2, 3, 4, 5), got shape (2, 5, 4)"),
    (lambda: F.cross_entropy(logits(2, 3, 4, 5), logits(2, 4, 5)),
     "cross_entropy: target must hold class indices as integers, got float32 of shape (2, 4, 5) for input (2, 3, 4, 5)"),
    (lambda: F.nll_loss(logits(2, 3), logits(2, 3)), "nll_loss: target must hold class indices as integers, got float32"),
    (lambda: F.cross_entropy(logits(2, 3, 4), mask(2, 4), logits(2)), "cross_entropy: weight must have one number for each of 3 classes"),
    (lambda: F.cross_entropy(logits(2, 3), logits(2, 3), logits(2)), "cross_entropy: weight must have one number for each of 3 classes"),
    (lambda: F.cross_entropy(logits(2, 3, 4), mask(2, 4), pixel_weights=logits(2, 3)),
     "cross_entropy: pixel_weights must have one number per pixel, shape (2, 4), got shape (2, 3)"),
    (lambda: F.cross_entropy(logits(2, 3), mask(2), reduction="avg"), 'cross_entropy: reduction must be "none", "mean" or "sum", got \'avg\''),
    (lambda: F.cross_entropy(logits(2, 3), mask(2), label_smoothing=1.1), "cross_entropy: label_smoothing must lie between 0 and 1, got 1.1"),
    (lambda: F.cross_entropy(logits(2, 3), mask(2), label_smoothing=None), "cross_entropy: label_smoothing must lie between 0 and 1, got None"),
    (lambda: F.cross_entropy(logits(2, 3), [0, 1]), "cross_entropy: input 1 must be a Tensor, got list; wrap arrays as minidcnn.Tensor(array)"),
    (lambda: F.cross_entropy(logits(2, 3, dtype=np.int64), mask(2)), "cross_entropy: input must be floating-point, got int64"),
    (lambda: F.cross_entropy(logits(2, 0, 4), mask(2, 4)), "with at least one class, got shape (2, 0, 4)"),
    (lambda: F.focal_loss(logits(2, 3), mask(2), -1.0), "focal_loss: gamma must not be negative, got -1.0"),
    (lambda: F.dice_loss(logits(2, 1, 4, 5), mask(2, 4, 5)),
     "dice_loss: input must be logits (N, C, ...) of at least 2 classes, got shape (2, 1, 4, 5); give background a channel of its own"),
    (lambda: F.dice_loss(logits(2, 3), mask(2), smooth=-1), "dice_loss: smooth must not be negative, got -1"),
    (lambda: F.tversky_loss(logits(2, 3), mask(2), 0.5, -0.5), "tversky_loss: alpha and beta must not be negative, got 0.5 and -0.5"),
    (lambda: F.binary_cross_entropy_with_logits(logits(2, 1, 4), Tensor(np.full((2, 1, 4), 255, np.uint8))),
     "binary_cross_entropy_with_logits: target must lie between 0 and 1, got values from 255 to 255; divide masks of 0 and 255 by 255"),
    (lambda: F.binary_cross_entropy_with_logits(logits(2, 1, 4), logits(2, 4)),
     "binary_cross_entropy_with_logits: target must have the input's shape (2, 1, 4), got (2, 4)"),
    (lambda: F.mse_loss(logits(2, 3), logits(2, 1)), "mse_loss: target must have the input's shape (2, 3), got (2, 1)"),
    (lambda: F.l1_loss(logits(2, 3), logits(3, 2)), "l1_loss: target must have the input's shape (2, 3), got (3, 2)"),
    (lambda: nn.CrossEntropyLoss(reduction="max"), 'CrossEntropyLoss: reduction must be "none", "mean" or "sum", got \'max\''),
])  # fmt: skip
def test_errors_are_sentences(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        call()


def test_masks_of_any_integers_and_booleans_are_classes() -> None:
    x = Tensor(tie_free((2, 2, 3, 4)))
    target = labels((2, 2, 3, 4), 0, None)
    expected = F.cross_entropy(x, Tensor(target)).item()
    for dtype in (np.uint8, np.int8, np.int32, np.uint16, bool):
        assert F.cross_entropy(x, Tensor(target.astype(dtype))).item() == expected


def test_a_mask_changed_after_the_forward_pass_does_not_change_the_gradient() -> None:
    """Loaders reuse their buffers."""
    target = labels((2, 3, 4, 5), 0, None)
    x, t = Tensor(tie_free((2, 3, 4, 5)), requires_grad=True), Tensor.wrap(target)
    expected = grad(F.cross_entropy(x, Tensor(target)), x)[0].numpy()
    y = F.cross_entropy(x, t)
    target[...] = 1
    np.testing.assert_array_equal(grad(y, x)[0].numpy(), expected)


# -- as layers ---------------------------------------------------------------------------------------------------------------------------


def test_layers_are_their_functions() -> None:
    x, target, w = Tensor(tie_free((2, 3, 4, 5))), Tensor(labels((2, 3, 4, 5), 0, 255)), Tensor(class_weights(3))
    y, p = Tensor(np.abs(tie_free((2, 3, 4, 5), 1))), Tensor(maps((2, 3, 4, 5)))
    for module, inputs, expected in (
        (nn.CrossEntropyLoss(w, 255, "sum", 0.1), (x, target), F.cross_entropy(x, target, w, 255, "sum", 0.1)),
        (nn.CrossEntropyLoss(ignore_index=255), (x, target, p), F.cross_entropy(x, target, None, 255, pixel_weights=p)),
        (nn.NLLLoss(w, 255, "none"), (x, target), F.nll_loss(x, target, w, 255, "none")),
        (nn.FocalLoss(1.5, w, 255), (x, target), F.focal_loss(x, target, 1.5, w, 255)),
        (nn.DiceLoss(0.5, w, 255, "none", True), (x, target), F.dice_loss(x, target, 0.5, w, 255, "none", True)),
        (nn.TverskyLoss(0.4, 0.6, 0.5, w, 255, "sum"), (x, target), F.tversky_loss(x, target, 0.4, 0.6, 0.5, w, 255, "sum")),
        (nn.BCEWithLogitsLoss(w[0], "sum", w[1]), (x, y), F.binary_cross_entropy_with_logits(x, y, w[0], "sum", w[1])),
        (nn.MSELoss("sum"), (x, y), F.mse_loss(x, y, "sum")),
        (nn.L1Loss("none"), (x, y), F.l1_loss(x, y, "none")),
    ):
        np.testing.assert_array_equal(module(*inputs).numpy(), expected.numpy())
    assert list(nn.CrossEntropyLoss(w).state_dict()) == ["weight"] and not nn.CrossEntropyLoss().state_dict()


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss", "focal_loss", "dice_loss", "tversky_loss"])
def test_what_is_ignored_is_one_integer(name: str) -> None:
    """None, 1.5 or "1" would be the label of no pixel: nobody would notice that nothing is left out."""
    loss, x = getattr(F, name), logits(2, 3)
    target = Tensor(np.array([1, 2]))
    wanted = loss(x, target, ignore_index=1).item()
    for same in (np.int64(1), np.uint8(1), np.array(1)):
        assert loss(x, target, ignore_index=same).item() == wanted
    for wrong in (None, 1.0, np.float32(1), "1", [1], True, Tensor(1)):
        with pytest.raises(TypeError, match=f"^{name}: ignore_index must be an int, got"):
            loss(x, target, ignore_index=wrong)


def test_weights_of_classes_get_their_gradient_or_a_sentence() -> None:
    x, w = tie_free((2, 3, 4, 5)), class_weights(3)
    t = Tensor(labels(x.shape))
    for loss in (F.nll_loss, F.focal_loss, F.dice_loss, F.tversky_loss):
        check_grads(lambda x, w, loss=loss: loss(x, t, weight=w), [x, w], 2)
    soft = Tensor(np.abs(tie_free(x.shape, 1)))
    check_grads(lambda x, w: F.cross_entropy(x, soft, weight=w, label_smoothing=0.1), [x, w], 2)
    weight = Tensor(w, requires_grad=True)
    for reduction in REDUCTIONS:
        with pytest.raises(RuntimeError, match=r"cross_entropy: weight has no derivative here; pass weight\.detach\(\)"):
            F.cross_entropy(Tensor(x), t, weight, reduction=reduction)
    with no_grad():
        assert F.cross_entropy(Tensor(x), t, weight).item() == F.cross_entropy(Tensor(x), t, Tensor(w)).item()


@pytest.mark.filterwarnings("ignore:invalid value")  # NumPy's, of infinity - infinity
@pytest.mark.parametrize(
    "loss", [F.cross_entropy, F.nll_loss, F.focal_loss, F.dice_loss, F.tversky_loss, partial(F.dice_loss, squared=True)]
)
def test_scores_of_ignored_pixels_may_be_anything(loss: Callable[..., Tensor]) -> None:
    scores, target = tie_free((2, 3, 4, 5)), labels((2, 3, 4, 5))
    ignored = np.broadcast_to((target == -100)[:, None], scores.shape)
    assert ignored.any()
    results = []
    for value in (0.0, NAN, INF, -INF):
        x = Tensor(np.where(ignored, value, scores), requires_grad=True)
        y = loss(x, Tensor(target))
        results.append((y.item(), grad(y, x)[0].numpy()))
    for value, slope in results:
        assert value == results[0][0]
        np.testing.assert_array_equal(slope, results[0][1])
    assert not results[0][1][ignored].any()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_pixels_weigh_as_much_where_targets_are_probabilities(reduction: str, rng: np.random.Generator) -> None:
    x, weights, target = Tensor(rng.standard_normal((2, 3, 4))), Tensor(rng.random((2, 4))), rng.integers(0, 3, (2, 4))
    certain = Tensor(np.moveaxis(np.eye(3)[target], -1, 1).copy())
    losses = [F.cross_entropy(x, t, pixel_weights=weights, reduction=reduction).numpy() for t in (certain, Tensor(target))]
    np.testing.assert_allclose(*losses, rtol=1e-12)


def test_nan_is_no_probability() -> None:
    with pytest.raises(ValueError, match="target must lie between 0 and 1"):
        F.binary_cross_entropy_with_logits(Tensor(np.zeros(3)), Tensor(np.array([0.0, np.nan, 1.0])))
