"""Differentiable functions, with torch.nn.functional's names, signatures and meaning; one file per family.

Those that lie in torch itself there, such as sum, call their tensors x, or a and b: give them by position. Every one raises TypeError for what
is no Tensor where only a Tensor will do, and for tensors of different backends; what else it raises it says itself.
"""

from __future__ import annotations

from .activation import dropout, dropout2d, leaky_relu, log_softmax, relu, sigmoid, softmax, tanh
from .checkpoint import checkpoint
from .conv import conv2d, conv2d_affine, conv2d_weight, conv_transpose2d
from .elementwise import abs, add, clamp, div, exp, log, log1p, maximum, minimum, mul, neg, pow, sign, sqrt, square, sub, where
from .linalg import linear, matmul
from .loss import binary_cross_entropy_with_logits, cross_entropy, focal_loss, l1_loss, mse_loss, nll_loss
from .norm import batch_norm, local_response_norm
from .overlap import dice_loss, tversky_loss
from .pad import center_crop, crop, pad
from .pool import adaptive_avg_pool2d, avg_pool2d, max_pool2d, max_unpool2d
from .reduce import amax, amin, logsumexp, mean, sum, var
from .resize import interpolate, pixel_shuffle, pixel_unshuffle
from .shape import broadcast_to, cat, flatten, flip, permute, reshape, split, squeeze, stack, transpose, unsqueeze
from .unfold import fold, unfold

__all__ = [
    "abs",
    "adaptive_avg_pool2d",
    "add",
    "amax",
    "amin",
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy_with_logits",
    "broadcast_to",
    "cat",
    "center_crop",
    "checkpoint",
    "clamp",
    "conv2d",
    "conv2d_affine",
    "conv2d_weight",
    "conv_transpose2d",
    "crop",
    "cross_entropy",
    "dice_loss",
    "div",
    "dropout",
    "dropout2d",
    "exp",
    "flatten",
    "flip",
    "focal_loss",
    "fold",
    "interpolate",
    "l1_loss",
    "leaky_relu",
    "linear",
    "local_response_norm",
    "log",
    "log1p",
    "log_softmax",
    "logsumexp",
    "matmul",
    "max_pool2d",
    "max_unpool2d",
    "maximum",
    "mean",
    "minimum",
    "mse_loss",
    "mul",
    "neg",
    "nll_loss",
    "pad",
    "permute",
    "pixel_shuffle",
    "pixel_unshuffle",
    "pow",
    "relu",
    "reshape",
    "sigmoid",
    "sign",
    "softmax",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "sub",
    "sum",
    "tanh",
    "transpose",
    "tversky_loss",
    "unfold",
    "unsqueeze",
    "var",
    "where",
]
