"""The U-Net paper's weight map against its formula, written out slowly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minidcnn.data import Cells, DataError, unet_weight_map


def slow(instances: np.ndarray, w0: float, sigma: float) -> np.ndarray:
    """Equation 2 with w_c = 1: for every background pixel the distances to all pixels of all cells."""
    result = np.ones(instances.shape)
    numbers = [n for n in np.unique(instances) if n]
    for y, x in np.argwhere(instances == 0):
        nearest = sorted(np.sqrt(((np.argwhere(instances == n) - (y, x)) ** 2).sum(1)).min() for n in numbers)
        if len(nearest) >= 2:
            result[y, x] += w0 * np.exp(-((nearest[0] + nearest[1]) ** 2) / (2 * sigma**2))
    return result


@given(
    hnp.arrays(np.int64, st.tuples(st.integers(1, 11), st.integers(1, 13)), elements=st.sampled_from([0, 0, 0, 0, 1, 4, 9])),
    st.floats(0.5, 8),
    st.floats(0, 20),
)
def test_instances_agree_with_the_formula(instances: np.ndarray, sigma: float, w0: float) -> None:
    fast = unet_weight_map(instances, w0, sigma, instances=True)
    assert fast.dtype == np.float32 and fast.shape == instances.shape
    np.testing.assert_allclose(fast, slow(instances, w0, sigma), rtol=1e-6, atol=1e-6)


def test_cells_of_a_mask_are_its_connected_regions() -> None:
    cells = Cells(count=1, size=(40, 56))
    mask = cells[0].mask
    np.testing.assert_allclose(unet_weight_map(mask)[::4, ::3], slow(label(mask), 10, 5)[::4, ::3], rtol=1e-5)


def label(mask: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    return ndimage.label(mask)[0]


def test_gaps_between_cells_weigh_most() -> None:
    labels = np.zeros((9, 15), int)
    labels[:, 2:7] = labels[:, 8:13] = 1
    weights = unet_weight_map(labels)
    assert np.allclose(weights[:, 7], 1 + 10 * np.exp(-4 / 50)) and np.allclose(weights[labels == 1], 1)
    assert weights.argmax() % 15 == 7 and weights[4, 0] < 1 + 10 * np.exp(-((2 + 8) ** 2) / 50) + 1e-5


def test_one_cell_or_none_add_nothing() -> None:
    assert (unet_weight_map(np.zeros((4, 6), int)) == 1).all()
    assert (unet_weight_map(np.pad(np.ones((2, 3), int), 3)) == 1).all()
    assert unet_weight_map(np.zeros((0, 5), int)).shape == (0, 5)


def test_ignored_pixels_weigh_nothing_and_are_no_cell() -> None:
    labels = np.array([[1, 0, 255, 255, 0, 1]])
    weights = unet_weight_map(labels, class_weights=(2.0, 3.0))
    assert weights[0, [2, 3]].tolist() == [0, 0] and weights[0, [0, 5]].tolist() == [3, 3]
    np.testing.assert_allclose(weights[0, 1], 2 + 10 * np.exp(-((1 + 4) ** 2) / 50), rtol=1e-6)
    other = unet_weight_map(np.array([[1, 0, 11, 0, 1]]), ignore_index=11)
    assert other[0, 2] == 0 and other[0, 1] > 1


def test_a_weight_for_every_class() -> None:
    labels = np.array([[0, 1, 2, 0]])
    np.testing.assert_allclose(unet_weight_map(labels, 0, class_weights=(1, 5, 7))[0], [1, 5, 7, 1])
    np.testing.assert_allclose(unet_weight_map(labels, 0, class_weights=(1, 5))[0], [1, 5, 5, 1])
    with pytest.raises(DataError, match="class_weights has 3 numbers, but the labels go up to 3"):
        unet_weight_map(labels + 1, 0, class_weights=(1, 5, 7))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((2, 3)),), "must be integers of shape"),
        ((np.zeros((1, 2, 3), int),), r"got int64 \(1, 2, 3\)"),
        ((np.full((2, 3), -1),), "must not be negative, got -1"),
        ((np.zeros((2, 3), int), 10, 0), "sigma must be positive"),
        ((np.zeros((2, 3), int), -1), "w0 not negative"),
    ],
)
def test_wrong_arguments(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        unet_weight_map(*arguments)  # type: ignore[arg-type]
