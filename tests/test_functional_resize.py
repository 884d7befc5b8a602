"""Interpolation, adaptive pooling and pixel shuffle: against their definitions, adjoint, differentiable, and PyTorch's."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from peer import agree

from minidcnn import Tensor, check_adjoint, check_grads, grad, no_grad, use_kernels
from minidcnn import functional as F
from minidcnn.backend import AxisMap
from minidcnn.functional.pool import even_windows
from minidcnn.functional.resize import linear, nearest
from minidcnn.nn.shapes import ShapeKernels
from minidcnn.testing import LAYOUTS, batches, float_dtypes, image_shapes, integers, lay_out, layouts, pairs, seeds, tie_free

both_kernels = pytest.mark.parametrize("kernels", ["fast", "reference"])
Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]

scales = st.sampled_from([0.34, 0.5, 0.75, 1.0, 1.1, 1.25, 1.9, 2.0, 2.5, 3.0, 10 / 3])
bilinears = st.sampled_from(
    [{"mode": "bilinear"}, {"mode": "bilinear", "align_corners": True}, {"mode": "bilinear", "align_corners": False}]
)
modes = st.one_of(st.just({}), st.just({"mode": "nearest"}), bilinears)


def channels_last(y: Tensor) -> bool:
    return bool(y._array.transpose(0, 2, 3, 1).flags.c_contiguous)


def by_axis(x: Array, rows: list[dict[int, Fraction]], columns: list[dict[int, Fraction]]) -> Array:
    """Whole numbers x (N, C, H, W) through the exact weights {pixel: weight} of each row and column."""
    y = np.zeros((*x.shape[:2], len(rows), len(columns)))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            for n, c in np.ndindex(*x.shape[:2]):
                y[n, c, i, j] = sum(a * b * int(x[n, c, h, w]) for h, a in row.items() for w, b in column.items())
    return y


def bilinear_weights(n: int, m: int, align: bool) -> list[dict[int, Fraction]]:
    """The definition: at position x, pixel k has the weight max(0, 1 - |x - k|), with x kept between the first and the last centre."""
    found = []
    for i in range(m):
        x = Fraction(i * (n - 1), m - 1) if align and m > 1 else Fraction(0) if align else Fraction((2 * i + 1) * n, 2 * m) - Fraction(1, 2)
        x = min(max(x, Fraction(0)), Fraction(n - 1))
        found.append({k: 1 - abs(x - k) for k in range(n) if abs(x - k) < 1})
    return found


def window_means(n: int, m: int) -> list[dict[int, Fraction]]:
    """The definition: every pixel that shares ground with [i n / m, (i + 1) n / m), evenly."""
    found = []
    for i in range(m):
        inside = [k for k in range(n) if k < Fraction((i + 1) * n, m) and k + 1 > Fraction(i * n, m)]
        found.append(dict.fromkeys(inside, Fraction(1, len(inside))))
    return found


# -- values: the definitions ------------------------------------------------------------------------------------------------


@both_kernels
@given(shape=image_shapes, size=pairs(1, 9), align=st.booleans(), seed=seeds, dtype=float_dtypes, layout=layouts)
def test_bilinear_weighs_pixels_by_their_distance(
    kernels: str, shape: Shape, size: Any, align: bool, seed: int, dtype: Any, layout: str
) -> None:
    x = integers(shape, seed, dtype)
    with use_kernels(kernels):
        y = F.interpolate(Tensor.wrap(lay_out(x, layout)), size, mode="bilinear", align_corners=align)
    expected = by_axis(x, *(bilinear_weights(n, m, align) for n, m in zip(shape[2:], size, strict=True)))
    assert y.dtype == dtype
    np.testing.assert_allclose(y.numpy(), expected, rtol=0, atol=20 * np.finfo(dtype).eps)


@both_kernels
@given(shape=image_shapes, size=pairs(1, 12), seed=seeds, dtype=st.sampled_from(["f8", "f4", "i8", "u1", "?"]), layout=layouts)
def test_nearest_takes_the_pixel_below(kernels: str, shape: Shape, size: Any, seed: int, dtype: str, layout: str) -> None:
    x = integers(shape, seed, np.int64).astype(dtype)
    with use_kernels(kernels):
        y = F.interpolate(Tensor.wrap(lay_out(x, layout)), size)
    rows, columns = (np.arange(m) * n // m for n, m in zip(shape[2:], size, strict=True))
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y.numpy(), x[:, :, rows[:, None], columns])


@both_kernels
@given(shape=image_shapes, size=pairs(1, 9), seed=seeds, dtype=float_dtypes, layout=layouts)
def test_adaptive_pooling_is_the_mean_of_the_pixels_in_reach(
    kernels: str, shape: Shape, size: Any, seed: int, dtype: Any, layout: str
) -> None:
    x = integers(shape, seed, dtype)
    with use_kernels(kernels):
        y = F.adaptive_avg_pool2d(Tensor.wrap(lay_out(x, layout)), size)
    assert y.dtype == dtype
    expected = by_axis(x, *(window_means(n, m) for n, m in zip(shape[2:], size, strict=True)))
    np.testing.assert_allclose(y.numpy(), expected, rtol=0, atol=20 * np.finfo(dtype).eps)


@given(shape=image_shapes, r=st.integers(1, 3), seed=seeds, layout=layouts)
def test_pixel_shuffle_makes_sub_pixels_of_channels_and_unshuffle_undoes_it(shape: Shape, r: int, seed: int, layout: str) -> None:
    n, c, h, w = shape
    x = integers((n, c * r * r, h, w), seed, np.int64)
    y = F.pixel_shuffle(Tensor.wrap(lay_out(x, layout)), r)
    expected = np.empty((n, c, h * r, w * r), np.int64)
    for channel, i, j in np.ndindex(c, r, r):
        expected[:, channel, i::r, j::r] = x[:, channel * r * r + i * r + j]
    np.testing.assert_array_equal(y.numpy(), expected)
    np.testing.assert_array_equal(F.pixel_unshuffle(y, r).numpy(), x)


def test_a_given_scale_is_the_distance_of_the_samples_unless_recomputed() -> None:
    x = Tensor(np.arange(5.0)[:, None] * np.ones((1, 1, 5, 1)))
    given = F.interpolate(x, scale_factor=(1.5, 1), mode="bilinear").numpy()[0, 0, :, 0]
    np.testing.assert_allclose(given, np.clip((np.arange(7) + 0.5) / 1.5 - 0.5, 0, 4))
    again = F.interpolate(x, scale_factor=(1.5, 1), mode="bilinear", recompute_scale_factor=True).numpy()[0, 0, :, 0]
    np.testing.assert_allclose(again, np.clip((np.arange(7) + 0.5) * 5 / 7 - 0.5, 0, 4))
    np.testing.assert_array_equal(F.interpolate(x, scale_factor=(1.5, 1)).numpy()[0, 0, :, 0], np.floor(np.arange(7) / 1.5))


def test_what_is_known_of_the_results(rng: np.random.Generator) -> None:
    x = Tensor(rng.standard_normal((2, 3, 4, 6)))
    for options in ({}, {"mode": "bilinear"}, {"mode": "bilinear", "align_corners": True}):
        np.testing.assert_array_equal(F.interpolate(x, (4, 6), **options).numpy(), x.numpy())
        np.testing.assert_allclose(F.interpolate(Tensor(np.full((1, 2, 4, 6), 0.7)), (9, 5), **options).numpy(), 0.7)  # weights add up to 1
    np.testing.assert_allclose(F.avg_pool2d(F.interpolate(x, scale_factor=(3, 2)), (3, 2)).numpy(), x.numpy())
    corners = F.interpolate(x, (7, 9), mode="bilinear", align_corners=True)[:, :, ::6, ::8]
    np.testing.assert_allclose(corners.numpy(), x.numpy()[:, :, ::3, ::5])
    halved = F.interpolate(x, scale_factor=0.5, mode="bilinear")  # samples lie between four pixels
    np.testing.assert_allclose(halved.numpy(), F.avg_pool2d(x, 2).numpy())
    np.testing.assert_allclose(F.adaptive_avg_pool2d(x, (2, 3)).numpy(), F.avg_pool2d(x, 2).numpy())
    np.testing.assert_array_equal(F.adaptive_avg_pool2d(x, None).numpy(), x.numpy())
    np.testing.assert_allclose(F.adaptive_avg_pool2d(x, 1).numpy(), x.numpy().mean((2, 3), keepdims=True))
    np.testing.assert_allclose(F.adaptive_avg_pool2d(x, (None, 1)).numpy(), x.numpy().mean(3, keepdims=True))
    np.testing.assert_array_equal(F.adaptive_avg_pool2d(x[0], (3, None)).numpy(), F.adaptive_avg_pool2d(x, (3, None)).numpy()[0])


@both_kernels
@pytest.mark.parametrize("options", [{}, {"mode": "bilinear"}, {"mode": "bilinear", "align_corners": True}])
def test_infinite_pixels_spread_no_further_than_their_weights(kernels: str, options: dict[str, Any]) -> None:
    x = np.ones((1, 1, 5, 3))
    x[0, 0, 2, 1] = np.inf
    with use_kernels(kernels):
        t = Tensor(x, requires_grad=True)
        y = F.interpolate(t, (9, 5), **options)
        assert not np.isnan(y.numpy()).any() and np.isinf(y.numpy()).sum() == np.count_nonzero(
            F.interpolate(Tensor((x > 1) * 1.0), (9, 5), **options).numpy()
        )
        (g,) = grad(y, t, np.where(np.isinf(y.numpy()), np.inf, 0.0))
        assert not np.isnan(g.numpy()).any() and np.isinf(g.numpy()[0, 0, 2, 1])


@both_kernels
def test_large_enough_for_threads(kernels: str, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 5, 45, 61))
    with use_kernels(kernels):
        for size in ((90, 122), (23, 140), (91, 31)):
            agree(lambda F, x, size=size: F.interpolate(x, size), x, order=1)
            agree(lambda F, x, size=size: F.interpolate(x, size, mode="bilinear"), x, order=1)
            agree(lambda F, x, size=size: F.interpolate(x, size, mode="bilinear", align_corners=True), x, order=1)
        agree(lambda F, x: F.adaptive_avg_pool2d(x, (13, 61)), x, order=1)


# -- maps along an axis and their adjoints -------------------------------------------------------------------------------------


def matrix(m: AxisMap) -> Array:
    dense = np.zeros((m.outputs, m.size))
    for i in range(m.outputs):
        for t in range(m.starts[i], m.starts[i + 1]):
            dense[i, m.indices[t]] += 1 if m.weights is None else m.weights[t]
    return dense


axis_maps = st.one_of(
    st.builds(nearest, st.integers(1, 9), st.integers(1, 9), st.none() | scales),
    st.builds(linear, st.integers(1, 9), st.integers(1, 9), st.none() | scales, st.booleans()),
    st.builds(even_windows, st.integers(1, 9), st.integers(1, 9)),
    st.integers(1, 5).flatmap(lambda n: st.builds(AxisMap.gather, st.lists(st.integers(0, n - 1), max_size=7).map(np.array), st.just(n))),
)


@given(m=axis_maps)
def test_the_transposed_map_is_the_transposed_matrix(m: AxisMap) -> None:
    np.testing.assert_array_equal(matrix(m.transposed), matrix(m).T)
    np.testing.assert_array_equal(matrix(m.transposed.transposed), matrix(m))
    assert m.is_identity == (m.size == m.outputs and np.array_equal(matrix(m), np.eye(m.size)) and m.weights is None)
    assert m.weights is None or (m.weights > 0).all()


@both_kernels
@given(rows=axis_maps, columns=axis_maps, batch=batches, c=st.integers(1, 5), seed=seeds, dtype=float_dtypes, layout=layouts)
def test_resample_is_both_matrices_and_its_adjoint_both_transposed(
    kernels: str, rows: AxisMap, columns: AxisMap, batch: int, c: int, seed: int, dtype: Any, layout: str
) -> None:
    from minidcnn.backend import kernels_of

    x, y = integers((batch, c, rows.size, columns.size), seed), integers((batch, c, rows.outputs, columns.outputs), seed + 1)
    with use_kernels(kernels):
        k = kernels_of(x)
        got = k.resample(lay_out(x.astype(dtype), layout), rows, columns)
        np.testing.assert_allclose(got, matrix(rows) @ x @ matrix(columns).T, rtol=0, atol=1e-12 if dtype == np.float64 else 1e-4)
        assert got.dtype == dtype
        check_adjoint(lambda v: k.resample(v, rows, columns), lambda v: k.resample(v, rows.transposed, columns.transposed), x, y)


FUNCTIONS: dict[str, tuple[Callable[..., Any], Shape]] = {
    "nearest up": (lambda F, x: F.interpolate(x, (7, 5)), (2, 2, 3, 4)),
    "nearest down": (lambda F, x: F.interpolate(x, (2, 3)), (2, 2, 5, 7)),
    "nearest by a scale": (lambda F, x: F.interpolate(x, scale_factor=(1.7, 0.6)), (1, 2, 5, 7)),
    "bilinear up": (lambda F, x: F.interpolate(x, (7, 5), mode="bilinear"), (2, 2, 3, 4)),
    "bilinear down": (lambda F, x: F.interpolate(x, (2, 3), mode="bilinear"), (2, 2, 5, 7)),
    "bilinear by a scale": (lambda F, x: F.interpolate(x, scale_factor=(1.7, 0.6), mode="bilinear"), (1, 2, 5, 7)),
    "bilinear by a recomputed scale": (
        lambda F, x: F.interpolate(x, scale_factor=(1.7, 0.6), mode="bilinear", recompute_scale_factor=True),
        (1, 2, 5, 7),
    ),
    "bilinear up, corners aligned": (lambda F, x: F.interpolate(x, (7, 5), mode="bilinear", align_corners=True), (2, 2, 3, 4)),
    "bilinear down, corners aligned": (lambda F, x: F.interpolate(x, (2, 3), mode="bilinear", align_corners=True), (2, 2, 5, 7)),
    "bilinear to one pixel, corners aligned": (lambda F, x: F.interpolate(x, (1, 1), mode="bilinear", align_corners=True), (1, 2, 5, 4)),
    "bilinear from one pixel": (lambda F, x: F.interpolate(x, (3, 2), mode="bilinear"), (2, 2, 1, 1)),
    "adaptive": (lambda F, x: F.adaptive_avg_pool2d(x, (3, 4)), (2, 2, 5, 7)),
    "adaptive up": (lambda F, x: F.adaptive_avg_pool2d(x, (5, None)), (2, 2, 3, 4)),
    "adaptive to one pixel": (lambda F, x: F.adaptive_avg_pool2d(x, 1), (2, 2, 3, 4)),
    "adaptive without batch": (lambda F, x: F.adaptive_avg_pool2d(x, (2, 3)), (2, 3, 4)),
    "pixel shuffle": (lambda F, x: F.pixel_shuffle(x, 2), (2, 8, 3, 2)),
    "pixel shuffle without batch": (lambda F, x: F.pixel_shuffle(x, 3), (9, 2, 3)),
    "pixel shuffle of five axes": (lambda F, x: F.pixel_shuffle(x, 2), (2, 1, 4, 2, 3)),
    "pixel unshuffle": (lambda F, x: F.pixel_unshuffle(x, 2), (2, 3, 4, 6)),
    "pixel unshuffle without batch": (lambda F, x: F.pixel_unshuffle(x, 3), (2, 6, 3)),
}
each_function = pytest.mark.parametrize("name", FUNCTIONS)


@each_function
@both_kernels
def test_derivatives_and_adjoints(kernels: str, name: str) -> None:
    f, shape = FUNCTIONS[name]
    with use_kernels(kernels):
        check_grads(lambda x: f(F, x * x), [tie_free(shape)], order=2)
        y = tie_free(f(F, Tensor(tie_free(shape))).shape, 1)

        def adjoint(v: Array) -> Array:
            t = Tensor(np.zeros(shape), requires_grad=True)
            return grad(f(F, t), t, v)[0].numpy()  # type: ignore[no-any-return]

        check_adjoint(lambda v: f(F, Tensor(v)).numpy(), adjoint, tie_free(shape), y)


# -- PyTorch --------------------------------------------------------------------------------------------------------------------


@each_function
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_pytorch_agrees(name: str, dtype: Any) -> None:
    f, shape = FUNCTIONS[name]
    tolerance = 1e-12 if dtype == np.float64 else 2e-6
    agree(lambda F, x: f(F, x * x), tie_free(shape, dtype=dtype), rtol=tolerance, atol=tolerance)


@given(shape=image_shapes, size=pairs(1, 12), mode=modes, seed=seeds)
def test_pytorch_agrees_on_sizes(shape: Shape, size: Any, mode: dict[str, Any], seed: int) -> None:
    agree(lambda F, x: F.interpolate(x, size, **mode), tie_free(shape, seed), order=1)


@given(shape=image_shapes, scale=st.tuples(scales, scales), mode=modes, seed=seeds, recompute=st.sampled_from([None, False, True]))
def test_pytorch_agrees_on_scales(shape: Shape, scale: Any, mode: dict[str, Any], seed: int, recompute: bool | None) -> None:
    scale = tuple(max(s, 1 / n) for s, n in zip(scale, shape[2:], strict=True))  # at least one pixel is left
    agree(lambda F, x: F.interpolate(x, scale_factor=scale, recompute_scale_factor=recompute, **mode), tie_free(shape, seed), order=1)


@pytest.mark.parametrize("mode", [{}, {"mode": "bilinear"}, {"mode": "bilinear", "align_corners": True}])
def test_pytorch_agrees_that_images_which_keep_their_size_are_copied_whatever_the_scale(mode: dict[str, Any]) -> None:
    agree(lambda F, x: F.interpolate(x, scale_factor=(1.1, 1.2), **mode), tie_free((1, 2, 9, 4)), order=1)


@given(shape=image_shapes, size=pairs(1, 12), seed=seeds)
def test_pytorch_agrees_on_adaptive_pooling(shape: Shape, size: Any, seed: int) -> None:
    agree(lambda F, x: F.adaptive_avg_pool2d(x, size), tie_free(shape, seed), order=1)


@given(n=st.integers(1, 300), m=st.integers(1, 300))
@example(2, 82)  # floor(41 * 2 / 82) is 1, but in float32 0
@example(45, 129)
@example(300, 299)
def test_pytorch_agrees_on_which_pixel_is_nearest(n: int, m: int) -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.nn.functional.interpolate(torch.arange(n, dtype=torch.float32).reshape(1, 1, 1, n), (1, m))
    np.testing.assert_array_equal(nearest(n, m).indices, theirs.numpy().reshape(-1))


# -- memory ---------------------------------------------------------------------------------------------------------------------


@both_kernels
@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_and_gradients_lie_channels_last(kernels: str, layout: str) -> None:
    for name, (f, shape) in FUNCTIONS.items():
        if len(shape) != 4 or name == "adaptive to one pixel":  # whose gradient is a broadcast view
            continue
        with use_kernels(kernels):
            t = Tensor.wrap(lay_out(tie_free(shape, dtype=np.float32), layout)).requires_grad_()
            before = t.numpy().copy()
            y = f(F, t)
            (g,) = grad(y, t, tie_free(y.shape, dtype=np.float32))
        assert channels_last(y) and channels_last(g), name
        np.testing.assert_array_equal(t.numpy(), before)


def test_images_without_a_batch_axis_stay_channels_last() -> None:
    image = Tensor.wrap(np.ascontiguousarray(tie_free((5, 6, 4))).transpose(2, 0, 1))
    for y in (F.adaptive_avg_pool2d(image, (2, 3)), F.pixel_shuffle(image, 2)):
        assert y._array.transpose(1, 2, 0).flags.c_contiguous


def test_shapes_are_known_without_computing() -> None:
    for f, shape in FUNCTIONS.values():
        real = f(F, Tensor(tie_free(shape)))
        with use_kernels(ShapeKernels(np)):
            blank = f(F, Tensor(tie_free(shape)))
        assert blank.shape == real.shape and blank.dtype == real.dtype


# -- errors ---------------------------------------------------------------------------------------------------------------------

image = Tensor(np.zeros((2, 3, 4, 5), np.float32))


@pytest.mark.parametrize("call, message", [
    (lambda: F.interpolate(np.zeros((2, 3, 4, 5))), "interpolate: input must be a Tensor, got ndarray; wrap arrays as minidcnn.Tensor(array)"),
    (lambda: F.interpolate(image[0], 3), "interpolate: input must be (N, C, H, W), got shape (3, 4, 5); give a single image a batch axis"),
    (lambda: F.interpolate(image), "interpolate: give either size or scale_factor, got size=None and scale_factor=None"),
    (lambda: F.interpolate(image, 3, 2), "interpolate: give either size or scale_factor, got size=3 and scale_factor=2"),
    (lambda: F.interpolate(image, 0), "interpolate: size must be at least 1, got 0"),
    (lambda: F.interpolate(image, (2, 3, 4)), "interpolate: size must be an int or a pair (height, width), got 3 numbers (2, 3, 4)"),
    (lambda: F.interpolate(image, 2.5), "interpolate: size must be an int or a pair of ints, got 2.5"),
    (lambda: F.interpolate(image, scale_factor=(2,)), "interpolate: scale_factor must be a number or a pair (height, width), got 1 numbers (2,)"),
    (lambda: F.interpolate(image, scale_factor=(2, -1)), "interpolate: scale_factor must be greater than 0 and finite, got (2, -1)"),
    (lambda: F.interpolate(image, scale_factor=math.nan), "interpolate: scale_factor must be greater than 0 and finite, got nan"),
    (lambda: F.interpolate(image, scale_factor=0.2), "interpolate: an image of 4x5 cannot become 0x1; both need at least one pixel (input (2, 3, 4, 5))"),
    (lambda: F.interpolate(image[:, :, :0], 3), "interpolate: an image of 0x5 cannot become 3x3; both need at least one pixel (input (2, 3, 0, 5))"),
    (lambda: F.interpolate(image, 3, mode="bicubic"), 'interpolate: mode "bicubic" is unknown; use "nearest" or "bilinear"'),
    (lambda: F.interpolate(image, 3, align_corners=False), 'interpolate: align_corners belongs to mode "bilinear"; leave it out with mode "nearest"'),
    (lambda: F.interpolate(image, 3, recompute_scale_factor=True), "interpolate: recompute_scale_factor belongs to scale_factor; leave it out with size"),
    (lambda: F.interpolate(image.astype(np.int64), 3, mode="bilinear"), 'interpolate: mode "bilinear" needs floating-point images, got int64; '),
    (lambda: F.adaptive_avg_pool2d(image, (2, 3, 4)), "adaptive_avg_pool2d: output_size must be a number or a pair (height, width), got (2, 3, 4)"),
    (lambda: F.adaptive_avg_pool2d(image, (None, 0)), "adaptive_avg_pool2d: output_size must be at least 1, got [4, 0]"),
    (lambda: F.adaptive_avg_pool2d(image[:, :, :0], 2), "adaptive_avg_pool2d: input (2, 3, 0, 5) has no pixels to average"),
    (lambda: F.adaptive_avg_pool2d(image[0, 0], 2), "adaptive_avg_pool2d: input must be (N, C, H, W) or (C, H, W), got shape (4, 5)"),
    (lambda: F.adaptive_avg_pool2d(image.astype(np.int64), 2), "adaptive_avg_pool2d: input must be floating-point, got int64; convert it with .astype("),
    (lambda: F.pixel_shuffle(image, 2), "pixel_shuffle: 3 channels cannot become sub-pixels of 2x2; upscale_factor^2 = 4 must divide them (input"),
    (lambda: F.pixel_shuffle(image, 0), "pixel_shuffle: the factor must be at least 1, got 0"),
    (lambda: F.pixel_shuffle(image, 1.5), "pixel_shuffle: the factor must be an int, got 1.5"),
    (lambda: F.pixel_shuffle(image[0, 0], 1), "pixel_shuffle: input must be (..., C, H, W), got shape (4, 5)"),
    (lambda: F.pixel_unshuffle(image, 2), "pixel_unshuffle: an image of 4x5 cannot be cut into 2x2 pixels; downscale_factor must divide both (input"),
    (lambda: F.pixel_unshuffle(3, 2), "pixel_unshuffle: input must be a Tensor, got int"),
])  # fmt: skip
def test_errors_are_sentences(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        call()


@pytest.mark.parametrize(
    "same",
    [
        lambda x: F.interpolate(x, (3, 4), mode="bilinear"),
        lambda x: F.interpolate(x, (3, 4)),
        lambda x: F.adaptive_avg_pool2d(x, (3, None)),
        lambda x: F.pad(x, (0, 0, 0, 0), mode="reflect"),
    ],
)
def test_what_resizes_nothing_is_a_view_that_says_so(same) -> None:
    """Its input's version counts: writing into it behind the back of a graph is an error."""
    x = Tensor(np.arange(12.0).reshape(1, 1, 3, 4), requires_grad=True)
    square, y = x * x, same(x)
    with no_grad():
        y[...] = 0.0
    if np.shares_memory(x.data, y.data):
        with pytest.raises(RuntimeError, match="changed in place"):
            square.sum().backward()
    else:
        square.sum().backward()
        np.testing.assert_array_equal(x.grad.numpy(), 2 * x.numpy())
