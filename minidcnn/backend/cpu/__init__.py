"""The CPU kernels: the reference on NumPy, overridden by numba kernels where those were measured to be faster."""

from __future__ import annotations

import numpy as np

from ..reference import Kernels


class CpuKernels(Kernels):
    """Kernels for NumPy arrays."""

    name = "cpu"

    def __init__(self) -> None:
        super().__init__(np)


__all__ = ["CpuKernels"]
