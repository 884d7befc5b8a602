"""Pooling and unpooling: winners found by plain loops, gather beside scatter, derivatives to third order, and PyTorch's results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from peer import agree

from minidcnn import Tensor, check_adjoint, check_grads, grad, no_grad, use_kernels
from minidcnn import functional as F
from minidcnn.functional.pool import Gather, PoolGather, PoolScatter
from minidcnn.testing import Pool, float_dtypes, integers, lay_out, layouts, pools, seeds, tie_free
from minidcnn.window import Pair, Window

both_kernels = pytest.mark.parametrize("kernels", ["fast", "reference"])
Array = np.ndarray[Any, Any]

CASES = {
    "plain": Pool(Window((2, 2), (2, 2)), (4, 6), 2, 3),
    "one pixel": Pool(Window((1, 1)), (1, 1), 1, 1),
    "overlapping": Pool(Window((3, 2), (2, 1), (1, 1)), (7, 5), 2, 2),
    "dilated": Pool(Window((2, 3), (1, 2), (1, 2), (3, 2)), (6, 7), 1, 3),
    "hanging over": Pool(Window((3, 2), (2, 3), (1, 0), ceil_mode=True), (6, 6), 2, 2),
    "kernel larger than the image": Pool(Window((5, 4), (1, 1), (2, 2)), (2, 1), 2, 2),
    "stride larger than the kernel": Pool(Window((1, 2), (3, 4)), (8, 7), 1, 2),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def windows_of(window: Window, size: Pair) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """(i, j, pixels) of every position: the pixels inside the image, row by row."""
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = window.kernel, window.stride, window.padding, window.dilation
    rows, columns = window.positions(size)
    for i in range(rows):
        for j in range(columns):
            pixels = [(i * sh + a * dh - ph, j * sw + b * dw - pw) for a in range(kh) for b in range(kw)]
            yield i, j, [(h, w) for h, w in pixels if 0 <= h < size[0] and 0 <= w < size[1]]


def max_by_loops(case: Pool, x: Array) -> tuple[Array, Array]:
    """Maxima and flat indices of their first place."""
    best, indices = np.zeros(case.y, x.dtype), np.zeros(case.y, np.int64)
    for i, j, pixels in windows_of(case.window, case.size):
        for at in np.ndindex(case.batch, case.channels):
            values = [x[*at, h, w] for h, w in pixels]
            first = values.index(max(values))
            best[*at, i, j], indices[*at, i, j] = values[first], pixels[first][0] * case.size[1] + pixels[first][1]
    return best, indices


def avg_options(case: Pool) -> dict[str, Any]:
    w = case.window
    return {"kernel_size": w.kernel, "stride": w.stride, "padding": w.padding, "ceil_mode": w.ceil_mode}


def undilated(case: Pool) -> Pool:
    """The same windows without gaps, for average pooling."""
    w = case.window
    padding = (min(w.padding[0], w.kernel[0] // 2), min(w.padding[1], w.kernel[1] // 2))
    return Pool(Window(w.kernel, w.stride, padding, (1, 1), w.ceil_mode), case.size, case.batch, case.channels)


def fits(case: Pool) -> bool:
    return all(n + 2 * p >= span for n, p, span in zip(case.size, case.window.padding, case.window.span, strict=True))


# -- max pooling ------------------------------------------------------------------------------------------------------------------


@both_kernels
@given(case=pools(), seed=seeds, dtype=float_dtypes, layout=layouts, most=st.sampled_from([1, 100]))
def test_max_pool2d_takes_the_first_maximum_of_every_window(
    kernels: str, case: Pool, seed: int, dtype: Any, layout: str, most: int
) -> None:
    """With many ties (numbers from -1 to 1) and with few."""
    x = integers(case.x, seed, dtype, most)
    with use_kernels(kernels):
        y, indices = F.max_pool2d(Tensor.wrap(lay_out(x, layout)), **case.options, return_indices=True)
    best, places = max_by_loops(case, x)
    assert (y.dtype, indices.dtype) == (dtype, np.int64)
    np.testing.assert_array_equal(y.numpy(), best)
    np.testing.assert_array_equal(indices.numpy(), places)


@both_kernels
@given(case=pools(), seed=seeds)
def test_the_gradient_goes_to_the_winners_and_adds_up(kernels: str, case: Pool, seed: int) -> None:
    x, g = integers(case.x, seed, most=2), integers(case.y, seed + 1)
    expected, (_, places) = np.zeros(case.x), max_by_loops(case, x)
    for at in np.ndindex(*case.y):
        expected[*at[:2], places[at] // case.size[1], places[at] % case.size[1]] += g[at]
    with use_kernels(kernels):
        leaf = Tensor(x, requires_grad=True)
        (found,) = grad(F.max_pool2d(leaf, **case.options), leaf, g)
    np.testing.assert_array_equal(found.numpy(), expected)


@both_kernels
def test_padding_never_wins_and_minus_infinity_has_an_index_inside(kernels: str) -> None:
    x = np.full((1, 1, 3, 4), -np.inf)
    with use_kernels(kernels):
        y, indices = F.max_pool2d(Tensor(x), (2, 3), 2, 1, return_indices=True)
        assert np.isneginf(y.numpy()).all()
        assert indices.numpy().tolist() == [[[[0, 1], [4, 5]]]]
        assert F.max_pool2d(Tensor(-np.ones((1, 1, 2, 1))), 3, 1, 1).numpy().tolist() == [[[[-1.0], [-1.0]]]]


@both_kernels
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_wins_and_shows_where_it_is(kernels: str, dtype: Any) -> None:
    torch = pytest.importorskip("torch")
    x = tie_free((2, 3, 6, 7), 0, dtype)
    x[0, 1, 2, 3] = x[1, 2, 0, 0] = x[1, 2, 1, 1] = np.nan
    x[1, 0, :2, :2] = np.inf
    with use_kernels(kernels):
        y, indices = F.max_pool2d(Tensor(x), (3, 2), (2, 1), (1, 1), return_indices=True)
    theirs, places = torch.nn.functional.max_pool2d(torch.tensor(x), (3, 2), (2, 1), (1, 1), return_indices=True)
    np.testing.assert_array_equal(y.numpy(), theirs.numpy())
    np.testing.assert_array_equal(indices.numpy(), places.numpy())


@given(case=pools(), seed=seeds, dtype=float_dtypes, batched=st.booleans())
def test_max_pool2d_is_pytorchs(case: Pool, seed: int, dtype: Any, batched: bool) -> None:
    assume(case.in_pytorch and case.batch)
    x = tie_free(case.x if batched else case.x[1:], seed, dtype)
    agree(lambda F, x: F.max_pool2d(F.exp(x), **case.options), x, rtol=1e-12 if dtype == np.float64 else 2e-6)
    agree(lambda F, x: F.max_pool2d(x, **case.options, return_indices=True)[1], x)


@each_case
@both_kernels
def test_max_pool2d_is_differentiable_to_third_order_at_fixed_winners(kernels: str, case: Pool) -> None:
    with use_kernels(kernels):
        check_grads(lambda x: F.max_pool2d(F.exp(x), **case.options), [tie_free(case.x)], 3)


@both_kernels
@given(case=pools(), seed=seeds, dtype=float_dtypes, layout=layouts)
def test_gathering_at_the_winners_is_adjoint_to_scattering_there(kernels: str, case: Pool, seed: int, dtype: Any, layout: str) -> None:
    """Any taps, those in the padding too, which see 0 (T15); in whole numbers."""
    taps = np.random.default_rng(seed).integers(0, case.window.taps, case.y).astype(np.uint8)
    wide = taps.astype(np.int64)
    x, y = integers(case.x, seed, dtype), integers(case.y, seed + 1, dtype)
    expected = np.zeros_like(y)
    (_, kw), (sh, sw), (ph, pw), (dh, dw) = case.window.kernel, case.window.stride, case.window.padding, case.window.dilation
    for n, c, i, j in np.ndindex(*case.y):
        h, w = i * sh + wide[n, c, i, j] // kw * dh - ph, j * sw + wide[n, c, i, j] % kw * dw - pw
        if 0 <= h < case.size[0] and 0 <= w < case.size[1]:
            expected[n, c, i, j] = x[n, c, h, w]
    with use_kernels(kernels):
        gathered = PoolGather(taps, case.window, case.size)(Tensor.wrap(lay_out(x, layout))).numpy()
        scattered = PoolScatter(taps, case.window, case.size)(Tensor.wrap(lay_out(y, layout))).numpy()
    assert gathered.dtype == scattered.dtype == dtype
    np.testing.assert_array_equal(gathered, expected)
    assert np.vdot(gathered, y) == np.vdot(x, scattered)


def test_kernels_of_more_than_256_taps() -> None:
    x = tie_free((1, 2, 20, 19))
    for kernels in ("fast", "reference"):
        with use_kernels(kernels):
            y, indices = F.max_pool2d(Tensor(x), (17, 18), 1, return_indices=True)
            best, places = max_by_loops(Pool(Window((17, 18)), (20, 19), 1, 2), x)
            np.testing.assert_array_equal(y.numpy(), best)
            np.testing.assert_array_equal(indices.numpy(), places)
            check_grads(lambda x: F.max_pool2d(F.exp(x), (17, 18), 1), [x], 2)


def test_ties_send_the_gradient_to_the_first_which_differences_cannot_see() -> None:
    """T17: on ties the first wins, a subgradient; central differences see half of each slope."""
    x = Tensor(np.ones((1, 1, 2, 2)), requires_grad=True)
    F.max_pool2d(x, 2).sum().backward()
    assert x.grad.numpy().tolist() == [[[[1.0, 0.0], [0.0, 0.0]]]]


# -- unpooling ----------------------------------------------------------------------------------------------------------------------


@both_kernels
@given(seed=seeds, dtype=float_dtypes, layout=layouts, index_dtype=st.sampled_from([np.int64, np.int32, np.uint8]), batch=st.integers(0, 3))
def test_unpooling_adds_where_indices_repeat(kernels: str, seed: int, dtype: Any, layout: str, index_dtype: Any, batch: int) -> None:
    """The adjoint of the gather at those indices, exactly, in whole numbers."""
    rng = np.random.default_rng(seed)
    size, shape = (int(rng.integers(4, 7)), int(rng.integers(2, 5))), (batch, int(rng.integers(1, 20)), 3, 2)
    y, x = integers(shape, seed, dtype), integers((*shape[:2], *size), seed + 1, dtype)
    indices = rng.integers(0, size[0] * size[1], shape).astype(index_dtype)
    expected, picked = np.zeros_like(x), np.zeros_like(y)
    for at in np.ndindex(*shape):
        place = (*at[:2], int(indices[at]) // size[1], int(indices[at]) % size[1])
        expected[place] += y[at]
        picked[at] = x[place]
    with use_kernels(kernels):
        leaf = Tensor(y, requires_grad=True)
        places = Tensor.wrap(lay_out(indices, layout))
        scattered = F.max_unpool2d(Tensor.wrap(lay_out(y, layout)), places, 1, (2, 2), output_size=size)
        (gathered,) = grad(F.max_unpool2d(leaf, places, 1, 2, output_size=size), leaf, lay_out(x, layout))
    assert scattered.dtype == gathered.dtype == dtype
    np.testing.assert_array_equal(scattered.numpy(), expected)
    np.testing.assert_array_equal(gathered.numpy(), picked)
    assert np.vdot(gathered.numpy(), y) == np.vdot(x, scattered.numpy())


def test_indices_changed_before_backward_are_an_error_not_a_wrong_gradient() -> None:
    y, indices = Tensor(np.ones((1, 1, 2, 2)), requires_grad=True), Tensor(np.array([[[[0, 3], [9, 13]]]]))
    for shape in ((1, 1, 2, 2), (1, 2, 2)):
        x = F.max_unpool2d(y.reshape(shape), indices.reshape(shape), 2)
        with pytest.raises(ValueError, match="read-only"):
            indices.data[...] = 0
        with no_grad():
            indices[0, 0, 0, 0] = 1
        with pytest.raises(RuntimeError, match="that Scatter needs was changed in place"):
            x.sum().backward()


def test_overlapping_windows_with_one_winner_add_twice() -> None:
    """T16: kernel 3 and stride 2 on [1, 2, 5, 3, 0] choose pixel 2 twice; overwriting would give 5, the adjoint gives 10."""
    y, indices = F.max_pool2d(Tensor([[[[1.0, 2.0, 5.0, 3.0, 0.0]]]]), (1, 3), (1, 2), return_indices=True)
    assert indices.numpy().reshape(-1).tolist() == [2, 2]
    assert F.max_unpool2d(y, indices, (1, 3), (1, 2)).numpy().reshape(-1).tolist() == [0, 0, 10, 0, 0]


@both_kernels
def test_disjoint_windows_pool_what_was_unpooled(kernels: str) -> None:
    """T15: G G^T = I where windows are disjoint, and pool(unpool(y)) = relu(y)."""
    x, y = tie_free((2, 3, 6, 8)), tie_free((2, 3, 3, 2), 1)
    with use_kernels(kernels):
        _, indices = F.max_pool2d(Tensor(x), (2, 4), return_indices=True)
        up = F.max_unpool2d(Tensor(y), indices, (2, 4))
        np.testing.assert_array_equal(Gather((6, 8), Window.of((2, 4)))(up, indices).numpy(), y)
        np.testing.assert_array_equal(F.max_pool2d(up, (2, 4)).numpy(), np.maximum(y, 0))


@given(case=pools(), seed=seeds, dtype=float_dtypes, batched=st.booleans())
def test_max_unpool2d_is_pytorchs_where_no_index_repeats(case: Pool, seed: int, dtype: Any, batched: bool) -> None:
    """Back to the size before pooling, which output_size says wherever pooling rounded."""
    w = case.window
    w = Window(w.kernel, tuple(max(s, k) for s, k in zip(w.stride, w.kernel, strict=True)), w.padding, (1, 1), w.ceil_mode)
    case = Pool(w, case.size, case.batch, case.channels)
    assume(case.in_pytorch and case.batch and fits(case))
    natural = w.image_size(w.positions(case.size))
    assume(min(natural) >= 1 and all(abs(n - m) < s for n, m, s in zip(natural, case.size, w.stride, strict=True)))
    x = tie_free(case.x if batched else case.x[1:], seed, dtype)
    _, indices = F.max_pool2d(Tensor(x), **case.options, return_indices=True)
    y = tie_free(indices.shape, seed + 1, dtype)
    for size in (case.size, x.shape) if batched else (case.size,):
        agree(lambda F, y, i, s=size: F.max_unpool2d(F.exp(y), i, w.kernel, w.stride, w.padding, s), y, indices.numpy(), rtol=2e-6)


@both_kernels
def test_max_unpool2d_is_differentiable_to_third_order(kernels: str) -> None:
    indices = Tensor(np.random.default_rng(0).integers(0, 20, (2, 3, 2, 3)))
    with use_kernels(kernels):
        check_grads(lambda y: F.max_unpool2d(F.exp(y), indices, (2, 1), (2, 2), output_size=(4, 5)), [tie_free((2, 3, 2, 3))], 3)


def test_odd_sizes_need_the_size_before_pooling() -> None:
    """T18: 45 pools to 22, and doubling 22 gives 44."""
    x = Tensor(tie_free((1, 2, 45, 7)))
    y, indices = F.max_pool2d(x, 2, return_indices=True)
    assert F.max_unpool2d(y, indices, 2, output_size=x.shape).shape == x.shape
    with pytest.raises(ValueError, match=r"outside an output of 44x6 = 264 pixels; pass output_size=, the size before pooling"):
        F.max_unpool2d(y, indices, 2)


# -- average pooling ------------------------------------------------------------------------------------------------------------------


@both_kernels
@given(case=pools(dilated=False), seed=seeds, dtype=float_dtypes, layout=layouts)
def test_avg_pool2d_is_the_mean_of_every_window(kernels: str, case: Pool, seed: int, dtype: Any, layout: str) -> None:
    x, g = integers(case.x, seed, dtype), integers(case.y, seed + 1, dtype)
    (kh, kw), (sh, sw), (ph, pw) = case.window.kernel, case.window.stride, case.window.padding
    eps = float(np.finfo(dtype).eps)
    for include, divisor in ((True, None), (False, None), (True, 3), (False, -2)):
        options = {**avg_options(case), "count_include_pad": include, "divisor_override": divisor}
        expected, back = np.zeros(case.y), np.zeros(case.x)
        for i, j, pixels in windows_of(case.window, case.size):
            # the pixels of the window in the padded image: what hangs over that counts never
            rows, columns = min(i * sh + kh, case.size[0] + 2 * ph) - i * sh, min(j * sw + kw, case.size[1] + 2 * pw) - j * sw
            count = divisor or (rows * columns if include else len(pixels))
            for h, w in pixels:
                expected[:, :, i, j] += x[:, :, h, w] / count
                back[:, :, h, w] += g[:, :, i, j] / count
        with use_kernels(kernels):
            leaf = Tensor(x, requires_grad=True)
            y = F.avg_pool2d(Tensor.wrap(lay_out(x, layout)), **options)
            (found,) = grad(F.avg_pool2d(leaf, **options), leaf, lay_out(g, layout))
        assert y.dtype == found.dtype == dtype
        np.testing.assert_allclose(y.numpy(), expected, rtol=4 * eps, atol=80 * eps)
        np.testing.assert_allclose(found.numpy(), back, rtol=4 * eps, atol=80 * eps)


@given(case=pools(dilated=False), seed=seeds, dtype=float_dtypes, batched=st.booleans())
def test_avg_pool2d_is_pytorchs(case: Pool, seed: int, dtype: Any, batched: bool) -> None:
    assume(case.batch)
    w = case.window
    x = tie_free(case.x if batched else case.x[1:], seed, dtype)
    rtol = 1e-12 if dtype == np.float64 else 2e-6
    for include, divisor in ((True, None), (False, None), (True, 3), (False, -2)):
        f = lambda F, x: F.avg_pool2d(F.exp(x), w.kernel, w.stride, w.padding, w.ceil_mode, include, divisor)  # noqa: B023
        agree(f, x, rtol=rtol, atol=rtol)


@each_case
@both_kernels
def test_avg_pool2d_is_linear_adjoint_and_differentiable_to_third_order(kernels: str, case: Pool) -> None:
    case = undilated(case)
    options = {**avg_options(case), "count_include_pad": False}
    leaf = Tensor(tie_free(case.x), requires_grad=True)
    with use_kernels(kernels):
        check_grads(lambda x: F.avg_pool2d(F.exp(x), **options), [tie_free(case.x)], 3)
        check_adjoint(
            lambda v: F.avg_pool2d(Tensor(v), **options).numpy(),
            lambda v: grad(F.avg_pool2d(leaf, **options), leaf, v)[0].numpy(),
            tie_free(case.x, 1),
            tie_free(case.y, 2),
        )


# -- memory, dtypes, batches ------------------------------------------------------------------------------------------------------------


@both_kernels
def test_results_lie_in_channels_last_memory(kernels: str) -> None:
    x = tie_free((2, 3, 6, 5), 0, np.float32)
    with use_kernels(kernels):
        leaf = Tensor(x, requires_grad=True)
        y, indices = F.max_pool2d(leaf, 2, return_indices=True)
        z = F.max_unpool2d(y, indices, 2, output_size=(6, 5))
        for t in (y, indices, z, F.avg_pool2d(leaf, 2), *grad(z, [leaf, y], x)):
            assert t._array.strides[1] == t._array.itemsize


@pytest.mark.parametrize("f", [lambda x: F.max_pool2d(x, 2), lambda x: F.avg_pool2d(x, 2)], ids=["max", "avg"])
@both_kernels
def test_half_precision_and_empty_batches(kernels: str, f: Any) -> None:
    with use_kernels(kernels):
        x = Tensor(tie_free((1, 2, 4, 6), 0, np.float16), requires_grad=True)
        y = f(x)
        y.sum().backward()
        assert y.dtype == x.grad.dtype == np.float16
        exact = f(Tensor(x.numpy().astype(np.float64)))
        np.testing.assert_allclose(y.numpy(), exact.numpy(), rtol=2e-3, atol=1e-3)
        empty = Tensor(np.zeros((0, 2, 4, 6)), requires_grad=True)
        y = f(empty)
        assert y.shape == (0, 2, 2, 3)
        y.sum().backward()
        assert empty.grad.shape == empty.shape
        _, indices = F.max_pool2d(empty, 2, return_indices=True)
        assert F.max_unpool2d(Tensor(np.zeros((0, 2, 2, 3))), indices, 2).shape == empty.shape


def test_images_without_a_batch_axis() -> None:
    x = tie_free((2, 6, 5))
    _, indices = F.max_pool2d(Tensor(x), 2, return_indices=True)
    assert indices.shape == (2, 3, 2)
    for f, one in (
        (lambda t: F.max_pool2d(t, 2), x),
        (lambda t: F.avg_pool2d(t, (3, 2)), x),
        (lambda t: F.max_unpool2d(t, indices if t.ndim == 3 else indices[None], 2, output_size=(6, 5)), x[:, :3, :2]),
    ):
        np.testing.assert_array_equal(f(Tensor(one)).numpy(), f(Tensor(one[None])).numpy()[0])
        check_grads(f, [one], 1)


# -- what is refused --------------------------------------------------------------------------------------------------------------------


def zeros(*shape: int, dtype: Any = np.float32) -> Tensor:
    return Tensor(np.zeros(shape, dtype))


X, INDICES = zeros(2, 3, 6, 5), zeros(2, 3, 3, 2, dtype=np.int64)
REFUSED: list[tuple[Any, type[Exception], str]] = [
    (lambda: F.max_pool2d(zeros(6, 5), 2), ValueError, r"max_pool2d: input must be \(N, C, H, W\) or \(C, H, W\), got shape \(6, 5\)"),
    (lambda: F.max_pool2d(X.numpy(), 2), TypeError, "max_pool2d: input must be a Tensor, got ndarray"),
    (lambda: F.max_pool2d(X, 7), ValueError, "max_pool2d: a window spanning 7x7 pixels does not fit an image of 6x5 padded to 6x5"),
    (
        lambda: F.max_pool2d(X, (3, 2), padding=(2, 1)),
        ValueError,
        r"max_pool2d: padding \(2, 1\) must be at most half the window's span \(3, 2\), or some windows see padding only",
    ),
    (
        lambda: F.max_pool2d(zeros(1, 1, 1, 5), (2, 1), 1, (1, 0), (2, 1)),
        ValueError,
        "max_pool2d: window 0 along the height touches padding only",
    ),
    (lambda: F.max_pool2d(X, 0), ValueError, "max_pool2d: kernel_size must be at least 1, got 0"),
    (lambda: F.max_pool2d(X, 2, 0), ValueError, "max_pool2d: stride must be at least 1, got 0"),
    (lambda: F.max_pool2d(X, 2, padding=-1), ValueError, "max_pool2d: padding must be at least 0, got -1"),
    (
        lambda: F.max_pool2d(zeros(2, 3, 6, 5, dtype=np.int64), 2),
        TypeError,
        r'max_pool2d: input must be floating-point, got int64; convert it with .astype\("float32"\)',
    ),
    (lambda: F.avg_pool2d(zeros(2, 3, 6, 5, dtype=np.int64), 2), TypeError, "avg_pool2d: input must be floating-point, got int64"),
    (lambda: F.avg_pool2d(X, 2, divisor_override=0), ValueError, "avg_pool2d: divisor_override must not be 0"),
    (lambda: F.avg_pool2d(X, (2, 3), padding=(0, 2)), ValueError, r"avg_pool2d: padding \(0, 2\) must be at most half"),
    (
        lambda: F.max_unpool2d(zeros(2, 3, 3, 3), INDICES, 2),
        ValueError,
        r"max_unpool2d: indices \(2, 3, 3, 2\) and input \(2, 3, 3, 3\) must have",
    ),
    (
        lambda: F.max_unpool2d(zeros(2, 3, 3, 2), zeros(2, 3, 3, 2), 2),
        TypeError,
        "max_unpool2d: indices must be integers, got float32",
    ),
    (
        lambda: F.max_unpool2d(zeros(2, 3, 3, 2), INDICES, 2, output_size=(8, 4)),
        ValueError,
        r"max_unpool2d: output_size \(8, 4\) is not within stride \(2, 2\) of \(6, 4\), which input \(2, 3, 3, 2\) suggests",
    ),
    (
        lambda: F.max_unpool2d(zeros(2, 3, 3, 2), INDICES - 1, 2),
        ValueError,
        "max_unpool2d: indices reach from -1 to -1, outside an output of 6x4",
    ),
    (
        lambda: F.max_unpool2d(zeros(2, 3, 3, 2), INDICES + 24, 2),
        ValueError,
        "max_unpool2d: indices reach from 24 to 24, outside .* = 24 pixels",
    ),
    (
        lambda: F.max_unpool2d(zeros(1, 1, 1, 1), zeros(1, 1, 1, 1, dtype=np.int64), 2, padding=1),
        ValueError,
        r"max_unpool2d: input \(1, 1, 1, 1\) with padding \(1, 1\) gives an output of size \(0, 0\)",
    ),
]


@pytest.mark.parametrize("make, error, sentence", REFUSED, ids=[s[:40] for _, _, s in REFUSED])
def test_what_is_refused(make: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        make()
