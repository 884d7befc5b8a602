"""Which algorithm a convolution runs on, from its shape: one small table, made by `python -m minidcnn bench --what layers`.

MINIDCNN_CONV=reference, gemm or winograd forces one. Winograd exists for float32 and 3x3 windows of stride and dilation 1 without groups;
where it is forced and does not apply, the products of columns (gemm) take over.
"""

from __future__ import annotations

import os

import numpy as np

from ...window import Window
from ..arrays import Array

VARIABLE = "MINIDCNN_CONV"
NAMES = ("reference", "gemm", "winograd")
LEAST = 16  # channels that are summed over from which on Winograd is faster, for gradients of weights on either side: below, lanes are idle
TILES = 3  # tiles of 4 x 4 pixels from which on it is faster: for fewer, the transform of the weight does not pay


def forced_algorithm() -> str:
    """The algorithm that MINIDCNN_CONV forces, or "". ValueError if there is no such algorithm."""
    forced = os.environ.get(VARIABLE, "")
    if forced and forced not in NAMES:
        raise ValueError(f"{VARIABLE} must be reference, gemm or winograd, got {forced!r}; unset it to let the shape decide")
    return forced


def algorithm(x: Array, channels: int, window: Window, groups: int = 1) -> str:
    """The name of the algorithm for one of the three convolutions of x. ValueError if an unknown one is forced.

    channels: those that are summed over, or for the gradient of a weight the fewer ones of both sides.
    """
    forced = forced_algorithm()
    if forced in ("reference", "gemm") or groups > 1:
        return "reference" if forced == "reference" or groups > 1 else "gemm"
    fits = x.dtype == np.float32 and (window.kernel, window.stride, window.dilation) == ((3, 3), (1, 1), (1, 1))
    tiles = len(x) * -(-x.shape[2] // 4) * -(-x.shape[3] // 4)
    return "winograd" if fits and (forced or (channels >= LEAST and tiles >= TILES)) else "gemm"
