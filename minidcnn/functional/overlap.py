"""Losses of overlap between predicted and true regions: one number per class from sums over all pixels, so rare classes count as much.

All are made of three sums per class c over the counted pixels of the whole batch, with p = softmax(input)_c and t = 1 where the pixel is of
class c, else 0: hits = sum p t, predicted = sum p, true = sum t. A class that the batch does not hold has hits = true = 0; then `smooth`
decides how much predicting it costs.
"""

from __future__ import annotations

from ..backend import kernels_of
from ..tensor import Tensor
from .activation import softmax
from .classes import ClassSums, PickClass, classified, reduced
from .common import check_backend
from .elementwise import where
from .reduce import sum
from .shape import unsqueeze


def dice_loss(
    input: Tensor,
    target: Tensor,
    smooth: float = 1.0,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    squared: bool = False,
) -> Tensor:
    """input: logits (N, C, ...); target: class indices (N, ...) -> (), or (C,) for reduction "none": one loss per class.

    1 - (2 hits + smooth) / (predicted + true + smooth), times weight (C,), averaged over that; with `squared` the sum of p^2 stands
    for predicted, as in Milletari et al., "V-Net", 2016, section 3. 0 where the denominator is 0: without a counted pixel nothing is wrong.
    ValueError for fewer than 2 classes, a negative smooth, else as cross_entropy.
    """
    hits, predicted, true, weight = _sums("dice_loss", input, target, weight, ignore_index, smooth, squared)
    return _loss("dice_loss", hits * 2 + smooth, predicted + true + smooth, weight, reduction)


def tversky_loss(
    input: Tensor,
    target: Tensor,
    alpha: float = 0.3,
    beta: float = 0.7,
    smooth: float = 1.0,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """input: logits (N, C, ...); target: class indices (N, ...) -> (), or (C,) for reduction "none": one loss per class.

    1 - (hits + smooth) / (hits + alpha (predicted - hits) + beta (true - hits) + smooth): alpha weighs false positives, beta false
    negatives. alpha = beta = 1/2 is Dice (with twice the smooth), alpha = beta = 1 Jaccard. Means, zeros and errors as in dice_loss,
    and ValueError for a negative alpha or beta.
    Salehi, Erdogmus & Gholipour, "Tversky loss function for image segmentation using 3D fully convolutional deep networks", 2017, section 2.
    """
    if alpha < 0 or beta < 0:
        raise ValueError(f"tversky_loss: alpha and beta must not be negative, got {alpha} and {beta}")
    hits, predicted, true, weight = _sums("tversky_loss", input, target, weight, ignore_index, smooth)
    whole = hits * (1 - alpha - beta) + predicted * alpha + true * beta
    return _loss("tversky_loss", hits + smooth, whole + smooth, weight, reduction)


def _sums(
    name: str, input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, smooth: float, squared: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """hits, predicted and true, each (C,), and the classes' weights."""
    check_backend(name, input, target)
    if smooth < 0:
        raise ValueError(f"{name}: smooth must not be negative, got {smooth}")
    if input.ndim < 2 or input.shape[1] < 2:
        raise ValueError(
            f"{name}: input must be logits (N, C, ...) of at least 2 classes, got shape {input.shape}; give background a channel of its own"
        )
    x, t, w = classified(name, input, target, weight, ignore_index)
    classes, kept = x.shape[1], (t._array >= 0).astype(x.dtype)
    counted = unsqueeze(Tensor.wrap(kept), 1)  # asking whether any are left out would take longer on a GPU
    p = softmax(where(counted, x, 0.0), 1)  # what is left out may be NaN
    hits = ClassSums(classes)(PickClass(classes)(p, t), t)
    true = Tensor.wrap(kernels_of(kept).class_sums(kept, t._array, classes))
    pixels = p * p if squared else p
    return hits, sum(pixels * counted, (0, *range(2, x.ndim))), true, w


def _loss(name: str, part: Tensor, whole: Tensor, weight: Tensor, reduction: str) -> Tensor:
    nothing = whole == 0
    losses = where(nothing, 0.0, 1 - part / where(nothing, 1.0, whole))
    return reduced(name, losses * weight, reduction, weight)
