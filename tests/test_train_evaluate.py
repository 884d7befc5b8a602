"""How a data set is scored: what goes through the network together, what is counted, what is kept to be looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import training

import minidcnn
from minidcnn.data import Arrays
from minidcnn.models import Segmenter
from minidcnn.segmentation import BoundaryF1, predict_mask
from minidcnn.segmentation.evaluate import evaluate
from minidcnn.segmentation.losses import Loss

KINDS: dict[str, Any] = {"mean": [0.5, 0.25, 0.125], "std": [0.5, 0.25, 2.0]}


def noise(rng: np.random.Generator, *sizes: tuple[int, int], ignore_index: int = 255) -> Arrays:
    """Images of these sizes, of three channels and classes, with a row of ignored pixels each."""
    masks = [rng.integers(0, 3, size) for size in sizes]
    for mask in masks:
        mask[-1] = ignore_index
    return Arrays([rng.random((3, *size), dtype=np.float32) for size in sizes], masks, 3, ignore_index=ignore_index)


def network(data: Arrays) -> tuple[Segmenter, list[tuple[int, ...]]]:
    """A network of random weights, and the shapes that it gets to see."""
    minidcnn.manual_seed(1)
    model, shapes = training.unet(data, base=3), []
    model.register_forward_hook(lambda module, inputs, output: shapes.append(inputs[0].shape))
    return model, shapes


def normal(image: np.ndarray) -> np.ndarray:
    mean, std = (np.array(KINDS[key], np.float32)[:, None, None] for key in ("mean", "std"))
    return np.asarray((image - mean) / std)


@pytest.mark.parametrize("size", [(30, 90), (90, 30), (61, 60)])
def test_nothing_larger_than_a_tile_goes_through_the_network(size: tuple[int, int], rng: np.random.Generator) -> None:
    """The last of these fits by itself, but not as it is padded for the network, to 64x60."""
    data = noise(rng, size)
    model, shapes = network(data)
    evaluate(model, data, **KINDS, tile=62)
    assert len(shapes) > 1 and all(max(shape[2:]) <= 62 for shape in shapes)


@pytest.mark.parametrize(
    ("sizes", "options", "together"),
    [
        ([(24, 32)] * 7, {"batch_size": 3}, [3, 3, 1]),
        ([(24, 32)] * 7, {"batch_size": 5, "tile": 48}, [3, 3, 1]),  # of 768 pixels each, and 2304 in a tile
        ([(24, 32)] * 7, {"batch_size": 5, "tile": 47}, [2, 2, 2, 1]),
        ([(24, 32), (24, 32), (32, 24), (32, 24), (24, 32)], {}, [2, 2, 1]),
        ([(24, 32)] * 2, {"tile": 32}, [1, 1]),
    ],
)
def test_neighbours_of_one_size_go_together(
    sizes: list[tuple[int, int]], options: dict[str, Any], together: list[int], rng: np.random.Generator
) -> None:
    data = noise(rng, *sizes)
    model, shapes = network(data)
    done: list[tuple[int, int]] = []
    evaluate(model, data, **KINDS, **options, progress=lambda *numbers: done.append(numbers))
    assert [shape[0] for shape in shapes] == together
    assert done == [(n, len(data)) for n in np.cumsum(together)]


@pytest.mark.parametrize("options", [{}, {"tile": 16}, {"flips": True}, {"tile": 16, "flips": True}])
@pytest.mark.parametrize("ignore_index", [255, 7])
def test_what_is_counted_is_what_is_predicted(ignore_index: int, options: dict[str, Any], rng: np.random.Generator) -> None:
    """Pixel by pixel; and the samples asked for are kept as they were, with their prediction."""
    data = noise(rng, (24, 32), (24, 32), (20, 12), (24, 32), (24, 32), ignore_index=ignore_index)
    model, _ = network(data)
    outlines, expected = (BoundaryF1(3, ignore_index, tolerance=1) for _ in range(2))
    result = evaluate(model, data, **KINDS, batch_size=2, show=(1, 2, 4), boundary=outlines, **options)
    matrix, guesses = np.zeros((3, 3), int), []
    for sample in data:
        guesses.append(predict_mask(model, normal(sample.image), **options))
        counted = sample.mask != ignore_index
        np.add.at(matrix, (sample.mask[counted], guesses[-1][counted]), 1)
        expected.update(sample.mask, guesses[-1])
    np.testing.assert_array_equal(result.confusion.matrix, matrix)
    np.testing.assert_array_equal(outlines.images, expected.images)
    assert result.loss is None and [shown.name for shown in result.shown] == [data[i].name for i in (1, 2, 4)]
    for i, shown in zip((1, 2, 4), result.shown, strict=True):
        np.testing.assert_array_equal(shown.image, data[i].image)
        np.testing.assert_array_equal(shown.truth, data[i].mask)
        np.testing.assert_array_equal(shown.prediction, guesses[i])


@pytest.mark.parametrize(("wrong", "loss"), [(2.0, 2.1269), (40.0, 40.0), (80.0, 80.0), (1000.0, 87.3365)])
def test_the_loss_of_what_is_taken_for_certain_and_wrong(wrong: float, loss: float, rng: np.random.Generator) -> None:
    """As of scores that lie so far apart, log(1 + exp(s)), up to the smallest probability that float32 holds: 2^-126."""
    data = Arrays([rng.random((3, 8, 12), dtype=np.float32)], [np.ones((8, 12), int)], 2)
    model, _ = network(data)
    head: Any = model.get_submodule("head")
    head.weight.data[:] = 0
    head.bias.data[:] = (wrong, 0.0)
    assert evaluate(model, data, **KINDS, loss=Loss("cross_entropy", None, 255)).loss == pytest.approx(loss, rel=1e-4)


def test_where_every_pixel_is_ignored_nothing_is_lost(rng: np.random.Generator) -> None:
    data = noise(rng, (8, 12))
    ignored = Arrays(data.images, [np.full((8, 12), 255)], 3)
    result = evaluate(network(data)[0], ignored, **KINDS, loss=Loss("cross_entropy", None, 255))
    assert result.loss == 0.0 and not result.confusion.matrix.any()
