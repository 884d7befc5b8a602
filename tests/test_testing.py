"""What property tests draw keeps what its docstrings promise, and the searches are not narrower than they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import find, given
from hypothesis import strategies as st

from minidcnn import Tensor
from minidcnn import functional as F
from minidcnn.testing import (
    LAYOUTS,
    Conv,
    Pool,
    convs,
    float_dtypes,
    image_shapes,
    integers,
    lay_out,
    layouts,
    pools,
    seeds,
    tie_free,
    windows,
)
from minidcnn.window import Pair, Window


@given(case=convs())
def test_a_convolution_fits_and_comes_back(case: Conv) -> None:
    y = F.conv2d(Tensor(np.zeros(case.x)), Tensor(np.zeros(case.w)), **case.options)
    assert y.shape == case.y
    assert F.conv_transpose2d(y, Tensor(np.zeros(case.w)), output_padding=case.output_padding, **case.options).shape == case.x


@given(case=pools())
def test_a_pooling_fits_and_no_window_sees_padding_only(case: Pool) -> None:
    y = F.max_pool2d(Tensor(np.zeros(case.x)), **case.options)
    assert y.shape == case.y and np.isfinite(y.numpy()).all()
    assert all(2 * p <= span for p, span in zip(case.window.padding, case.window.span, strict=True))


@given(drawn=windows(dilated=False))
def test_dilation_can_be_left_out(drawn: tuple[Window, Pair]) -> None:
    assert drawn[0].dilation == (1, 1) and not drawn[0].ceil_mode


@pytest.mark.parametrize(
    ("strategy", "wanted"),
    [
        (windows(), lambda case: case[0].kernel[0] > case[1][0]),
        (windows(), lambda case: case[0].stride[1] > case[0].span[1]),
        (windows(), lambda case: case[1] == (1, 1)),
        (windows(pooling=True), lambda case: case[0].ceil_mode and case[0].dilation == (2, 3)),
        (convs(), lambda case: case.groups == 3 and not case.batch),
        (pools(), lambda case: not case.in_pytorch),
        (image_shapes, lambda shape: not shape[0]),
    ],
)
def test_the_unusual_is_drawn_too(strategy: st.SearchStrategy[Any], wanted: Any) -> None:
    assert wanted(find(strategy, wanted))  # NoSuchExample if the search has none


@given(shape=image_shapes, seed=seeds, dtype=float_dtypes)
def test_numbers_without_ties_keep_their_distance(shape: tuple[int, ...], seed: int, dtype: Any) -> None:
    x = tie_free(shape, seed, dtype)
    assert x.shape == shape and x.dtype == dtype and (x != 0).all() and (abs(x) < 1).all()
    if x.size > 1:
        steps = np.diff(np.sort(x.ravel()).astype(float)) * x.size
        assert steps.min() > 1.49 and steps.max() < 2.51


@given(shape=image_shapes, seed=seeds, dtype=float_dtypes, layout=layouts)
def test_a_layout_changes_memory_and_nothing_else(shape: tuple[int, ...], seed: int, dtype: Any, layout: str) -> None:
    x = integers(shape, seed, dtype)
    y = lay_out(x, layout)
    np.testing.assert_array_equal(y, x, strict=True)
    assert y.flags.writeable == (layout != "read-only") and not np.shares_memory(x, y)
    if layout == "sliced":
        assert y.base is not None and np.isnan(y.base).sum() == y.base.size - y.size


@pytest.mark.parametrize("shape", [(2, 1, 3, 4), (2, 3, 1, 1), (1, 1, 1, 1), (5,), (3, 1)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_a_copy_also_of_what_lies_so_already(shape: tuple[int, ...], layout: str) -> None:
    x = np.zeros(shape)
    assert not np.shares_memory(x, lay_out(x, layout))


def test_every_layout_is_another() -> None:
    x = integers((2, 3, 4, 5))
    strides = {layout: lay_out(x, layout).strides for layout in LAYOUTS}
    assert len(set(strides.values())) == len(LAYOUTS) - 1 and strides["read-only"] == strides["C"]


def test_the_gaps_of_a_sliced_array_hold_nan() -> None:
    array = lay_out(np.ones((2, 3)), "sliced")
    for dtype, gap in ((np.int64, -(2**63)), (np.uint8, 255)):
        assert lay_out(np.ones((2, 3), dtype), "sliced").base[0, 0] == gap
    assert array.base is not None and np.isnan(array.base).sum() == array.base.size - 6
