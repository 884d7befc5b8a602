"""Boundaries beside pixels that are ignored: whatever is predicted there, or stored there, changes no score."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minidcnn.segmentation import BoundaryF1, boundary_f1

TRUTHS: dict[str, Any] = {
    "of one class": np.ones((5, 7), int),
    "of two": np.repeat([[0, 0, 0, 1, 1, 1, 1]], 5, axis=0),
    "of three": np.add.outer(np.arange(5), np.arange(7)) % 3,
}


@pytest.mark.parametrize("name", TRUTHS)
@pytest.mark.parametrize("ignored", [np.s_[1:3, 2:5], np.s_[:, 3:], np.s_[4:, :], np.s_[0, 0]], ids=str)
@pytest.mark.parametrize("guess", [0, 1, 2])
def test_predictions_at_ignored_pixels_change_nothing(name: str, ignored: Any, guess: int) -> None:
    truth, prediction = TRUTHS[name].copy(), TRUTHS[name].copy()
    truth[ignored] = 255
    prediction[ignored] = guess
    held = np.isin(range(3), truth)
    np.testing.assert_array_equal(boundary_f1(truth, prediction, 3, 255, tolerance=0), np.where(held, 1.0, np.nan))


@pytest.mark.parametrize("turned", [np.asarray, np.transpose, np.fliplr, np.rot90])
def test_ignored_pixels_make_no_boundary(turned: Any) -> None:
    """Class 1 goes on behind them: its only boundary is one that was predicted, which is wrong."""
    truth, prediction = np.array([[1, 1, 1, 255, 1, 1]]), np.array([[0, 1, 1, 1, 1, 1]])
    assert boundary_f1(turned(truth), turned(prediction), 2, tolerance=0).tolist() == [0, 0]


def test_the_ignored_class_may_be_one_of_the_classes_or_none() -> None:
    truth, prediction = np.array([[0, 0, 1, 1, 2, 2]]), np.array([[1, 2, 1, 1, 2, 2]])
    assert boundary_f1(truth, prediction, 3, 0, tolerance=0).tolist() == pytest.approx([np.nan, 1, 1], nan_ok=True)
    assert boundary_f1(truth, truth, 3, None, tolerance=0).tolist() == [1, 1, 1]
    assert boundary_f1(truth, prediction, 3, None, tolerance=0)[0] == 0


def test_a_distance_that_is_the_tolerance_counts_and_precision_is_not_recall() -> None:
    truth, prediction = np.zeros((1, 9), int), np.zeros((1, 9), int)
    truth[0, 3:5], prediction[0, 1:7] = 1, 1
    for tolerance, score in ((1, 0), (2, 1), (0, 0)):
        assert boundary_f1(truth, prediction, 2, tolerance=tolerance)[1] == score
    prediction[0, 6:] = 0
    prediction[0, 8] = 1  # another piece, 4 pixels off: boundaries at 1, 5 and 8, of which 5 lies within 1
    precision, recall = 1 / 3, 1 / 2
    assert boundary_f1(truth, prediction, 2, tolerance=1)[1] == pytest.approx(2 * precision * recall / (precision + recall))


def test_images_without_a_counted_pixel_have_no_score() -> None:
    scores = BoundaryF1(2, tolerance=0)
    scores.update(np.array([[[255, 255]], [[0, 1]]]), np.array([[[0, 1]], [[0, 1]]]))
    assert scores.mean == 1 and scores.per_class.tolist() == [1, 1]
