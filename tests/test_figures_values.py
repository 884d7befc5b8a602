"""What pictures show, value by value and place by place: nothing swapped, nothing upside down, every number and colour where it belongs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import pytest
import training
from PIL import Image

from minidcnn.bench import plot
from minidcnn.data import Sample
from minidcnn.segmentation import figures, gallery
from minidcnn.segmentation.evaluate import evaluate
from minidcnn.segmentation.figures import WRONG
from minidcnn.segmentation.metrics import ConfusionMatrix
from minidcnn.segmentation.paint import as_colours, as_rgb, overlay

PALETTE = np.array([[0, 0, 0], [250, 120, 10], [10, 200, 90]], np.uint8)
CLASSES = ("background", "cell", "wall")


class Drawn:
    """The figure of the picture that was written last, and its pixels (H, W, 3) as they are in the file."""

    def __init__(self) -> None:
        self.figure: Any = None
        self.pixels = np.zeros((0, 0, 3), np.uint8)

    def texts(self) -> list[str]:
        """Everything that is written beside the axes."""
        return [text.get_text() for text in self.figure.texts]

    def column(self, heading: str) -> float:
        """Where the column under a heading has its middle, in pixels from the left."""
        (at,) = (text.get_position()[0] for text in self.figure.texts if text.get_text() == heading)
        return float(at * self.pixels.shape[1])

    def box(self, heading: str, row: int) -> tuple[float, float, float, float]:
        """Top, left, bottom and right of the picture under a heading in a row, in pixels."""
        boxes = [axes.get_position() for axes in self.figure.axes]
        height, width = self.pixels.shape[:2]
        mine = sorted((box for box in boxes if box.x0 * width < self.column(heading) < box.x1 * width), key=lambda box: -box.y1)[row]
        return (1 - mine.y1) * height, mine.x0 * width, (1 - mine.y0) * height, mine.x1 * width

    def panel(self, heading: str, row: int = 0) -> np.ndarray:
        """The pixels of that picture, without its rim."""
        top, left, bottom, right = map(int, self.box(heading, row))
        return self.pixels[top + 3 : bottom - 3, left + 3 : right - 3]

    def sampled(self, heading: str, row: int, size: tuple[int, int]) -> np.ndarray:
        """That picture at its own size: what stands in the middle of each of its pixels."""
        top, left, bottom, right = self.box(heading, row)
        rows, columns = ((np.arange(n) + 0.5) / n for n in size)
        return self.pixels[(top + rows * (bottom - top)).astype(int)[:, None], (left + columns * (right - left)).astype(int)]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    found, save = Drawn(), matplotlib.figure.Figure.savefig

    def saved(figure: Any, path: Any, **named: Any) -> None:
        save(figure, path, **named)
        found.figure = figure
        with Image.open(path) as image:
            found.pixels = np.asarray(image.convert("RGB"))

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", saved)
    return found


def part(pixels: np.ndarray, colour: np.ndarray) -> float:
    """How much of some pixels has a colour."""
    return float((pixels == colour).all(axis=-1).mean())


# -- the confusion matrix ------------------------------------------------------------------------------------------------------------------

DARK, LIGHT = np.array([8, 48, 107]), np.array([247, 251, 255])  # the ends of the colour map: all of a row, and nothing


def cells(drawn: Drawn, k: int) -> list[list[np.ndarray]]:
    """The pixels left above the middle of each cell, where no number stands: row by row."""
    (axes,) = drawn.figure.axes
    box, (height, width) = axes.get_position(), drawn.pixels.shape[:2]
    left, top, cell = box.x0 * width, (1 - box.y1) * height, box.width * width / k
    corner = [int(0.12 * cell), int(0.25 * cell)]
    return [
        [drawn.pixels[int(top + i * cell) + corner[0] :, int(left + j * cell) + corner[0] :][: corner[1], : corner[1]] for j in range(k)]
        for i in range(k)
    ]


def test_rows_are_the_truth_and_columns_the_prediction(drawn: Drawn, tmp_path: Path) -> None:
    """All of class a, and all of class b, is taken for b."""
    figures.confusion(np.array([[0, 5], [0, 9]]), ["a", "b"], tmp_path / "c.png")
    for row in cells(drawn, 2):
        assert part(row[0], LIGHT) == part(row[1], DARK) == 1
    (axes,) = drawn.figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted as", "truth")
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == ["a", "b"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first class is above


def test_a_class_that_does_not_occur_stays_empty(drawn: Drawn, tmp_path: Path) -> None:
    figures.confusion(np.array([[4, 0, 0], [0, 0, 0], [6, 0, 0]]), ["a", "b", "c"], tmp_path / "c.png")
    first, empty, last = cells(drawn, 3)
    for row in (first, last):
        assert part(row[0], DARK) == part(row[1], LIGHT) == part(row[2], LIGHT) == 1
    assert all(part(cell, np.full(3, 255)) == 1 for cell in empty)


def test_numbers_of_the_confusion(drawn: Drawn, tmp_path: Path) -> None:
    """Percent of each true class in the cells; of all pixels at the right."""
    matrix = ConfusionMatrix(3)
    matrix._here += np.array([[60, 15, 0], [1, 399, 0], [25, 0, 0]])
    figures.confusion(matrix, CLASSES, tmp_path / "c.png")
    (axes,) = drawn.figure.axes
    written = {text.get_position(): text.get_text() for text in axes.texts}
    inside = {(int(y), int(x)): text for (x, y), text in written.items() if x == int(x) and y == int(y)}
    assert inside == {(0, 0): "80", (0, 1): "20", (1, 0): "<1", (1, 1): "100", (2, 0): "100", (2, 2): "0"}
    beside = sorted((y, text) for (x, y), text in written.items() if x > 2)
    assert [text for _, text in beside] == ["of all", "15.0%", "80.0%", "5.0%"]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.8, 0.2, 0], [0.0025, 0.9975, 0], [1, 0, 0]])


# -- rows of pictures ----------------------------------------------------------------------------------------------------------------------


def test_every_picture_is_under_its_heading(drawn: Drawn, tmp_path: Path) -> None:
    """A gray image, of which all is class 1 and taken for 2; below, one of class 2 taken for 1 in its left quarter."""
    images, ones, twos = [np.full((1, height, 32), 0.6) for height in (20, 26)], np.ones((20, 32), int), np.full((26, 32), 2)
    quarter = twos.copy()
    quarter[:, :8] = 1
    figures.predictions(images, [ones, twos], [2 * ones, quarter], CLASSES, PALETTE, tmp_path / "p.png", names=["first", "second"])
    assert drawn.column("image") < drawn.column("truth") < drawn.column("prediction") < drawn.column("errors")
    assert [part(drawn.panel("image", row), np.full(3, 153)) for row in (0, 1)] == [1, 1]
    assert [part(drawn.panel("truth", row), PALETTE[1 + row]) for row in (0, 1)] == [1, 1]
    assert part(drawn.panel("prediction", 0), PALETTE[2]) == 1
    second = drawn.panel("prediction", 1)
    edge = second.shape[1] // 4
    assert part(second[:, : edge - 6], PALETTE[1]) == part(second[:, edge + 6 :], PALETTE[2]) == 1
    assert part(drawn.panel("errors", 0), WRONG) > 0.8  # its corner holds the note
    errors = drawn.panel("errors", 1)
    assert part(errors[: len(errors) // 2, : edge - 6], WRONG) == 1 and part(errors[:, edge + 6 :], WRONG) == 0
    first, below = (axes.get_position() for axes in drawn.figure.axes[::4])
    heading, legend = (next(t.get_position()[1] for t in drawn.figure.texts if t.get_text() == name) for name in ("image", "wrong"))
    assert legend < below.y0 < below.y1 < first.y0 < first.y1 < heading
    written = drawn.texts()
    assert written.index("first") < written.index("second") and written.index("0.0% right") < written.index("75.0% right")
    assert {*CLASSES, "wrong"} <= set(written) and "ignored" not in written


@pytest.mark.parametrize(
    ("truth", "note"),
    [
        ([[0, 1, 2, 1, 255, 255]], "75.0% right"),  # of the four that count
        ([[1, 1, 1, 1, 1, 255]], "40.0% right"),
        ([[255, 255, 3, 3, -1, 7]], "nothing to compare"),
    ],
)
def test_the_part_that_is_right(truth: list[list[int]], note: str, drawn: Drawn, tmp_path: Path) -> None:
    guess = np.array([[0, 1, 1, 1, 0, 0]])
    if note.startswith("40"):
        guess[:, 1] = 2
    figures.predictions([np.zeros((1, 1, 6))], [np.array(truth)], [guess], CLASSES, PALETTE, tmp_path / "p.png")
    assert note in drawn.texts() and "ignored" in drawn.texts()


def test_samples_show_image_mask_and_both(drawn: Drawn, tmp_path: Path) -> None:
    image = np.full((3, 18, 30), 0.4, np.float32)
    samples = [Sample(image, np.full((18, 30), k), f"of class {k}") for k in (1, 2)]
    gallery.samples(samples, CLASSES, PALETTE, tmp_path / "s.png", title="two samples")
    assert drawn.column("image") < drawn.column("mask") < drawn.column("both")
    for row, sample in enumerate(samples):
        assert part(drawn.panel("image", row), as_rgb(image)[0, 0]) == 1
        assert part(drawn.panel("mask", row), PALETTE[row + 1]) == 1
        assert part(drawn.panel("both", row), overlay(image, sample.mask, PALETTE)[0, 0]) == 1
    assert {"two samples", "of class 1", "of class 2", *CLASSES} <= set(drawn.texts()) and "wrong" not in drawn.texts()


@pytest.mark.parametrize(("held_out", "chosen"), [(10, [1, 3, 6, 8]), (3, [0, 1, 2])])
def test_a_run_draws_what_its_network_predicts_of_images_evenly_chosen(
    held_out: int, chosen: list[int], drawn: Drawn, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Of four quarters the middle image, or all there are."""
    train, val = training.arrays(rng, 4, (16, 24)), training.arrays(rng, held_out, (16, 24))
    trainer = training.make(tmp_path, training.options(), (train, val), draw=True)
    trainer.draw_predictions(trainer.model)
    assert [name for name in drawn.texts() if name.isdecimal()] == [f"{i:04d}" for i in chosen]
    for row, shown in enumerate(evaluate(trainer.model, val, mean=trainer.mean, std=trainer.std, show=chosen).shown):
        np.testing.assert_array_equal(shown.image, val[chosen[row]].image)
        assert (shown.truth != shown.prediction).any()
        for heading, picture in (
            ("image", as_rgb(shown.image)),
            ("truth", as_colours(shown.truth, val.palette)),
            ("prediction", as_colours(shown.prediction, val.palette)),
        ):
            np.testing.assert_array_equal(drawn.sampled(heading, row, (16, 24)), picture)


# -- curves --------------------------------------------------------------------------------------------------------------------------------


def test_every_curve_is_that_of_its_label(drawn: Drawn, tmp_path: Path) -> None:
    nan, inf = float("nan"), float("inf")
    columns = {
        "train_loss": [0.9, 0.7, nan, 0.5], "val_loss": [1.0, None, 0.8, inf], "val_pixel_accuracy": [0.6, 0.7, 0.8, 0.75],
        "val_miou": [0.3, 0.45, 0.5, 0.4],
    }  # fmt: skip
    metrics = [{"epoch": 3 + i, **{key: values[i] for key, values in columns.items()}} for i in range(4)]
    figures.curves(metrics, tmp_path / "c.png")
    loss, scores = drawn.figure.axes
    labels = {"training": "train_loss", "validation": "val_loss", "pixel accuracy": "val_pixel_accuracy", "mean IoU": "val_miou"}
    lines = {line.get_label(): line for axes in (loss, scores) for line in axes.lines if line.get_label() in labels}
    assert set(lines) == set(labels)
    for label, key in labels.items():
        values = [v if v is not None and np.isfinite(v) else nan for v in columns[key]]
        np.testing.assert_array_equal(lines[label].get_ydata(), values)
        np.testing.assert_array_equal(lines[label].get_xdata(), [3, 4, 5, 6])
        assert lines[label].axes is (loss if "loss" in key else scores)
    assert all(
        len({lines[name].get_color() for name in names}) == 2 for names in (("training", "validation"), ("pixel accuracy", "mean IoU"))
    )
    assert [axes.get_title(loc="left") for axes in (loss, scores)] == ["loss", "validation scores"]
    for axes, names in ((loss, ["training", "validation"]), (scores, ["pixel accuracy", "mean IoU"])):
        told = [text.get_text() for text in axes.get_legend().get_texts()]
        assert told == names + ["best 0.500, epoch 5"] * (axes is scores) and axes.get_xlabel() == "epoch"
        low, high = axes.get_ylim()
        drawn_here = np.concatenate([lines[name].get_ydata() for name in names])
        assert low <= np.nanmin(drawn_here) and np.nanmax(drawn_here) <= high


def test_the_best_mean_iou_is_marked(drawn: Drawn, tmp_path: Path) -> None:
    metrics = [{"epoch": i + 1, "val_miou": miou, "val_pixel_accuracy": 0.9} for i, miou in enumerate([0.2, 0.625, float("nan"), 0.5])]
    figures.curves(metrics, tmp_path / "c.png")
    loss, scores = drawn.figure.axes
    assert scores.get_legend().get_texts()[-1].get_text() == "best 0.625, epoch 2" and not scores.texts
    (mark,) = (line for line in scores.lines if len(line.get_xdata(orig=False)) == 1)
    assert (mark.get_xdata(orig=False)[0], mark.get_ydata(orig=False)[0]) == (2, 0.625)
    assert [text.get_text() for text in loss.texts] == ["nothing recorded"]


@pytest.mark.parametrize(
    "scores",
    [[0.026, 0.02, 0.021], [0.13], [0.95], [0.61, 0.64, 0.6, 0.63], [0.1, 0.4, 0.8, 0.95, 0.97], [0.97, 0.5, 0.2, 0.1, 0.05]],
    ids=str,
)
def test_no_legend_covers_a_curve(scores: list[float], drawn: Drawn, tmp_path: Path) -> None:
    """Whether scores are low or high, rise or fall, and with a single epoch."""
    losses = [{"train_loss": 1 - score, "val_loss": 0.3 + score} for score in scores]
    metrics = [{"epoch": i + 1, "val_miou": score, "val_pixel_accuracy": 0.5 + score / 2, **losses[i]} for i, score in enumerate(scores)]
    figures.curves(metrics, tmp_path / "c.png")
    for axes in drawn.figure.axes:
        box = axes.get_legend().get_window_extent()
        frame = axes.get_window_extent()
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1 and frame.y0 <= box.y0 < box.y1 <= frame.y1
        for line in axes.lines:
            points = axes.transData.transform(np.column_stack([line.get_xdata(), line.get_ydata()]))
            between = [a + (b - a) * t for a, b in pairwise(points) for t in np.linspace(0, 1, 50)]
            assert not any(box.contains(*point) for point in [*points, *between])


def test_losses_that_fall_far_have_a_logarithmic_axis(drawn: Drawn, tmp_path: Path) -> None:
    for last, scale in ((1 / 29, "linear"), (1 / 31, "log")):
        figures.curves([{"epoch": 1, "train_loss": 1.0}, {"epoch": 2, "train_loss": last}], tmp_path / "c.png")
        assert drawn.figure.axes[0].get_yscale() == scale and drawn.figure.axes[1].get_yscale() == "linear"


# -- a sweep of the benchmark --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", [None, "torch"])
def test_a_sweep_shows_sizes_on_the_left_and_batches_on_the_right(peer: str | None, drawn: Drawn, tmp_path: Path) -> None:
    shapes = [(1, 3, 32, 32), (1, 3, 64, 64), (1, 3, 48, 80), (3, 3, 48, 80), (5, 3, 48, 80)]
    points = [{"shape": shape, "microseconds": 1.0 + i} for i, shape in enumerate(shapes)]
    if peer:
        points = [{**point, "peer_microseconds": 10.0 + i} for i, point in enumerate(points)]
    plot.sweep({"shape": (1, 3, 48, 80), "points": points, "peer": peer, "net": "unet", "base": 8}, tmp_path / "s.png")
    sizes, batches = drawn.figure.axes
    ours: dict[str, Any] = {"minidcnn": 1.0, "PyTorch": 10.0} if peer else {"minidcnn": 1.0}
    for axes, at, first in ((sizes, [32, 64], 0), (batches, [1, 3, 5], 2)):
        assert [line.get_label() for line in axes.lines] == list(ours)
        for line, least in zip(axes.lines, ours.values(), strict=True):
            assert list(line.get_xdata()) == at and list(line.get_ydata()) == [least + first + i for i in range(len(at))]
    assert (sizes.get_title(loc="left"), batches.get_title(loc="left")) == ("one square image", "batches of 48x80")
