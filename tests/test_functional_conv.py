"""The convolution triple, unfold and fold: exact against loops in integers, adjoint, differentiable to third order, and PyTorch's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from peer import agree

from minidcnn import Tensor, check_adjoint, check_grads, use_kernels
from minidcnn import functional as F
from minidcnn.testing import LAYOUTS, Conv, convs, float_dtypes, integers, lay_out, layouts, seeds, tie_free
from minidcnn.window import Pair, Window

both_kernels = pytest.mark.parametrize("kernels", ["fast", "reference"])
Array = np.ndarray[Any, Any]

CASES = {
    "plain": Conv(Window((3, 2)), (5, 4), 2, 2, 3, 1),
    "one pixel": Conv(Window((1, 1)), (1, 1), 1, 1, 1, 1),
    "all options": Conv(Window((3, 2), (2, 1), (1, 2), (1, 2)), (7, 5), 2, 4, 6, 2),
    "depthwise": Conv(Window((2, 3), (1, 2), (1, 0)), (4, 5), 2, 3, 3, 3),
    "kernel larger than the image": Conv(Window((4, 5), (1, 2), (2, 3)), (2, 1), 2, 2, 3, 1),
    "stride larger than the kernel": Conv(Window((1, 2), (3, 4)), (8, 7), 1, 2, 2, 1),
    "windows in the padding only": Conv(Window((2, 1), (1, 2), (3, 2)), (2, 3), 1, 2, 2, 1),
    "pixels left over": Conv(Window((2, 3), (3, 2), (0, 1), (1, 1)), (7, 6), 2, 2, 2, 2),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def touches(window: Window, size: Pair, positions: Pair) -> Iterator[tuple[int, int, int, int, int, int]]:
    """(i, j, a, b, h, w): tap (a, b) of position (i, j) lies on pixel (h, w) of the image."""
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = window.kernel, window.stride, window.padding, window.dilation
    for i in range(positions[0]):
        for j in range(positions[1]):
            for a in range(kh):
                for b in range(kw):
                    h, w = i * sh + a * dh - ph, j * sw + b * dw - pw
                    if 0 <= h < size[0] and 0 <= w < size[1]:
                        yield i, j, a, b, h, w


def by_loops(case: Conv, x: Array, w: Array, y: Array) -> tuple[Array, Array, Array]:
    """conv2d(x, w), conv_transpose2d(y, w) and conv2d_weight(x, y) of whole numbers, one product at a time."""
    x, w, y = (a.astype(np.int64) for a in (x, w, y))
    forward, back, weight = np.zeros_like(y), np.zeros_like(x), np.zeros_like(w)
    c, o = case.channels // case.groups, case.outputs // case.groups
    for i, j, a, b, p, q in touches(case.window, case.size, y.shape[2:]):
        for group in range(case.groups):
            cs, os = slice(group * c, group * c + c), slice(group * o, group * o + o)
            forward[:, os, i, j] += np.einsum("nc,oc->no", x[:, cs, p, q], w[os, :, a, b])
            back[:, cs, p, q] += np.einsum("no,oc->nc", y[:, os, i, j], w[os, :, a, b])
            weight[os, :, a, b] += np.einsum("no,nc->oc", y[:, os, i, j], x[:, cs, p, q])
    return forward, back, weight


def run(case: Conv, x: Array, w: Array, y: Array) -> tuple[Tensor, Tensor, Tensor]:
    """The same three by the public functions."""
    a, k, b = Tensor.wrap(x), Tensor.wrap(w), Tensor.wrap(y)
    return (
        F.conv2d(a, k, **case.options),
        F.conv_transpose2d(b, k, output_padding=case.output_padding, **case.options),
        F.conv2d_weight(a, w.shape, b, **case.options),
    )


def data(case: Conv, seed: int, dtype: Any = np.float64, make: Any = integers) -> tuple[Array, Array, Array]:
    return make(case.x, seed, dtype), make(case.w, seed + 1, dtype), make(case.y, seed + 2, dtype)


def channels_last(y: Tensor) -> bool:
    return bool(y._array.transpose(0, 2, 3, 1).flags.c_contiguous)


# -- values: exact ----------------------------------------------------------------------------------------------------------


@both_kernels
@given(case=convs(), seed=seeds, dtype=float_dtypes, layout=layouts)
def test_the_triple_is_the_sum_over_taps_exactly(kernels: str, case: Conv, seed: int, dtype: Any, layout: str) -> None:
    """Any geometry, groups, empty batches, any memory layout; in whole numbers, so every bit counts."""
    arrays = data(case, seed, dtype)
    with use_kernels(kernels):
        results = run(case, *(lay_out(a, layout) for a in arrays))
    for got, expected in zip(results, by_loops(case, *arrays), strict=True):
        assert got.dtype == dtype
        np.testing.assert_array_equal(got.numpy(), expected)


@both_kernels
@given(case=convs(), seed=seeds)
def test_each_of_the_triple_is_adjoint_to_the_others(kernels: str, case: Conv, seed: int) -> None:
    x, w, y = data(case, seed)
    with use_kernels(kernels):
        forward, back, weight = (t.numpy() for t in run(case, x, w, y))
    assert np.vdot(forward, y) == np.vdot(x, back) == np.vdot(w, weight)  # <Aw x, y>, in whole numbers


@both_kernels
@given(case=convs(), seed=seeds, dtype=float_dtypes, layout=layouts)
def test_unfold_and_fold_are_copies_and_sums_exactly(kernels: str, case: Conv, seed: int, dtype: Any, layout: str) -> None:
    window, (oh, ow) = case.window, case.window.positions(case.size)
    options = {"kernel_size": window.kernel, "dilation": window.dilation, "padding": window.padding, "stride": window.stride}
    n, c = case.batch, case.channels
    x, columns = integers(case.x, seed, dtype), integers((n, c * window.taps, oh * ow), seed + 1, dtype)
    cols, image = np.zeros((n, c, *window.kernel, oh, ow), dtype), np.zeros_like(x)
    for i, j, a, b, h, w in touches(window, case.size, (oh, ow)):
        cols[:, :, a, b, i, j] = x[:, :, h, w]
        image[:, :, h, w] += columns.reshape(cols.shape)[:, :, a, b, i, j]
    with use_kernels(kernels):
        unfolded = F.unfold(Tensor.wrap(lay_out(x, layout)), **options)
        folded = F.fold(Tensor.wrap(lay_out(columns, layout)), case.size, **options)
    assert unfolded.dtype == folded.dtype == dtype
    np.testing.assert_array_equal(unfolded.numpy(), cols.reshape(columns.shape))
    np.testing.assert_array_equal(folded.numpy(), image)
    assert np.vdot(unfolded.numpy(), columns) == np.vdot(x, folded.numpy())


@given(case=convs(), seed=seeds)
def test_convolution_is_linear_and_bias_is_added_once(case: Conv, seed: int) -> None:
    x, w, y = data(case, seed)
    forward, back, _ = (t.numpy() for t in run(case, x, w, y))
    bias, back_bias = integers((case.outputs,), seed + 3), integers((case.channels,), seed + 4)
    with_bias = F.conv2d(Tensor(3 * x), Tensor(-w), Tensor(bias), **case.options)
    np.testing.assert_array_equal(with_bias.numpy(), -3 * forward + bias[:, None, None])
    back_with_bias = F.conv_transpose2d(Tensor(y), Tensor(2 * w), Tensor(back_bias), output_padding=case.output_padding, **case.options)
    np.testing.assert_array_equal(back_with_bias.numpy(), 2 * back + back_bias[:, None, None])


@each_case
@both_kernels
def test_large_enough_for_blocks_and_threads(kernels: str, case: Conv) -> None:
    """The same geometries on images with thousands of positions, where the CPU kernels cut their work into blocks."""
    h, w = (n + 28 * s for n, s in zip(case.size, case.window.stride, strict=True))
    large = Conv(case.window, (h + 9, w + 2), 2, case.channels, case.outputs, case.groups)
    arrays = data(large, 5)
    assert np.prod(large.window.positions(large.size)) > 900
    with use_kernels(kernels):
        results = run(large, *arrays)
    for got, expected in zip(results, by_loops(large, *arrays), strict=True):
        np.testing.assert_array_equal(got.numpy(), expected)


# -- derivatives --------------------------------------------------------------------------------------------------------------


@each_case
@both_kernels
def test_derivatives_to_third_order(kernels: str, case: Conv) -> None:
    x, w, y = (a / 4 for a in data(case, 0))
    bias, back_bias = integers((case.outputs,), 3) / 4, integers((case.channels,), 4) / 4
    with use_kernels(kernels):
        check_grads(lambda x, w: F.conv2d(x, w, **case.options), [x, w], 3)
        check_grads(lambda x, w, b: F.conv2d(x, w, b, **case.options), [x, w, bias], 2)
        check_grads(lambda y, w: F.conv_transpose2d(y, w, output_padding=case.output_padding, **case.options), [y, w], 3)
        check_grads(lambda y, w, b: F.conv_transpose2d(y, w, b, output_padding=case.output_padding, **case.options), [y, w, back_bias], 2)
        check_grads(lambda x, y: F.conv2d_weight(x, case.w, y, **case.options), [x, y], 3)


@each_case
def test_derivatives_of_unfold_and_fold(case: Conv) -> None:
    window = case.window
    options = {"kernel_size": window.kernel, "dilation": window.dilation, "padding": window.padding, "stride": window.stride}
    x = tie_free(case.x)
    columns = F.unfold(Tensor(x), **options).numpy()
    check_grads(lambda x: F.unfold(x * x, **options), [x], 3)
    check_grads(lambda c: F.fold(c * c, case.size, **options), [columns], 3)
    check_adjoint(
        lambda v: F.unfold(Tensor(v), **options).numpy(),
        lambda v: F.fold(Tensor(v), case.size, **options).numpy(),
        x,
        tie_free(columns.shape, 1),
    )


@pytest.mark.exhaustive
@given(case=convs(), seed=seeds)
def test_derivatives_to_third_order_anywhere(case: Conv, seed: int) -> None:
    x, w, y = (a / 4 for a in data(case, seed))
    check_grads(lambda x, w: F.conv2d(x, w, **case.options), [x, w], 3)
    check_grads(lambda y, w: F.conv_transpose2d(y, w, output_padding=case.output_padding, **case.options), [y, w], 3)
    check_grads(lambda x, y: F.conv2d_weight(x, case.w, y, **case.options), [x, y], 3)


def test_gradients_that_arrive_as_broadcasts_or_read_only() -> None:
    """sum() sends back one number with strides of 0."""
    x, w = Tensor(tie_free((2, 2, 5, 4)), requires_grad=True), Tensor(tie_free((3, 2, 3, 2), 1), requires_grad=True)
    F.conv2d(x, w, padding=1).sum().backward()
    gx, gw = x.grad.numpy(), w.grad.numpy()
    x.zero_grad()
    w.zero_grad()
    F.conv2d(x, w, padding=1).backward(np.ones((2, 3, 5, 5)))
    np.testing.assert_allclose(x.grad.numpy(), gx, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(w.grad.numpy(), gw, rtol=1e-13, atol=1e-13)


# -- PyTorch --------------------------------------------------------------------------------------------------------------------


@given(case=convs(), seed=seeds, dtype=float_dtypes, batched=st.booleans())
def test_conv2d_is_pytorchs(case: Conv, seed: int, dtype: Any, batched: bool) -> None:
    x, w, _ = data(case, seed, dtype, tie_free)
    rtol = 1e-12 if dtype == np.float64 else 2e-5
    x = x if batched or not case.batch else x[0]
    agree(lambda F, x, w, b: F.conv2d(x, w, b, **case.options), x, w, tie_free((case.outputs,), seed, dtype), rtol=rtol, atol=rtol)


@given(case=convs(), seed=seeds, dtype=float_dtypes, batched=st.booleans(), data_=st.data())
def test_conv_transpose2d_is_pytorchs(case: Conv, seed: int, dtype: Any, batched: bool, data_: st.DataObject) -> None:
    """output_padding up to what PyTorch accepts, which is more than a size that conv2d comes from."""
    _, w, y = data(case, seed, dtype, tie_free)
    most = [max(s, d) - 1 for s, d in zip(case.window.stride, case.window.dilation, strict=True)]
    extra = tuple(data_.draw(st.integers(0, m)) for m in most)
    if min(case.window.image_size(y.shape[2:], extra)) < 1:
        extra = case.output_padding
    rtol = 1e-12 if dtype == np.float64 else 2e-5
    y = y if batched or not case.batch else y[0]
    agree(
        lambda F, y, w, b: F.conv_transpose2d(y, w, b, output_padding=extra, **case.options),
        *(y, w, tie_free((case.channels,), seed, dtype)),
        rtol=rtol,
        atol=rtol,
    )


@given(case=convs(), seed=seeds, batched=st.booleans())
def test_unfold_and_fold_are_pytorchs(case: Conv, seed: int, batched: bool) -> None:
    window = case.window
    if not case.batch:
        return  # PyTorch's fold refuses an empty batch
    options = {"dilation": window.dilation, "padding": window.padding, "stride": window.stride}
    x = tie_free(case.x, seed) if batched else tie_free(case.x[1:], seed)
    agree(lambda F, x: F.unfold(x, window.kernel, **options), x)
    columns = F.unfold(Tensor(x), window.kernel, **options).numpy()
    agree(lambda F, c: F.fold(c, case.size, window.kernel, **options), tie_free(columns.shape, seed))


@each_case
def test_conv2d_weight_is_pytorchs(case: Conv) -> None:
    torch = pytest.importorskip("torch")
    x, _, y = data(case, 0, make=tie_free)
    theirs = torch.nn.grad.conv2d_weight(torch.tensor(x), case.w, torch.tensor(y), **case.options)
    np.testing.assert_allclose(
        F.conv2d_weight(Tensor(x), case.w, Tensor(y), **case.options).numpy(), theirs.numpy(), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kernel, dilation", [((3, 5), 1), ((2, 4), 1), ((4, 3), (1, 2)), ((1, 2), (5, 3)), ((2, 3), (3, 1))])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_padding_by_name_is_pytorchs(padding: str, kernel: Pair, dilation: Any) -> None:
    x, w = tie_free((2, 4, 9, 8)), tie_free((6, 2, *kernel), 1)
    agree(lambda F, x, w: F.conv2d(x, w, None, 1, padding, dilation, 2), x, w)
    agree(lambda F, x, w: F.conv2d(x, w, padding=padding, dilation=dilation, groups=2), x[0], w)
    if padding == "same":
        assert F.conv2d(Tensor(x), Tensor(w), padding=padding, dilation=dilation, groups=2).shape == (2, 6, 9, 8)


def test_output_size_chooses_among_the_sizes_that_conv2d_maps_to_the_same() -> None:
    torch = pytest.importorskip("torch")
    y, w = tie_free((2, 3, 4, 5)), tie_free((3, 2, 3, 2), 1)
    layer = torch.nn.ConvTranspose2d(3, 2, (3, 2), (2, 3), (1, 0), bias=False, dtype=torch.float64)
    layer.weight.data = torch.tensor(w)
    for size in ((7, 14), (8, 16), (7, 15)):
        x = F.conv_transpose2d(Tensor(y), Tensor(w), stride=(2, 3), padding=(1, 0), output_size=size)
        assert x.shape == (2, 2, *size)
        np.testing.assert_allclose(x.numpy(), layer(torch.tensor(y), output_size=size).detach().numpy(), rtol=1e-12, atol=1e-12)
        whole = F.conv_transpose2d(Tensor(y), Tensor(w), stride=(2, 3), padding=(1, 0), output_size=(2, 2, *size))
        np.testing.assert_array_equal(whole.numpy(), x.numpy())
        assert F.conv2d(x, Tensor(w), stride=(2, 3), padding=(1, 0)).shape == y.shape


# -- memory, dtypes, batches --------------------------------------------------------------------------------------------------------


@both_kernels
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("groups", [1, 2])
def test_results_lie_in_channels_last_memory(kernels: str, layout: str, groups: int) -> None:
    """So that the next layer reads whole pixels, whatever comes in."""
    x, w, y = (lay_out(tie_free(s), layout) for s in ((2, 4, 6, 5), (6, 4 // groups, 3, 2), (2, 6, 4, 4)))
    with use_kernels(kernels):
        a, b = Tensor.wrap(x), Tensor.wrap(w)
        assert channels_last(F.conv2d(a, b, groups=groups))
        assert channels_last(F.conv2d(a, b, Tensor(tie_free((6,))), groups=groups))
        assert F.conv_transpose2d(Tensor.wrap(y), b, groups=groups)._array.strides[1] == 8
        leaf = Tensor(x, requires_grad=True)
        F.conv2d(leaf, b, groups=groups).backward(y)
        assert leaf.grad._array.strides[1] == 8


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtypes_stay(dtype: Any) -> None:
    x, w = Tensor(tie_free((1, 2, 5, 4), 0, dtype), requires_grad=True), Tensor(tie_free((3, 2, 2, 3), 1, dtype), requires_grad=True)
    b = Tensor(tie_free((3,), 2, dtype), requires_grad=True)
    y = F.conv2d(x, w, b, padding=1)
    y.sum().backward()
    assert {t.dtype for t in (y, x.grad, w.grad, b.grad)} == {np.dtype(dtype)}
    exact = F.conv2d(*(Tensor(t.numpy().astype(np.float64)) for t in (x, w, b)), padding=1)
    np.testing.assert_allclose(y.numpy(), exact.numpy(), rtol=0, atol=8 * np.finfo(dtype).eps)
    assert F.fold(F.unfold(x, 2), (5, 4), 2).dtype == dtype


@both_kernels
def test_an_empty_batch_has_a_result_and_zero_gradients(kernels: str) -> None:
    with use_kernels(kernels):
        x, w = Tensor(np.zeros((0, 4, 6, 5)), requires_grad=True), Tensor(tie_free((6, 2, 3, 2)), requires_grad=True)
        b = Tensor(tie_free((6,)), requires_grad=True)
        y = F.conv2d(x, w, b, stride=2, groups=2)
        assert y.shape == (0, 6, 2, 2)
        y.sum().backward()
        assert x.grad.shape == x.shape
        assert not w.grad.numpy().any() and not b.grad.numpy().any()
        assert F.conv_transpose2d(Tensor(np.zeros((0, 6, 3, 4))), w, stride=2, groups=2).shape == (0, 4, 7, 8)
        assert F.unfold(x, (3, 2)).shape == (0, 24, 16)
        assert F.fold(Tensor(np.zeros((0, 24, 16))), (6, 5), (3, 2)).shape == (0, 4, 6, 5)


def test_images_without_a_batch_axis() -> None:
    x, w, y = tie_free((2, 6, 5)), tie_free((3, 2, 3, 2), 1), tie_free((3, 4, 4), 2)
    for f, one in (
        (lambda t: F.conv2d(t, Tensor(w)), x),
        (lambda t: F.conv_transpose2d(t, Tensor(w)), y),
        (lambda t: F.unfold(t, (3, 2)), x),
        (lambda t: F.fold(t, (6, 5), (3, 2)), F.unfold(Tensor(x), (3, 2)).numpy()),
        (lambda t: F.conv2d(t, Tensor(tie_free((3, 2, 2, 3), 1)), padding="same"), x),
    ):
        np.testing.assert_array_equal(f(Tensor(one)).numpy(), f(Tensor(one[None])).numpy()[0])
        check_grads(f, [one], 1)


# -- what is refused --------------------------------------------------------------------------------------------------------------


def zeros(*shape: int, dtype: Any = np.float32) -> Tensor:
    return Tensor(np.zeros(shape, dtype))


X, W = zeros(2, 4, 6, 5), zeros(6, 4, 3, 2)
REFUSED: list[tuple[Any, type[Exception], str]] = [
    (
        lambda: F.conv2d(zeros(2, 3, 6, 5), W),
        ValueError,
        r"conv2d: weight expects 4 input channels, got 3 \(input \(2, 3, 6, 5\), weight \(6, 4, 3, 2\), gr",
    ),
    (
        lambda: F.conv2d(X, zeros(3, 2, 3, 2), groups=2),
        ValueError,
        "conv2d: 3 output channels cannot be divided into 2 groups; groups must divide both",
    ),
    (lambda: F.conv2d(X, W, groups=2), ValueError, "conv2d: weight expects 8 input channels, got 4"),
    (lambda: F.conv2d(X, W, groups=0), ValueError, "conv2d: groups must be at least 1, got 0"),
    (lambda: F.conv2d(zeros(6, 5), W), ValueError, r"conv2d: input must be \(N, C, H, W\) or \(C, H, W\), got shape \(6, 5\)"),
    (lambda: F.conv2d(X.numpy(), W), TypeError, r"conv2d: input must be a Tensor, got ndarray; wrap arrays as minidcnn.Tensor\(array\)"),
    (lambda: F.conv2d(X, zeros(6, 4, 3)), ValueError, r"conv2d: weight must have 4 axes, got shape \(6, 4, 3\)"),
    (
        lambda: F.conv2d(X, zeros(6, 4, 3, 2, dtype=np.float64)),
        TypeError,
        r"conv2d: input is float32 but weight is float64; cast one with .astype\(\)",
    ),
    (lambda: F.conv2d(X, W, zeros(4)), ValueError, r"conv2d: bias must have shape \(6,\) for 6 output channels, got \(4,\)"),
    (lambda: F.conv2d(X, W, zeros(6, dtype=np.float64)), TypeError, "conv2d: input is float32 but bias is float64"),
    (
        lambda: F.conv2d(X, zeros(6, 4, 7, 2)),
        ValueError,
        "conv2d: a window spanning 7x2 pixels does not fit an image of 6x5 padded to 6x5; use a larger",
    ),
    (lambda: F.conv2d(zeros(2, 4, 0, 5), W, padding=3), ValueError, "conv2d: a window spanning 3x2 pixels does not fit an image of 0x5"),
    (lambda: F.conv2d(X, W, stride=0), ValueError, "conv2d: stride must be at least 1, got 0"),
    (lambda: F.conv2d(X, W, padding=(1, 2, 3)), ValueError, r"conv2d: padding must be an int or a pair \(height, width\), got 3 numbers"),
    (lambda: F.conv2d(X, W, padding="full"), ValueError, 'conv2d: padding "full" is unknown; use an int, a pair, "same" or "valid"'),
    (lambda: F.conv2d(X, W, stride=(1, 2), padding="same"), ValueError, r'conv2d: padding="same" needs stride 1, got \(1, 2\)'),
    (
        lambda: F.conv_transpose2d(zeros(2, 3, 6, 5), W),
        ValueError,
        r"conv_transpose2d: weight expects 6 input channels, got 3 .*\(in, out / groups, KH, KW\)",
    ),
    (
        lambda: F.conv_transpose2d(zeros(2, 6, 6, 5), W, groups=4),
        ValueError,
        "conv_transpose2d: 6 input channels cannot be divided into 4 groups",
    ),
    (
        lambda: F.conv_transpose2d(zeros(2, 6, 6, 5), W, zeros(6)),
        ValueError,
        r"conv_transpose2d: bias must have shape \(4,\) for 4 output channels, got",
    ),
    (lambda: F.conv_transpose2d(zeros(2, 6, 0, 5), W), ValueError, r"conv_transpose2d: input \(2, 6, 0, 5\) has no pixels"),
    (
        lambda: F.conv_transpose2d(zeros(2, 6, 6, 5), W, stride=2, output_padding=(0, 2)),
        ValueError,
        r"conv_transpose2d: output_padding \(0, 2\) must be smaller than stride \(2, 2\) or dilation \(1, 1\)",
    ),
    (
        lambda: F.conv_transpose2d(zeros(2, 6, 6, 5), W, output_padding=-1),
        ValueError,
        "conv_transpose2d: output_padding must be at least 0, got -1",
    ),
    (
        lambda: F.conv_transpose2d(zeros(2, 6, 6, 5), W, stride=(2, 3), output_size=(15, 14)),
        ValueError,
        r"conv_transpose2d: output_size \(15, 14\) cannot be reached from input \(2, 6, 6, 5\); possible are \(13, 14\) to \(14, 16\)",
    ),
    (
        lambda: F.conv_transpose2d(zeros(2, 6, 1, 5), W, padding=2),
        ValueError,
        r"conv_transpose2d: .*padding \(2, 2\) gives an output of size \(-1, 2\)",
    ),
    (
        lambda: F.conv2d_weight(X, (6, 4, 3, 2), zeros(2, 6, 4, 5)),
        ValueError,
        r"conv2d_weight: input \(2, 4, 6, 5\) and weight_size \(6, 4, 3, 2\) in 1 groups need a grad_output of \(2, 6, 4, 4\), got \(2, 6, 4, 5\)",
    ),
    (
        lambda: F.conv2d_weight(X, (6, 4, 3), zeros(2, 6, 4, 4)),
        ValueError,
        r"conv2d_weight: weight_size must be \(O, C/groups, KH, KW\), got \(6, 4, 3\)",
    ),
    (
        lambda: F.conv2d_weight(zeros(4, 6, 5), (6, 4, 3, 2), zeros(6, 4, 4)),
        ValueError,
        r"conv2d_weight: input must be \(N, C, H, W\), got shape \(4, 6, 5\)",
    ),
    (
        lambda: F.conv2d_weight(X, (5, 2, 3, 2), zeros(2, 5, 4, 4), groups=2),
        ValueError,
        "conv2d_weight: 5 output channels cannot be divided into 2 groups",
    ),
    (
        lambda: F.conv2d_weight(X, (6, 4, 3, 2), zeros(2, 6, 4, 4, dtype=np.float64)),
        TypeError,
        "conv2d_weight: input is float32 but grad_output is float64",
    ),
    (lambda: F.unfold(zeros(6, 5), 2), ValueError, r"unfold: input must be \(N, C, H, W\) or \(C, H, W\)"),
    (lambda: F.unfold(X, 7), ValueError, "unfold: a window spanning 7x7 pixels does not fit an image of 6x5"),
    (
        lambda: F.fold(zeros(2, 3, 24, 20), (6, 5), 2),
        ValueError,
        r"fold: input must be \(N, C KH KW, L\) or \(C KH KW, L\), got shape \(2, 3, 24, 20\)",
    ),
    (lambda: F.fold(zeros(2, 23, 20), (6, 5), (3, 2)), ValueError, r"fold: 23 rows are no multiple of the 6 taps of kernel_size \(3, 2\)"),
    (
        lambda: F.fold(zeros(2, 24, 20), (6, 5), (3, 2)),
        ValueError,
        r"fold: output_size \(6, 5\) has 4 x 4 = 16 window positions, input \(2, 24, 20\) has 20 columns",
    ),
    (lambda: F.fold(zeros(24, 16), (0, 5), (3, 2)), ValueError, r"fold: output_size must be at least 1, got \(0, 5\)"),
]


def test_what_was_checked_once_is_refused_again() -> None:
    """Geometries that fit are remembered: not so their numbers' kinds, the dtypes of what comes, nor what did not fit."""
    x, w, b = zeros(1, 2, 5, 6), zeros(3, 2, 2, 3), zeros(3)
    for _ in range(2):
        assert F.conv2d(x, w, b, (1, 2), (1, 0)).shape == (1, 3, 6, 2)
        assert F.conv_transpose2d(zeros(1, 3, 6, 2), w, zeros(2), (1, 2), (1, 0), (0, 1), output_size=None).shape == (1, 2, 5, 6)
        assert F.conv_transpose2d(zeros(1, 3, 6, 2), w, zeros(2), (1, 2), (1, 0), output_size=(5, 5)).shape == (1, 2, 5, 5)
        assert F.max_pool2d(x, (2, 3), (1, 2)).shape == (1, 2, 4, 2)
        for wrong in (1.0, (1, 2.0), (True, 2)):
            for f in (
                lambda s: F.conv2d(x, w, b, s, (1, 0)),
                lambda s: F.max_pool2d(x, (2, 3), s),
                lambda s: F.conv_transpose2d(x, x, None, s),
            ):
                with pytest.raises(TypeError, match="stride must be an int or a pair of ints"):
                    f(wrong)
        for weight, bias in ((w.astype("float64"), b), (w, b.astype("float64"))):
            with pytest.raises(TypeError, match="cast one with"):
                F.conv2d(x, weight, bias, (1, 2), (1, 0))
        with pytest.raises(ValueError, match="does not fit an image"):
            F.conv2d(x, zeros(3, 2, 6, 3), b)
        with pytest.raises(ValueError, match="does not fit an image"):
            F.max_pool2d(x, (6, 3))


@pytest.mark.parametrize("make, error, sentence", REFUSED, ids=[s[:40] for _, _, s in REFUSED])
def test_what_is_refused(make: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        make()
