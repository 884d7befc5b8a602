"""The CUDA kernels: the reference on CuPy, overridden by the kernels of kernels/*.cu."""

from __future__ import annotations

import importlib

from ..reference import Kernels


class CudaKernels(Kernels):
    """Kernels for CuPy arrays."""

    name = "cuda"

    def __init__(self) -> None:
        super().__init__(importlib.import_module("cupy"))


__all__ = ["CudaKernels"]
