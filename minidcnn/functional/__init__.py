"""Differentiable functions, with torch.nn.functional's names, signatures and meaning; one file per family."""

from __future__ import annotations

from .conv import conv2d, conv2d_weight, conv_transpose2d, fold, unfold
from .elementwise import abs, add, clamp, div, exp, log, log1p, maximum, minimum, mul, neg, pow, sign, sqrt, square, sub, where
from .linalg import linear, matmul
from .pool import avg_pool2d, max_pool2d, max_unpool2d
from .reduce import amax, amin, logsumexp, mean, sum, var
from .shape import broadcast_to, cat, flatten, flip, permute, reshape, split, squeeze, stack, transpose, unsqueeze

__all__ = [
    "abs",
    "add",
    "amax",
    "amin",
    "avg_pool2d",
    "broadcast_to",
    "cat",
    "clamp",
    "conv2d",
    "conv2d_weight",
    "conv_transpose2d",
    "div",
    "exp",
    "flatten",
    "flip",
    "fold",
    "linear",
    "log",
    "log1p",
    "logsumexp",
    "matmul",
    "max_pool2d",
    "max_unpool2d",
    "maximum",
    "mean",
    "minimum",
    "mul",
    "neg",
    "permute",
    "pow",
    "reshape",
    "sign",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "sub",
    "sum",
    "transpose",
    "unfold",
    "unsqueeze",
    "var",
    "where",
]
