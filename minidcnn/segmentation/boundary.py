"""How well the boundaries of the classes agree with those of the truth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backend import Array
from ..window import integer
from .metrics import ConfusionMatrix, mean_present, plain

SHARE = 0.0075  # of the image's diagonal: the tolerance of Csurka et al.


def boundary_f1(truth: Array, prediction: Array, classes: int, ignore_index: int | None = 255, tolerance: float | None = None) -> Array:
    """F1 between the boundaries of each class in one image (Csurka, Larlus & Perronnin, "What is a good evaluation measure for semantic
    segmentation?", BMVC 2013, section 3).

    truth, prediction: (H, W) integer classes -> (K,) float64. A boundary pixel of a class has a pixel of another class directly above,
    below, left or right of it; the image's frame and ignored pixels make no boundary. Precision is the part of the prediction's boundary
    pixels with one of the truth within `tolerance` pixels (None: 0.75 % of the image's diagonal, as in the paper), recall the same the other
    way round. NaN where a class is in neither; where it is in both and neither has a boundary, 1 if they cover the same pixels, else 0.
    ValueError for a negative tolerance, for anything but one image and for what is no class; TypeError for what holds no integers.
    """
    _check_tolerance("boundary_f1", tolerance)
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    ConfusionMatrix(classes, ignore_index).update(truth, prediction)  # says what does not fit
    if truth.ndim != 2:
        raise ValueError(f"boundary_f1 takes one image, truth (height, width), got {truth.shape}; BoundaryF1 averages over many")
    counted = np.ones(truth.shape, bool) if ignore_index is None else truth != ignore_index
    limit = SHARE * float(np.hypot(*truth.shape)) if tolerance is None else tolerance
    scores = np.full(classes, np.nan)
    for k in np.union1d(truth[counted], prediction[counted]):
        a, b = (truth == k) & counted, (prediction == k) & counted
        edges_a, edges_b = _boundary(a, counted), _boundary(b, counted)
        if not edges_a.any() and not edges_b.any():
            scores[k] = float(np.array_equal(a, b))
        else:
            precision, recall = _near(edges_b, edges_a, limit), _near(edges_a, edges_b, limit)
            scores[k] = 2 * precision * recall / max(precision + recall, 1e-300)
    return scores


class BoundaryF1:
    """boundary_f1 over many images: as the paper advises, scored image by image, then averaged.

    ValueError for a negative tolerance and for less than 1 class, TypeError for what is no integer.
    """

    def __init__(self, classes: int, ignore_index: int | None = 255, tolerance: float | None = None) -> None:
        _check_tolerance("BoundaryF1", tolerance)
        classes = integer(classes, "BoundaryF1: classes", 1)
        self.classes, self.ignore_index, self.tolerance = classes, ignore_index, tolerance
        self.images: list[Array] = []

    def update(self, truth: Array, prediction: Array) -> None:
        """Score integer images (H, W) or (N, H, W). ValueError and TypeError as boundary_f1."""
        for t, p in _images(np.asarray(truth), np.asarray(prediction)):
            self.images.append(boundary_f1(t, p, self.classes, self.ignore_index, self.tolerance))

    @property
    def within(self) -> str:
        """The tolerance in words."""
        return f"{SHARE:.2%} of an image's diagonal" if self.tolerance is None else f"{self.tolerance:g} px"

    @property
    def per_class(self) -> Array:
        """(K,) float64: the mean over the images that hold the class, NaN where none does."""
        return np.array([_mean(s) for s in np.array(self.images).reshape(-1, self.classes).T])

    @property
    def mean(self) -> float:
        """The mean over images of each image's mean over its classes; images without a counted pixel are left out."""
        return mean_present(np.array([_mean(s) for s in self.images]))

    def scores(self) -> dict[str, Any]:
        """All numbers as plain Python, ready for JSON: boundary_f1 (mean), boundary_f1s (a list, one per class), boundary_tolerance."""
        return {"boundary_f1": self.mean, "boundary_f1s": plain(self.per_class), "boundary_tolerance": self.tolerance}


def _check_tolerance(name: str, tolerance: float | None) -> None:
    if tolerance is not None and not tolerance >= 0:
        raise ValueError(f"{name}: tolerance must not be negative, got {tolerance}; it is a number of pixels")


def _mean(scores: Array) -> float:
    """The mean of the scores that are not NaN; NaN if all are."""
    return np.nan if np.isnan(scores).all() else mean_present(scores)


def _boundary(mask: Array, counted: Array) -> Array:
    """(H, W) bool: pixels of the mask beside a counted pixel outside of it."""
    edges = np.zeros_like(mask)
    for axis in (0, 1):
        a, b = (np.s_[:-1, :], np.s_[1:, :]) if axis == 0 else (np.s_[:, :-1], np.s_[:, 1:])
        differ = (mask[a] != mask[b]) & counted[a] & counted[b]
        edges[a] |= differ
        edges[b] |= differ
    return edges & mask


def _near(edges: Array, others: Array, limit: float) -> float:
    """Part of the pixels of `edges` within `limit` pixels of one of `others`; 0 if there are none of either."""
    if not edges.any() or not others.any():
        return 0.0
    from scipy import ndimage

    return float((ndimage.distance_transform_edt(~others)[edges] <= limit).mean())


def _images(truth: Array, prediction: Array) -> Iterator[tuple[Array, Array]]:
    if truth.ndim not in (2, 3) or truth.shape != prediction.shape:
        raise ValueError(f"truth and prediction must both be (H, W) or (N, H, W), got {truth.shape} and {prediction.shape}")
    return zip(truth, prediction, strict=True) if truth.ndim == 3 else iter([(truth, prediction)])
