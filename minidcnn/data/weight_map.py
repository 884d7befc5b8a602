"""The U-Net paper's pixel weights: narrow gaps between cells count more in the loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .sample import IGNORE, Array, DataError


def unet_weight_map(
    labels: Array,
    w0: float = 10.0,
    sigma: float = 5.0,
    *,
    instances: bool = False,
    class_weights: Sequence[float] | None = None,
    ignore_index: int = IGNORE,
) -> Array:
    """w(x) = w_c(x) + w0 exp(-(d1(x) + d2(x))^2 / (2 sigma^2))   (Ronneberger, Fischer, Brox, "U-Net", equation 2)

    labels: (H, W) integers. A mask of class indices, 0 for background: cells are then the regions of other pixels connected by their
    sides. Or, with `instances=True`, a map with a number for each cell, 0 for background.
    d1, d2: the distances in pixels from a background pixel to the nearest and the second nearest cell. Inside cells, and with fewer than
    two cells, the second term is 0. It is left out, too, where d1 or d2 is over 6 sigma, where it is below 2e-8 w0.
    class_weights: w_c of background and of cells; None means 1 and 1. Of a mask of more classes, one weight for each class.
    Returns (H, W) float32. Pixels of `ignore_index` (not in a map of instances) weigh 0 and belong to no cell.
    DataError for labels of another shape or kind or below 0, for sigma and w0 out of range, and for too few class_weights.
    """
    from scipy import ndimage

    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype.kind not in "iub":
        raise DataError(f"unet_weight_map: labels must be integers of shape (height, width), got {labels.dtype} {labels.shape}")
    if not (0 < sigma < np.inf and 0 <= w0 < np.inf):
        raise DataError(f"unet_weight_map: sigma must be positive and w0 not negative, both finite, got sigma={sigma} and w0={w0}")
    labels = labels.astype(np.int64)
    ignored = np.zeros(labels.shape, bool) if instances else labels == ignore_index
    if labels.min(initial=0) < 0:
        raise DataError(f"unet_weight_map: labels must not be negative, got {labels.min()}")
    inside = (labels > 0) & ~ignored
    if instances:
        numbers = np.unique(labels[inside], return_inverse=True)[1]  # any numbers -> 1, 2, ..., n
        cells = np.zeros(labels.shape, np.int64)
        cells[inside] = numbers + 1
    else:
        cells = ndimage.label(inside)[0]

    reach = int(np.ceil(6 * sigma))
    first = np.full(labels.shape, np.inf)
    second = np.full(labels.shape, np.inf)
    for number, found in enumerate(ndimage.find_objects(cells) if cells.size else [], 1):
        # farther than `reach` the term vanishes, so that each cell needs its own surroundings only
        box = tuple(slice(max(s.start - reach, 0), s.stop + reach) for s in found)
        distance = ndimage.distance_transform_edt(cells[box] != number)
        second[box] = np.minimum(second[box], np.maximum(first[box], distance))
        first[box] = np.minimum(first[box], distance)

    classes = (labels > 0).astype(np.int64) if instances or class_weights is None or len(class_weights) == 2 else labels
    weights = np.asarray((1.0, 1.0) if class_weights is None else class_weights, np.float64)
    classes = np.where(ignored, 0, classes)
    if classes.max(initial=0) >= len(weights):
        raise DataError(f"unet_weight_map: class_weights has {len(weights)} numbers, but the labels go up to {classes.max()}")
    result = weights[classes]
    gap = ~inside & ~ignored & (second <= reach)
    result[gap] += w0 * np.exp(-np.square(first[gap] + second[gap]) / (2 * sigma**2))
    result[ignored] = 0
    return result.astype(np.float32)
