"""Colours for classes, and colours as numbers."""

from __future__ import annotations

import colorsys

import numpy as np

from .sample import Array

# Twelve colours that also stay apart for colour-blind eyes (tests/test_figures.py); the first is the usual colour of a background.
_FIRST = (
    (0, 0, 0), (230, 120, 30), (40, 130, 220), (110, 235, 145), (135, 15, 110), (125, 35, 235),
    (40, 95, 30), (240, 20, 75), (245, 220, 50), (10, 10, 130), (240, 145, 210), (95, 50, 60),
)  # fmt: skip


def default_palette(classes: int) -> Array:
    """(K, 3) uint8, a different colour for every class up to 4096: twelve chosen ones, then hues at golden-ratio steps."""
    colours: list[tuple[int, int, int]] = list(_FIRST[:classes])
    taken, step = set(colours), 0
    while len(colours) < classes:
        hue, level = (step * 0.618034) % 1.0, (0.95, 0.75, 0.55)[step % 3]
        colour = tuple(round(255 * v) for v in colorsys.hsv_to_rgb(hue, (0.75, 0.5)[step // 3 % 2], level))
        step += 1
        if colour not in taken:
            taken.add(colour)  # type: ignore[arg-type]
            colours.append(colour)  # type: ignore[arg-type]
    return np.array(colours, np.uint8).reshape(-1, 3)


def voc_palette(classes: int = 21) -> Array:
    """(K, 3) uint8, the colours of PASCAL VOC's palette files: three bits of the index at a time give the top bits of red, green, blue."""
    index = np.arange(classes)
    palette = np.zeros((classes, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= ((index >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return palette
