"""Raw arrays and the kernels that work on them. Nothing here knows what a Tensor is.

`kernels_of(array)` is the one place that asks what kind of array it has; everything else calls methods of the kernels it returns.
The reference (`Kernels`) implements every kernel completely in array code that runs on NumPy and CuPy alike; `CpuKernels` and
`CudaKernels` override by inheritance what is faster.
"""

from __future__ import annotations

from .arrays import Array, empty_images, float_dtype, inverse, is_channels_last, is_cupy, memory_order, nchw, nhwc, zero_images
from .axis_map import AxisMap
from .exhausted import exhausted
from .half import HALF, sum_dtype
from .pending import raise_pending
from .random import generator, manual_seed, next_seed, random_state, set_random_state
from .reference import Kernels
from .switch import PRECISIONS, backend, image_dtype, kernels, kernels_of, to_backend, use, use_kernels
from .usable import BackendError

__all__ = [
    "HALF",
    "PRECISIONS",
    "Array",
    "AxisMap",
    "BackendError",
    "Kernels",
    "backend",
    "empty_images",
    "exhausted",
    "float_dtype",
    "generator",
    "image_dtype",
    "inverse",
    "is_channels_last",
    "is_cupy",
    "kernels",
    "kernels_of",
    "manual_seed",
    "memory_order",
    "nchw",
    "next_seed",
    "nhwc",
    "raise_pending",
    "random_state",
    "set_random_state",
    "sum_dtype",
    "to_backend",
    "use",
    "use_kernels",
    "zero_images",
]
