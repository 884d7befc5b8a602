"""Initial weights: He, Glorot, bilinear and plain fillings. All write in place and draw from minidcnn.backend.generator().

The fan of a weight is the number of terms in one output (fan_in) or the number of outputs that one input reaches (fan_out, at stride 1):
for (O, I, KH, KW) they are I KH KW and O KH KW. A transposed convolution's weight is (I, O, KH, KW) and is measured by the same two axes,
as in PyTorch, so that its fan_in is O KH KW.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..backend import Array, generator, to_backend
from ..tensor import Tensor


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which weights must grow so that the variance survives `nonlinearity`, as torch.nn.init.calculate_gain.

    "linear", "conv2d", "conv_transpose2d", "sigmoid": 1; "tanh": 5/3; "relu": sqrt 2; "leaky_relu": sqrt(2 / (1 + slope^2)) with
    slope `param` (default 0.01); "selu": 3/4. ValueError for other names.
    """
    slope = 0.01 if param is None else float(param)
    gains = {"tanh": 5 / 3, "relu": math.sqrt(2), "leaky_relu": math.sqrt(2 / (1 + slope * slope)), "selu": 0.75}
    gains.update(dict.fromkeys(("linear", "conv2d", "conv_transpose2d", "sigmoid"), 1.0))
    if nonlinearity not in gains:
        raise ValueError(f'calculate_gain: nonlinearity "{nonlinearity}" is unknown; use one of {", ".join(sorted(gains))}')
    return gains[nonlinearity]


def calculate_fans(tensor: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight with at least two axes. ValueError for fewer."""
    if tensor.ndim < 2:
        raise ValueError(f"init: fan in and fan out need a weight of at least 2 axes, got shape {tensor.shape}")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def _fan(tensor: Tensor, mode: str) -> int:
    fans = dict(zip(("fan_in", "fan_out"), calculate_fans(tensor), strict=True))
    if mode not in fans:
        raise ValueError(f'init: mode "{mode}" is unknown; use "fan_in" or "fan_out"')
    return fans[mode]


_skipping = False


@contextmanager
def skipped() -> Iterator[None]:
    """Inside, whatever draws random weights draws none and leaves them as they are, so that layers start with uninitialised memory.

    For networks whose weights come from elsewhere right after, a checkpoint or an initialisation of their own: building VGG16 takes
    milliseconds then, and its weights no memory before they are written. Constants are filled in as always.
    """
    global _skipping
    before, _skipping = _skipping, True
    try:
        yield
    finally:
        _skipping = before


def _write(tensor: Tensor, values: Any) -> Tensor:
    tensor._array[...] = to_backend(values, tensor.backend) if isinstance(values, np.ndarray) else values
    tensor.changed()
    return tensor


def _draws(tensor: Tensor) -> Any:
    """The dtype that the generator draws in: float32 for float32 and below, else float64."""
    return np.float64 if tensor.dtype.itemsize > 4 else np.float32


# -- plain fillings ----------------------------------------------------------------------------------------------------------


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Every element `val`."""
    return _write(tensor, val)


def zeros_(tensor: Tensor) -> Tensor:
    """Every element 0."""
    return _write(tensor, 0)


def ones_(tensor: Tensor) -> Tensor:
    """Every element 1."""
    return _write(tensor, 1)


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Uniform on [a, b). ValueError if a exceeds b."""
    if not a <= b:
        raise ValueError(f"uniform_: the interval [{a}, {b}) is empty; a must not exceed b")
    if _skipping:
        return tensor
    values: Array = generator().random(tensor.shape, _draws(tensor))
    values *= b - a
    values += a
    return _write(tensor, values)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Normal with `mean` and standard deviation `std`. ValueError if that is negative."""
    if std < 0:
        raise ValueError(f"normal_: std must not be negative, got {std}")
    if _skipping:
        return tensor
    values: Array = generator().standard_normal(tensor.shape, _draws(tensor))
    values *= std
    values += mean
    return _write(tensor, values)


# -- variances that survive depth ------------------------------------------------------------------------------------------------


def kaiming_normal_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """N(0, gain^2 / fan) (He et al., "Delving deep into rectifiers", 2015, section 2.2); `a` is the slope of a leaky ReLU (0: ReLU).

    By default as U-Net advises (Ronneberger et al., 2015, section 3): standard deviation sqrt(2 / N) for N incoming nodes of a neuron.
    ValueError for a weight of fewer than 2 axes or without elements, and for another mode or nonlinearity.
    """
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(_positive(_fan(tensor, mode))))


def kaiming_uniform_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Uniform with the variance of kaiming_normal_: bounds +- gain sqrt(3 / fan). ValueError as there."""
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3 / _positive(_fan(tensor, mode)))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """N(0, gain^2 2 / (fan_in + fan_out)) (Glorot & Bengio, "Understanding the difficulty of training deep feedforward networks", 2010).

    ValueError for a weight of fewer than 2 axes or without elements, and for a negative gain.
    """
    return normal_(tensor, 0.0, gain * math.sqrt(2 / _positive(sum(calculate_fans(tensor)))))


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Uniform with the variance of xavier_normal_: bounds +- gain sqrt(6 / (fan_in + fan_out)). ValueError as there."""
    bound = gain * math.sqrt(6 / _positive(sum(calculate_fans(tensor))))
    return uniform_(tensor, -bound, bound)


def _positive(fan: int) -> int:
    if not fan:
        raise ValueError("init: a weight without elements has no fan; give every axis at least 1")
    return fan


# -- interpolation -----------------------------------------------------------------------------------------------------------------


def bilinear_filter(size: int) -> Array:
    """(size,) float64: 1 - |a - centre| / factor, factor = (size + 1) // 2, centre = factor - 1 for odd sizes, factor - 1/2 for even."""
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 else factor - 0.5
    taps: Array = 1 - np.abs(np.arange(size) - centre) / factor
    return taps


def bilinear_(tensor: Tensor) -> Tensor:
    """A (C, C, KH, KW) weight of a transposed convolution that interpolates bilinearly: the filter on the diagonal, 0 elsewhere.

    With groups=C the weight is (C, 1, KH, KW), every channel the filter (Shelhamer et al., "Fully convolutional networks", 2017,
    section 3.3). Stride (K + 1) // 2. ValueError for other shapes.
    """
    if tensor.ndim != 4 or tensor.shape[1] not in (1, tensor.shape[0]):
        raise ValueError(f"bilinear_: the weight must be (C, C, KH, KW), or (C, 1, KH, KW) for groups=C, got {tensor.shape}")
    c, each, kh, kw = tensor.shape
    values = np.zeros(tensor.shape, tensor.dtype)
    values[range(c), range(c) if each == c else 0] = np.outer(bilinear_filter(kh), bilinear_filter(kw))
    return _write(tensor, values)
