"""A picture of labelled samples, to see whether images and masks belong together before anything is trained."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from ..backend import Array
from ..data import Sample
from .paint import as_colours, as_palette, as_rgb, overlay
from .rows import Line, draw_rows, legend_entries


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
