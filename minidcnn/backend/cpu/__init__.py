"""The CPU kernels: the reference on NumPy, overridden by numba kernels where those were measured to be faster."""

from __future__ import annotations

import numpy as np

from .algorithm import forced_algorithm
from .conv import CpuConv
from .elementwise import CpuElementwise
from .jit import forced_lanes
from .loss import CpuLoss
from .memory import keep_memory
from .norm import CpuNorm
from .optim import CpuOptim
from .pool import CpuPool
from .threads import num_threads


class CpuKernels(CpuElementwise, CpuConv, CpuLoss, CpuNorm, CpuOptim, CpuPool):
    """Kernels for NumPy arrays. ValueError if MINIDCNN_NUM_THREADS, MINIDCNN_CONV or MINIDCNN_LANES is set to what it cannot be."""

    name = "cpu"

    def __init__(self) -> None:
        super().__init__(np)
        num_threads()  # what the environment says wrongly is told now, not in the middle of a training
        forced_algorithm()
        forced_lanes()
        keep_memory()


__all__ = ["CpuKernels"]
