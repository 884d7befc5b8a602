"""How well a prediction agrees with the truth: all the usual numbers from one confusion matrix.

One rule for classes that do not occur: a class that is in neither the truth nor the prediction has no score (NaN) and is left out of every
mean; a class that is in one of them only has score 0. Ignored pixels count nowhere. Nothing else is ever NaN: with no pixel counted at
all, the pixel accuracy and every mean are 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import Array, is_cupy, kernels_of, to_backend
from ..window import integer

if TYPE_CHECKING:
    from .boundary import BoundaryF1


class ConfusionMatrix:
    """Counts of pixels by (true class, predicted class), summed over any number of images.

    With n_ij pixels of class i predicted as j, t_i = sum_j n_ij and p_j = sum_i n_ij (Long, Shelhamer & Darrell, "Fully convolutional
    networks for semantic segmentation", 2015, section 5), per class: accuracy n_ii / t_i, IoU n_ii / (t_i + p_i - n_ii), Dice 2 n_ii / (t_i + p_i).

    classes: K, their number. ignore_index: the label of the truth that counts nowhere; None counts every pixel. ValueError for less than 1 class,
    TypeError for what is no integer. After pixels that hold no class were counted on a GPU, each number raises the ValueError of `update`.
    """

    def __init__(self, classes: int, ignore_index: int | None = 255) -> None:
        classes = integer(classes, "ConfusionMatrix: classes", 1)
        self.classes = classes
        self.ignore_index = None if ignore_index is None else integer(ignore_index, "ConfusionMatrix: ignore_index")
        self._here: Array = np.zeros((classes, classes), np.int64)
        self._there: Array | None = None  # what was counted on a GPU and has not been read yet

    @property
    def matrix(self) -> Array:
        """(K, K) int64: pixels by true class (rows) and predicted class (columns)."""
        if self._there is not None:
            there, self._there = self._there, None
            self._here += to_backend(there, "numpy")
        return self._here

    def update(self, truth: Array, prediction: Array) -> None:
        """Count the pixels of integer arrays of one shape, any number of axes. Those where truth is `ignore_index` are left out.

        Arrays of a GPU are counted there: nothing is copied, and nobody waits, until a number is asked for.
        ValueError where the shapes differ, or a counted pixel holds no class (from a GPU: when a number is asked for); TypeError if the
        arrays do not hold integers.
        """
        if not is_cupy(prediction):
            truth, prediction = np.asarray(truth), np.asarray(prediction)
        _fitting(truth, prediction)
        kernels, classes = kernels_of(prediction), self.classes
        counts = kernels.xp.zeros((classes, classes), "int64")
        wrong = kernels.count_pairs(counts, truth, prediction, self.ignore_index)

        def no_class(at: int) -> ValueError:
            pair = (("truth", int(truth.reshape(-1)[at])), ("prediction", int(prediction.reshape(-1)[at])))
            name, value = next((name, value) for name, value in pair if not 0 <= value < classes)
            ignored = "" if self.ignore_index is None else f" or {self.ignore_index} in the truth (ignored)"
            return ValueError(f"{name} holds {value}, expected classes 0 to {classes - 1}{ignored}")

        kernels.demand(wrong, no_class)
        if is_cupy(counts):
            self._there = counts if self._there is None else self._there + counts
        else:
            self._here += counts

    # -- per class: (K,) float64, NaN where the class occurs in neither truth nor prediction ---------------------------------------------

    @property
    def true(self) -> Array:
        """(K,) int64: pixels of each class in the truth, t_i."""
        return np.asarray(self.matrix.sum(axis=1))

    @property
    def predicted(self) -> Array:
        """(K,) int64: pixels of each class in the prediction, p_i."""
        return np.asarray(self.matrix.sum(axis=0))

    @property
    def hits(self) -> Array:
        """(K,) int64: pixels of each class that are right, n_ii."""
        return np.diagonal(self.matrix)

    @property
    def class_accuracy(self) -> Array:
        """Part of each class's pixels that is found (recall)."""
        return self._per_class(self.hits, self.true)

    @property
    def iou(self) -> Array:
        """Intersection over union (Jaccard)."""
        return self._per_class(self.hits, self.true + self.predicted - self.hits)

    @property
    def dice(self) -> Array:
        """Dice coefficient, which is F1 over pixels."""
        return self._per_class(2 * self.hits, self.true + self.predicted)

    # -- one number --------------------------------------------------------------------------------------------------------------------

    @property
    def pixel_accuracy(self) -> float:
        """Part of all counted pixels that is right."""
        return float(self.hits.sum() / max(self.matrix.sum(), 1))

    @property
    def mean_class_accuracy(self) -> float:
        """Mean of `class_accuracy` over the classes that the truth or the prediction has."""
        return mean_present(self.class_accuracy)

    @property
    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that the truth or the prediction has."""
        return mean_present(self.iou)

    @property
    def mean_dice(self) -> float:
        """Mean of `dice` over the classes that the truth or the prediction has."""
        return mean_present(self.dice)

    @property
    def frequency_weighted_iou(self) -> float:
        """Mean IoU, each class weighted by its pixels in the truth."""
        return float(np.nansum(self.true * self.iou) / max(self.matrix.sum(), 1))

    # -- all together -------------------------------------------------------------------------------------------------------------------

    def scores(self, prefix: str = "") -> dict[str, Any]:
        """All numbers as plain Python, ready for JSON: NaN becomes None.

        Keys: pixel_accuracy, class_accuracy (mean), miou, fwiou, dice (mean), iou and class_accuracies and dices (lists, one per class).
        """
        numbers = {
            "pixel_accuracy": self.pixel_accuracy,
            "class_accuracy": self.mean_class_accuracy,
            "miou": self.mean_iou,
            "fwiou": self.frequency_weighted_iou,
            "dice": self.mean_dice,
            "iou": plain(self.iou),
            "class_accuracies": plain(self.class_accuracy),
            "dices": plain(self.dice),
        }
        return {prefix + name: value for name, value in numbers.items()}

    def table(self, names: Sequence[str] | None = None, boundary: BoundaryF1 | None = None) -> str:
        """A table to print: a line per class with its share of the truth and its scores, then the means; - where there is no score.

        boundary: the scores of the last column, if there is one. ValueError unless there is a name for each class.
        """
        return score_table(_names(names, self.classes), self.true / max(self.matrix.sum(), 1), self.scores(), boundary)

    def __repr__(self) -> str:
        return f"<ConfusionMatrix: {self.classes} classes, {self.matrix.sum()} pixels, mean IoU {self.mean_iou:.3f}>"

    def _per_class(self, part: Array, whole: Array) -> Array:
        """part / whole; 0 where the whole is 0, NaN where the class does not occur."""
        score = part / np.maximum(whole, 1)
        return np.where(self.true + self.predicted > 0, score, np.nan)


def score_table(names: Sequence[str], shares: Array, scores: Mapping[str, Any], boundary: BoundaryF1 | None = None) -> str:
    """See ConfusionMatrix.table. shares: (K,) part of the truth's pixels that each class has. scores: as ConfusionMatrix.scores gives them."""
    width = max(map(len, ("class", *names)))
    lines = [f"{'class':<{width}}  pixels  accuracy     IoU    Dice"]
    for name, share, *row in zip(names, shares, *(scores[key] for key in ("class_accuracies", "iou", "dices")), strict=True):
        lines.append(f"{name:<{width}}  {share:6.1%}  {_cells(*row)}")
    lines.append(f"{'mean':<{width}}          {_cells(scores['class_accuracy'], scores['miou'], scores['dice'])}")
    if boundary is not None:
        last = ["boundary F1", *(f"{_cell(score):>11}" for score in (*plain(boundary.per_class), boundary.mean))]
        lines = [f"{line}  {cell}" for line, cell in zip(lines, last, strict=True)]
    lines.append(f"pixel accuracy {scores['pixel_accuracy']:.4f}, frequency-weighted IoU {scores['fwiou']:.4f}")
    if boundary is not None:
        lines.append(f"boundary F1 counts what lies within {boundary.within}, image by image")
    if None in scores["iou"]:
        lines.append("-: no pixel is of the class, and none was taken for it; the mean leaves it out")
    return "\n".join(lines)


def _cells(accuracy: float | None, iou: float | None, dice: float | None) -> str:
    return f"{_cell(accuracy):>8}  {_cell(iou):>6}  {_cell(dice):>6}"


def _cell(score: float | None) -> str:
    return "-" if score is None else f"{score:.4f}"


def plain(scores: Array) -> list[float | None]:
    """Scores as a list for JSON: None for NaN."""
    return [None if np.isnan(s) else float(s) for s in scores]


def mean_present(scores: Array) -> float:
    """The mean of the scores that are not NaN; 0 if all are."""
    present = ~np.isnan(scores)
    return float(scores[present].mean()) if present.any() else 0.0


def constant_prediction(matrix: ConfusionMatrix | Array, names: Sequence[str] | None = None, *, share: float = 0.999) -> str | None:
    """A warning, one sentence, if (almost) every pixel is predicted as one class though the truth holds others; else None.

    matrix: a ConfusionMatrix or its (K, K) counts, rows = truth. share: the part of all pixels from which on a prediction is constant.
    ValueError unless there is a name for each class.
    """
    counts = matrix.matrix if isinstance(matrix, ConfusionMatrix) else np.asarray(matrix)
    total, predicted, true = int(counts.sum()), counts.sum(axis=0), counts.sum(axis=1)
    k = int(predicted.argmax())
    if total == 0 or predicted[k] < share * total or true[k] >= share * total:
        return None
    name = _names(names, len(counts))[k]
    return (
        f"{'every pixel' if predicted[k] == total else f'{predicted[k] / total:.2%} of all pixels'} is predicted as class {k} ({name}), which is "
        f"{true[k] / total:.1%} of the truth: the network has not learned the other classes yet; if that lasts, weight the classes by their "
        f"frequency, lower the learning rate, or look whether the masks are read as meant (python -m minidcnn check)"
    )


# -- checks ----------------------------------------------------------------------------------------------------------------------------


def _fitting(truth: Array, prediction: Array) -> None:
    if truth.shape != prediction.shape:
        raise ValueError(f"truth and prediction must have one shape, got {truth.shape} and {prediction.shape}")
    for name, array in (("truth", truth), ("prediction", prediction)):
        if array.dtype.kind not in "iu":
            way = "; take the argmax over the class axis first" if name == "prediction" else ""
            raise TypeError(f"{name} must hold integer class indices, got {array.dtype}{way}")


def _names(names: Sequence[str] | None, classes: int) -> Sequence[str]:
    if names is None:
        return [f"class {k}" for k in range(classes)]
    if len(names) != classes:
        raise ValueError(f"names must hold one name for each of {classes} classes, got {len(names)}")
    return names
