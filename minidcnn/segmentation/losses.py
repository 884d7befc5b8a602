"""The losses that a run can choose, and how they are averaged over batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import functional as F
from ..backend import Array, kernels_of
from ..tensor import Tensor


@dataclass(frozen=True, eq=False)
class Loss:
    """logits (N, K, H, W), masks (N, H, W) -> the mean loss, a tensor without axes; ignored pixels count nowhere.

    name: one of config.LOSSES. weights: (K,) float32, of the classes, or None; they scale the cross-entropy, the focal loss, and each class's
    part in Dice and Tversky alike. ignore_index: the label of pixels that do not count. Errors as of the function in functional.
    """

    name: str
    weights: Array | None
    ignore_index: int

    def __call__(self, logits: Tensor, masks: Tensor, pixel_weights: Tensor | None = None) -> Tensor:
        weight = None if self.weights is None else Tensor.wrap(kernels_of(logits._array).constant(self.weights))
        if self.name == "focal":
            return F.focal_loss(logits, masks, weight=weight, ignore_index=self.ignore_index)
        if self.name == "tversky":
            return F.tversky_loss(logits, masks, weight=weight, ignore_index=self.ignore_index)
        if self.name == "dice":
            return F.dice_loss(logits, masks, weight=weight, ignore_index=self.ignore_index)
        entropy = F.cross_entropy(logits, masks, weight, self.ignore_index, pixel_weights=pixel_weights)
        if self.name == "cross_entropy+dice":
            return entropy + F.dice_loss(logits, masks, weight=weight, ignore_index=self.ignore_index)
        return entropy

    def size(self, masks: Array, pixel_weights: Array | None = None) -> float:
        """What a batch weighs among others, so that the mean over batches is that over all their pixels: the sum of its pixels' weights.

        With Dice and Tversky, which compare regions rather than pixels, it is the number of images.
        """
        if self.name not in ("cross_entropy", "focal"):
            return float(len(masks))
        counted = masks != self.ignore_index
        weights = counted.astype(np.float64) if self.weights is None else np.append(self.weights, 0.0)[np.where(counted, masks, -1)]
        return float((weights if pixel_weights is None else weights * pixel_weights).sum())
