"""The CPU kernels: the reference on NumPy, overridden by numba kernels where those were measured to be faster."""

from __future__ import annotations

import numpy as np

from .conv import CpuConv
from .elementwise import CpuElementwise
from .loss import CpuLoss
from .memory import keep_memory
from .norm import CpuNorm
from .optim import CpuOptim
from .pool import CpuPool


class CpuKernels(CpuElementwise, CpuConv, CpuLoss, CpuNorm, CpuOptim, CpuPool):
    """Kernels for NumPy arrays."""

    name = "cpu"

    def __init__(self) -> None:
        super().__init__(np)
        keep_memory()


__all__ = ["CpuKernels"]
