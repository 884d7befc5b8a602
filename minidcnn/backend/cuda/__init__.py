"""The CUDA kernels: the reference on CuPy, overridden by the kernels of kernels/*.cu."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from .compiler import Compiler
from .conv import CudaConv
from .elementwise import CudaElementwise
from .graph import Graphs
from .linalg import CudaLinalg
from .loss import CudaLoss
from .metrics import CudaMetrics
from .norm import CudaNorm
from .optim import CudaOptim
from .pool import CudaPool
from .resize import CudaResize


class CudaKernels(CudaConv, CudaElementwise, CudaLinalg, CudaLoss, CudaMetrics, CudaNorm, CudaOptim, CudaPool, CudaResize):
    """Kernels for CuPy arrays, or for those of another module `xp` if `module` compiles CUDA sources for them (a simulator).

    precision: of the factors in float32 convolutions and matrix products: "float32", or on tensor cores "tf32x3", "tf32" or "bf16"; sums are
    float32 in any case.
    """

    name = "cuda"

    def graphs(self, work: Callable[..., tuple[Any, ...]]) -> Any:
        return Graphs(self.xp, work) if hasattr(self.xp, "cuda") else super().graphs(work)

    def __init__(self, xp: Any = None, module: Callable[..., Any] | None = None, precision: str = "float32") -> None:
        xp = importlib.import_module("cupy") if xp is None else xp
        super().__init__(xp, module or Compiler(xp), precision)


__all__ = ["CudaKernels"]
