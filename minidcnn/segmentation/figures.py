"""Pictures of a training run: curves, predictions beside their truth, confusion. Drawn without any global state of matplotlib.

Every function writes one PNG, atomically. What needs no matplotlib (overlays, index PNGs) is in paint.py and can be had from here too.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..backend import Array
from ..data.palette import default_palette
from .metrics import ConfusionMatrix
from .paint import as_colours, as_mask, as_palette, as_rgb, index_png, overlay, rgb_png
from .rows import FAINT, GRID, INK, Line, draw_rows, figure_of, legend_entries, save, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["confusion", "curves", "default_palette", "index_png", "overlay", "predictions", "rgb_png"]

Row: TypeAlias = tuple[Array, Array, Array, float | None]  # rgb, truth, prediction, part right

TRAIN, VAL, OTHER = "#1f77b4", "#e6781e", "#28825a"
WRONG = np.array([255, 30, 240], np.uint8)  # magenta: far from all of the default palette (tests/test_figures.py)


def curves(metrics: Sequence[dict[str, Any]], path: str | os.PathLike[str]) -> None:
    """Loss (training, validation) and scores (pixel accuracy, mean IoU) against the epoch.

    metrics: one object per epoch, as in metrics.jsonl: epoch, and any of train_loss, val_loss, val_pixel_accuracy, val_miou. What is
    missing, None or not finite leaves a gap. The best mean IoU is marked.
    """
    figure = figure_of(9.6, 3.6)
    losses = {"training": ("train_loss", TRAIN), "validation": ("val_loss", VAL)}
    scores = {"pixel accuracy": ("val_pixel_accuracy", OTHER), "mean IoU": ("val_miou", VAL)}
    for i, (title, series) in enumerate([("loss", losses), ("validation scores", scores)]):
        axes = figure.add_axes((0.065 + 0.495 * i, 0.145, 0.42, 0.745))
        lines = {name: (*_series(metrics, key), colour) for name, (key, colour) in series.items()}
        lines = {name: line for name, line in lines.items() if np.isfinite(line[1]).any()}
        for name, (epochs, values, colour) in lines.items():
            axes.margins(x=0.03)
            axes.plot(epochs, values, color=colour, linewidth=1.8, label=name, marker="o", markersize=4 if len(epochs) <= 30 else 0)
        _style(axes, title)
        if title == "loss":
            _scale_losses(axes, [values for _, values, _ in lines.values()])
        else:
            _scale_scores(axes, [values for _, values, _ in lines.values()])
            if "mean IoU" in lines:
                _mark_best(axes, *lines["mean IoU"][:2])
        if lines:
            axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="best")
        else:
            axes.text(0.5, 0.5, "nothing recorded", transform=axes.transAxes, ha="center", color=FAINT, fontsize=9)
    save(figure, path)


def predictions(
    images: Sequence[Array],
    truths: Sequence[Array],
    predictions: Sequence[Array],
    classes: Sequence[str],
    palette: Array | None,
    path: str | os.PathLike[str],
    *,
    ignore_index: int | None = 255,
    names: Sequence[str] | None = None,
) -> None:
    """A row per image: the image, the truth, the prediction, and the image with its wrong pixels in magenta; below, a legend.

    images: (C, H, W) each, of any number of channels, normalised or not; truths and predictions: (H, W) class indices. Sizes may differ
    from row to row. palette: (K, 3) uint8, None for the default. Ignored pixels are striped gray, and neither right nor wrong.
    """
    counts = {"images": len(images), "truths": len(truths), "predictions": len(predictions)}
    if len(set(counts.values())) > 1 or not len(images):
        raise ValueError(
            "predictions needs as many images, truths and predictions, at least one: got {images}, {truths}, {predictions}".format(**counts)
        )
    if names is not None and len(names) != len(images):
        raise ValueError(f"predictions: names must hold one name for each of {len(images)} images, got {len(names)}")
    colours = as_palette(palette, len(classes))[: len(classes)]
    rows = [_row(*row, len(classes), ignore_index) for row in zip(images, truths, predictions, strict=True)]

    lines = []
    for r, (rgb, truth, guess, right) in enumerate(rows):
        pictures = (rgb, as_colours(truth, colours), as_colours(guess, colours), _errors(rgb, truth, guess))
        note = "nothing to compare" if right is None else f"{right:.1%} right"
        lines.append(Line(pictures, "" if names is None else names[r], note))
    legend = legend_entries([mask for _, truth, guess, _ in rows for mask in (truth, guess)], classes, colours)
    draw_rows(path, ("image", "truth", "prediction", "errors"), lines, [*legend, ("wrong", WRONG)], panel=2.5)


def confusion(matrix: ConfusionMatrix | Array, classes: Sequence[str], path: str | os.PathLike[str]) -> None:
    """The confusion matrix as a picture: rows are the truth, columns the prediction, each cell the part of its row; at the right, the part
    of all pixels that is truly of the class. Up to 15 classes with numbers. Rows of classes that do not occur stay empty."""
    counts = matrix.matrix if isinstance(matrix, ConfusionMatrix) else np.asarray(matrix)
    k = len(classes)
    if counts.shape != (k, k):
        raise ValueError(f"confusion: the matrix must be ({k}, {k}) for {k} classes, got {counts.shape}")
    true = counts.sum(axis=1)
    parts = np.where(true[:, None] > 0, counts / np.maximum(true[:, None], 1), np.nan)
    cell = float(np.clip(6.5 / k, 0.11, 0.75))
    labels = [short(name, 2.0) for name in classes]
    left = right = 0.075 * max(map(len, labels)) + 0.3
    left, right, below, above = left + 0.25, max(right - 0.2, 0.75), left + 0.1, 0.55
    width, height = max(left + cell * k + right, 3.2), below + cell * k + above
    figure = figure_of(width, height)
    axes = figure.add_axes((left / width, below / height, cell * k / width, cell * k / height))
    axes.imshow(parts, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    size = 8.0 if k <= 30 else max(3.0, 72 * cell * 0.8)
    axes.set_xticks(range(k), labels, rotation=90, fontsize=size, color=INK, parse_math=False)
    axes.set_yticks(range(k), labels, fontsize=size, color=INK, parse_math=False)
    axes.set_xlabel("predicted as", color=FAINT, fontsize=9)
    axes.set_ylabel("truth", color=FAINT, fontsize=9)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_edgecolor(GRID)
    axes.set_xticks(np.arange(k + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(k + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.0 if k <= 30 else 0.3)
    axes.tick_params(which="minor", length=0)
    if k <= 15:
        for i, j in np.ndindex(k, k):
            if not np.isnan(parts[i, j]) and (counts[i, j] or i == j):
                text = f"{100 * parts[i, j]:.0f}" if parts[i, j] >= 0.005 or not counts[i, j] else "<1"
                axes.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if parts[i, j] > 0.55 else INK)
    total = max(counts.sum(), 1)
    for i in range(k):
        axes.text(k - 0.35, i, f"{true[i] / total:.1%}", va="center", fontsize=size, color=FAINT)
    axes.text(k - 0.35, -0.62, "of all", va="bottom", fontsize=min(size, 8), color=FAINT)
    axes.set_title("% of each true class", fontsize=10, color=INK, pad=10)
    save(figure, path)


# -- rows of predictions -----------------------------------------------------------------------------------------------------------------


def _row(image: Array, truth: Array, guess: Array, classes: int, ignore_index: int | None) -> Row:
    """(rgb, truth, prediction, part right): ignored pixels become -1 in the truth."""
    rgb, truth, guess = as_rgb(image), as_mask(truth), as_mask(guess)
    if not rgb.shape[:2] == truth.shape == guess.shape or not truth.size:
        raise ValueError(f"image, truth and prediction must have one size, got {rgb.shape[:2]}, {truth.shape} and {guess.shape}")
    counted = (truth >= 0) & (truth < classes)
    if ignore_index is not None:
        counted &= truth != ignore_index
    right = float((truth == guess)[counted].mean()) if counted.any() else None
    return rgb, np.where(counted, truth, -1), guess, right


def _errors(rgb: Array, truth: Array, guess: Array) -> Array:
    """The image in pale gray, wrong pixels magenta, ignored ones striped."""
    gray = rgb @ np.array([0.299, 0.587, 0.114])
    pale = np.repeat((165 + 0.35 * gray).astype(np.uint8)[..., None], 3, axis=-1)
    ignored = truth < 0
    picture = np.where((truth != guess)[..., None], WRONG, pale)
    return np.where(ignored[..., None], as_colours(truth, np.zeros((1, 3), np.uint8)), picture)


# -- curves ------------------------------------------------------------------------------------------------------------------------------


def _series(metrics: Sequence[dict[str, Any]], key: str) -> tuple[Array, Array]:
    """(epochs, values), NaN where nothing finite was recorded."""
    epochs = np.array([float(m.get("epoch", i)) for i, m in enumerate(metrics)])
    values = np.array([np.nan if m.get(key) is None else float(m[key]) for m in metrics])
    return epochs, np.where(np.isfinite(values), values, np.nan)


def _scale_losses(axes: Axes, series: Sequence[Array]) -> None:
    values = np.concatenate([v[np.isfinite(v)] for v in series]) if series else np.array([])
    if values.size and values.min() > 0 and values.max() > 30 * values.min():
        axes.set_yscale("log")
    elif values.size and values.min() >= 0:
        axes.set_ylim(0, 1.06 * max(float(values.max()), 1e-9))


def _scale_scores(axes: Axes, series: Sequence[Array]) -> None:
    values = np.concatenate([v[np.isfinite(v)] for v in series]) if series else np.array([])
    low = float(values.min()) if values.size else 0.0
    axes.set_ylim(0.0 if low < 0.5 else np.floor(10 * low - 0.5) / 10, 1.0)


def _mark_best(axes: Axes, epochs: Array, values: Array) -> None:
    """A ring around the best; the legend names it, where its words cover no curve."""
    best = int(np.nanargmax(values))
    axes.plot(
        epochs[best], values[best], "o", markersize=9, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.2,
        label=f"best {values[best]:.3f}, epoch {epochs[best]:g}",
    )  # fmt: skip


def _style(axes: Axes, title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, fontsize=11, color=INK, loc="left")
    axes.set_xlabel("epoch", fontsize=9, color=FAINT)
    low, high = axes.get_xlim()
    if high - low < 1:  # a single epoch, or none
        axes.set_xlim((low + high) / 2 - 1, (low + high) / 2 + 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10, min_n_ticks=1))
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=FAINT, labelsize=8.5, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_edgecolor("#aaaaaa")
