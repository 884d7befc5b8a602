"""Pictures of a data set: its samples, to see before training whether images and masks belong together, and what a network makes of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..backend import Array
from ..data import Dataset, Sample, Subset
from .evaluate import evaluate
from .figures import predictions
from .paint import as_colours, as_palette, as_rgb, overlay
from .predict import usual_tile
from .rows import Line, draw_rows, legend_entries

if TYPE_CHECKING:
    from ..models import Segmenter

SHOWN = 4  # images that stand for a data set


def samples(
    shown: Sequence[Sample], classes: Sequence[str], palette: Array | None, path: str | os.PathLike[str], *, title: str | None = None
) -> None:
    """A row per sample: the image, its mask, and the mask laid over the image; below, a legend. Writes one PNG, atomically.

    palette: (K, 3) uint8, None for the default. Ignored pixels are striped gray. Sizes may differ from row to row.
    """
    if not shown:
        raise ValueError("samples needs at least one sample to show")
    colours = as_palette(palette, len(classes))[: len(classes)]
    masks, lines = [], []
    for sample in shown:
        mask = np.where((sample.mask == sample.ignore_index) | (sample.mask >= len(classes)), -1, sample.mask)
        pictures = as_rgb(sample.image), as_colours(mask, colours), overlay(sample.image, mask, colours)
        masks.append(mask)
        lines.append(Line(pictures, sample.name))
    draw_rows(path, ("image", "mask", "both"), lines, legend_entries(masks, classes, colours), panel=2.9, title=title)


def predictions_of(
    model: Segmenter, dataset: Dataset, path: str | os.PathLike[str], *, mean: Sequence[float], std: Sequence[float]
) -> None:
    """`figures.predictions` of some images of a data set, evenly chosen. mean, std: of each channel, as in training."""
    count = min(SHOWN, len(dataset))
    some = Subset(dataset, sorted({(2 * i + 1) * len(dataset) // (2 * count) for i in range(count)}))
    shown = evaluate(model, some, mean=mean, std=std, batch_size=1, tile=usual_tile(model), show=range(count)).shown
    names, images, truths, guesses = zip(*shown, strict=True)
    predictions(images, truths, guesses, dataset.classes, dataset.palette, path, ignore_index=dataset.ignore_index, names=names)
