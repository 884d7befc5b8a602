"""Losses as layers, for code that passes a criterion around; the functions of minidcnn.functional do the same."""

from __future__ import annotations

from .. import functional as F
from ..tensor import Tensor
from .module import Module


class _Loss(Module):
    """Names a reduction; a `weight` is a buffer, so that it moves and is saved with the module."""

    def __init__(self, reduction: str, **buffers: Tensor | None) -> None:
        super().__init__()
        if reduction not in ("none", "mean", "sum"):
            raise ValueError(f'{type(self).__name__}: reduction must be "none", "mean" or "sum", got {reduction!r}')
        self.reduction = reduction
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor)


class CrossEntropyLoss(_Loss):
    """Logits (N, C, ...) and class indices (N, ...), or probabilities (N, C, ...): F.cross_entropy, with its errors.

    Call it with pixel_weights if you have some. ValueError for another reduction, TypeError for a weight that is no Tensor.
    """

    weight: Tensor | None

    def __init__(
        self, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0
    ) -> None:
        super().__init__(reduction, weight=weight)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, input: Tensor, target: Tensor, pixel_weights: Tensor | None = None) -> Tensor:
        return F.cross_entropy(input, target, self.weight, self.ignore_index, self.reduction, self.label_smoothing, pixel_weights)


class NLLLoss(_Loss):
    """Log-probabilities (N, C, ...) and class indices (N, ...): F.nll_loss, with its errors.

    ValueError for another reduction, TypeError for a weight that is no Tensor.
    """

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__(reduction, weight=weight)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.nll_loss(input, target, self.weight, self.ignore_index, self.reduction)


class FocalLoss(_Loss):
    """Logits (N, C, ...) and class indices (N, ...): F.focal_loss, with its errors.

    ValueError for another reduction, TypeError for a weight that is no Tensor.
    """

    weight: Tensor | None

    def __init__(self, gamma: float = 2.0, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__(reduction, weight=weight)
        self.gamma, self.ignore_index = gamma, ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.focal_loss(input, target, self.gamma, self.weight, self.ignore_index, self.reduction)


class DiceLoss(_Loss):
    """Logits (N, C, ...) and class indices (N, ...): F.dice_loss, with its errors.

    ValueError for another reduction, TypeError for a weight that is no Tensor.
    """

    weight: Tensor | None

    def __init__(
        self, smooth: float = 1.0, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean", squared: bool = False
    ) -> None:
        super().__init__(reduction, weight=weight)
        self.smooth, self.ignore_index, self.squared = smooth, ignore_index, squared

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.dice_loss(input, target, self.smooth, self.weight, self.ignore_index, self.reduction, self.squared)


class TverskyLoss(_Loss):
    """Logits (N, C, ...) and class indices (N, ...): F.tversky_loss, with its errors.

    ValueError for another reduction, TypeError for a weight that is no Tensor.
    """

    weight: Tensor | None

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        smooth: float = 1.0,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction, weight=weight)
        self.alpha, self.beta, self.smooth, self.ignore_index = alpha, beta, smooth, ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.tversky_loss(input, target, self.alpha, self.beta, self.smooth, self.weight, self.ignore_index, self.reduction)


class BCEWithLogitsLoss(_Loss):
    """Logits and targets in [0, 1] of one shape: F.binary_cross_entropy_with_logits, with its errors.

    ValueError for another reduction, TypeError for a weight that is no Tensor.
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, reduction: str = "mean", pos_weight: Tensor | None = None) -> None:
        super().__init__(reduction, weight=weight, pos_weight=pos_weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(input, target, self.weight, self.reduction, self.pos_weight)


class MSELoss(_Loss):
    """Squared differences: F.mse_loss, with its errors; ValueError for another reduction."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(input, target, self.reduction)


class L1Loss(_Loss):
    """Absolute differences: F.l1_loss, with its errors; ValueError for another reduction."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.l1_loss(input, target, self.reduction)
