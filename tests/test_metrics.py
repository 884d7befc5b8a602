"""Every metric against its definition, written pixel by pixel."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minidcnn.segmentation import BoundaryF1, ConfusionMatrix, boundary_f1, constant_prediction
from minidcnn.segmentation.metrics import mean_present

IGNORE = 255


@st.composite
def labelled(draw: st.DrawFn, shape: tuple[int, ...] | None = None) -> tuple[int, np.ndarray, np.ndarray]:
    """(classes, truth, prediction): few classes used of many, some pixels ignored, sometimes all; one class often prevails."""
    classes = draw(st.integers(1, 5))
    shape = shape or draw(st.sampled_from([(3, 5), (2, 3, 4), (7,), (1, 1), (2, 0, 3)]))
    used = st.sampled_from(draw(st.lists(st.integers(0, classes - 1), min_size=1, unique=True)))
    dtype = draw(st.sampled_from([np.uint8, np.int64, np.int32]))
    truth = draw(hnp.arrays(dtype, shape, elements=used | st.just(IGNORE) if draw(st.booleans()) else used))
    prediction = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, classes - 1), fill=used))
    if draw(st.booleans()):
        truth[...] = IGNORE if draw(st.booleans()) else truth.flat[0] if truth.size else 0
    return classes, truth, prediction


def matrix_of(classes: int, truth: np.ndarray, prediction: np.ndarray) -> ConfusionMatrix:
    matrix = ConfusionMatrix(classes, IGNORE)
    matrix.update(truth, prediction)
    return matrix


def equal(a: np.ndarray, b: list[float]) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-14, atol=0)


@given(labelled())
def test_definitions(case: tuple[int, np.ndarray, np.ndarray]) -> None:
    classes, truth, prediction = case
    pairs = [(int(t), int(p)) for t, p in zip(truth.ravel(), prediction.ravel(), strict=True) if t != IGNORE]
    matrix = matrix_of(classes, truth, prediction)
    assert matrix.matrix.dtype == np.int64
    assert matrix.matrix.tolist() == [[pairs.count((i, j)) for j in range(classes)] for i in range(classes)]

    accuracy, iou, dice = [], [], []
    for k in range(classes):
        true, guess = {n for n, (t, _) in enumerate(pairs) if t == k}, {n for n, (_, p) in enumerate(pairs) if p == k}
        if not true | guess:
            accuracy.append(math.nan), iou.append(math.nan), dice.append(math.nan)
            continue
        accuracy.append(len(true & guess) / len(true) if true else 0.0)
        iou.append(len(true & guess) / len(true | guess))
        dice.append(2 * len(true & guess) / (len(true) + len(guess)))
    equal(matrix.class_accuracy, accuracy)
    equal(matrix.iou, iou)
    equal(matrix.dice, dice)

    def mean(scores: list[float]) -> float:
        present = [s for s in scores if not math.isnan(s)]
        return sum(present) / len(present) if present else 0.0

    assert matrix.mean_class_accuracy == pytest.approx(mean(accuracy), rel=1e-14)
    assert matrix.mean_iou == pytest.approx(mean(iou), rel=1e-14)
    assert matrix.mean_dice == pytest.approx(mean(dice), rel=1e-14)
    right = sum(t == p for t, p in pairs)
    assert matrix.pixel_accuracy == pytest.approx(right / len(pairs) if pairs else 0.0, rel=1e-14)
    weighted = sum(iou[t] for t, _ in pairs) / len(pairs) if pairs else 0.0
    assert matrix.frequency_weighted_iou == pytest.approx(weighted, rel=1e-12)


@given(labelled())
def test_relations(case: tuple[int, np.ndarray, np.ndarray]) -> None:
    """Dice = 2 IoU / (1 + IoU); swapping truth and prediction transposes; classes may be renamed; a perfect prediction has 1 everywhere."""
    classes, truth, prediction = case
    matrix = matrix_of(classes, truth, prediction)
    equal(matrix.dice, list(2 * matrix.iou / (1 + matrix.iou)))
    counted = truth != IGNORE
    swapped = matrix_of(classes, prediction[counted], truth[counted])
    np.testing.assert_array_equal(swapped.matrix, matrix.matrix.T)
    equal(swapped.iou, list(matrix.iou))
    renamed = matrix_of(classes, np.where(counted, classes - 1 - truth.astype(np.int64), IGNORE), classes - 1 - prediction)
    equal(renamed.iou, list(matrix.iou[::-1]))
    perfect = matrix_of(classes, truth, np.where(counted, truth, 0))
    scores = np.concatenate([perfect.iou, perfect.dice, perfect.class_accuracy])
    assert np.all((scores == 1) | np.isnan(scores))
    assert perfect.pixel_accuracy == perfect.frequency_weighted_iou == perfect.mean_iou == float(counted.any())


@given(labelled((4, 3, 5)))
def test_updates_add_up_in_any_split(case: tuple[int, np.ndarray, np.ndarray]) -> None:
    classes, truth, prediction = case
    whole, parts = matrix_of(classes, truth, prediction), ConfusionMatrix(classes)
    for t, p in zip(truth, prediction, strict=True):
        parts.update(t, p)
    np.testing.assert_array_equal(whole.matrix, parts.matrix)


def test_by_hand() -> None:
    matrix = ConfusionMatrix(4)
    matrix.update(np.array([[0, 0, 0, 1], [1, 1, 255, 255]]), np.array([[0, 0, 1, 1], [1, 2, 0, 3]]))
    equal(matrix.class_accuracy, [2 / 3, 2 / 3, 0, math.nan])  # class 2 is predicted where it is not, class 3 occurs nowhere
    equal(matrix.iou, [2 / 3, 2 / 4, 0, math.nan])
    equal(matrix.dice, [4 / 5, 4 / 6, 0, math.nan])
    assert matrix.pixel_accuracy == pytest.approx(4 / 6)
    assert matrix.mean_iou == pytest.approx((2 / 3 + 1 / 2) / 3)
    assert matrix.frequency_weighted_iou == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert "<ConfusionMatrix: 4 classes, 6 pixels, mean IoU 0.389>" == repr(matrix)


def test_nothing_counted_is_zero_not_nan() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(np.full((2, 3), 255, np.uint8), np.zeros((2, 3), np.int64))
    means = (matrix.pixel_accuracy, matrix.mean_class_accuracy, matrix.mean_iou, matrix.mean_dice, matrix.frequency_weighted_iou)
    assert means == (0,) * 5
    assert np.isnan(matrix.iou).all()
    assert mean_present(np.array([])) == 0


def test_an_ignore_index_next_to_the_classes_or_none() -> None:
    camvid = ConfusionMatrix(11, ignore_index=11)
    camvid.update(np.array([0, 10, 11]), np.array([0, 10, 3]))
    assert camvid.matrix.sum() == 2
    nothing = ConfusionMatrix(2, ignore_index=None)
    nothing.update(np.array([0, 1]), np.array([0, 0]))
    assert nothing.matrix.tolist() == [[1, 0], [1, 0]]
    negative = ConfusionMatrix(2, ignore_index=-1)
    negative.update(np.array([-1, 1]), np.array([0, 1]))
    assert negative.matrix.tolist() == [[0, 0], [0, 1]]


def test_what_an_ignored_pixel_is_predicted_as_does_not_matter() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([255, 1]), np.array([77, 1]))
    assert matrix.matrix.tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize(
    ("truth", "prediction", "error", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), ValueError, "truth and prediction must have one shape, got (2, 3) and (3, 2)"),
        (np.zeros(2), np.zeros(2, int), TypeError, "truth must hold integer class indices, got float64"),
        (np.zeros(2, int), np.zeros(2, np.float32), TypeError, "prediction must hold integer class indices, got float32; take the argmax"),
        (np.array([0, 7]), np.array([0, 0]), ValueError, "truth holds 7, expected classes 0 to 2 or 255 in the truth (ignored)"),
        (np.array([0, -1]), np.array([0, 0]), ValueError, "truth holds -1, expected classes 0 to 2"),
        (np.array([0, 1]), np.array([0, 3]), ValueError, "prediction holds 3, expected classes 0 to 2"),
        (np.array([0, 1]), np.array([0, 255]), ValueError, "prediction holds 255, expected classes 0 to 2"),
    ],
)
def test_errors_say_what_is_wrong(truth: np.ndarray, prediction: np.ndarray, error: type[Exception], message: str) -> None:
    matrix = ConfusionMatrix(3)
    with pytest.raises(error, match=re.escape(message)):
        matrix.update(truth, prediction)
    assert matrix.matrix.sum() == 0


def test_other_errors() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        ConfusionMatrix(0)
    with pytest.raises(ValueError, match="one name for each of 3 classes, got 2"):
        ConfusionMatrix(3).table(["a", "b"])


def test_scores_are_plain_json() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(np.array([0, 0, 1]), np.array([0, 1, 1]))
    scores = matrix.scores("val_")
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    assert set(scores) == {
        f"val_{name}" for name in ("pixel_accuracy", "class_accuracy", "miou", "fwiou", "dice", "iou", "class_accuracies", "dices")
    }
    assert scores["val_iou"] == [0.5, 0.5, None]
    assert scores["val_miou"] == 0.5


def test_table() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]))
    assert matrix.table(["sky", "building", "car"]).splitlines() == [
        "class     pixels  accuracy     IoU    Dice",
        "sky        50.0%    0.5000  0.5000  0.6667",
        "building   50.0%    1.0000  0.6667  0.8000",
        "car         0.0%         -       -       -",
        "mean                0.7500  0.5833  0.7333",
        "pixel accuracy 0.7500, frequency-weighted IoU 0.5833",
        "-: no pixel is of the class, and none was taken for it; the mean leaves it out",
    ]
    short = matrix_of(2, np.array([[0, 1, 1]]), np.array([[0, 1, 0]])).table(["a", "b"]).splitlines()
    assert len({len(line) for line in short[:4]}) == 1 and len(short) == 5


# -- constant predictions --------------------------------------------------------------------------------------------------------------


def test_constant_prediction_warns() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([[0] * 8 + [1] * 2]), np.zeros((1, 10), int))
    warning = constant_prediction(matrix, ["cell", "membrane"])
    assert warning is not None
    assert warning.startswith("every pixel is predicted as class 0 (cell), which is 80.0% of the truth: ")
    assert constant_prediction(matrix.matrix) == warning.replace("cell)", "class 0)")
    almost = constant_prediction(np.array([[5000, 1], [5000, 0]]))
    assert almost is not None
    assert almost.startswith("99.99% of all pixels is predicted as class 0")


@pytest.mark.parametrize(
    "matrix",
    [
        [[0, 0], [0, 0]],  # nothing counted
        [[10, 0], [0, 0]],  # constant, and right
        [[99999, 1], [0, 0]],
        [[8, 0], [1, 1]],
        [[9990, 0], [5, 5]],  # the other class is that rare in the truth
    ],
)
def test_constant_prediction_stays_silent(matrix: list[list[int]]) -> None:
    assert constant_prediction(np.array(matrix)) is None


# -- boundaries ------------------------------------------------------------------------------------------------------------------------


def boundary_f1_slowly(truth: np.ndarray, prediction: np.ndarray, classes: int, tolerance: float) -> list[float]:
    """The definition, over lists of pixels."""
    h, w = truth.shape
    pixels = [(i, j) for i in range(h) for j in range(w) if truth[i, j] != IGNORE]

    def edge(mask: np.ndarray, k: int) -> list[tuple[int, int]]:
        def beside(i: int, j: int) -> list[tuple[int, int]]:
            return [q for q in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)) if q in pixels]

        return [(i, j) for i, j in pixels if mask[i, j] == k and any(mask[q] != k for q in beside(i, j))]

    def part(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> float:
        return sum(any(math.dist(p, q) <= tolerance for q in b) for p in a) / len(a) if a else 0.0

    scores = []
    for k in range(classes):
        a, b = {p for p in pixels if truth[p] == k}, {p for p in pixels if prediction[p] == k}
        edge_a, edge_b = edge(truth, k), edge(prediction, k)
        precision, recall = part(edge_b, edge_a), part(edge_a, edge_b)
        if not a | b:
            scores.append(math.nan)
        elif not edge_a and not edge_b:
            scores.append(float(a == b))
        else:
            scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return scores


@given(labelled((6, 9)), st.sampled_from([0.0, 1.0, 1.5, 2.0]))
def test_boundary_f1_is_its_definition(case: tuple[int, np.ndarray, np.ndarray], tolerance: float) -> None:
    classes, truth, prediction = case
    equal(boundary_f1(truth, prediction, classes, IGNORE, tolerance), boundary_f1_slowly(truth, prediction, classes, tolerance))


def test_boundary_f1_of_a_shifted_square_depends_on_the_tolerance() -> None:
    truth = np.zeros((60, 80), int)  # the diagonal is 100 pixels
    truth[20:40, 30:50] = 1
    shifted = np.roll(truth, 2, axis=1)
    assert boundary_f1(truth, truth, 2).tolist() == [1, 1]
    assert boundary_f1(truth, shifted, 2, tolerance=2).tolist() == [1, 1]
    assert (boundary_f1(truth, shifted, 2, tolerance=1.99) < 1).all()
    assert (boundary_f1(truth, shifted, 2) < 0.7).all()  # 0.75 pixels: only the parts of the horizontal sides that overlap
    large = truth.repeat(3, 0).repeat(3, 1)  # of which 0.75 % are 2.25 pixels
    assert boundary_f1(large, np.roll(large, 2, axis=1), 2).tolist() == [1, 1]
    assert (boundary_f1(large, np.roll(large, 3, axis=1), 2) < 1).all()
    assert boundary_f1(truth, np.zeros_like(truth), 2).tolist() == [0, 0]


def test_boundary_f1_over_images() -> None:
    truth = np.zeros((3, 5, 7), int)
    truth[0, 2:, 3:], truth[1, :, 4:], truth[2] = 1, 2, IGNORE
    prediction = np.where(truth == IGNORE, 0, truth)
    prediction[1, :, 4:] = 1
    measure = BoundaryF1(3)
    measure.update(truth, prediction)
    equal(measure.per_class, [1, 0.5, 0])  # class 1 is right in the first image, and not in the truth of the second
    assert measure.mean == pytest.approx((1 + 1 / 3) / 2)
    one = BoundaryF1(3)
    one.update(truth[0], prediction[0])
    equal(one.per_class, [1, 1, math.nan])
    assert BoundaryF1(3).mean == 0
    assert one.scores() == {"boundary_f1": 1.0, "boundary_f1s": [1.0, 1.0, None], "boundary_tolerance": None}
    assert np.isnan(BoundaryF1(3).per_class).all()


def test_boundary_f1_errors() -> None:
    with pytest.raises(ValueError, match=re.escape("takes one image, truth (height, width), got (1, 2, 3)")):
        boundary_f1(np.zeros((1, 2, 3), int), np.zeros((1, 2, 3), int), 2)
    with pytest.raises(ValueError, match=re.escape("must both be (H, W) or (N, H, W), got (4,) and (4,)")):
        BoundaryF1(2).update(np.zeros(4, int), np.zeros(4, int))
    with pytest.raises(ValueError, match="boundary_f1: tolerance must not be negative, got -1"):
        boundary_f1(np.zeros((2, 3), int), np.zeros((2, 3), int), 2, tolerance=-1)
    with pytest.raises(ValueError, match="tolerance must not be negative, got -1"):
        BoundaryF1(2, tolerance=-1)


def test_a_table_has_a_column_of_boundaries() -> None:
    truth, prediction = np.zeros((5, 7), int), np.zeros((5, 7), int)
    truth[2:, 3:], prediction[2:, 4:] = 1, 1
    confusion, boundary = matrix_of(3, truth, prediction), BoundaryF1(3, tolerance=0.5)
    boundary.update(truth, prediction)
    *rows, _, within, _ = confusion.table(["sky", "road", "tree"], boundary).splitlines()
    assert [row.split("  ")[-1].strip() for row in rows] == [
        "boundary F1",
        *(f"{f:.4f}" for f in boundary.per_class[:2]),
        "-",
        f"{boundary.mean:.4f}",
    ]
    assert rows == [
        f"{plain}{row[len(plain) :]}" for plain, row in zip(confusion.table(["sky", "road", "tree"]).splitlines(), rows, strict=False)
    ]
    assert within == "boundary F1 counts what lies within 0.5 px, image by image" and 0 < boundary.mean < 1
    assert BoundaryF1(3).within == "0.75% of an image's diagonal"
