"""Padding and cropping: as NumPy pads, adjoint, differentiable, and PyTorch's."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from peer import agree

from minidcnn import Tensor, check_adjoint, check_grads, grad, use_kernels
from minidcnn import functional as F
from minidcnn.backend import kernels_of
from minidcnn.functional.pad import border
from minidcnn.nn.shapes import ShapeKernels
from minidcnn.testing import LAYOUTS, batches, integers, lay_out, layouts, seeds, tie_free

both_kernels = pytest.mark.parametrize("kernels", ["fast", "reference"])
Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
NUMPY = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def widths_of(pad: Any, ndim: int) -> list[tuple[int, int]]:
    """PyTorch's `pad`, last axis first, as NumPy's pairs in the order of the axes."""
    named = [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)]
    return [(0, 0)] * (ndim - len(named)) + named[::-1]


@st.composite
def constants(draw: st.DrawFn) -> tuple[Shape, tuple[int, ...]]:
    """A shape of one to five axes, and numbers for some of its last axes: padding, cropping, or both, down to nothing."""
    shape = tuple(draw(st.lists(st.integers(0, 5), min_size=1, max_size=5)))
    pad: list[int] = []
    for n in shape[::-1][: draw(st.integers(0, len(shape)))]:
        before = draw(st.integers(-n, 4))
        pad += [before, draw(st.integers(max(-n, -n - before), 4))]
    return shape, tuple(pad)


@st.composite
def borders(draw: st.DrawFn, cropping: bool = True) -> tuple[Shape, tuple[int, ...], str]:
    """An image with or without batch axis, numbers for its sides as far as the mode goes, and the mode."""
    mode = draw(st.sampled_from(sorted(NUMPY)))
    batch = draw(st.none() | batches)
    shape = (*(() if batch is None else (batch,)), draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    pad: list[int] = []
    for n in shape[:-3:-1]:
        most = {"reflect": n - 1, "replicate": 7, "circular": n}[mode]
        before = draw(st.integers(1 - n if cropping else 0, most))
        after = draw(st.integers(max(1 - n, 1 - n - before) if cropping else 0, most))
        if mode == "circular":  # what is left is repeated once at most
            left = n + min(before, 0) + min(after, 0)
            assume(max(before, after) <= left)
        pad += [before, after]
    return shape, tuple(pad), mode


# -- values: as NumPy ---------------------------------------------------------------------------------------------------------


@both_kernels
@given(
    case=constants(),
    value=st.sampled_from([None, 0.0, 1.5, -np.inf]),
    seed=seeds,
    dtype=st.sampled_from(["f8", "f4", "i8", "u1", "?"]),
    layout=layouts,
)
def test_constant_pads_and_crops_any_axes(kernels: str, case: Any, value: float | None, seed: int, dtype: str, layout: str) -> None:
    shape, pad = case
    x = integers(shape, seed, np.int64).astype(dtype)
    if x.dtype.kind != "f":
        value = None if value is None else 1
    with use_kernels(kernels):
        y = F.pad(Tensor.wrap(lay_out(x, layout)), pad, value=value)
    widths = widths_of(pad, x.ndim)
    cropped = x[tuple(slice(max(0, -a), n + min(0, b)) for n, (a, b) in zip(shape, widths, strict=True))]
    expected = np.pad(cropped, [(max(a, 0), max(b, 0)) for a, b in widths], constant_values=0 if value is None else value)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y.numpy(), expected)


@both_kernels
@given(case=borders(cropping=False), seed=seeds, dtype=st.sampled_from(["f8", "f4", "i8", "u1"]), layout=layouts)
def test_borders_are_mirrored_repeated_or_periodic(kernels: str, case: Any, seed: int, dtype: str, layout: str) -> None:
    shape, pad, mode = case
    x = integers(shape, seed, np.int64).astype(dtype)
    with use_kernels(kernels):
        y = F.pad(Tensor.wrap(lay_out(x, layout)), pad, mode)
    assert y.dtype == x.dtype
    if x.size:
        np.testing.assert_array_equal(y.numpy(), np.pad(x, widths_of(pad, x.ndim), mode=NUMPY[mode]))
    else:
        assert y.shape == tuple(n + a + b for n, (a, b) in zip(shape, widths_of(pad, x.ndim), strict=True))


def test_negative_numbers_crop_before_the_other_side_is_padded_where_that_matters() -> None:
    x = Tensor(np.arange(1, 6))
    assert F.pad(x, (-2, 3), "reflect").numpy().tolist() == [3, 4, 5, 4, 3, 2]
    assert F.pad(x, (-2, 3), "replicate").numpy().tolist() == [3, 4, 5, 5, 5, 5]
    assert F.pad(x, (-2, 3), "circular").numpy().tolist() == [3, 4, 5, 3, 4, 5]
    assert F.pad(x, (-2, 3)).numpy().tolist() == [3, 4, 5, 0, 0, 0]
    assert F.pad(x, (-5, 2)).numpy().tolist() == [0, 0]
    assert F.pad(x, (-2, -3), "replicate").shape == F.pad(x, (-2, -3)).shape == (0,)


def test_one_axis_or_two_of_tensors_with_one_to_four_axes() -> None:
    x = integers((2, 3, 4, 5))
    for mode, numpy in NUMPY.items():
        for ndim in (1, 2, 3, 4):
            part = x[(0,) * (4 - ndim)]
            np.testing.assert_array_equal(F.pad(Tensor(part), (2, 1), mode).numpy(), np.pad(part, widths_of((2, 1), ndim), mode=numpy))
            if ndim > 1:
                pad = (2, 1, 0, 3)
                np.testing.assert_array_equal(F.pad(Tensor(part), pad, mode).numpy(), np.pad(part, widths_of(pad, ndim), mode=numpy))


def test_crops_begin_where_they_say() -> None:
    x = integers((2, 3, 7, 8))
    np.testing.assert_array_equal(F.center_crop(Tensor(x), (4, 3)).numpy(), x[:, :, 1:5, 2:5])  # floor(3 / 2), floor(5 / 2)
    np.testing.assert_array_equal(F.center_crop(Tensor(x[0]), 5).numpy(), x[0, :, 1:6, 1:6])
    np.testing.assert_array_equal(F.center_crop(Tensor(x[0, 0]), (7, 2)).numpy(), x[0, 0, :, 3:5])
    np.testing.assert_array_equal(F.crop(Tensor(x), 2, 1, 4, 6).numpy(), x[:, :, 2:6, 1:7])
    np.testing.assert_array_equal(F.crop(Tensor(x[0]), 0, 0, 7, 8).numpy(), x[0])
    for skip, up, margin in ((64, 56, 4), (136, 104, 16), (280, 200, 40), (568, 392, 88)):  # U-Net's four crops at 572 pixels
        index = Tensor(np.arange(skip, dtype=np.float32)[:, None] * np.ones((1, 1, 1, skip), np.float32))
        cropped = F.center_crop(index, (up, up))
        assert cropped.shape == (1, 1, up, up) and cropped.numpy()[0, 0, 0, 0] == margin


def test_crops_are_views_and_what_was_saved_of_them_is_protected() -> None:
    x = Tensor(np.ones((1, 2, 6, 7)), requires_grad=True)
    for crop in (lambda t: F.center_crop(t, (3, 4)), lambda t: F.pad(t, (-1, -2, 0, -1)), lambda t: F.crop(t, 1, 2, 3, 4)):
        y = crop(x)
        assert np.shares_memory(y._array, x._array)
        z = (y * y).sum()
        x.changed()
        with pytest.raises(RuntimeError, match="changed"):
            z.backward()


# -- derivatives and adjoints -------------------------------------------------------------------------------------------------

FUNCTIONS: dict[str, tuple[Callable[..., Any], Shape]] = {
    "constant": (lambda F, x: F.pad(x, (1, 2, 0, 3), value=0.5), (2, 2, 3, 4)),
    "constant and crop": (lambda F, x: F.pad(x, (-1, 2, 3, -2), value=-1.5), (2, 2, 3, 4)),
    "crop": (lambda F, x: F.pad(x, (-1, -2, 0, -1)), (2, 2, 3, 4)),
    "all axes": (lambda F, x: F.pad(x, (1, 0, -1, 2, 1, 1)), (2, 3, 2)),
    "channels": (lambda F, x: F.pad(x, (0, 0, 0, 0, 1, 2)), (1, 2, 3, 2)),
    "reflect": (lambda F, x: F.pad(x, (3, 2, 1, 2), "reflect"), (2, 2, 3, 4)),
    "reflect and crop": (lambda F, x: F.pad(x, (-2, 3, 2, -1), "reflect"), (1, 2, 3, 5)),
    "replicate": (lambda F, x: F.pad(x, (5, 2, 0, 6), "replicate"), (2, 2, 3, 4)),
    "replicate and crop": (lambda F, x: F.pad(x, (-2, 3, 4, -1), "replicate"), (1, 2, 3, 5)),
    "replicate one pixel": (lambda F, x: F.pad(x, (1, 2, 3, 0), "replicate"), (2, 1, 1, 1)),
    "circular": (lambda F, x: F.pad(x, (4, 1, 0, 3), "circular"), (2, 2, 3, 4)),
    "circular and crop": (lambda F, x: F.pad(x, (-2, 3, 2, -1), "circular"), (1, 2, 3, 5)),
    "reflect without batch": (lambda F, x: F.pad(x, (1, 2, 2, 1), "reflect"), (2, 3, 4)),
    "replicate the last axis": (lambda F, x: F.pad(x, (1, 2), "replicate"), (2, 3, 4)),
}
each_function = pytest.mark.parametrize("name", FUNCTIONS)
CROPS: dict[str, tuple[Callable[..., Any], Shape]] = {
    "center_crop": (lambda F, x: F.center_crop(x, (2, 3)), (2, 2, 5, 4)),
    "center_crop without batch": (lambda F, x: F.center_crop(x, (4, 1)), (2, 5, 4)),
    "crop by an offset": (lambda F, x: F.crop(x, 2, 1, 3, 2), (2, 2, 5, 4)),
}


@pytest.mark.parametrize("name", FUNCTIONS | CROPS)
@both_kernels
def test_derivatives_and_adjoints(kernels: str, name: str) -> None:
    f, shape = (FUNCTIONS | CROPS)[name]
    with use_kernels(kernels):
        check_grads(lambda x: f(F, x * x), [tie_free(shape)], order=2)
        constant = f(F, Tensor(np.zeros(shape))).numpy()  # padding with a value is linear but for it

        def adjoint(v: Array) -> Array:
            t = Tensor(np.zeros(shape), requires_grad=True)
            return grad(f(F, t), t, v)[0].numpy()  # type: ignore[no-any-return]

        check_adjoint(lambda v: f(F, Tensor(v)).numpy() - constant, adjoint, tie_free(shape), tie_free(constant.shape, 1))


@both_kernels
@given(case=constants(), seed=seeds)
def test_zero_padding_is_adjoint_to_padding_by_the_negated_numbers(kernels: str, case: Any, seed: int) -> None:
    shape, pad = case
    widths = tuple(widths_of(pad, len(shape)))
    negated = tuple((-a, -b) for a, b in widths)
    x, y = integers(shape, seed), integers([n + a + b for n, (a, b) in zip(shape, widths, strict=True)], seed + 1)
    with use_kernels(kernels):
        k = kernels_of(x)
        assert np.vdot(k.pad(x, widths), y) == np.vdot(x, k.pad(y, negated))  # in whole numbers


@both_kernels
@given(case=borders(), seed=seeds)
def test_padding_with_pixels_gathers_and_its_adjoint_adds_them_up(kernels: str, case: Any, seed: int) -> None:
    shape, pad, mode = case
    rows, columns = (border(n, a, b, mode) for n, (a, b) in list(zip(shape, widths_of(pad, len(shape)), strict=True))[-2:])
    x = integers((1, *shape)[-4:], seed)
    y = integers((*x.shape[:2], rows.outputs, columns.outputs), seed + 1)
    sums = np.zeros_like(x)
    np.add.at(sums, (slice(None), slice(None), rows.indices[:, None], columns.indices), y)
    with use_kernels(kernels):
        k = kernels_of(x)
        np.testing.assert_array_equal(k.resample(x, rows, columns), x[:, :, rows.indices[:, None], columns.indices])
        np.testing.assert_array_equal(k.resample(y, rows.transposed, columns.transposed), sums)
        assert np.vdot(k.resample(x, rows, columns), y) == np.vdot(x, sums)


# -- PyTorch --------------------------------------------------------------------------------------------------------------------


@each_function
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_pytorch_agrees(name: str, dtype: Any) -> None:
    f, shape = FUNCTIONS[name]
    tolerance = 1e-12 if dtype == np.float64 else 2e-6
    agree(lambda F, x: f(F, x * x), tie_free(shape, dtype=dtype), rtol=tolerance, atol=tolerance)


@given(case=constants(), value=st.sampled_from([None, 1.5, -np.inf]), seed=seeds)
def test_pytorch_agrees_on_constants(case: Any, value: float | None, seed: int) -> None:
    shape, pad = case
    agree(lambda F, x: F.pad(x, pad, value=value), tie_free(shape, seed), order=1)


@given(case=borders(), seed=seeds)
def test_pytorch_agrees_on_borders(case: Any, seed: int) -> None:
    shape, pad, mode = case
    agree(lambda F, x: F.pad(x, pad, mode), tie_free(shape, seed), order=1)


# -- memory ---------------------------------------------------------------------------------------------------------------------


@both_kernels
@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_and_gradients_lie_channels_last(kernels: str, layout: str) -> None:
    for name, (f, shape) in FUNCTIONS.items():
        if len(shape) != 4:
            continue
        with use_kernels(kernels):
            t = Tensor.wrap(lay_out(tie_free(shape, dtype=np.float32), layout)).requires_grad_()
            before = t.numpy().copy()
            y = f(F, t)
            (g,) = grad(y, t, tie_free(y.shape, dtype=np.float32))
        assert g._array.transpose(0, 2, 3, 1).flags.c_contiguous, name
        assert name == "crop" or y._array.transpose(0, 2, 3, 1).flags.c_contiguous, name
        np.testing.assert_array_equal(t.numpy(), before)


def test_images_without_a_batch_axis_keep_their_layout() -> None:
    image = Tensor.wrap(np.ascontiguousarray(tie_free((5, 6, 3))).transpose(2, 0, 1))
    for mode in ("constant", "reflect", "replicate", "circular"):
        assert F.pad(image, (1, 2, 0, 3), mode)._array.transpose(1, 2, 0).flags.c_contiguous


def test_shapes_are_known_without_computing() -> None:
    for f, shape in (FUNCTIONS | CROPS).values():
        real = f(F, Tensor(tie_free(shape)))
        with use_kernels(ShapeKernels(np)):
            blank = f(F, Tensor(tie_free(shape)))
        assert blank.shape == real.shape and blank.dtype == real.dtype


# -- errors ---------------------------------------------------------------------------------------------------------------------

image = Tensor(np.zeros((2, 3, 4, 5), np.float32))


@pytest.mark.parametrize("call, message", [
    (lambda: F.pad(np.zeros(3), (1, 1)), "pad: input must be a Tensor, got ndarray; wrap arrays as minidcnn.Tensor(array)"),
    (lambda: F.pad(image, 1), "pad: pad must hold two numbers for each axis, (left, right, top, bottom, ...), got 1 numbers (1,)"),
    (lambda: F.pad(image, (1, 1.5)), "pad: pad must be an int or a sequence of ints, got (1, 1.5)"),
    (lambda: F.pad(image, (1, 1, 1)), "pad: pad must hold two numbers for each axis, (left, right, top, bottom, ...), got 3 numbers (1, 1, 1)"),
    (lambda: F.pad(image, (1,) * 10), "pad: 10 numbers pad 5 axes, but the input has 4 (shape (2, 3, 4, 5))"),
    (lambda: F.pad(image, (1, 1), "mirror"), 'pad: mode "mirror" is unknown; use one of constant, reflect, replicate, circular'),
    (lambda: F.pad(image, (-3, -3)), "pad: widths (-3, -3) crop more than axis 3 has, 5 (input (2, 3, 4, 5))"),
    (lambda: F.pad(image, (0, 0, -5, 4)), "pad: widths (-5, 4) crop more than axis 2 has, 4 (input (2, 3, 4, 5))"),
    (lambda: F.pad(image, (-3, -3), "replicate"), "pad: widths (-3, -3) crop more than axis 3 has, 5 (input (2, 3, 4, 5))"),
    (lambda: F.pad(image, (1, 1, 1, 1, 1, 1), "reflect"), 'pad: mode "reflect" pads the last one or two axes of at most 4, got 6 numbers'),
    (lambda: F.pad(image, (5, 0), "reflect"), 'pad: mode "reflect" can add at most 4 pixels to the 5 of axis 3, got (5, 0) (input (2, 3, 4, 5)); use'),
    (lambda: F.pad(image, (0, 0, 1, 5), "circular"), 'pad: mode "circular" can add at most 4 pixels to the 4 of axis 2, got (1, 5) (input (2, 3, 4, 5)); use'),
    (lambda: F.pad(image, (-3, 3), "circular"), 'pad: mode "circular" can add at most 2 pixels to the 2 of axis 3, got (-3, 3) (input (2, 3, 4, 5)); use'),
    (lambda: F.pad(image[:, :, :0], (0, 0, 1, 0), "replicate"), 'pad: mode "replicate" can add at most 0 pixels to the 0 of axis 2, got (1, 0)'),
    (lambda: F.pad(image, (1, 1), "reflect", 0.0), 'pad: value belongs to mode "constant", mode "reflect" takes it from the image; leave it out'),
    (lambda: F.pad(image.astype(np.uint8), (1, 1), value=256), "pad: value 256 does not fit a tensor of uint8; cast it with .astype()"),
    (lambda: F.pad(image.astype(np.uint8), (1, 1), value=-1), "pad: value -1 does not fit a tensor of uint8; cast it with .astype()"),
    (lambda: F.pad(image.astype(np.int64), (1, 1), value=0.5), "pad: value 0.5 does not fit a tensor of int64; cast it with .astype()"),
    (lambda: F.pad(image.astype(np.int64), (1, 1), value=np.inf), "pad: value inf does not fit a tensor of int64; cast it with .astype()"),
    (lambda: F.center_crop(image, (4, 6)), "center_crop: an image of 4x5 is too small for a crop of 4x6 (input (2, 3, 4, 5)); crop to at most its own size"),
    (lambda: F.center_crop(np.zeros((4, 5)), 3), "center_crop: input must be a Tensor, got ndarray"),
    (lambda: F.center_crop(image[0, 0, 0], 3), "center_crop: input must be (..., H, W), got shape (5,)"),
    (lambda: F.center_crop(image, (1, 2, 3)), "center_crop: size must be an int or a pair (height, width), got 3 numbers (1, 2, 3)"),
    (lambda: F.crop(image, 1, 0, 4, 5), "crop: 4x5 pixels from (1, 0) on reach out of an image of 4x5 (input (2, 3, 4, 5))"),
    (lambda: F.crop(image, -1, 0, 2, 2), "crop: (top, left) must be at least 0, got (-1, 0)"),
    (lambda: F.crop(3, 1, 0, 2, 2), "crop: input must be a Tensor, got int"),
])  # fmt: skip
def test_errors_are_sentences(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        call()
