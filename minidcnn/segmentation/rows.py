"""Pictures in rows with a legend below; and matplotlib, kept to itself: no global state of it is touched."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import Array
from ..interop.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT, GRID = "#222222", "#666666", "#dddddd"


@dataclass(frozen=True, eq=False)
class Line:
    """A row: pictures (H, W, 3) uint8 of one size, the name at its left, and a note in the corner of the last picture."""

    pictures: Sequence[Array]
    name: str = ""
    note: str = ""


def draw_rows(
    path: str | os.PathLike[str],
    headings: Sequence[str],
    lines: Sequence[Line],
    legend: Sequence[tuple[str, Array | str]],
    *,
    panel: float,
    title: str | None = None,
) -> None:
    """A column of pictures `panel` inches wide under each heading, a row per line, and a legend below. Sizes may differ from row to row.

    legend: (name, (3,) uint8 colour, or "hatch", or "none").
    """
    gap, side = 0.07, 0.22  # inches
    head = 0.3 if title is None else 0.55
    columns = len(headings)
    width = side + columns * panel + (columns + 1) * gap
    shapes = [line.pictures[0].shape for line in lines]
    heights = [float(np.clip(panel * shape[0] / shape[1], 0.2, 1.5 * panel)) for shape in shapes]
    figure = figure_of(width, 1.0)
    with _any_script():
        places, below = _flow(figure, [name for name, _ in legend], width - side - 2 * gap)
    height = head + sum(heights) + gap * (len(heights) - 1) + 0.12 + below + 0.06
    figure.set_size_inches(width, height)

    top = height - head
    if title is not None:
        figure.text(
            (side + gap) / width, (top + 0.34) / height, drawable(title), ha="left", va="bottom", fontsize=11, color=INK, parse_math=False
        )
    for c, heading in enumerate(headings):
        at = side + gap + c * (panel + gap) + panel / 2
        figure.text(at / width, (top + 0.09) / height, heading, ha="center", va="bottom", fontsize=10, color=INK)
    for r, (line, shape) in enumerate(zip(lines, shapes, strict=True)):
        top -= heights[r] if r == 0 else heights[r] + gap
        figure.text(
            (side / 2 + 0.03) / width, (top + heights[r] / 2) / height, short(line.name, heights[r]), rotation=90, ha="center", va="center",
            fontsize=7, color=FAINT, parse_math=False,
        )  # fmt: skip
        wide = min(panel, heights[r] * shape[1] / shape[0])  # a tall image does not fill its column
        for c, picture in enumerate(line.pictures):
            left = side + gap + c * (panel + gap) + (panel - wide) / 2
            _show(figure, picture, (left / width, top / height, wide / width, heights[r] / height))
        if line.note:
            figure.text(
                (left + 0.06) / width, (top + 0.06) / height, line.note, ha="left", va="bottom", fontsize=7.5, color=INK,
                bbox={"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
            )  # fmt: skip
    for (name, swatch), (x, y) in zip(legend, places, strict=True):
        _entry(figure, name, swatch, side + gap + x, 0.06 + y)
    save(figure, path)


# -- the legend --------------------------------------------------------------------------------------------------------------------------


def legend_entries(masks: Sequence[Array], classes: Sequence[str], colours: Array) -> list[tuple[str, Array | str]]:
    """(name, colour or hatch): all classes, or of many those that `masks` hold; what the stripes mean, if there are any."""
    seen = np.unique(np.concatenate([np.unique(mask) for mask in masks]))
    shown = range(len(classes)) if len(classes) <= 24 else [int(k) for k in seen if 0 <= k < len(classes)]
    entries: list[tuple[str, Array | str]] = [(short(classes[k], 2.0), colours[k]) for k in shown[:60]]
    if len(shown) > 60:
        entries.append((f"and {len(shown) - 60} more", "none"))
    if seen[0] < 0 or seen[-1] >= len(classes):
        entries.append(("ignored", "hatch"))
    return entries


def _flow(figure: Figure, names: Sequence[str], room: float) -> tuple[list[tuple[float, float]], float]:
    """Places for legend entries in rows and columns within `room` inches, and their height: (x, y) from the left and the bottom, in inches."""
    renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    widths = []
    for name in names:
        text = figure.text(0, 0, name, fontsize=9, parse_math=False)
        widths.append(text.get_window_extent(renderer).width / figure.dpi + 0.45)
        text.remove()
    line, rows = 0.21, 1
    while True:  # as few rows as fit, each column as wide as its widest entry
        columns = -(-len(names) // rows)
        pitch = [max(widths[c::columns]) for c in range(columns)]
        if sum(pitch) <= room or columns == 1:
            break
        rows += 1
    places = [(sum(pitch[: i % columns]), (rows - 0.5 - i // columns) * line) for i in range(len(names))]
    return places, rows * line


def _entry(figure: Figure, name: str, swatch: Array | str, x: float, y: float) -> None:
    """One entry of the legend, its middle at (x, y) inches."""
    from matplotlib.patches import Rectangle

    width, height = figure.get_size_inches()
    if not isinstance(swatch, str):
        style: dict[str, Any] = {"facecolor": swatch / 255, "edgecolor": "#00000055", "linewidth": 0.5}
    elif swatch == "hatch":
        style = {"facecolor": "#cdcdcd", "edgecolor": "#969696", "hatch": "/////", "linewidth": 0.5}
    else:
        style = {"fill": False, "linewidth": 0}
    figure.add_artist(Rectangle((x / width, (y - 0.065) / height), 0.19 / width, 0.13 / height, transform=figure.transFigure, **style))
    figure.text((x + 0.25) / width, y / height, name, ha="left", va="center_baseline", fontsize=9, color=INK, parse_math=False)


# -- matplotlib --------------------------------------------------------------------------------------------------------------------------


def figure_of(width: float, height: float) -> Figure:
    """An empty figure of width x height inches with an Agg canvas: nothing is registered anywhere."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=160, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _show(figure: Figure, picture: Array, box: tuple[float, float, float, float]) -> None:
    axes = figure.add_axes(box)
    axes.imshow(picture, aspect="auto")
    axes.set_axis_off()


def short(name: str, inches: float) -> str:
    """At most about so many inches of a name in small print."""
    most = max(8, int(inches * 14))
    return drawable(name if len(name) <= most else name[: most - 1] + "…")


def drawable(name: str) -> str:
    """The name with ? for the bytes of a file name that is no UTF-8, which matplotlib refuses."""
    return name.encode("utf-8", "replace").decode()


@contextmanager
def _any_script() -> Iterator[None]:
    """No warnings of names in a script that the font lacks: they show as boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        yield


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a PNG, atomically."""
    with replacing(path) as temporary, _any_script():
        figure.savefig(temporary, format="png", metadata={"Software": None})
