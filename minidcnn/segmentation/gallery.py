"""A picture of labelled samples, to see whether images and masks belong together before anything is trained."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from ..backend import Array
from ..data import Sample
from .figures import FAINT, INK, _entry, _figure, _flow, _legend_entries, _save, _short, _show
from .paint import as_colours, as_palette, as_rgb, overlay


def samples(
    shown: Sequence[Sample], classes: Sequence[str], palette: Array | None, path: str | os.PathLike[str], *, title: str | None = None
) -> None:
    """A row per sample: the image, its mask, and the mask laid over the image; below, a legend. Writes one PNG, atomically.

    palette: (K, 3) uint8, None for the default. Ignored pixels are striped gray. Sizes may differ from row to row.
    """
    if not shown:
        raise ValueError("samples needs at least one sample to show")
    colours = as_palette(palette, len(classes))[: len(classes)]
    rows = []
    for sample in shown:
        mask = np.where((sample.mask == sample.ignore_index) | (sample.mask >= len(classes)), -1, sample.mask)
        rows.append((as_rgb(sample.image), mask, mask, None))

    panel, gap, side = 2.9, 0.07, 0.22  # inches
    head = 0.3 if title is None else 0.55
    width = side + 3 * panel + 4 * gap
    heights = [float(np.clip(panel * rgb.shape[0] / rgb.shape[1], 0.2, 1.5 * panel)) for rgb, *_ in rows]
    entries = [entry for entry in _legend_entries(rows, classes, colours) if entry[0] != "wrong"]
    figure = _figure(width, 1.0)
    places, below = _flow(figure, [name for name, _ in entries], width - side - 2 * gap)
    height = head + sum(heights) + gap * (len(heights) - 1) + 0.12 + below + 0.06
    figure.set_size_inches(width, height)

    top = height - head
    if title is not None:
        figure.text((side + gap) / width, (top + 0.34) / height, title, ha="left", va="bottom", fontsize=11, color=INK, parse_math=False)
    for c, heading in enumerate(("image", "mask", "both")):
        at = side + gap + c * (panel + gap) + panel / 2
        figure.text(at / width, (top + 0.08) / height, heading, ha="center", va="bottom", fontsize=10, color=INK)
    for r, (sample, (rgb, mask, *_)) in enumerate(zip(shown, rows, strict=True)):
        top -= heights[r] if r == 0 else heights[r] + gap
        figure.text(
            (side / 2 + 0.03) / width, (top + heights[r] / 2) / height, _short(sample.name, heights[r]), rotation=90, ha="center", va="center",
            fontsize=7, color=FAINT, parse_math=False,
        )  # fmt: skip
        for c, picture in enumerate((rgb, as_colours(mask, colours), overlay(sample.image, mask, colours))):
            wide = min(panel, heights[r] * rgb.shape[1] / rgb.shape[0])  # a tall image does not fill its column
            box = ((side + gap + c * (panel + gap) + (panel - wide) / 2) / width, top / height, wide / width, heights[r] / height)
            _show(figure, picture, box)
    for (name, swatch), (x, y) in zip(entries, places, strict=True):
        _entry(figure, name, swatch, side + gap + x, 0.06 + y)
    _save(figure, path)
